"""The base of diffusion and flow matching: a network with conditioning on noise level and label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import field, replace

import torch
from torch import Generator, Tensor, nn

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.embeddings import Condition
from denoise.nn.unet import BackboneConfig, build_backbone
from denoise.priors.completion import COMPLETION_OPTIONS, inpaint_with_prior
from denoise.priors.noise import draw_noise
from denoise.probability_path import PathPoint, convert, exploding
from denoise.protocols import DEFAULT_OPTIONS, Label, Progress, SamplingOptions, Support

PathPoints = Sequence[tuple[Tensor, PathPoint]]
PathCallback = Callable[[int, Tensor, PathPoint], None]
"""Called after each step with its number, standardised signals, (n, *event), and their point on the path."""


@config
class GuidedConfig:
    """Settings that diffusion and flow matching share.

    Args:
        shape: shape of one signal, (channels, *space) or (features,).
        net: settings of the network.
        mean: approximate mean of the signals.
        sigma_data: approximate standard deviation of the signals, in signal units.
        classes: number of classes for conditioning.
        text: whether texts can be conditions.
        guidance: default scale of classifier-free guidance when sampling.
    """

    shape: tuple[int, ...]
    net: BackboneConfig = field(default_factory=BackboneConfig)
    mean: float = 0.0
    sigma_data: float = 1.0
    classes: int = 0
    text: bool = False
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1 or max(self.shape) > 1 << 24:
            raise ConfigError(f"shape is {self.shape}; expected sizes of at least 1.")
        if not (self.sigma_data > 0 and self.classes >= 0 and 0 <= self.guidance <= 100):
            raise ConfigError("sigma_data must be above 0, classes at least 0, guidance 0 to 100.")


class GuidedPrior(nn.Module, ABC):
    """A denoiser at all noise levels, with classifier-free guidance; subclasses define what the network predicts.

    Args:
        config: settings.

    Reference:
        Classifier-Free Diffusion Guidance, 2022, arXiv:2207.12598, whose weight w is the scale here minus 1.
    """

    config: GuidedConfig
    sampling_options = frozenset({"steps", "guidance", "temperature"})
    default_steps: int
    completion_options = COMPLETION_OPTIONS

    def __init__(self, config: GuidedConfig) -> None:
        super().__init__()
        self.config = config
        self.event_shape = self.noise_shape = torch.Size(config.shape)
        self.classes, self.text = config.classes, config.text
        self.data_mean, self.data_std = config.mean, config.sigma_data
        self.support = Support(config.shape)
        self.net = build_backbone(config.net, config.shape)
        self.condition = Condition(config.net.embedding, config.classes, config.text)

    @property
    @abstractmethod
    def sigma_range(self) -> tuple[float, float]:
        """Lowest and highest noise level of the denoiser in signal units."""

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None, guidance: float = 1.0) -> Tensor:
        """Return E[clean | x].

        Args:
            x: noisy signals, (batch, *event_shape).
            sigma: standard deviation of the noise in signal units, (batch,).
            labels: condition of each signal; None is unconditional.
            guidance: scale of classifier-free guidance.

        Returns:
            Denoised signals, (batch, *event_shape).
        """

    @abstractmethod
    def decode_noise(
        self,
        noise: Tensor,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
        callback: PathCallback | None = None,
    ) -> Tensor:
        """Return the signals of standard normal noise by integrating the probability flow.

        Args:
            noise: noise, (n, *noise_shape).
            label: condition of all signals.
            options: steps (`default_steps`) and guidance (1).
            generator: source of the noise of stochastic solvers, which are refused without one.
            callback: called after each step.

        Returns:
            Signals, (n, *event_shape).

        Raises:
            ConfigError: an option is not supported.
        """

    def predict(self, x: Tensor, noise_level: Tensor, labels: Sequence[Label] | None, guidance: float = 1.0) -> Tensor:
        """Return the output of the network with classifier-free guidance.

        Args:
            x: input of the network, (batch, *event_shape).
            noise_level: noise level as the network takes it, (batch,).
            labels: condition of each signal; None is unconditional.
            guidance: scale of guidance: 0 is unconditional, 1 conditional, more extrapolates.

        Returns:
            Output of the network, (batch, *event_shape).
        """

        def predict_for(labels: Sequence[Label]) -> Tensor:
            return self.net(x, noise_level, self.condition(labels)).to(x.dtype)

        unconditional = [None] * len(x)
        if guidance == 0 or all(label is None for label in labels or ()):
            return predict_for(unconditional)
        assert labels is not None
        if guidance == 1:
            return predict_for(labels)
        return torch.lerp(predict_for(unconditional), predict_for(labels), guidance)

    def score(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return the gradient of the log-density of noisy signals.

        Args:
            x: signals with white noise, (batch, *event_shape).
            sigma: standard deviation of the noise in signal units, (batch,).
            labels: condition of each signal; None is unconditional.

        Returns:
            Score, (batch, *event_shape).
        """
        return convert(self(x, sigma, labels), x, exploding(sigma), "x0", "score")

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        """Sample signals.

        Args:
            n: number of signals.
            label: condition of all signals.
            options: steps, guidance and temperature; the default guidance is the configuration's.
            generator: source of the noise.

        Returns:
            Signals, (n, *event_shape).
        """
        noise, options = self._draw_noise(n, options, generator)
        generator = generator or torch.default_generator
        return self.decode_noise(noise, label=label, options=options, generator=generator)

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
            last are those of `sample`, noise is in the middle.

        Raises:
            ConfigError: there are too few frames.
        """
        steps = options.steps or self.default_steps
        record = PathRecorder(steps, frames)
        noise, options = self._draw_noise(n, options, generator)
        generator = generator or torch.default_generator
        x = self.decode_noise(noise, label=label, options=options, generator=generator, callback=record)
        return noising_and_back(x, noise.to(x.device), record.path, self.data_mean, self.data_std)

    def _draw_noise(
        self, n: int, options: SamplingOptions, generator: Generator | None
    ) -> tuple[Tensor, SamplingOptions]:
        """Return the noise of n samples, (n, *noise_shape), and the options of its decoding, with default guidance."""
        noise, options = draw_noise(n, self.noise_shape, options, generator)
        if options.guidance is None:
            options = replace(options, guidance=self.config.guidance)
        return noise, options

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
        """Fill in missing entries by RePaint; see `denoise.priors.completion.inpaint_with_prior`."""
        return inpaint_with_prior(self, x, mask, label=label, options=options, generator=generator, progress=progress)


def noising_and_back(x: Tensor, noise: Tensor, path: PathPoints, mean: float, std: float) -> Tensor:
    """Return samples on the way to noise and back.

    The noising mixes the samples with the noise that they were generated from; the way back is that of the sampler.
    Both are scaled to the standard deviation of the signals, or of signal and noise on a straight path.

    Args:
        x: samples, (n, *event).
        noise: standard normal noise that sampling began with, (n, *event).
        path: standardised signals between noise and samples, (n, *event), and their points.
        mean: mean of the signals.
        std: standard deviation of the signals.

    Returns:
        Signals, (2 * len(path) + 3, n, *event): samples first and last, noise in the middle.
    """
    z = (x - mean) / std
    noising = [point.mix(z, noise) for _, point in reversed(path)]
    way_back = [z_t for z_t, _ in path]
    between = mean + std * torch.stack([*noising, noise, *way_back])
    return torch.cat([x[None], between, x[None]])


class PathRecorder:
    """A `PathCallback` that keeps points at even distances between sample and noise.

    Args:
        steps: steps from noise to samples.
        frames: largest number of points on the way to noise and back.

    Attributes:
        path: the points, from noise to samples, without both ends.

    Raises:
        ConfigError: there are too few frames.
    """

    def __init__(self, steps: int, frames: int) -> None:
        if frames < 3:
            raise ConfigError(f"number of frames is {frames}; expected at least 3: sample, noise, sample.")
        intervals = min((frames - 1) // 2, steps)
        from_sample = torch.linspace(0, steps, intervals + 1, dtype=torch.float32).round().long().tolist()
        self._steps = {steps - 1 - distance for distance in from_sample[1:-1]}
        self.path: list[tuple[Tensor, PathPoint]] = []

    def __call__(self, step: int, z: Tensor, point: PathPoint) -> None:
        """Keep a point, or not."""
        if step in self._steps:
            self.path.append((z, point))
