"""Networks in the form that is exported: tensors in, tensors out, real numbers, any size."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.backends.onnx.fourier import RealFourier
from denoise.models.audio_classifier import AudioClassifier
from denoise.models.dpcrn import DPCRN, DPCRNState, SpectralFeatures, mix_down


class WindowGraph(nn.Module):
    """A network of windows or tiles of any size: the padding to its size multiple is in the graph.

    Args:
        network: denoiser whose output depends on the signal and sigma alone.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Denoise signals.

        Args:
            x: noisy signals, (batch, channels, *space).
            sigma: (batch,), or maps, (batch, maps, *space); None for blind networks.

        Returns:
            Denoised signals of the shape of ``x``.
        """
        size = x.shape[2:]
        for dim in range(2, x.ndim):
            x = self._pad(x, dim)
            sigma = self._pad(sigma, dim) if sigma is not None and sigma.ndim == x.ndim else sigma
        y: Tensor = self.network(x, sigma)
        for dim, n in enumerate(size, start=2):
            y = y.narrow(dim, 0, n)
        return y

    def _pad(self, x: Tensor, dim: int) -> Tensor:
        """Pad the end of an axis by reflection, as `denoise.models.conv_dae.ConvDAE` does, whatever its size."""
        n, multiple = x.shape[dim], self.network.size_multiple
        if multiple == 1:
            return x
        length = torch.div(n + multiple - 1, multiple, rounding_mode="floor") * multiple
        period = (torch.ones((), dtype=torch.int64) * (2 * n - 2)).clamp_min(1)
        index = torch.arange(length) % period
        return x.index_select(dim, torch.minimum(index, period - index))


class StreamGraph(nn.Module):
    """The step of a `DPCRN`, for any sample rate, with each tensor of its state as an input and an output.

    The spectrum is cut or padded to the bins of the network, so that one graph serves every length of a hop.

    Args:
        network: network in evaluation mode.
    """

    def __init__(self, network: DPCRN) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.network.spectral = RealSpectralFeatures(network.config)
        self.state = self.initial_state(1, 1, 160)
        """A state, whose tensors `forward` replaces."""
        self.names = [*flatten_state(self.state)]
        """Names of the tensors of the state, in the order of the arguments of `forward`."""

    def initial_state(self, batch: int, channels: int, hop: int) -> DPCRNState:
        """Return the state before the first sample, without None: zeros have the same effect.

        Args:
            batch: number of signals.
            channels: channels of each signal.
            hop: samples of one hop.
        """
        network = self.network
        state = network.initial_state(batch, channels, round(hop / network.config.hop_s))
        pending = network.zeros(batch, channels, network.delay - 1, hop + 1, 2)
        floor = state.floor and state.floor._replace(profile=torch.zeros_like(state.floor.total))
        state = state._replace(hop=hop, pending=pending, floor=floor)
        first_state = self._step(network.zeros(batch, channels, hop), state)[1]  # has all tensors, in their shapes
        tensors = {name: torch.zeros_like(x) for name, x in flatten_state(first_state).items()}
        return unflatten_state(first_state, tensors | flatten_state(state))

    def forward(self, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Denoise the next hops of a stream.

        Args:
            x: next samples, (batch, channels, n * hop).
            tensors: state after the previous samples; see `names`.

        Returns:
            Denoised samples of the shape of ``x``, ``delay`` hops late, and the new state.
        """
        y, state = self._step(x, unflatten_state(self.state, dict(zip(self.names, tensors, strict=True))))
        new_tensors = flatten_state(state)
        return y, *(new_tensors[name] for name in self.names)

    def _step(self, x: Tensor, state: DPCRNState) -> tuple[Tensor, DPCRNState]:
        """As `DPCRN.step`, with the last axis of spectra of size 2 in place of complex numbers."""
        network, hop = self.network, state.history.shape[-1]
        fourier = RealFourier(2 * hop)
        window = (torch.arange(2 * hop) * math.pi / (2 * hop)).sin()
        hops = torch.cat([state.history, x], dim=-1).reshape(*x.shape[:2], -1, hop)
        spectrum = fourier.transform(torch.cat([hops[:, :, :-1], hops[:, :, 1:]], dim=-1) * window)
        inputs = _fit_bins(spectrum / hop, torch.zeros(network.config.bins, 2), network.config.bins)
        features, level, floor = network.to_inputs(inputs, state)
        output, feature_state = network.forward_features(features, state.features)
        mask = network.spectral.to_mask(output, network.config.bins)
        mask = _fit_bins(mask, mask[..., -1:, :].expand(-1, -1, hop, -1), hop + 1)[:, None]
        pending = state.pending
        if network.delay > 1:
            spectrum = torch.cat([state.pending, spectrum], dim=2)
            spectrum, pending = spectrum[:, :, : 1 - network.delay], spectrum[:, :, 1 - network.delay :]
        masked = torch.stack(
            [
                spectrum[..., 0] * mask[..., 0] - spectrum[..., 1] * mask[..., 1],
                spectrum[..., 0] * mask[..., 1] + spectrum[..., 1] * mask[..., 0],
            ],
            dim=-1,
        )
        frames = fourier.inverse(masked) * window
        ends = torch.cat([state.overlap[:, :, None], frames[..., hop:]], dim=2)
        y = (frames[..., :hop] + ends[:, :, :-1]).reshape(*x.shape[:2], -1)
        return y, DPCRNState(state.hop, hops[:, :, -1], pending, ends[:, :, -1], level, feature_state, floor)


class ClassifierGraph(nn.Module):
    """The probabilities of an `AudioClassifier` for frames of any length, which follows from the sample rate.

    Args:
        classifier: classifier in evaluation mode.
    """

    def __init__(self, classifier: AudioClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, frames: Tensor) -> Tensor:
        """Classify recordings.

        Args:
            frames: consecutive frames of the recordings, (batch, channels, frames, samples).

        Returns:
            Probabilities, (batch, classes).
        """
        n, bins = frames.shape[-1], self.classifier.config.spectrum.bins
        window = (torch.arange(n) * math.pi / n).sin().square()
        scaled = frames / frames.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-30)
        spectrum = _fit_bins(RealFourier(n).transform(scaled * window), torch.zeros(bins, 2), bins)
        powers = spectrum.square().sum(dim=-1).mean(dim=1)
        return self.classifier.classify(self.classifier.to_relative(powers)).softmax(dim=1)


class RealSpectralFeatures(SpectralFeatures):
    """`SpectralFeatures` of spectra and masks as real numbers, (..., bins, 2), of all bins of the configuration."""

    def to_power(self, spectrum: Tensor) -> Tensor:
        """Compute the mean power of all channels, as `SpectralFeatures.to_power`."""
        power = spectrum.square().sum(dim=-1).mean(dim=1)
        linear_bins = self.config.linear_bins
        return torch.cat([power[..., :linear_bins], power[..., linear_bins:] @ self.normalised_bands.T], dim=-1)

    def to_features(self, spectrum: Tensor) -> Tensor:
        """Compute the input features of the network, as `SpectralFeatures.to_features`."""
        c = self.config
        magnitude = self.compress(self.to_power(spectrum))[:, None]
        phase = _normalise(mix_down(spectrum[..., : c.linear_bins, :]), 1e-12).permute(0, 3, 1, 2)
        compressed = F.pad(phase * magnitude[..., : c.linear_bins], (0, c.bands))
        return torch.cat([magnitude, compressed], dim=1)

    def to_mask(self, output: Tensor, bins: int) -> Tensor:
        """Convert the output of the network to a mask, (batch, frames, bins, 2), as `SpectralFeatures.to_mask`."""
        linear_bins = self.config.linear_bins
        gain = self.to_bins(torch.sigmoid(output[:, 0] + 2.0), bins)
        rotation = torch.stack([output[:, 1] + 1.0, output[:, 2]], dim=-1)[..., :linear_bins, :]
        rotation = _normalise(rotation, 1e-6)
        unrotated = torch.tensor([1.0, 0.0]).expand(*gain.shape[:2], bins - linear_bins, 2)
        return gain[..., None] * torch.cat([rotation, unrotated], dim=2)


def _normalise(x: Tensor, floor: float) -> Tensor:
    """Divide complex numbers, (..., 2), by their magnitudes."""
    return x / x.square().sum(dim=-1, keepdim=True).sqrt().clamp_min(floor)


def _fit_bins(x: Tensor, padding: Tensor, bins: int) -> Tensor:
    """Cut (..., any, 2) to a number of bins, or append ``padding`` of at least as many as are missing."""
    return torch.cat([x, padding.expand(*x.shape[:-2], -1, 2)], dim=-2)[..., :bins, :]


def flatten_state(state: Any, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors in nested tuples that hold anything, by the names and numbers of the fields on their way.

    Args:
        state: tuples, named or not, of tensors and other values.
        prefix: of the names.
    """
    if isinstance(state, Tensor):
        return {prefix: state} if state.numel() else {}
    tensors: dict[str, Tensor] = {}
    for name, value in _fields(state, prefix):
        tensors |= flatten_state(value, name)
    return tensors


def unflatten_state(like: Any, tensors: dict[str, Tensor], prefix: str = "") -> Any:
    """Return nested tuples with other tensors.

    Args:
        like: the tuples; what is no tensor there is kept.
        tensors: as of `flatten_state`.
        prefix: of the names.
    """
    if not isinstance(like, tuple):
        return tensors.get(prefix, like)
    make = getattr(like, "_make", tuple)  # of named tuples
    return make([unflatten_state(value, tensors, name) for name, value in _fields(like, prefix)])


def _fields(state: Any, prefix: str) -> list[tuple[str, Any]]:
    """The fields of a tuple by their full names; none of anything else."""
    if not isinstance(state, tuple):
        return []
    names = getattr(state, "_fields", range(len(state)))
    return [(f"{prefix}.{name}" if prefix else str(name), value) for name, value in zip(names, state, strict=True)]
