"""Live audio: noisy samples in, denoised samples out, at a fixed latency."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from denoise.backends import adapt, load_network
from denoise.errors import ConfigError, InputError, shorten
from denoise.options import AUDIO_STEPS, DenoiseOptions
from denoise.pipelines.hum import HumFilter, Tone
from denoise.pipelines.noise_segment import require_noise_profile_network
from denoise.pipelines.offset import OffsetFilter
from denoise.pipelines.posterior import check_posterior
from denoise.pipelines.renewal import Renewal, Resumption
from denoise.pipelines.result import Diagnostics
from denoise.protocols import (
    ArrayFlowNetwork,
    ArrayNetwork,
    ArrayNoiseProfileNetwork,
    ArrayPosteriorSampler,
    ArrayStreamingNetwork,
    Consistency,
    Device,
    StreamingNetwork,
)
from denoise.registry import DEFAULTS, SPEECH_MODELS, check_name
from denoise.signals import AudioFormat, as_whole, require_finite_output, require_finite_samples

if TYPE_CHECKING:
    from denoise.pipelines.audio import AudioPipeline

MAX_HOPS = 128  # at a time: the running means of the networks take memory by the square of their number
LOOKAHEAD_PARTS = 4  # one of which is denoised at a time


class AudioStream:
    """Denoise audio as it comes, in blocks of any length.

    All outputs of `push` and `flush` together are as long as all inputs and aligned with them; `push` returns samples
    at most ``latency`` samples after they came. With ``speech-flow``, posterior sampling
    adds 0.2 s of latency per step.

    Args:
        model: name of a bundled model, path of a weights file, `AudioPipeline`, or a network of arrays or of torch.
        sample_rate: sample rate in Hz.
        channels: number of channels.
        linked: whether all channels share one mask, which keeps the stereo image, or are denoised independently; None
            links the two of a stereo signal, and no other number of them.
        strength: as in `denoise.options.DenoiseOptions`.
        attenuation_limit: as in `denoise.options.DenoiseOptions`, in dB.
        perception: as in `denoise.options.DenoiseOptions`, of models with posterior samples.
        steps: network calls per posterior sample.
        seed: seed of the posterior sample.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``, for a model that is loaded here.
        noise_profile: as of `AudioPipeline.measure_noise`, of models that take one; None estimates the noise. That of
            several channels is averaged where they share a mask, or where their number differs.
        tones: steady tones of the noise in each channel, as of `denoise.pipelines.hum.find_noise_tones`, which are
            removed before the network; none of no channel.
        remove_hum: whether steady tones are removed before the network, see `HumFilter`; None does so before the
            bundled models of speech.
        renews: whether recurrences begin anew in pauses, see `denoise.pipelines.renewal`; None does so for the bundled
            models of speech.
        look_ahead: whether the noise floor is estimated with a look-ahead of seconds, by models that take a noise
            profile: what decays in them is not noise. For recordings, as the latency is as long.
        unchanged: channels, from 0, that pass unchanged, as late as the others.

    Raises:
        ConfigError: the model is unknown or has no state to stream with, see `denoise info`; or it does not support an
            option.
        InputError: sample rate or channels are out of range.

    >>> stream = AudioStream("speech", sample_rate=48_000, channels=1)  # doctest: +SKIP
    >>> denoised = [stream.push(block) for block in blocks] + [stream.flush()]  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | Path | ArrayStreamingNetwork | StreamingNetwork | AudioPipeline = DEFAULTS["audio"],
        *,
        sample_rate: int,
        channels: int = 1,
        linked: bool | None = None,
        strength: float = 1.0,
        attenuation_limit: float | None = None,
        perception: float | None = None,
        steps: int = AUDIO_STEPS,
        seed: int = 0,
        device: Device = "auto",
        noise_profile: NDArray[Any] | None = None,
        tones: Sequence[Sequence[Tone]] = (),
        remove_hum: bool | None = None,
        renews: bool | None = None,
        look_ahead: bool = False,
        unchanged: Sequence[int] = (),
    ) -> None:
        options = DenoiseOptions(
            strength=strength,
            attenuation_limit=attenuation_limit,
            perception=perception,
            steps=steps,
            seed=None if perception is None else seed,
        )
        if linked is not None and not isinstance(linked, bool | np.bool_):
            raise ConfigError(f"linked is {shorten(linked)}; expected True, False, or None, which links two channels.")
        sample_rate, channels = as_whole("sample rate", sample_rate), as_whole("number of channels", channels)
        AudioFormat(sample_rate, channels)  # checks both
        network, name = _network_and_name(model, device)
        if not isinstance(network, ArrayStreamingNetwork):
            raise ConfigError(f"model {name} needs whole windows and cannot stream. Use a causal one, such as speech.")
        check_posterior(network.facts, name, options)
        if options.mix_weight and isinstance(network, ArrayFlowNetwork):
            network = network.posterior_sampler(seed, steps, options.mix_weight)
        self.network, self.sample_rate, self.channels = network, sample_rate, channels
        self.strength = options.limited_strength
        self._strengths = channel_strengths(self.strength, channels, unchanged)
        self._hop = network.hop(sample_rate)
        is_linked = channels == 2 if linked is None else linked
        self._rows = 1 if is_linked else channels
        size = (self._rows, channels // self._rows, sample_rate)
        self._state = self._lookahead_state = network.initial_state(*size)
        self._lookahead = 0
        if noise_profile is not None or look_ahead:
            self._floor_network = require_noise_profile_network(network, name)
        if noise_profile is not None:
            profile = _profile(noise_profile)
            profile = profile if len(profile) == self._rows else profile.mean(axis=0, keepdims=True)
            self._state = self._floor_network.initial_state(*size, noise_profile=profile)
        if look_ahead:
            self._lookahead = self._floor_network.lookahead_hops
        removes_hum = name in SPEECH_MODELS if remove_hum is None else remove_hum
        self._renewal, self._resumption = None, None
        if isinstance(network, ArrayNoiseProfileNetwork):
            has_renewal = name in SPEECH_MODELS if renews is None else renews
            self._renewal = Renewal(network, sample_rate) if has_renewal else None
            self._resumption = Resumption(network, sample_rate, jumps=has_renewal)
        if tones and len(tones) != channels:
            raise ConfigError(f"tones are of {len(tones)} channels; expected {channels}, those of the stream.")
        has_hum = removes_hum or any(tones)
        self._hum = HumFilter(sample_rate, channels, tones, finds=removes_hum) if has_hum else None
        self._offset = OffsetFilter(sample_rate, channels, self._hop)
        self._pending = np.zeros((channels, 0), np.float32)  # samples of an incomplete hop
        self._queue = np.zeros((channels, 0), np.float32)  # whole hops that wait for their look-ahead
        self._n_analysed = 0  # samples of them that are in the noise floor of the look-ahead
        self._dry = np.zeros((channels, 0), np.float32)  # samples whose denoised counterparts are not ready
        self._skip = network.delay * self._hop  # outputs of the network that precede the first sample
        self._late = np.zeros((channels, self.latency), np.float32)  # samples that `process` returns next
        self._method: str | None = None  # that returns samples, "push" or "process"
        self._flushed = False

    @property
    def latency(self) -> int:
        """Maximum number of samples between the input and the output of a sample."""
        return (max(1, self._lookahead) + self.network.delay) * self._hop

    def push(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Take the next samples and return those that are ready.

        Args:
            samples: (channels, any time), float32 or float64, full scale 1.0.

        Returns:
            Denoised samples, (channels, time), perhaps none.

        Raises:
            InputError: shape, type or values do not fit, the stream has ended, or `process` is used; the stream is
                unchanged.
        """
        return self._push(np.asarray(samples), "push")

    def _push(self, x: NDArray[Any], method: str) -> NDArray[Any]:
        if self._method not in (None, method):
            raise InputError(f"the stream has returned samples by {self._method}; use either push or process.")
        if self._flushed:
            raise InputError("the stream has been flushed; create a new AudioStream for the next recording.")
        if x.ndim != 2 or x.shape[0] != self.channels:
            raise InputError(f"samples have shape {x.shape}; expected ({self.channels}, time).")
        if x.dtype not in (np.float32, np.float64):
            raise InputError(f"samples are {x.dtype}; expected float32 or float64.")
        require_finite_samples(x)
        self._method = method
        self._dry = np.concatenate([self._dry, x], axis=1)
        self._pending = np.concatenate([self._pending, x.astype(np.float32)], axis=1)
        n = self._pending.shape[1] // self._hop * self._hop
        hops, self._pending = self._pending[:, :n], self._pending[:, n:]
        hops = self._remove_hum(self._offset.push(hops))
        return self._mix(self._denoise_queue(hops) if self._lookahead else self._denoise(hops))

    def flush(self) -> NDArray[Any]:
        """End the stream.

        Returns:
            The samples that are not yet returned, (channels, at most ``latency``), exactly as many after `process`.

        Raises:
            InputError: the stream has ended already.
        """
        if self._flushed:
            raise InputError("the stream has been flushed already.")
        self._flushed = True
        padding = -self._pending.shape[1] % self._hop + self.network.delay * self._hop
        hops = np.pad(self._remove_hum(self._offset.finish(self._pending)), ((0, 0), (0, padding)))
        rest = self._mix(self._denoise_queue(hops, is_end=True) if self._lookahead else self._denoise(hops))
        return np.concatenate([self._late, rest], axis=1) if self._method == "process" else rest

    def process(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Return as many samples as come, always ``latency`` samples late, for the callback of a sound card.

        The first ``latency`` samples are zeros, and `flush` returns the last ones. Use either this method or `push`.

        Args:
            samples: (channels, any time), float32 or float64, full scale 1.0.

        Returns:
            Denoised samples of the same shape and type.

        Raises:
            InputError: as of `push`, or that is used; the stream is unchanged.
        """
        x: Any = np.asarray(samples)
        ready = np.concatenate([self._late, self._push(x, "process")], axis=1)
        n = x.shape[1]
        out, self._late = ready[:, :n], ready[:, n:]
        return out.astype(x.dtype, copy=False)

    def diagnostics(self) -> Diagnostics:
        """Return the residual and the rejected fraction of a posterior sample up to now; of a mean, nothing."""
        if not isinstance(self.network, ArrayPosteriorSampler):
            return Diagnostics()
        relative_rms, correlation, rejected_fraction = self.network.diagnostics(self._state)
        return Diagnostics(residual=Consistency(relative_rms, correlation), rejected_fraction=rejected_fraction)

    def _remove_hum(self, x: NDArray[Any]) -> NDArray[Any]:
        return x if self._hum is None else self._hum.push(x)

    def _denoise_queue(self, hops: NDArray[Any], *, is_end: bool = False) -> NDArray[Any]:
        """Queue hops, (channels, n * hop), and denoise those whose look-ahead is complete, or all at the end."""
        self._queue = np.concatenate([self._queue, hops], axis=1)
        lookahead, length = (n * self._hop for n in (self._lookahead, -(-self._lookahead // LOOKAHEAD_PARTS)))
        out = [self._queue[:, :0]]
        while self._queue.shape[1] >= (1 if is_end else lookahead):
            new = self._queue[:, self._n_analysed : lookahead]
            for start in range(0, new.shape[1], MAX_HOPS * self._hop):
                part = new[:, start : start + MAX_HOPS * self._hop]
                self._lookahead_state = self._floor_network.update_noise_floor(
                    self._by_rows(part), self._lookahead_state
                )
            self._state = self._floor_network.apply_lookahead(self._state, self._lookahead_state)
            block, self._queue = self._queue[:, :length], self._queue[:, length:]
            self._n_analysed += new.shape[1] - block.shape[1]
            out.append(self._denoise(block))
        return np.concatenate(out, axis=1)

    def _denoise(self, hops: NDArray[Any]) -> NDArray[Any]:
        """Pass whole hops, (channels, n * hop), through the network."""
        if not hops.shape[1]:
            return hops
        x, blocks = self._by_rows(hops), []
        parts = [(x, False)] if self._resumption is None else self._resumption.split(x)
        for part, begins in parts:
            if begins:
                assert self._resumption is not None
                self._state = self._resumption.network.renew(self._state, None)
            start = 0
            while start < part.shape[2]:
                n_hops = MAX_HOPS if self._renewal is None else min(MAX_HOPS, self._renewal.n_hops)
                block = part[..., start : start + n_hops * self._hop]
                y, self._state = self.network.step(block, self._state)
                blocks.append(y)
                start += block.shape[2]
                if self._renewal is not None:
                    self._state = self._renewal.push(block, y, self._state)
        denoised = np.concatenate(blocks, axis=2).reshape(len(hops), -1)
        n_skipped = min(self._skip, denoised.shape[1])
        self._skip -= n_skipped
        return denoised[:, n_skipped:]

    def _by_rows(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return samples, (channels, time), as signals that have a mask each, (rows, channels of a row, time)."""
        return x.reshape(self._rows, -1, x.shape[1])

    def _mix(self, wet: NDArray[Any]) -> NDArray[Any]:
        """Mix with the noisy samples of the same time, in their own precision."""
        require_finite_output(wet)
        n = min(wet.shape[1], self._dry.shape[1])  # the flush yields padding, too
        dry, self._dry = self._dry[:, :n], self._dry[:, n:]
        return dry + self._strengths.astype(dry.dtype) * (wet[:, :n].astype(dry.dtype) - dry)


def channel_strengths(strength: float, channels: int, unchanged: Sequence[int]) -> NDArray[np.float64]:
    """Return the weight of the denoised signal in each channel, (channels, 1).

    Args:
        strength: the weight.
        channels: number of channels.
        unchanged: channels whose weight is 0.

    Raises:
        ConfigError: they are no channels.
    """
    indices: list[Any] = [*unchanged] if isinstance(unchanged, Iterable) else [None]
    if any(isinstance(i, bool) or not isinstance(i, int | np.integer) or not 0 <= i < channels for i in indices):
        raise ConfigError(f"unchanged is {shorten(unchanged)}; expected numbers of channels, 0 to {channels - 1}.")
    strengths = np.full((channels, 1), strength)
    strengths[indices] = 0
    return strengths


def _profile(noise_profile: object) -> NDArray[np.float32]:
    """Return a noise profile, (channels, positions)."""
    try:
        profile = np.asarray(noise_profile, np.float32)
    except (TypeError, ValueError):
        profile = np.zeros(0, np.float32)
    if profile.ndim != 2 or not len(profile):
        raise ConfigError(
            f"noise_profile is {shorten(noise_profile)}; expected an array (channels, positions), as of "
            "AudioPipeline.measure_noise."
        )
    return profile


def _network_and_name(
    model: str | Path | ArrayNetwork | StreamingNetwork | AudioPipeline, device: Device
) -> tuple[ArrayNetwork, str]:
    from denoise.pipelines.audio import AudioPipeline  # which imports this module

    if isinstance(model, str | Path):
        network, card = load_network(model, modality="audio", device=device)
        return network, card.name
    if isinstance(model, AudioPipeline):
        return model.network, model.card.name
    if not isinstance(model, ArrayNetwork | StreamingNetwork):
        check_name(model)
    return model if isinstance(model, ArrayNetwork) else adapt(model), type(model).__name__
