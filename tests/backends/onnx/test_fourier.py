"""Fourier transforms by matrix products, against PyTorch's in double precision."""

from __future__ import annotations

import pytest
import torch

from denoise.backends.onnx.fourier import RealFourier

LENGTHS = [2, 6, 16, 30, 512, 706, 1412, 1536]  # powers of two, none, and twice a prime number
TOLERANCE = 1e-6  # of the largest value; a sum of 1536 floats has about this error


@pytest.mark.parametrize("n", LENGTHS)
def test_spectra(n: int) -> None:
    x = torch.randn(2, 3, n, generator=torch.Generator().manual_seed(n))
    expected = torch.fft.rfft(x.double())
    spectrum = torch.view_as_complex(RealFourier(n).transform(x).double())
    assert (spectrum - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("n", LENGTHS)
def test_frames_of_spectra_with_any_phase_at_both_ends(n: int) -> None:
    spectrum = torch.randn(2, 3, n // 2 + 1, 2, generator=torch.Generator().manual_seed(n))
    expected = torch.fft.irfft(torch.view_as_complex(spectrum.double()), n=n)
    x = RealFourier(n).inverse(spectrum)
    assert (x - expected).abs().max() <= TOLERANCE * expected.abs().max()
