"""Networks of torch as pipelines see them: device, inference mode and tensors stay in here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Normal

from denoise.backends.device import as_numpy, inference, pick_device
from denoise.backends.precision import Precision, autocast, check_precision, float_precision, should_use_int8
from denoise.cards import Card
from denoise.nn.int8 import quantise_network
from denoise.noise import noise_field
from denoise.priors.network import PatchNetwork, PriorNetwork, as_network
from denoise.protocols import (
    ArrayNetwork,
    ArrayPosteriorSampler,
    Classifier,
    DenoisingPrior,
    Device,
    FlowNetwork,
    Network,
    NetworkFacts,
    NoiseProfileNetwork,
    PosteriorDiagnostics,
    PosteriorSampler,
    StreamingNetwork,
)
from denoise.protocols.arrays import Inputs
from denoise.registry import Kind, Modality, load

Array = NDArray[Any]


class TorchNetwork:
    """A `denoise.protocols.ArrayQuantisableNetwork`.

    Args:
        module: denoiser in evaluation mode.
        device: device of its parameters, which it is applied on.
        precision: as of `denoise.pipelines.image.ImagePipeline`, for windows and tiles.

    Raises:
        ConfigError: the precision is unknown, or the device does not have it.
    """

    def __init__(self, module: Network, device: torch.device | str, precision: str = "float32") -> None:
        check_precision(precision, torch.device(device))
        self.module, self.device, self._requested = module, str(device), precision
        self.facts = facts_of(module)

    @cached_property
    def precision(self) -> str:
        """Floating-point format of windows and tiles, selected by a measurement at first use."""
        return float_precision(self._requested, torch.device(self.device))

    @inference()
    def denoise(self, x: Array, sigma: Array | None = None) -> Array:
        """Denoise signals; see `denoise.protocols.ArrayNetwork`."""
        return self._call(self.module, x, sigma)

    def should_quantise(self, n_pixels: int) -> bool:
        """Return whether int8 is requested or saves time; see `denoise.protocols.ArrayQuantisableNetwork`."""
        module, device = cast(nn.Module, self.module), torch.device(self.device)
        return should_use_int8(self._requested, module, device, n_pixels)

    @inference()
    def quantise(self, calibration: Inputs, check: Inputs) -> tuple[ArrayNetwork, float]:
        """Return the network in int8; see `denoise.protocols.ArrayQuantisableNetwork`."""
        module: Any = quantise_network(cast(nn.Module, self.module), *self._inputs(*calibration))
        x, sigma = self._inputs(*check)
        rms_change = (module(x, sigma) - self.module(x, sigma)).square().mean(dim=(1, 2, 3)).sqrt()
        quantised = type(self)(module, self.device)
        quantised.precision = "int8"
        return quantised, float(rms_change.max())

    def _call(self, network: Callable[..., Tensor], x: Array, sigma: Array | None) -> Array:
        with autocast(torch.device(self.device), cast(Precision, self.precision)):
            return as_numpy(network(*self._inputs(x, sigma)).float())

    def _inputs(self, x: Array, sigma: Array | None) -> tuple[Tensor, Tensor | None]:
        """Tensors on the device; images in the order of memory that convolutions take fastest."""
        x_tensor = to_tensor(x, self.device)
        if self.facts.ndim == 2:
            x_tensor = x_tensor.contiguous(memory_format=torch.channels_last)
        return x_tensor, None if sigma is None else to_tensor(sigma, self.device)


class TorchVariationalNetwork(TorchNetwork):
    """A `denoise.protocols.ArrayVariationalNetwork`; its arguments are those of `TorchNetwork`."""

    @inference()
    def sample(self, x: Array, sigma: Array | None = None, *, seed: int, start: tuple[int, ...]) -> Array:
        """Denoise signals with samples of the latents; see `denoise.protocols.ArrayVariationalNetwork`."""
        module: Any = self.module
        sampler = NoiseFieldSampler(seed, start)
        return self._call(lambda x, sigma: module(x, sigma, sample_latent=sampler), x, sigma)


class TorchStreamingNetwork(TorchNetwork):
    """A `denoise.protocols.ArrayStreamingNetwork`; its arguments are those of `TorchNetwork`."""

    module: StreamingNetwork

    def __init__(self, module: StreamingNetwork, device: torch.device | str, precision: str = "float32") -> None:
        super().__init__(module, device, precision)
        self.delay = module.delay

    def hop(self, sample_rate: int) -> int:
        """Return the number of samples of one hop at ``sample_rate`` Hz."""
        return self.module.hop(sample_rate)

    @inference()
    def initial_state(self, batch: int, channels: int, sample_rate: int) -> Any:
        """Return the state before the first sample; see `denoise.protocols.ArrayStreamingNetwork`."""
        return self.module.initial_state(batch, channels, sample_rate)

    @inference()
    def step(self, x: Array, state: Any) -> tuple[Array, Any]:
        """Denoise the next hops of a stream; see `denoise.protocols.ArrayStreamingNetwork`."""
        y, state = self.module.step(to_tensor(x, self.device), state)
        return as_numpy(y), state


class TorchNoiseProfileNetwork(TorchStreamingNetwork):
    """A `denoise.protocols.ArrayNoiseProfileNetwork`; its arguments are those of `TorchNetwork`."""

    module: NoiseProfileNetwork

    @inference()
    def measure_noise(self, noise: Array, *, sample_rate: int) -> Array:
        """Return the noise profile of recordings; see `denoise.protocols.ArrayNoiseProfileNetwork`."""
        return as_numpy(self.module.measure_noise(to_tensor(noise, self.device), sample_rate=sample_rate))

    @inference()
    def initial_state(self, batch: int, channels: int, sample_rate: int, noise_profile: Array | None = None) -> Any:
        """Return the state before the first sample; see `denoise.protocols.ArrayNoiseProfileNetwork`."""
        profile = None if noise_profile is None else to_tensor(noise_profile, self.device)
        return self.module.initial_state(batch, channels, sample_rate, profile)

    @property
    def lookahead_hops(self) -> int:
        """Hops whose noise floor the state holds."""
        return self.module.lookahead_hops

    @inference()
    def renew(self, state: Any, recent: Array | None) -> Any:
        """Return a state whose recurrences begin anew; see `denoise.protocols.ArrayNoiseProfileNetwork`."""
        return self.module.renew(state, None if recent is None else to_tensor(recent, self.device))

    @inference()
    def update_noise_floor(self, x: Array, state: Any) -> Any:
        """Return the state after the next hops; see `denoise.protocols.ArrayNoiseProfileNetwork`."""
        return self.module.update_noise_floor(to_tensor(x, self.device), state)

    @inference()
    def apply_lookahead(self, state: Any, ahead: Any) -> Any:
        """Return a state that knows what follows; see `denoise.protocols.ArrayNoiseProfileNetwork`."""
        return self.module.apply_lookahead(state, ahead)


class TorchPosteriorSampler(TorchStreamingNetwork):
    """A `denoise.protocols.ArrayPosteriorSampler`; its arguments are those of `TorchNetwork`."""

    module: PosteriorSampler

    @inference()
    def diagnostics(self, state: Any) -> PosteriorDiagnostics:
        """Return the diagnostics of all output up to a state."""
        return self.module.diagnostics(state)


class TorchFlowNetwork(TorchStreamingNetwork):
    """A `denoise.protocols.ArrayFlowNetwork`; its arguments are those of `TorchNetwork`."""

    module: FlowNetwork

    def posterior_sampler(self, seed: int, steps: int, perception: float = 1.0) -> ArrayPosteriorSampler:
        """Return a network that mixes mean and sample; see `denoise.protocols.ArrayFlowNetwork`."""
        return TorchPosteriorSampler(self.module.posterior_sampler(seed, steps, perception), self.device)


class TorchClassifier:
    """A `denoise.protocols.ArrayClassifier` on the CPU.

    Args:
        module: classifier in evaluation mode.
    """

    def __init__(self, module: Classifier) -> None:
        self.module, self.class_names = module, module.class_names

    @inference()
    def probabilities(self, x: Array, *, sample_rate: int) -> Array:
        """Classify recordings; see `denoise.protocols.ArrayClassifier`."""
        return as_numpy(self.module(to_tensor(x, "cpu"), sample_rate=sample_rate).softmax(dim=1))


@dataclass(frozen=True)
class NoiseFieldSampler:
    """A `denoise.protocols.LatentSampler` whose noise is a function of position: overlapping windows get the same.

    Args:
        seed: seed of the noise field.
        start: position of the window in the signal, in samples or pixels, for each axis of space.
    """

    seed: int
    start: tuple[int, ...]

    def __call__(self, level: int, q: Normal, stride: int) -> Tensor:
        """Return a sample of the latents of one level.

        Args:
            level: index of the latent level.
            q: posterior of the latents, (batch, channels, *space).
            stride: samples or pixels of the signal for each position of the latents.

        Returns:
            Latents, (batch, channels, *space).
        """
        start = [position // stride for position in self.start]
        eps = noise_field(self.seed, level, q.loc.shape[1], start, q.loc.shape[2:])
        return q.loc + q.scale * eps.to(q.loc)


def load_network(
    name_or_file: str | Path, *, modality: Modality, device: Device, precision: str
) -> tuple[TorchNetwork, Card]:
    """Load a denoiser, or a prior of images as one; see `denoise.backends.load_network`."""
    device_found = pick_device(device)
    check_precision(precision, device_found)
    kinds: tuple[Kind, ...] = ("denoiser", "prior") if modality == "image" else ("denoiser",)
    module, card = load(name_or_file, kind=kinds, modality=modality)
    if card.kind == "prior":
        module, card = as_network(module, card.name), replace(card, blind=False)
    return adapt(module.to(device_found), precision), card


def load_classifier(name_or_file: str | Path) -> TorchClassifier:
    """Load a classifier of audio; see `denoise.backends.load_classifier`."""
    return TorchClassifier(load(name_or_file, kind="classifier", modality="audio")[0])


def adapt(module: Network, precision: str = "float32") -> TorchNetwork:
    """Return a network of torch as one of arrays, on the device of its parameters.

    Args:
        module: denoiser in evaluation mode.
        precision: as of `TorchNetwork`.
    """
    adapters: tuple[tuple[Any, type[TorchNetwork]], ...] = (
        (PosteriorSampler, TorchPosteriorSampler),
        (FlowNetwork, TorchFlowNetwork),
        (NoiseProfileNetwork, TorchNoiseProfileNetwork),
        (StreamingNetwork, TorchStreamingNetwork),
    )
    plain = TorchVariationalNetwork if module.variational else TorchNetwork
    adapter = next((adapter for protocol, adapter in adapters if isinstance(module, protocol)), plain)
    return adapter(module, next(cast(nn.Module, module).parameters()).device, precision)


def facts_of(module: Network) -> NetworkFacts:
    """Return the facts of a network of torch.

    Posterior samples are those of latents, of a flow, or of a network for any sigma as a prior.
    """
    is_flow = isinstance(module, FlowNetwork)
    is_prior = not module.blind and module.sigma_maps == 1 and not isinstance(module, PatchNetwork)
    return NetworkFacts(
        ndim=module.ndim,
        channels=module.channels,
        blind=module.blind,
        sigma_maps=module.sigma_maps,
        size_multiple=module.size_multiple,
        context=module.context,
        window=module.window,
        has_mean=not isinstance(module, PriorNetwork) or isinstance(module.prior, DenoisingPrior),
        has_samples=is_prior or is_flow or module.variational,
        can_mix=is_flow if module.ndim == 1 else not module.variational,
    )


def to_tensor(x: Array, device: str) -> Tensor:
    """Return an array as a tensor on a device; on the CPU it shares the memory, unless that is read-only."""
    return torch.from_numpy(np.require(x, requirements="W")).to(device)
