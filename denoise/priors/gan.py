"""Generative adversarial networks: a generator of signals, and the discriminator that only its training needs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import field
from math import cos, pi
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.bodies import BodyConfig, build_decoder, build_encoder
from denoise.nn.embeddings import Condition
from denoise.priors.noise import NoiseDecoding
from denoise.protocols import DEFAULT_OPTIONS, Label, Progress, SamplingOptions

OUTPUTS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "linear": nn.Identity}
INVERSION_STEPS = 100
INVERSION_RATE = 0.1  # learning rate of Adam, in standard deviations of the noise
CANDIDATES, STARTS = 64, 4  # samples of which the most similar ones are the starts of an inversion


@config
class GANConfig:
    """Settings of a generator.

    Args:
        shape: shape of one signal, (channels, *space) or (features,).
        latent: numbers of the noise of one signal.
        body: layers, those of the encoder that the generator mirrors.
        output: range of the signals: 0 to 1, -1 to 1, or any numbers.
        classes: number of classes for conditioning.
        embedding: features of the embedding of a class.
        inversion_scale: standard deviation of what a signal may differ from a sample when its noise is sought.
    """

    shape: tuple[int, ...]
    latent: int = 32
    body: BodyConfig = field(default_factory=BodyConfig)
    output: Literal["sigmoid", "tanh", "linear"] = "sigmoid"
    classes: int = 0
    embedding: int = 16
    inversion_scale: float = 0.3

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1 or max(self.shape) > 1 << 24:
            raise ConfigError(f"shape is {self.shape}; expected sizes of at least 1.")
        if not all(1 <= n <= 1 << 14 for n in (self.latent, self.embedding, self.classes + 1)):
            raise ConfigError(
                f"latent is {self.latent}, embedding {self.embedding}, classes {self.classes}; expected latent and "
                f"embedding of 1 to {1 << 14}, classes of at least 0 and below {1 << 14}."
            )
        if self.body.spatial:
            raise ConfigError("the noise is one vector for the whole signal; leave body.spatial out.")
        if not self.inversion_scale > 0:
            raise ConfigError(f"inversion_scale is {self.inversion_scale}; expected more than 0.")


class GeneratorNetwork(NoiseDecoding):
    """A network that maps standard normal noise to signals and has been trained against a discriminator.

    Subclasses define ``event_shape``, ``noise_shape``, ``classes`` and the map from noise to signals.
    """

    event_shape: torch.Size
    classes: int
    text = False

    @abstractmethod
    def forward(self, noise: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return the signals of noise, differentiably.

        Args:
            noise: noise, (n, *noise_shape).
            labels: condition of each signal; None is unconditional.

        Returns:
            Signals, (n, *event_shape).

        Raises:
            ValueError: there is no such class.
        """

    def from_noise(self, noise: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the signals of noise; see `NoiseDecoding.from_noise`."""
        return self(noise, labels)


class GAN(GeneratorNetwork):
    """The generator of a generative adversarial network: it maps standard normal noise to signals in one pass.

    It has no density. Signals are mapped to noise by optimisation, see `encode_noise`.

    Args:
        config: see `GANConfig`.

    Reference:
        Generative Adversarial Networks, 2014, arXiv:1406.2661; Conditional Generative Adversarial Nets, 2014,
        arXiv:1411.1784; Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
        Networks, 2015, arXiv:1511.06434.
    """

    family = "a GAN"
    completion_options = frozenset({"steps"})

    def __init__(self, config: GANConfig) -> None:
        super().__init__()
        self.config = c = config
        self.event_shape, self.noise_shape = torch.Size(c.shape), torch.Size([c.latent])
        self.classes = c.classes
        self.condition = Condition(c.embedding, c.classes) if c.classes else None
        features = c.latent + (c.embedding if c.classes else 0)
        self.body = nn.Sequential(build_decoder(c.body, c.shape, features, c.shape[0]), OUTPUTS[c.output]())

    def forward(self, noise: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return the signals of noise, differentiably; see `GeneratorNetwork.forward`."""
        if self.condition is not None:
            embedding = self.condition([None] * len(noise) if labels is None else labels)
            return self.body(torch.cat([noise, embedding], dim=1))
        if any(label is not None for label in labels or ()):
            raise ValueError("this GAN has no classes; leave labels out.")
        return self.body(noise)

    def encode_noise(self, x: Tensor, *, label: Label = None, steps: int = INVERSION_STEPS) -> Tensor:
        """Return the noise whose signals are most similar to given ones; see `invert`.

        Args:
            x: signals, (n, *event_shape).
            label: condition of all signals, with which the noise is to be decoded, too; None is unconditional.
            steps: steps of the optimiser.

        Returns:
            Noise, (n, *noise_shape).

        Raises:
            ValueError: there is no such class.
        """
        generator = Generator().manual_seed(0)
        return self.invert(x, torch.ones_like(x), labels=[label], steps=steps, generator=generator)[0]

    @torch.no_grad()
    def complete(
        self,
        x: Tensor,
        mask: Tensor,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Fill in missing entries by the samples that are most similar where entries are observed; see `invert`.

        Args:
            x: signals, (n, *event_shape); missing entries have any value.
            mask: 1 where entries are observed, 0 where they are missing, (n, *event_shape).
            label: condition of all signals; None tries all classes and keeps that of the most similar sample.
            options: steps of the optimiser, 100 by default.
            generator: source of the starts, which differ between completions of one signal.
            progress: called with the fraction of the steps that are done.

        Returns:
            Signals that agree with x where the mask is 1, (n, *event_shape).

        Raises:
            ConfigError: another option than the steps is set.
            ValueError: there is no such class.
        """
        options.check_supported(self.completion_options, "completion by a GAN")
        steps = options.steps or INVERSION_STEPS
        labels: Sequence[Label] = range(self.classes) if label is None and self.classes else [label]
        noise, found = self.invert(x, mask, labels=labels, steps=steps, generator=generator, progress=progress)
        return torch.where(mask > 0, x, self(noise, found))

    @torch.no_grad()
    def invert(
        self,
        x: Tensor,
        mask: Tensor,
        *,
        labels: Sequence[Label] = (None,),
        steps: int = INVERSION_STEPS,
        generator: Generator | None = None,
        progress: Progress | None = None,
    ) -> tuple[Tensor, list[Label]]:
        """Return the most probable noise of partly observed signals, the best of several local optima.

        It maximises the posterior density of the noise of signals that differ from those of the generator by white
        noise of ``inversion_scale``. Adam starts at the best of `CANDIDATES` samples, which keep their labels.

        Args:
            x: signals, (n, *event_shape).
            mask: 1 where entries are observed, 0 where they are missing, (n, *event_shape).
            labels: conditions that are tried in turn by 64 candidates; at most as many.
            steps: steps of the optimiser.
            generator: source of the starts.
            progress: called with the fraction of the steps that are done.

        Returns:
            Noise, (n, *noise_shape), and the n labels that it has been found with.

        Raises:
            ValueError: there is no such class.

        Reference:
            Compressed Sensing using Generative Models, 2017, arXiv:1703.03208, eq. 3; Generative Visual
            Manipulation on the Natural Image Manifold, 2016, arXiv:1609.03552.
        """
        x, mask = (y.to(self.device).repeat_interleave(STARTS, dim=0) for y in (x, mask))
        n, scale = len(x) // STARTS, self.config.inversion_scale

        def negative_log_posterior(noise: Tensor, labels: Sequence[Label], x: Tensor, mask: Tensor) -> Tensor:
            residual = torch.where(mask > 0, self(noise, labels) - x, 0)  # up to a constant
            return 0.5 * ((residual / scale).square().flatten(1).sum(dim=1) + noise.square().sum(dim=1))

        candidates = torch.randn(n, CANDIDATES, *self.noise_shape, generator=generator).to(x)
        candidate_labels = [labels[i % len(labels)] for i in range(CANDIDATES)]
        losses = [
            negative_log_posterior(noise, [label] * n, x[::STARTS], mask[::STARTS])
            for noise, label in zip(candidates.unbind(dim=1), candidate_labels, strict=True)
        ]
        starts = torch.stack(losses, dim=1).topk(STARTS, largest=False).indices
        start_labels = [candidate_labels[i] for i in starts.flatten().tolist()]
        noise = candidates.take_along_dim(starts[..., None], dim=1).flatten(0, 1).requires_grad_()
        optimizer = torch.optim.Adam([noise], lr=INVERSION_RATE)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = INVERSION_RATE * (0.5 + 0.5 * cos(pi * step / steps))
            with torch.enable_grad():  # the gradient of each row is its own
                total = negative_log_posterior(noise, start_labels, x, mask).sum()
            (noise.grad,) = torch.autograd.grad(total, noise)
            optimizer.step()
            if progress:
                progress((step + 1) / steps)
        final = negative_log_posterior(noise, start_labels, x, mask).unflatten(0, (n, STARTS))
        rows = final.argmin(dim=1) + STARTS * torch.arange(n, device=x.device)
        return noise.detach()[rows], [start_labels[i] for i in rows.tolist()]


@config
class DiscriminatorConfig:
    """Settings of a discriminator.

    Args:
        body: layers.
        features: features of a signal, on which the logit depends linearly.
        spectral_norm: whether the spectral norm of each layer is kept at 1.
    """

    body: BodyConfig = field(default_factory=BodyConfig)
    features: int = 64
    spectral_norm: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.features <= 1 << 14 or self.body.spatial:
            raise ConfigError(f"features is {self.features}; expected 1 to {1 << 14}, and body.spatial left out.")


class Discriminator(nn.Module):
    """The adversary of a generator: logits of a signal being real rather than generated, given its class.

    The logit is linear in features of the signal; each condition, a class or none at each timestep, adds a vector to
    its coefficients.

    Args:
        config: see `DiscriminatorConfig`.
        shape: shape of one signal.
        classes: number of classes of the generator.
        timesteps: number of timesteps, of which signals are told apart; 1 for a GAN.

    Reference:
        cGANs with Projection Discriminator, 2018, arXiv:1802.05637; Spectral Normalization for Generative
        Adversarial Networks, 2018, arXiv:1802.05957.
    """

    def __init__(
        self, config: DiscriminatorConfig, shape: tuple[int, ...], classes: int = 0, timesteps: int = 1
    ) -> None:
        super().__init__()
        self.classes, conditions = classes, timesteps * (classes + 1)
        self.encoder = build_encoder(config.body, shape, config.features)
        self.head = nn.Linear(config.features, 1)
        self.projection = nn.Embedding(conditions, config.features) if conditions > 1 else None
        if self.projection is not None:
            nn.init.normal_(self.projection.weight, std=config.features**-0.5)  # products of the order of 1
        if config.spectral_norm:
            layers = [m for m in self.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Embedding)]
            for layer in layers:
                spectral_norm(layer)

    def forward(self, x: Tensor, labels: Sequence[Label] | None = None, index: Tensor | None = None) -> Tensor:
        """Return logits, (batch, *event_shape) to (batch,); the optimum is the log-ratio of real and generated density.

        Args:
            x: signals, (batch, *event_shape).
            labels: class of each signal; None is unconditional.
            index: timestep of each signal from 0 on, (batch,); None is 0.

        Raises:
            ValueError: there is no such class.
        """
        features = F.leaky_relu(self.encoder(x), 0.2)
        logits = self.head(features)[:, 0]
        rows = self._rows(labels or [None] * len(x)).to(x.device)
        if self.projection is None:
            return logits
        rows = rows if index is None else rows + index * (self.classes + 1)
        return logits + (self.projection(rows) * features).sum(dim=1)

    def _rows(self, labels: Sequence[Label]) -> Tensor:
        """Rows of the projection at timestep 0, (batch,): the class, and the last one without a class."""
        if not all(label is None or (isinstance(label, int) and 0 <= label < self.classes) for label in labels):
            raise ValueError(f"labels are {[*labels]}; expected classes from 0 to {self.classes - 1}, or None.")
        return torch.tensor([self.classes if label is None else label for label in labels])
