"""A denoising prior of audio of one length, on recordings of any length: denoiser and sampler."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from denoise.backends.device import as_numpy, pick_device
from denoise.errors import ConfigError
from denoise.frames import Grid, overlap_add, split
from denoise.noise import noise_field
from denoise.probability_path import karras_sigmas
from denoise.protocols import DenoisingPrior, Device
from denoise.registry import load
from denoise.sampling.operators import Operator
from denoise.sampling.posterior import diffpir

SIGMA_END = 0.02  # of the sampler, relative to the rms of signals
MIN_SIGMA = 0.002  # of a measurement, likewise
LEVEL_STEPS = 2  # levels of signals are told apart by halves of 6 dB
SILENCE = 1e-5  # rms


class WindowedPrior:
    """A denoising prior of mono audio that denoises and samples recordings of any length.

    Each call averages overlapping windows of the length of the prior, so that the steps of a sampler agree on one
    signal. The windows start at fixed places of a recording, and its noise depends on the place alone: two overlapping
    sections of it are restored alike.

    Args:
        prior: name of a bundled prior, or path of a weights file.
        device: ``"auto"``, or a device of torch.

    Attributes:
        sample_rate: rate of the prior in Hz.
        hop: sections of a recording start at multiples of it, in samples.

    Raises:
        ConfigError: there is no such prior, or it has no denoiser of mono audio.
        WeightsError: the file is damaged.

    Reference:
        MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation, 2023, arXiv:2302.08113.
    """

    def __init__(self, prior: str | Path, *, device: Device = "auto") -> None:
        module, self.card = load(prior, kind="prior", modality="audio")
        if not isinstance(module, DenoisingPrior) or len(module.event_shape) != 2 or module.event_shape[0] != 1:
            raise ConfigError(
                f"prior {prior} is no denoiser of mono waveforms: it has no D(x, sigma). Use speech-prior."
            )
        assert self.card.sample_rate is not None
        self.device, self.sample_rate = pick_device(device), self.card.sample_rate
        self._prior = module.to(self.device)  # type: ignore[attr-defined]
        self.level, self._length = module.data_std, module.event_shape[1]
        self._fade = self._length // 4
        self.hop = self._length - self._fade

    @torch.no_grad()
    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[clean | x] for signals with white noise of sigma, (batch,); x and the result (batch, 1, time)."""
        time = x.shape[-1]
        padded = x[..., _mirrored(time, self._fade, -time % self.hop)]  # zeros would not be a signal with noise
        grid = Grid(self._length, 0, self._fade)
        windows = [
            window.map(as_numpy(self._prior(torch.from_numpy(window.data).to(self.device), sigma.to(self.device))))
            for window in split([padded.numpy()], grid)
        ]
        denoised = np.concatenate([*overlap_add(windows, grid)], axis=-1)
        return torch.from_numpy(denoised[..., self._fade : self._fade + time])

    def normalise(self, x: Tensor) -> float:
        """Return the factor that brings a signal to the level of the prior, in steps of 3 dB.

        The steps let neighbouring sections have the same factor.

        Args:
            x: signal of any shape.
        """
        rms = max(float(x.square().mean().sqrt()), SILENCE)
        octaves = float(torch.tensor(rms, dtype=torch.float32).log2())
        return self.level / 2 ** (round(LEVEL_STEPS * octaves) / LEVEL_STEPS)

    def sample(
        self,
        start: Tensor,
        y: Tensor,
        operator: Operator,
        *,
        sigma: float,
        sigma_y: float,
        steps: int,
        seed: int,
        at: int,
        sigma_end: float = SIGMA_END,
        zeta: float = 1.0,
    ) -> Tensor:
        """Sample signals that agree with a measurement, by DiffPIR.

        Args:
            start: signals to begin with, (batch, 1, time), at the level of the prior.
            y: measurement of signals of this shape.
            operator: measurement operator.
            sigma: noise that is added to the start, relative to the level of the prior.
            sigma_y: standard deviation of the noise of the measurement.
            steps: steps of the sampler.
            seed: seed of the noise.
            at: place of the first sample in the recording, a multiple of `hop`.
            sigma_end: lowest noise level, relative to the level of the prior.
            zeta: fraction of the noise that each step draws anew; what is not observed fades less if it is below 1.
        """
        sigmas = self.level * karras_sigmas(steps, sigma_end, sigma)

        def noise(step: int) -> Tensor:
            return noise_field(seed, step, len(start), (at,), (start.shape[-1],))[:, None]

        noisy = start + sigmas[0] * noise(steps)
        return diffpir(self, y, operator, sigma_y, sigmas, start=noisy, zeta=zeta, noise=noise)


def _mirrored(time: int, before: int, after: int) -> Tensor:
    """Return the indices of a signal that is continued by its mirror images, (before + time + after,)."""
    period = max(1, 2 * (time - 1))
    index = torch.arange(-before, time + after).abs() % period
    return torch.where(index >= time, period - index, index)
