"""Denoising diffusion GANs: a diffusion of few, large steps, each of which a conditional GAN undoes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.conditioning import FiLM
from denoise.nn.embeddings import Condition
from denoise.nn.unet import BackboneConfig, build_backbone
from denoise.priors.ddpm import BETAS
from denoise.priors.generator import OUTPUTS, GeneratorNetwork, check_sizes
from denoise.priors.guided import PathCallback, PathRecorder, noising_and_back
from denoise.priors.noise import draw_noise
from denoise.probability_path import PathPoint, expand_like, noise_ratios, preserving
from denoise.protocols import DEFAULT_OPTIONS, Label, SamplingOptions
from denoise.sampling.solvers import posterior_step

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


@config
class DDGANConfig:
    """Settings of a denoising diffusion GAN.

    Args:
        shape: shape of one signal, (channels, *space) or (features,).
        net: settings of the network.
        latent: numbers of the noise that the network itself takes in each step.
        timesteps: number of steps of denoising, T of the paper.
        schedule: noise levels of the timesteps, those of a DDPM with as many: ``"linear"`` (close to the paper's) or
            ``"cosine"``, whose levels are closer to each other where images form.
        mean: approximate mean of the signals.
        sigma_data: approximate standard deviation of the signals, in signal units.
        output: range of the signals: 0 to 1, -1 to 1, or any numbers.
        classes: number of classes for conditioning.
    """

    shape: tuple[int, ...]
    net: BackboneConfig = field(default_factory=BackboneConfig)
    latent: int = 64
    timesteps: int = 4
    schedule: Literal["linear", "cosine"] = "linear"
    mean: float = 0.0
    sigma_data: float = 1.0
    output: Literal["sigmoid", "tanh", "linear"] = "sigmoid"
    classes: int = 0

    def __post_init__(self) -> None:
        check_sizes(self.shape, self.latent, self.classes)
        if not 2 <= self.timesteps <= 1000:
            raise ConfigError(f"timesteps is {self.timesteps}; expected 2 to 1000.")
        if not self.sigma_data > 0:
            raise ConfigError(f"sigma_data is {self.sigma_data}; expected more than 0.")


class DDGAN(GeneratorNetwork):
    """A diffusion whose steps are large: the generator draws a clean signal, not its mean, for each of them.

    Between close noise levels, q(x_previous | x) is nearly normal, and a denoiser that knows its mean samples it.
    Between levels as far apart as a quarter of the way it has many modes. Here ``G(x, z, t)`` with noise z draws a
    clean signal x0 that x may come from, and the diffusion's own posterior q(x_previous | x, x0), which is normal for
    any distance, leads from there to the next level. A discriminator compares pairs (x_previous, x) with those of
    noisy training examples. As in every diffusion prior, ``x = signal + level * noise`` in signal units; networks see
    the variance-preserving form of it.

    The noise of a sample is all of its noise: a row for each timestep from the last to the first, that of x and z.
    Given it, sampling is deterministic. It cannot be inverted, and there is no density.

    Departures from the paper: noise levels are those of a DDPM, which are close to its variance-preserving SDE's if
    linear; z reaches each block through FiLM, added to the embeddings of timestep and class; the discriminator of
    `denoise.training` knows the timestep by projection after its last layer alone, and R1 is computed in every step.

    Args:
        config: see `DDGANConfig`.

    Reference:
        Tackling the Generative Learning Trilemma with Denoising Diffusion GANs, 2021, arXiv:2112.07804.
    """

    family = "a denoising diffusion GAN"
    levels: Tensor

    def __init__(self, config: DDGANConfig) -> None:
        super().__init__()
        self.config = c = config
        self.event_shape = torch.Size(c.shape)
        self.noise_shape = torch.Size([c.timesteps, self.event_shape.numel() + c.latent])
        self.classes, self.data_mean, self.data_std = c.classes, c.mean, c.sigma_data
        embedding = c.net.embedding
        self.net = build_backbone(c.net, c.shape)
        self.condition = Condition(embedding, c.classes)
        self.mapping = nn.Sequential(nn.Linear(c.latent, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.output = OUTPUTS[c.output]()
        ratios = noise_ratios(BETAS[c.schedule](c.timesteps))
        levels = c.sigma_data * torch.cat([torch.zeros(1, dtype=torch.float32), ratios.float()])
        self.register_buffer("levels", levels, persistent=False)  # of timesteps 0, which is clean, to T
        self._initialise()

    def _initialise(self) -> None:
        """Let z change the signals from the start: else training finds one signal for each class and ignores z.

        Backbones of denoisers begin with zeros, so that neither their blocks nor their conditions have an effect.
        """
        for layer in self.net.modules():
            if isinstance(layer, LAYERS):
                layer.reset_parameters()
        for layer in self.net.modules():
            if isinstance(layer, FiLM):
                nn.init.normal_(layer.linear.weight, std=layer.linear.in_features**-0.5)
        for layer in (self.mapping[0], self.mapping[2]):
            nn.init.kaiming_normal_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(
        self,
        noise: Tensor,
        labels: Sequence[Label] | None = None,
        callback: PathCallback | None = None,
    ) -> Tensor:
        """Return the signals of noise by denoising from the last timestep to the first.

        Args:
            noise: noise, (n, *noise_shape).
            labels: condition of each signal; None is unconditional.
            callback: called after each step, with signals in the variance-preserving form.

        Returns:
            Signals, (n, *event_shape).

        Raises:
            ValueError: there is no such class.
        """
        eps, z = noise.transpose(0, 1).split([self.event_shape.numel(), self.config.latent], dim=2)
        eps = eps.unflatten(2, self.event_shape)  # (timesteps, n, *event_shape)
        last_std = (self.levels[-1].square() + self.data_std**2).sqrt()  # of the signal, too
        x = self.data_mean + last_std * eps[0]
        for row, t in enumerate(range(self.config.timesteps, 0, -1)):
            timestep = torch.full((len(x),), t, device=x.device)
            fresh_noise = eps[row + 1] if t > 1 else torch.zeros_like(x)
            x = self.sample_previous(x, timestep, z[row], fresh_noise, labels)
            if callback:
                callback(row, self.standardise(x, timestep - 1), self.path_point(timestep[0] - 1))
        return x

    def sample_previous(
        self, x: Tensor, timestep: Tensor, z: Tensor, eps: Tensor, labels: Sequence[Label] | None = None
    ) -> Tensor:
        """Return signals at the timestep before, differentiably.

        Args:
            x: signals at the timestep, (batch, *event_shape).
            timestep: (batch,), 1 to T.
            z: noise of the generator, (batch, latent).
            eps: noise of the posterior, (batch, *event_shape).
            labels: condition of each signal; None is unconditional.

        Returns:
            Signals at ``timestep - 1``, (batch, *event_shape).

        Reference:
            arXiv:2112.07804, eq. 5 and 6.
        """
        x0 = self.generate_clean(x, timestep, z, labels)
        return posterior_step(x0, x, self.levels[timestep], self.levels[timestep - 1], eps)

    def generate_clean(self, x: Tensor, timestep: Tensor, z: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return G(x, z, t), a clean signal that x may come from; arguments as of `sample_previous`."""
        embedding = self.condition([None] * len(x) if labels is None else labels) + self.mapping(z)
        return self.output(self.net(self.standardise(x, timestep), timestep / self.config.timesteps, embedding))

    def training_pair(self, x0: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Add noise to clean signals in one step of the diffusion.

        Args:
            x0: clean signals, (batch, *event_shape).
            timestep: (batch,), 1 to T.

        Returns:
            Signals at ``timestep - 1`` and at ``timestep``, each (batch, *event_shape).
        """
        level_previous, level = self.levels[timestep - 1], self.levels[timestep]
        step = (level.square() - level_previous.square()).sqrt()
        x_previous = x0 + expand_like(level_previous, x0) * torch.randn_like(x0)
        return x_previous, x_previous + expand_like(step, x0) * torch.randn_like(x0)

    def standardise(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Return the variance-preserving form of signals at timesteps, (batch,), with the shape of x."""
        return expand_like(self.path_point(timestep).alpha, x) * (x - self.data_mean) / self.data_std

    def path_point(self, timestep: Tensor) -> PathPoint:
        """Return the points of timesteps on the variance-preserving path, (batch,) or ()."""
        return preserving(self.levels[timestep] / self.data_std)

    @torch.no_grad()
    def trajectory(
        self,
        n: int,
        *,
        frames: int = 17,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        """Sample signals, and show how noise is added to them and how it was removed; see `noising_and_back`.

        Args:
            n: number of signals.
            frames: largest number of points, at least 3; they are evenly spaced steps.
            label: condition of all signals.
            options: as of `sample`.
            generator: source of the noise.

        Returns:
            Signals on the way to noise and back, (frames, n, *event_shape), an odd number of points; the first and the
            last are those of `sample`.

        Raises:
            ConfigError: there are too few frames, or another option than the temperature is set.
        """
        options.check_supported(self.sampling_options, self.family)
        record = PathRecorder(self.config.timesteps, frames)
        noise, _ = draw_noise(n, self.noise_shape, options, generator)
        noise = noise.to(self.device)
        x = self(noise, [label] * n, record)
        first = noise[:, 0, : self.event_shape.numel()].unflatten(1, self.event_shape)
        return noising_and_back(x, first, record.path, self.data_mean, self.data_std)
