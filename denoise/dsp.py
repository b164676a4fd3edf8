"""Small signal processing: decibels, the short-time Fourier transform and its inverse."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def db_to_amplitude(db: float) -> float:
    """Amplitude ratio of ``db`` decibels.

    >>> db_to_amplitude(20.0)
    10.0
    """
    return 10.0 ** (db / 20.0)


def stft(x: Tensor, n_fft: int, hop: int) -> Tensor:
    """Short-time Fourier transform with a square-root Hann window, frames centred on multiples of ``hop``.

    Zeros stand beyond both ends.

    Shape:
        x: (..., time), time a multiple of ``hop``.
        returns: (..., n_fft // 2 + 1, time // hop + 1), complex.
    """
    shape = x.shape[:-1]
    flat = F.pad(x.reshape(-1, x.shape[-1]), (n_fft // 2, n_fft // 2))
    out = torch.stft(flat, n_fft, hop, window=_window(n_fft, x), center=False, return_complex=True)
    return out.reshape(*shape, *out.shape[1:])


def istft(spectrum: Tensor, n_fft: int, hop: int) -> Tensor:
    """The least-squares inverse of `stft`.

    Shape:
        spectrum: (..., n_fft // 2 + 1, frames).
        returns: (..., (frames - 1) * hop).
    """
    shape = spectrum.shape[:-2]
    flat = spectrum.reshape(-1, *spectrum.shape[-2:])
    out = torch.istft(flat, n_fft, hop, window=_window(n_fft, flat.real), center=True)
    return out.reshape(*shape, -1)


def framed(x: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
    """Spectra of the next frames of a stream, two hops long, and the last hop, which the next call wants.

    Shape:
        x: (batch, channels, n * hop); history: (batch, channels, hop), zeros at first.
        returns: (batch, channels, n, hop + 1), complex, and as history.
    """
    hop = history.shape[-1]
    x = torch.cat([history, x], dim=-1)
    return torch.fft.rfft(x.unfold(-1, 2 * hop, hop) * _window(2 * hop, x)), x[..., -hop:]


def joined(spectra: Tensor, overlap: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `framed`, one hop late, and the second half of the last frame.

    Shape:
        spectra: (batch, channels, n, hop + 1); overlap: (batch, channels, hop), zeros at first.
        returns: (batch, channels, n * hop) and as overlap.
    """
    hop = overlap.shape[-1]
    early, late = (torch.fft.irfft(spectra, n=2 * hop) * _window(2 * hop, overlap)).split(hop, dim=-1)
    late = torch.cat([overlap[:, :, None], late], dim=2)
    return (early + late[:, :, :-1]).flatten(2), late[:, :, -1]


def _window(n_fft: int, like: Tensor) -> Tensor:
    return torch.hann_window(n_fft, dtype=like.dtype, device=like.device).sqrt()


def resample(x: Tensor, sample_rate: int, new_rate: int) -> Tensor:
    """Resample without delay (soxr, high quality); the new length is ``ceil(time * new_rate / sample_rate)``.

    Shape:
        x: (channels, time), sample_rate and new_rate in Hz.
        returns: (channels, new time), float32.
    """
    import numpy as np
    import soxr

    if sample_rate == new_rate:
        return x
    n = -(-x.shape[-1] * new_rate // sample_rate)
    y = soxr.resample(np.ascontiguousarray(x.T.numpy()), sample_rate, new_rate).T[:, :n]
    return F.pad(torch.from_numpy(np.ascontiguousarray(y)), (0, n - y.shape[-1]))
