"""Denoiser for audio of any kind: a `DPCRN` whose input holds the noise floor, estimated or given as a profile."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from denoise.config import config
from denoise.dsp import stream_stft
from denoise.errors import ConfigError
from denoise.lookahead import lower_to_following
from denoise.models.dpcrn import DPCRN, DPCRNConfig, DPCRNState, RunningMean, running_level
from denoise.nn.conditioning import check_sigma
from denoise.nn.noise_floor import NoiseFloorState, initial_noise_floor, track_noise_floor
from denoise.nn.streaming import DEFAULT_RATE
from denoise.signals import check_noise_profile


@config
class NoiseFloorDPCRNConfig(DPCRNConfig):
    """Configuration of `NoiseFloorDPCRN`.

    Args:
        floor_frames: frames over whose minimum the noise floor is estimated, a power of two.
    """

    floor_frames: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.floor_frames <= 65_536 or self.floor_frames & (self.floor_frames - 1):
            raise ConfigError(f"floor_frames is {self.floor_frames}; expected a power of two from 2 to 65536.")


class NoiseFloorDPCRN(DPCRN):
    """A `DPCRN` with two more inputs: the noise floor at each frequency, and whether it is a given noise profile.

    Without a profile the floor is the minimum of the smoothed power over the last seconds; see
    `denoise.nn.noise_floor.track_noise_floor`.

    Args:
        config: see `NoiseFloorDPCRNConfig`.
    """

    config: NoiseFloorDPCRNConfig

    def __init__(self, config: NoiseFloorDPCRNConfig) -> None:
        super().__init__(config, inputs=5)

    def measure_noise(self, noise: Tensor, *, sample_rate: int) -> Tensor:
        """Return the noise profile of recordings of noise alone: their mean power at each frequency.

        Args:
            noise: (batch, channels, time), full scale 1.0.
            sample_rate: rate of the recordings in Hz.

        Returns:
            Profile, (batch, positions).
        """
        hop = self.hop(sample_rate)
        n = max(1, noise.shape[-1] // hop - 1) * hop  # whole frames, without the padding before the first one
        noise = F.pad(noise, (0, max(0, hop + n - noise.shape[-1])))
        spectrum, _ = stream_stft(noise[..., hop : hop + n].float(), noise[..., :hop].float())
        return self.spectral.to_power(spectrum / hop).mean(dim=1)

    def initial_state(
        self, batch: int, channels: int, sample_rate: int, noise_profile: Tensor | None = None
    ) -> DPCRNState:
        """Return the state before the first sample.

        Args:
            batch: number of signals.
            channels: channels of each signal.
            sample_rate: rate of the signals in Hz.
            noise_profile: as of `measure_noise`, (batch or 1, positions), 0 where it is unknown; None estimates the
                noise floor.

        Raises:
            ConfigError: the profile has another shape.
        """
        zeros, profile = self.zeros(batch, self.config.positions), None
        if noise_profile is not None:
            check_noise_profile(tuple(noise_profile.shape), *zeros.shape)
            profile = noise_profile.to(zeros).expand_as(zeros)
        floor = initial_noise_floor(zeros, self.config.floor_frames, profile)
        return super().initial_state(batch, channels, sample_rate)._replace(floor=floor)

    @property
    def lookahead_hops(self) -> int:
        """Hops whose noise floor the state holds."""
        return self.config.floor_frames

    def renew(self, state: DPCRNState, recent: Tensor | None) -> DPCRNState:
        """Return a state whose recurrences begin anew; see `denoise.protocols.NoiseProfileNetwork`."""
        if recent is None:
            level = RunningMean(*map(torch.zeros_like, state.level))
            return state._replace(features=self.initial_feature_state(), level=level)
        _, begun = self.step(recent, state._replace(features=self.initial_feature_state()))
        return state._replace(features=begun.features)

    def update_noise_floor(self, x: Tensor, state: DPCRNState) -> DPCRNState:
        """Track the noise floor alone; see `denoise.protocols.NoiseProfileNetwork`."""
        assert state.floor is not None  # set by `initial_state`
        spectrum, history = stream_stft(x.float(), state.history)
        _, floor = track_noise_floor(self.spectral.to_power(spectrum / state.hop), state.floor, self.config.hop_s)
        return state._replace(history=history, floor=floor)

    def apply_lookahead(self, state: DPCRNState, ahead: DPCRNState) -> DPCRNState:
        """Lower the noise floor to what follows; see `denoise.protocols.NoiseProfileNetwork`."""
        assert state.floor is not None  # set by `initial_state`
        assert ahead.floor is not None
        recent = lower_to_following(*(each.recent.numpy(force=True) for each in (state.floor, ahead.floor)))
        floor = state.floor._replace(recent=torch.from_numpy(recent).to(state.floor.recent))
        return state._replace(floor=floor)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor | None = None,
        *,
        sample_rate: int = DEFAULT_RATE,
        noise_profile: Tensor | None = None,
    ) -> Tensor:
        """Denoise a whole signal.

        Args:
            x: noisy signal, (batch, channels, time), full scale 1.0.
            sigma: must be None: the noise is given as a profile.
            sample_rate: rate of ``x`` in Hz.
            noise_profile: as in `initial_state`.

        Returns:
            Denoised signal of the shape of ``x``.

        Raises:
            ConfigError: sigma is given.
        """
        check_sigma(sigma, blind=self.blind)
        return self.denoise_from(self.initial_state(x.shape[0], x.shape[1], sample_rate, noise_profile), x, sample_rate)

    def to_inputs(self, spectrum: Tensor, state: DPCRNState) -> tuple[Tensor, RunningMean, NoiseFloorState | None]:
        """Compute the input of the network and the new states of its level and of its noise floor.

        Args:
            spectrum: complex spectrum of the next frames, (batch, channels, frames, bins).
            state: state after the previous frames.
        """
        assert state.floor is not None  # set by `initial_state`
        powers = self.spectral.to_power(spectrum)
        floor, floor_state = track_noise_floor(powers, state.floor, self.config.hop_s)
        features = self.spectral.to_features(spectrum)
        level, level_state = running_level(features[:, 0].mean(dim=-1), state.level, self.config.hop_s)
        profile = torch.zeros_like(powers) if state.floor.profile is None else state.floor.profile[:, None]
        features = torch.cat([features, self.spectral.compress(floor)[:, None]], dim=1) / level[:, None, :, None]
        is_given = (profile > 0).to(features).expand_as(powers)
        return torch.cat([features, is_given[:, None]], dim=1), level_state, floor_state
