"""Which networks have posterior samples, and which mix them with the posterior mean."""

from __future__ import annotations

from denoise.errors import ConfigError
from denoise.options import DenoiseOptions
from denoise.priors.network import PatchNetwork, PriorNetwork
from denoise.protocols import DenoisingPrior, FlowNetwork, Network
from denoise.registry import POSTERIOR_MODEL, SIGMA_MODEL


def check_posterior(network: Network, name: str, options: DenoiseOptions) -> None:
    """Refuse a posterior sample of a network that has only one output, and a perception that it cannot mix.

    A prior with latents is refused altogether: its windows are restored together, by `RestorePipeline`.
    A variational network has posterior samples without a perception. Others are mixed with the posterior mean: those
    of a flow for audio, and those of a sigma-conditioned network for images, which serves as the prior.

    Args:
        network: denoiser of audio or images.
        name: name of the model, for the message.
        options: options of the run.

    Raises:
        ConfigError: the network does not support the options.
    """
    if isinstance(network, PriorNetwork) and not isinstance(network.prior, DenoisingPrior):
        raise ConfigError(
            f"prior {name} finds the most probable latents: it has no posterior mean; use RestorePipeline (--prior "
            f"{name} without --perception), or {SIGMA_MODEL}."
        )
    if not options.uses_posterior:
        return
    is_flow = isinstance(network, FlowNetwork)
    is_prior = not network.blind and network.sigma_maps == 1 and not isinstance(network, PatchNetwork)
    if not (is_prior or is_flow or network.variational):
        model = SIGMA_MODEL if network.ndim == 2 else POSTERIOR_MODEL
        raise ConfigError(f"model {name} has one output and no posterior samples; use {model}.")
    can_mix = is_flow if network.ndim == 1 else not network.variational
    if options.perception is not None and not can_mix:
        raise ConfigError(f"model {name} does not mix posterior samples with their mean; leave perception out.")
