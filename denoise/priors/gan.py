"""Generative adversarial networks: noise to signals in one pass, and back by optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.bodies import BodyConfig, build_decoder
from denoise.nn.dequantisation import normal_log_prob
from denoise.nn.embeddings import Condition, embed_labels
from denoise.priors.generator import OUTPUTS, GeneratorNetwork, check_sizes
from denoise.probability_path import standard_normal
from denoise.protocols import DEFAULT_OPTIONS, Label, Progress, SamplingOptions
from denoise.sampling.inversion import CANDIDATES, STEPS, minimise_energy


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
        check_sizes(self.shape, self.latent, self.classes)
        if not 1 <= self.embedding <= 1 << 14:
            raise ConfigError(f"embedding is {self.embedding}; expected 1 to {1 << 14}.")
        if self.body.spatial:
            raise ConfigError("the noise is one vector for the whole signal; leave body.spatial out.")
        if not self.inversion_scale > 0:
            raise ConfigError(f"inversion_scale is {self.inversion_scale}; expected more than 0.")


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
        embedding = embed_labels(self.condition, [None] * len(noise) if labels is None else labels)
        return self.body(noise if embedding is None else torch.cat([noise, embedding], dim=1))

    def encode_noise(self, x: Tensor, *, label: Label = None, steps: int = STEPS) -> Tensor:
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

    @property
    def latent_shape(self) -> torch.Size:
        """Shape of the noise of one signal."""
        return self.noise_shape

    @property
    def residual_std(self) -> float:
        """Standard deviation of what a signal may differ from a sample."""
        return self.config.inversion_scale

    def sample_latents(self, n: int, generator: Generator | None = None) -> Tensor:
        """Sample noise, (n, *noise_shape)."""
        return standard_normal((n, *self.noise_shape), generator).to(self.device)

    def latent_log_prob(self, z: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return standard normal log-densities of noise in nats, (batch, *noise_shape) to (batch,)."""
        return normal_log_prob(z)

    def decode_latents(self, z: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return the signals of noise, differentiably; see `forward`."""
        return self(z, labels)

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
        steps = options.steps or STEPS
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
        steps: int = STEPS,
        generator: Generator | None = None,
        progress: Progress | None = None,
    ) -> tuple[Tensor, list[Label]]:
        """Return the most probable noise of partly observed signals, the best of several local optima.

        It maximises the posterior density of the noise of signals that differ from those of the generator by white
        noise of ``inversion_scale``, by `denoise.sampling.inversion.minimise_energy`. The candidates keep their labels.

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
        """
        x, mask = x.to(self.device), mask.to(self.device)
        candidates = standard_normal((len(x), CANDIDATES, *self.noise_shape), generator).to(x)

        def labels_of(index: Tensor) -> list[Label]:
            return [labels[i % len(labels)] for i in index.flatten().tolist()]

        def energy(noise: Tensor, index: Tensor) -> Tensor:  # up to a constant
            targets, observed = (y.repeat_interleave(noise.shape[1], dim=0) for y in (x, mask))
            noise = noise.flatten(0, 1)
            residual = torch.where(observed > 0, self(noise, labels_of(index)) - targets, 0)
            misfit = (residual / self.config.inversion_scale).square().flatten(1).sum(dim=1)
            return (0.5 * (misfit + noise.square().sum(dim=1))).view_as(index)

        noise, index = minimise_energy(energy, candidates, steps=steps, progress=progress)
        return noise, labels_of(index)
