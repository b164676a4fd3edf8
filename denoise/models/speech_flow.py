"""Flow matching from noisy to clean speech: a posterior sample in a few steps, or about the posterior mean in one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.config import config
from denoise.dsp import istft, stft, stream_istft, stream_stft
from denoise.errors import ConfigError
from denoise.models.dpcrn import DPCRNConfig, RunningMean, SpectralDualPathNet, running_level
from denoise.models.posterior_spectra import (
    PowerSums,
    channel_gains,
    compress,
    estimate_noise_power,
    expand,
    rejection_weight,
)
from denoise.nn.dual_path import DualPathState, delay_frames
from denoise.nn.streaming import DEFAULT_RATE, StreamingMixin
from denoise.noise import noise_field
from denoise.protocols import PosteriorDiagnostics

RHO = 7  # exponent of equally spaced times: most steps are taken where little noise remains
MEAN_FRACTION = 0.3  # of the training examples, at t = 1 and without noise: they train the posterior mean alone


@config
class SpeechFlowConfig(DPCRNConfig):
    """Configuration of `SpeechFlow`: that of `DPCRN`, and the noise of the paths.

    Args:
        noise: standard deviation of the noise at t = 1, for a compressed spectrum of unit mean magnitude.
    """

    noise: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.noise <= 100:
            raise ConfigError(f"noise is {self.noise:g}; expected more than 0, at most 100.")


class PathStepState(NamedTuple):
    """State of one step of a path: buffers that wait for the network, and the state of the network.

    Point and noisy spectrum are (batch, channels, frames, bins), the level (batch, 1, frames, 1).
    """

    point: Tensor | None
    noisy: Tensor | None
    level: Tensor | None
    features: DualPathState


@dataclass(frozen=True)
class SpeechFlowState:
    """State of a `SpeechFlowSampler` between two blocks of a stream."""

    hop: int
    history: Tensor  # last hop of the input, (batch, channels, hop)
    overlap: Tensor  # second half of the last output frame, (batch, channels, hop)
    level: RunningMean
    frame: int  # frames so far
    path: tuple[PathStepState, ...]  # steps to the sample, or to the mean if there is no sample
    mean_path: tuple[PathStepState, ...]  # step to the mean beside a sample
    pending_mean: Tensor | None  # means of frames whose sample is not complete
    sums: PowerSums


class SpeechFlow(SpectralDualPathNet):
    """Straight paths between compressed spectra of clean speech and of noisy speech with noise added.

    At a point x_t = (1 - t) * clean + t * (noisy + noise * eps) the network predicts the clean end of the path,
    D(x_t, noisy, t): a mix of the noisy spectrum under a mask, as that of `DPCRN`, and the point itself. One step from
    t = 1 without noise gives about the posterior mean. `posterior_sampler` starts with noise and takes several steps.
    Each step is a call of the network with a state of its own and with look-ahead, so samples can be streamed, with a
    latency that grows with each step. All channels share the mask, and their noise is scaled by their level, which
    keeps the stereo image.

    Args:
        config: see `SpeechFlowConfig`.

    Reference:
        FlowSE: Efficient and High-Quality Speech Enhancement via Flow Matching, 2025, arXiv:2505.19476 (the paths);
        Investigating Training Objectives for Generative Speech Enhancement, 2024, arXiv:2409.10753 (data prediction);
        Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364 (the times of steps).
    """

    config: SpeechFlowConfig

    def __init__(self, config: SpeechFlowConfig) -> None:
        super().__init__(config, 7, 4)

    def initial_state(self, batch: int, channels: int, sample_rate: int) -> SpeechFlowState:
        """Return the state before the first sample.

        Args:
            batch: number of signals.
            channels: channels of each signal.
            sample_rate: rate of the signals in Hz.
        """
        return SpeechFlowSampler(self).initial_state(batch, channels, sample_rate)

    def step(self, x: Tensor, state: SpeechFlowState) -> tuple[Tensor, SpeechFlowState]:
        """Estimate the posterior mean of the next hops.

        Args:
            x: next samples, (batch, channels, n * hop).
            state: state after the previous samples; it is not modified.

        Returns:
            Denoised samples of the shape of ``x``, ``delay`` hops late, and the new state.
        """
        return SpeechFlowSampler(self).step(x, state)

    def posterior_sampler(self, seed: int, steps: int, perception: float = 1.0) -> SpeechFlowSampler:
        """Return a streaming network that mixes posterior mean and posterior sample; NFE: ``steps`` + 1.

        Args:
            seed: seed of the noise at the start of the path.
            steps: steps from noise to the sample, at least 1.
            perception: weight of the sample, from 0 (mean) to 1 (sample).

        Raises:
            ConfigError: there are no steps.
        """
        return SpeechFlowSampler(self, steps, seed, perception)

    def training_pair(self, noisy: Tensor, clean: Tensor, *, sample_rate: int = DEFAULT_RATE) -> tuple[Tensor, Tensor]:
        """Estimate the clean signals from a random point on each path between them and the noisy ones.

        Args:
            noisy: noisy signals, (batch, channels, time).
            clean: clean signals of the same shape.
            sample_rate: their rate in Hz.

        Returns:
            Estimates of the shape of ``clean``, and the fraction of the noise at each point, (batch,): t, or 0 for the
            examples that train the posterior mean.
        """
        hop, time, c = self.hop(sample_rate), noisy.shape[-1], self.config
        noisy_spectrum, clean_spectrum = (
            stft(F.pad(z.float(), (0, -time % hop)), 2 * hop, hop).transpose(2, 3) / hop for z in (noisy, clean)
        )
        level, _ = self.running_level(noisy_spectrum, RunningMean(noisy.new_zeros(len(noisy)), noisy.new_zeros(())))
        start, end = (compress(z, c.compression) / level for z in (noisy_spectrum, clean_spectrum))
        t, choice = (torch.rand(len(noisy), 1, 1, 1, device=noisy.device) for _ in range(2))
        is_mean = choice < MEAN_FRACTION
        t, noise_fraction = torch.where(is_mean, 1.0, t), torch.where(is_mean, 0.0, t)
        eps = torch.view_as_complex(torch.randn(*start.shape, 2, device=noisy.device))
        point = end + t * (start - end) + noise_fraction * c.noise * eps
        point, start = (F.pad(z, (0, 0, 0, self.feature_delay)) for z in (point, start))
        output, _ = self.forward_features(self.to_features(point, start, t), self.initial_feature_state())
        frames = point.shape[2] - self.feature_delay
        estimate = self.predict_clean(output[:, :, self.feature_delay :], point[:, :, :frames], start[:, :, :frames])
        spectrum = expand(estimate * level, c.compression) * hop
        signal = istft(spectrum.transpose(2, 3), 2 * hop, hop)[..., :time]
        return signal.to(noisy.dtype), noise_fraction[:, 0, 0, 0]

    def to_features(self, point: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """Compute the input features of the network.

        Args:
            point: compressed spectrum at the point of the path, (batch, channels, frames, bins).
            noisy: compressed noisy spectrum, the same shape.
            t: time of the point, (batch, 1, 1, 1).

        Returns:
            Features, (batch, 7, frames, positions).
        """
        c = self.config
        spectra = [self.spectral.to_features(expand(z, c.compression)) for z in (noisy, point)]
        return torch.cat([*spectra, t.expand(-1, 1, point.shape[2], c.positions)], dim=1)

    def predict_clean(self, output: Tensor, point: Tensor, noisy: Tensor) -> Tensor:
        """Convert the output of the network to an estimate of the clean end of the path.

        Args:
            output: output of the network, (batch, 4, frames, positions).
            point: compressed spectrum at the point of the path, (batch, channels, frames, bins).
            noisy: compressed noisy spectrum, the same shape.

        Returns:
            Compressed spectrum of the same shape.
        """
        c, bins = self.config, noisy.shape[-1]
        mask = compress(self.spectral.to_mask(output.float(), bins), c.compression)
        point_weight = self.spectral.to_bins(torch.sigmoid(output[:, 3].float() - 4), bins)[:, None]
        return (1 - point_weight) * mask[:, None] * noisy + point_weight * point

    def running_level(self, spectrum: Tensor, state: RunningMean) -> tuple[Tensor, RunningMean]:
        """Compute the running mean of the compressed magnitudes.

        Args:
            spectrum: noisy spectrum, (batch, channels, frames, bins).
            state: state after the previous frames.

        Returns:
            Level, (batch, 1, frames, 1), and the new state.
        """
        magnitude = self.spectral.to_features(spectrum)[:, 0]
        level, state = running_level(magnitude.mean(dim=-1), state, self.config.hop_s)
        return level[:, None, :, None], state


class SpeechFlowSampler(StreamingMixin, nn.Module):
    """Posterior sampler over a `SpeechFlow`: a streaming network that mixes the posterior mean and one sample.

    The sample is replaced by the mean where it is rejected; see `rejection_weight`.

    Args:
        flow: network that predicts the clean end of a path.
        steps: steps from noise to the sample, at least 1.
        seed: seed of the noise at the start of the path; None computes the posterior mean alone, without noise.
        perception: weight of the sample, from 0 (mean) to 1 (sample).

    Raises:
        ConfigError: there are no steps.

    Reference:
        A Theory of the Distortion-Perception Tradeoff in Wasserstein Space, 2021, arXiv:2107.02555 (mixing, there
        with the estimator of least error that has natural statistics, which a posterior sample is not).
    """

    def __init__(self, flow: SpeechFlow, steps: int = 1, seed: int | None = None, perception: float = 1.0) -> None:
        super().__init__()
        if steps < 1:
            raise ConfigError(f"steps is {steps}; expected at least 1.")
        self.flow, self.steps, self.seed, self.perception = flow, steps, seed, perception
        self.config = flow.config
        self.delay = 1 + steps * flow.feature_delay

    def initial_state(self, batch: int, channels: int, sample_rate: int) -> SpeechFlowState:
        """Return the state before the first sample.

        Args:
            batch: number of signals.
            channels: channels of each signal.
            sample_rate: rate of the signals in Hz.
        """
        hop = self.hop(sample_rate)
        silence = self.flow.zeros(batch, channels, hop)
        path_step = PathStepState(None, None, None, self.flow.initial_feature_state())
        return SpeechFlowState(
            hop=hop,
            history=silence,
            overlap=silence,
            level=self.flow.initial_level(batch),
            frame=0,
            path=(path_step,) * self.steps,
            mean_path=() if self.seed is None else (path_step,),
            pending_mean=None,
            sums=PowerSums(),
        )

    def step(self, x: Tensor, state: SpeechFlowState) -> tuple[Tensor, SpeechFlowState]:
        """Denoise the next hops of a stream.

        Args:
            x: next samples, (batch, channels, n * hop).
            state: state after the previous samples; it is not modified.

        Returns:
            Denoised samples of the shape of ``x``, ``delay`` hops late, and the new state.
        """
        hop, c = state.hop, self.config
        spectrum, history = stream_stft(x.float(), state.history)
        spectrum = spectrum / hop
        level, level_state = self.flow.running_level(spectrum, state.level)
        noisy = compress(spectrum, c.compression) / level
        new_state = replace(state, history=history, level=level_state, frame=state.frame + noisy.shape[2])
        start = noisy if self.seed is None else noisy + c.noise * channel_gains(noisy) * self._noise(state, noisy)
        end, delayed_noisy, delayed_level, path = self._integrate(start, noisy, level, state.path)
        output = expand(end * delayed_level, c.compression)
        if self.seed is not None:
            mean, _, _, mean_path = self._integrate(noisy, noisy, level, state.mean_path)
            mean, pending_mean = delay_frames(mean, state.pending_mean, (self.steps - 1) * self.flow.feature_delay)
            mean, delayed_noisy = (expand(z * delayed_level, c.compression) for z in (mean, delayed_noisy))
            noise = estimate_noise_power(delayed_noisy, mean)
            rejection, change = rejection_weight(noise, output, mean), output - mean
            output = mean + self.perception * (1 - rejection) * change
            sums = state.sums + PowerSums.of(delayed_noisy, output, noise, change, rejection)
            new_state = replace(new_state, mean_path=mean_path, pending_mean=pending_mean, sums=sums)
        y, overlap = stream_istft(output * hop, state.overlap)
        return y.to(x.dtype), replace(new_state, overlap=overlap, path=path)

    def diagnostics(self, state: SpeechFlowState) -> PosteriorDiagnostics:
        """Compare what has been removed so far with the estimated noise; see `PosteriorDiagnostics`.

        Args:
            state: state after the last samples.
        """
        sums = state.sums
        return PosteriorDiagnostics(
            residual_by_sigma=(sums.removed / max(sums.noise, 1e-20)) ** 0.5,
            residual_correlation=sums.cross / max((sums.removed * sums.output) ** 0.5, 1e-20),
            rejected_fraction=sums.rejected / max(sums.change, 1e-20),
        )

    def _integrate(
        self, point: Tensor, noisy: Tensor, level: Tensor, states: tuple[PathStepState, ...]
    ) -> tuple[Tensor, Tensor, Tensor, tuple[PathStepState, ...]]:
        """Take all steps of a path; return its end, noisy spectrum and level of the same frames, and the new states."""
        lag, new_states = self.flow.feature_delay, []
        times = [(n / len(states)) ** RHO for n in range(len(states), -1, -1)]
        for state, (time, next_time) in zip(states, pairwise(times), strict=True):
            t = torch.full((len(noisy), 1, 1, 1), time, dtype=torch.float32, device=noisy.device)
            output, features = self.flow.forward_features(self.flow.to_features(point, noisy, t), state.features)
            point, point_buffer = delay_frames(point, state.point, lag)
            noisy, noisy_buffer = delay_frames(noisy, state.noisy, lag)
            level, level_buffer = delay_frames(level, state.level, lag)
            clean = self.flow.predict_clean(output, point, noisy)
            point = clean + next_time / time * (point - clean)
            new_states.append(PathStepState(point_buffer, noisy_buffer, level_buffer, features))
        return point, noisy, level, tuple(new_states)

    def _noise(self, state: SpeechFlowState, like: Tensor) -> Tensor:
        """Return complex noise, (frames, bins), the same for all channels."""
        assert self.seed is not None
        frames, bins = like.shape[2:]
        field = noise_field(self.seed, 0, 2 * bins, (state.frame,), (frames,)).reshape(2, bins, frames)
        return torch.complex(field[0], field[1]).T.to(like)
