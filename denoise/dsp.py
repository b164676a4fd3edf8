"""Signal processing: decibels, short-time Fourier transforms, compressed spectra, companding, resampling."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from denoise import resampling


def db_to_amplitude(db: float) -> float:
    """Return the amplitude ratio of a level in decibels.

    >>> db_to_amplitude(20.0)
    10.0
    """
    return 10.0 ** (db / 20.0)


def stft(x: Tensor, n_fft: int, hop: int) -> Tensor:
    """Compute a short-time Fourier transform with a square-root Hann window and frames centred on multiples of ``hop``.

    The signal is padded with zeros at both ends.

    Args:
        x: signal, (..., time), time a multiple of ``hop``.
        n_fft: length of a frame in samples.
        hop: distance of two frames in samples.

    Returns:
        Complex spectrum, (..., n_fft // 2 + 1, time // hop + 1).
    """
    shape = x.shape[:-1]
    padded = F.pad(x.reshape(-1, x.shape[-1]), (n_fft // 2, n_fft // 2))
    spectrum = torch.stft(padded, n_fft, hop, window=_window(n_fft, x), center=False, return_complex=True)
    return spectrum.reshape(*shape, *spectrum.shape[1:])


def istft(spectrum: Tensor, n_fft: int, hop: int) -> Tensor:
    """Compute the least-squares inverse of `stft`.

    Args:
        spectrum: complex spectrum, (..., n_fft // 2 + 1, frames).
        n_fft: length of a frame in samples.
        hop: distance of two frames in samples.

    Returns:
        Signal, (..., (frames - 1) * hop).
    """
    shape = spectrum.shape[:-2]
    flat = spectrum.reshape(-1, *spectrum.shape[-2:])
    x = torch.istft(flat, n_fft, hop, window=_window(n_fft, flat.real), center=True)
    return x.reshape(*shape, -1)


def stream_stft(x: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the spectra of the next frames of a stream; a frame is two hops long.

    Args:
        x: next samples, (batch, channels, n * hop).
        history: last hop of the previous call, (batch, channels, hop); zeros at first.

    Returns:
        Complex spectra, (batch, channels, n, hop + 1), and the new history.
    """
    hop = history.shape[-1]
    x = torch.cat([history, x], dim=-1)
    return torch.fft.rfft(x.unfold(-1, 2 * hop, hop) * _window(2 * hop, x)), x[..., -hop:]


def stream_istft(spectra: Tensor, overlap: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the inverse of `stream_stft` by overlap-add, with a delay of one hop.

    Args:
        spectra: complex spectra of the next frames, (batch, channels, n, hop + 1).
        overlap: second half of the last frame of the previous call, (batch, channels, hop); zeros at first.

    Returns:
        Samples, (batch, channels, n * hop), and the new overlap.
    """
    hop = overlap.shape[-1]
    first_half, second_half = (torch.fft.irfft(spectra, n=2 * hop) * _window(2 * hop, overlap)).split(hop, dim=-1)
    second_half = torch.cat([overlap[:, :, None], second_half], dim=2)
    return (first_half + second_half[:, :, :-1]).flatten(2), second_half[:, :, -1]


def power(spectrum: Tensor) -> Tensor:
    """Return the squared magnitudes of a complex spectrum of any shape."""
    return spectrum.real.square() + spectrum.imag.square()


def compress_magnitude(magnitude: Tensor, exponent: float, floor: float) -> Tensor:
    """Compress magnitudes by a power law.

    Args:
        magnitude: values of at least 0, any shape. Powers may be given with half the exponent.
        exponent: exponent of the power law, above 0 and at most 1.
        floor: value added before, in the units of ``magnitude``, so that the gradient at 0 is finite.

    Returns:
        ``(magnitude + floor) ** exponent``.
    """
    return (magnitude + floor) ** exponent


def expand_magnitude(compressed: Tensor, exponent: float) -> Tensor:
    """Invert `compress_magnitude` except for its floor; negative values become 0.

    Args:
        compressed: compressed magnitudes, any shape.
        exponent: exponent of the compression.

    Returns:
        Magnitudes.
    """
    return compressed.clamp_min(0) ** (1 / exponent)


def compress_spectrum(spectrum: Tensor, exponent: float, floor: float) -> Tensor:
    """Raise the magnitudes of a complex spectrum to a power and keep the phases.

    Args:
        spectrum: complex spectrum, any shape.
        exponent: exponent of the magnitudes, above 0.
        floor: value added to the squared magnitudes; far smaller numbers are scaled linearly.

    Returns:
        Complex spectrum of the same shape.

    Reference:
        A Consolidated View of Loss Functions for Supervised Deep Learning-based Speech Enhancement, 2020,
        arXiv:2009.12286.
    """
    return spectrum * compress_magnitude(power(spectrum), (exponent - 1) / 2, floor)


def expand_spectrum(compressed: Tensor, exponent: float, floor: float) -> Tensor:
    """Invert `compress_spectrum` where magnitudes are well above the floor.

    Args:
        compressed: compressed complex spectrum, any shape.
        exponent: exponent of the compression.
        floor: value added to the squared compressed magnitudes.

    Returns:
        Complex spectrum of the same shape.
    """
    return compress_spectrum(compressed, 1 / exponent, floor)


def mu_law_compress(x: Tensor, mu: float = 255.0) -> Tensor:
    """Compress a signal by the mu-law.

    Args:
        x: -1 to 1, any shape.
        mu: parameter of the law.

    Returns:
        -1 to 1, of the same shape.

    Reference:
        Pulse Code Modulation of Voice Frequencies, ITU-T G.711.
    """
    return x.sign() * torch.log1p(mu * x.abs()) / math.log1p(mu)


def mu_law_expand(compressed: Tensor, mu: float = 255.0) -> Tensor:
    """Invert `mu_law_compress`.

    Args:
        compressed: -1 to 1, any shape.
        mu: parameter of the law.

    Returns:
        -1 to 1, of the same shape.
    """
    return compressed.sign() * torch.expm1(compressed.abs() * math.log1p(mu)) / mu


def resample(x: Tensor, sample_rate: int, new_rate: int) -> Tensor:
    """Resample without delay; see `denoise.resampling.resample`.

    Args:
        x: signal, (channels, time).
        sample_rate: its rate in Hz.
        new_rate: rate of the result in Hz.

    Returns:
        Signal in float32, (channels, ceil(time * new_rate / sample_rate)).
    """
    return torch.from_numpy(resampling.resample(x.numpy(), sample_rate, new_rate))


def _window(n_fft: int, like: Tensor) -> Tensor:
    return torch.hann_window(n_fft, dtype=like.dtype, device=like.device).sqrt()
