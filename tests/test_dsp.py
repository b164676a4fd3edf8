import math

import numpy as np
import pytest
import scipy.signal
import torch

from denoise import dsp


@pytest.mark.parametrize(("n_fft", "hop"), [(512, 128), (512, 256), (256, 64), (1024, 256)])
def test_istft_inverts_stft(n_fft: int, hop: int) -> None:
    x = torch.randn(2, 3, 20 * hop, dtype=torch.float64)
    torch.testing.assert_close(dsp.istft(dsp.stft(x, n_fft, hop), n_fft, hop), x, rtol=0, atol=1e-10)


def test_stft_is_scipys() -> None:
    n_fft, hop = 256, 64
    x = torch.randn(10 * hop, dtype=torch.float64)
    window = np.sqrt(scipy.signal.get_window("hann", n_fft))
    transform = scipy.signal.ShortTimeFFT(window, hop, fs=1.0, phase_shift=None)
    expected = transform.stft(x.numpy(), p0=0, p1=11)
    np.testing.assert_allclose(dsp.stft(x, n_fft, hop).numpy(), expected, atol=1e-10)


@pytest.mark.parametrize(
    "rates", [(48_000, 16_000), (16_000, 48_000), (44_100, 16_000), (8_000, 16_000), (44_101, 16_000)]
)
def test_resampling_keeps_a_sine_in_place(rates: tuple[int, int]) -> None:
    before, after = rates
    n = before // 2
    x = torch.sin(2 * math.pi * 440 * torch.arange(n, dtype=torch.float64) / before).float()
    y = dsp.resample(x[None], before, after)[0]
    assert len(y) == math.ceil(n * after / before)
    expected = torch.sin(2 * math.pi * 440 * torch.arange(len(y), dtype=torch.float64) / after).float()
    middle = slice(after // 20, -after // 20)
    assert float((y - expected)[middle].abs().max()) < 2e-3


@pytest.mark.parametrize("db", [-60.0, 0.0, 6.0])
def test_decibels_return(db: float) -> None:
    assert dsp.amplitude_to_db(dsp.db_to_amplitude(db)) == pytest.approx(db)
