"""The base of diffusion and flow matching: a network with conditioning on noise level and label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import field, replace

import torch
from torch import Generator, Tensor, nn

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.embeddings import Condition
from denoise.nn.unet import BackboneConfig, build_backbone
from denoise.priors.completion import COMPLETION_OPTIONS, inpaint_with_prior
from denoise.probability_path import convert, exploding
from denoise.protocols import DEFAULT_OPTIONS, Label, Progress, SamplingOptions, Support


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
        Classifier-Free Diffusion Guidance, 2022, arXiv:2207.12598.
    """

    config: GuidedConfig
    sampling_options = frozenset({"steps", "guidance", "temperature"})
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
    ) -> Tensor:
        """Return the signals of standard normal noise by integrating the probability flow.

        Args:
            noise: noise, (n, *noise_shape).
            label: condition of all signals.
            options: steps and guidance; the default guidance is 1.
            generator: source of the noise of stochastic solvers.

        Returns:
            Signals, (n, *event_shape).
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
        noise = torch.randn(n, *self.noise_shape, generator=generator)
        if options.temperature is not None:
            noise = options.temperature * noise
        if options.guidance is None:
            options = replace(options, guidance=self.config.guidance)
        return self.decode_noise(noise, label=label, options=options, generator=generator)

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
