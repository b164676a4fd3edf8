"""The base of latent priors: a codec and a prior over its latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from denoise.config import config
from denoise.protocols import DEFAULT_OPTIONS, Codec, Label, Prior, SamplingOptions


@config
class LatentPriorConfig:
    """Settings of the submodules.

    Args:
        codec: ``architecture`` of the codec and its settings.
        prior: ``architecture`` of the prior over its latents and its settings.
    """

    codec: dict[str, Any]
    prior: dict[str, Any]


class LatentPrior(nn.Module):
    """A codec and a prior over its latents, as a prior over signals.

    `build_latent_prior` builds a subclass with the capabilities that follow from those of codec and prior.

    Args:
        codec: codec of the signals.
        prior: prior over latents of shape ``codec.latent_shape``.
        config: settings that describe both, for saving.
    """

    codec: Any  # a `denoise.protocols.Codec`; subclasses state which
    prior: Any  # a `denoise.protocols.Prior`; subclasses state which

    def __init__(self, codec: Codec, prior: Prior, config: LatentPriorConfig | None = None) -> None:
        super().__init__()
        self.codec, self.prior, self.config = codec, prior, config
        self.event_shape = codec.event_shape
        self.classes, self.text = prior.classes, prior.text
        self.sampling_options = prior.sampling_options

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        """Sample latents and decode them.

        Args:
            n: number of signals.
            label: condition of all signals.
            options: options of the prior over latents.
            generator: source of the noise.

        Returns:
            Signals, (n, *event_shape).
        """
        return self.codec.decode(self.prior.sample(n, label=label, options=options, generator=generator))
