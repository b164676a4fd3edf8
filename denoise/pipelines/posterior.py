"""Which networks have posterior samples, and which mix them with the posterior mean."""

from __future__ import annotations

from denoise.errors import ConfigError
from denoise.options import DenoiseOptions
from denoise.protocols import NetworkFacts
from denoise.registry import POSTERIOR_MODEL, SIGMA_MODEL


def check_posterior(facts: NetworkFacts, name: str, options: DenoiseOptions) -> None:
    """Refuse a posterior sample of a network that has only one output, and a perception that it cannot mix.

    A prior with latents is refused altogether: its windows are restored together, by `RestorePipeline`.
    A variational network has posterior samples without a perception. Others are mixed with the posterior mean: those
    of a flow for audio, and those of a sigma-conditioned network for images, which serves as the prior.

    Args:
        facts: facts of a denoiser of audio or images.
        name: name of the model, for the message.
        options: options of the run.

    Raises:
        ConfigError: the network does not support the options.
    """
    if not facts.has_mean:
        raise ConfigError(
            f"prior {name} finds the most probable latents: it has no posterior mean; use RestorePipeline (--prior "
            f"{name} without --perception), or {SIGMA_MODEL}."
        )
    if options.uses_posterior and not facts.has_samples:
        model = SIGMA_MODEL if facts.ndim == 2 else POSTERIOR_MODEL
        advice = "use its weights with backend torch" if model == name else f"use {model}"
        raise ConfigError(f"model {name} has one output and no posterior samples; {advice}.")
    if options.perception is not None and not facts.can_mix:
        raise ConfigError(f"model {name} does not mix posterior samples with their mean; leave perception out.")
