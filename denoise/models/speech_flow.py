"""Flow matching from noisy speech to clean: one likely answer in a few steps, or about their mean in one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.config import config
from denoise.dsp import framed, istft, joined, stft
from denoise.errors import ConfigError
from denoise.models.dpcrn import DPCRNConfig, heard, mask_of, over_bins, running_level
from denoise.nn.dual_path import DualPathNet, delayed
from denoise.nn.streaming import DEFAULT_RATE, Streaming
from denoise.noise import noise_field

SILENCE = 1e-10  # magnitudes far below it are not compressed
BAND = 17  # bins, half a kilohertz
LIMITS = (2.0, 4.0)  # power of draw less mean, by the noise's: doubted from the first, refused from the second
RHO = 7  # times of steps are those of equal steps to this power: most of them where little noise is left
OF_THE_MEAN = 0.3  # share of the examples in training that learn the mean alone: without noise, from the noisy end


@config
class SpeechFlowConfig(DPCRNConfig):
    """As that of `DPCRN`; ``noise`` is added to the noisy spectrum, of unit mean, where a draw begins."""

    noise: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.noise <= 100:
            raise ConfigError(f"noise is {self.noise:g}; expected more than 0, at most 100.")


Kept = tuple[tuple[tuple[Tensor | None, ...], tuple[Tensor | None, ...]], ...]
"""For each step of a path: point, noisy spectrum and level, which wait for the network, and the network's memories."""


@dataclass(frozen=True)
class SpeechFlowState:
    """What a stream carries from block to block: as `DPCRNState`, and what the steps to a draw and to the mean keep."""

    hop: int
    history: Tensor  # (batch, channels, hop)
    overlap: Tensor  # (batch, channels, hop)
    level: tuple[Tensor, Tensor]
    frame: int
    path: Kept  # of the draw, or of the mean if that is all there is
    mean: Kept  # beside a draw
    waiting: Tensor | None  # means of frames whose draw is not known yet
    sums: Tensor  # (6,): what `Drawn.judged` wants, on the CPU


class SpeechFlow(Streaming, DualPathNet):
    """Straight paths between the compressed spectra of clean speech and of noisy speech with noise added.

    At a point x_t = (1 - t) clean + t (noisy + noise * eps) of a path the network says where it began, D(x_t, noisy,
    t): between the noisy spectrum under a mask, as that of `DPCRN`, and the point itself. From t = 1, without noise,
    one step gives about the mean of all answers; `drawn` begins with its own noise and takes more. Each step is a
    network of its own memories that hears ahead, so draws are streamed as the mean is, but later with each step.
    All channels share mask, share and noise, each as loud as it is, so that the stereo image stays.

    Shape:
        x, returns: (batch, channels, time) at ``sample_rate`` Hz, full scale 1.0; sigma is refused.
    Reference:
        FlowSE: Efficient and High-Quality Speech Enhancement via Flow Matching, 2025, arXiv:2505.19476 (the paths);
        Investigating Training Objectives for Generative Speech Enhancement, 2024, arXiv:2409.10753 (data prediction);
        Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364 (the times of steps).
    """

    variational = True

    def __init__(self, config: SpeechFlowConfig) -> None:
        super().__init__(7, 4, **config.net())
        self.config = config
        self.delay = 1 + self.late

    def start(self, batch: int, channels: int, sample_rate: int) -> SpeechFlowState:
        """The state before the first sample."""
        return Drawn(self).start(batch, channels, sample_rate)

    def stream(self, x: Tensor, state: SpeechFlowState) -> tuple[Tensor, SpeechFlowState]:
        """The next hops of the mean; what comes out is ``delay`` hops late. Shape: (batch, channels, n * hop)."""
        return Drawn(self).stream(x, state)

    def drawn(self, seed: int, steps: int, perception: float = 1.0) -> Drawn:
        """The network that goes by ``perception`` from the mean to a drawn answer. NFE: steps, and one for the mean."""
        return Drawn(self, steps, seed, perception)

    def on_the_way(self, noisy: Tensor, clean: Tensor, *, sample_rate: int = DEFAULT_RATE) -> tuple[Tensor, Tensor]:
        """Where a drawn point of each path seems to begin, as sound, and how much of the noise added was there, 0 to 1.

        Shape:
            noisy, clean: (batch, channels, time), as the first that it returns; the second is (batch,).
        """
        hop, time, c = self.hop(sample_rate), noisy.shape[-1], self.config
        spectra = (stft(F.pad(z.float(), (0, -time % hop)), 2 * hop, hop).transpose(2, 3) / hop for z in (noisy, clean))
        heard_there, heard_here = spectra
        level, _ = self.level(heard_there, (noisy.new_zeros(len(noisy)), noisy.new_zeros(())))
        there, here = (compressed(z, c.compression) / level for z in (heard_there, heard_here))
        t, which = (torch.rand(len(noisy), 1, 1, 1, device=noisy.device) for _ in range(2))
        of_the_mean = which < OF_THE_MEAN
        t, added = torch.where(of_the_mean, 1.0, t), torch.where(of_the_mean, 0.0, t)
        eps = torch.view_as_complex(torch.randn(*there.shape, 2, device=noisy.device))
        at = here + t * (there - here) + added * c.noise * eps
        at, there = (F.pad(z, (0, 0, 0, self.late)) for z in (at, there))
        out, _ = self.body(self.features(at, there, t), self.memories())
        frames = at.shape[2] - self.late
        beginning = self.answer(out[:, :, self.late :], at[:, :, :frames], there[:, :, :frames])
        spectrum = expanded(beginning * level, c.compression) * hop
        return istft(spectrum.transpose(2, 3), 2 * hop, hop)[..., :time].to(noisy.dtype), added[:, 0, 0, 0]

    def features(self, at: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """Shape: (batch, channels, frames, bins), complex, and t (batch, 1, 1, 1) to (batch, 7, frames, positions)."""
        c = self.config
        both = [heard(expanded(z, c.compression), c) for z in (noisy, at)]
        return torch.cat([*both, t.expand(-1, 1, at.shape[2], c.positions)], dim=1)

    def answer(self, out: Tensor, at: Tensor, noisy: Tensor) -> Tensor:
        """Shape: out (batch, 4, frames, positions); at, noisy, returns (batch, channels, frames, bins)."""
        c, bins = self.config, noisy.shape[-1]
        mask = compressed(mask_of(out.float(), c, bins), c.compression)
        share = over_bins(torch.sigmoid(out[:, 3].float() - 4), c, bins)[:, None]
        return (1 - share) * mask[:, None] * noisy + share * at

    def level(self, spectrum: Tensor, before: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The running level of the noisy spectrum, (batch, 1, frames, 1), and what it remembers."""
        c = self.config
        level, after = running_level(heard(spectrum, c)[:, 0].mean(dim=-1), before, c.hop_s)
        return level[:, None, :, None], after


class Drawn(Streaming, nn.Module):
    """A `SpeechFlow` in so many steps, from a noise of its own, or (``seed`` None) from none: the mean of all answers.

    ``perception`` goes from the mean of all answers (0) to the drawn one (1), which gives way to the mean where it is
    `doubted`. It has what a `StreamingNetwork` has.

    Reference:
        A Theory of the Distortion-Perception Tradeoff in Wasserstein Space, 2021, arXiv:2107.02555 (mixing).
    """

    def __init__(self, flow: SpeechFlow, steps: int = 1, seed: int | None = None, perception: float = 1.0) -> None:
        super().__init__()
        if steps < 1:
            raise ConfigError(f"steps is {steps}; expected at least 1.")
        self.flow, self.steps, self.seed, self.perception = flow, steps, seed, perception
        self.config = flow.config
        self.delay = 1 + steps * flow.late

    def start(self, batch: int, channels: int, sample_rate: int) -> SpeechFlowState:
        """The state before the first sample."""
        hop, like = self.hop(sample_rate), self.flow.stem.weight.detach()
        silence = like.new_zeros(batch, channels, hop, dtype=torch.float32)
        level = (like.new_zeros(batch, dtype=torch.float32), like.new_zeros((), dtype=torch.float32))
        step = ((None, None, None), self.flow.memories())
        mean = () if self.seed is None else (step,)
        sums = torch.zeros(6, dtype=torch.float64)
        return SpeechFlowState(hop, silence, silence, level, 0, (step,) * self.steps, mean, None, sums)

    def stream(self, x: Tensor, state: SpeechFlowState) -> tuple[Tensor, SpeechFlowState]:
        """The next hops; what comes out is ``delay`` hops late. Shape: (batch, channels, n * hop)."""
        hop, c = state.hop, self.config
        spectrum, history = framed(x.float(), state.history)
        spectrum = spectrum / hop
        level, carried = self.flow.level(spectrum, state.level)
        noisy = compressed(spectrum, c.compression) / level
        after = replace(state, history=history, level=carried, frame=state.frame + noisy.shape[2])
        start = noisy if self.seed is None else noisy + self.config.noise * balance(noisy) * self._noise(state, noisy)
        drawn, noisy_then, level_then, path = self._integrated(start, noisy, level, state.path)
        answer = expanded(drawn * level_then, c.compression)
        if self.seed is not None:
            mean, *_, mean_kept = self._integrated(noisy, noisy, level, state.mean)
            mean, waiting = delayed(mean, state.waiting, (self.steps - 1) * self.flow.late)
            mean, heard_then = (expanded(z * level_then, c.compression) for z in (mean, noisy_then))
            noise = noise_of(heard_then, mean)
            doubt, change = doubted(noise, answer, mean), answer - mean
            answer = mean + self.perception * (1 - doubt) * change
            sums = state.sums + sums_of(heard_then, answer, noise, change, doubt)
            after = replace(after, mean=mean_kept, waiting=waiting, sums=sums)
        y, overlap = joined(answer * hop, state.overlap)
        return y.to(x.dtype), replace(after, overlap=overlap, path=path)

    def judged(self, state: SpeechFlowState) -> tuple[float, float, float]:
        """Of all so far: the rms of what was taken away by that of the noise (1 if all of it is noise), its correlation
        with what is left (0 then), and the share of the draw's change, in power, that was doubted.
        """
        away, noise, shared, left, doubt, change = state.sums.tolist()
        correlation = shared / max((away * left) ** 0.5, 1e-20)
        return (away / max(noise, 1e-20)) ** 0.5, correlation, doubt / max(change, 1e-20)

    def _integrated(self, at: Tensor, noisy: Tensor, level: Tensor, kept: Kept) -> tuple[Tensor, Tensor, Tensor, Kept]:
        """All steps of a path from ``at``: where it begins, noisy spectrum and level of that time, and what is kept."""
        after, times = [], [(n / len(kept)) ** RHO for n in range(len(kept), -1, -1)]
        for (waiting, memories), (now, then) in zip(kept, pairwise(times), strict=True):
            t = torch.full((len(noisy), 1, 1, 1), now, device=noisy.device)
            out, memories = self.flow.body(self.flow.features(at, noisy, t), memories)
            pairs = zip((at, noisy, level), waiting, strict=True)
            (at, noisy, level), waiting = zip(*(delayed(z, old, self.flow.late) for z, old in pairs), strict=True)
            beginning = self.flow.answer(out, at, noisy)
            at = beginning + then / now * (at - beginning)
            after.append((waiting, memories))
        return at, noisy, level, tuple(after)

    def _noise(self, state: SpeechFlowState, like: Tensor) -> Tensor:
        """The same for all channels. Shape: (frames, bins), complex."""
        assert self.seed is not None
        frames, bins = like.shape[2:]
        field = noise_field(self.seed, 0, 2 * bins, (state.frame,), (frames,)).reshape(2, bins, frames)
        return torch.complex(field[0], field[1]).T.to(like)


def noise_of(noisy: Tensor, mean: Tensor) -> Tensor:
    """The power of the noise, given the mean of all answers, in bands of ``BAND`` bins.

    The mean takes away the share n / (s + n) of what is heard, where the power s is signal and n noise. What is taken
    away has the power n^2 / (s + n), then, and what is heard s + n: n is their geometric mean.

    Shape:
        all: (batch, channels, frames, bins).
    """
    return (_banded(noisy - mean) * _banded(noisy)).sqrt()


def doubted(noise: Tensor, drawn: Tensor, mean: Tensor) -> Tensor:
    """How far to go from a drawn answer back to the mean: where they differ by more than there is noise.

    What is uncertain of a signal is no more than its noise. A draw that differs more has put something in place of
    what was heard.

    Shape:
        all: (batch, channels, frames, bins); ``noise`` as `noise_of` gives it; returns 0 to 1.
    """
    excess = _banded(drawn - mean) / (noise + SILENCE**2)
    return ((excess - LIMITS[0]) / (LIMITS[1] - LIMITS[0])).clamp(0, 1)


def balance(z: Tensor) -> Tensor:
    """How loud each channel is by the rms of all, in bands. Shape: (batch, channels, frames, bins), kept."""
    loud = _banded(z) + SILENCE**2
    return (loud / loud.mean(dim=1, keepdim=True)).sqrt()


def _banded(z: Tensor) -> Tensor:
    """Power, the mean of neighbouring bins. Shape: (batch, channels, frames, bins), kept."""
    return F.avg_pool1d(power(z).flatten(0, 1), BAND, 1, BAND // 2, count_include_pad=False).reshape(z.shape)


def sums_of(noisy: Tensor, answer: Tensor, noise: Tensor, change: Tensor, doubt: Tensor) -> Tensor:
    """Of power: taken away, the noise's, common to that and the answer, the answer's, doubted of the change, all of it.

    Shape:
        all: (batch, channels, frames, bins); returns (6,), float64, on the CPU: others may have no such numbers.
    """
    away, changed = noisy - answer, power(change)
    common = away.real * answer.real + away.imag * answer.imag
    sums = [z.sum() for z in (power(away), noise, common, power(answer), doubt * changed, changed)]
    return torch.stack(sums).cpu().double()


def power(z: Tensor) -> Tensor:
    """Squared magnitudes. Shape: any, kept."""
    return z.real.square() + z.imag.square()


def compressed(z: Tensor, exponent: float) -> Tensor:
    """Of each complex number the magnitude raised to ``exponent``. Shape: any, kept."""
    return z * (power(z) + SILENCE**2) ** ((exponent - 1) / 2)


def expanded(z: Tensor, exponent: float) -> Tensor:
    """The inverse of `compressed`, but for near silence. Shape: any, kept."""
    return z * (power(z) + SILENCE**2) ** ((1 / exponent - 1) / 2)
