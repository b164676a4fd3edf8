"""Signal processing against oracles: SciPy's transform, exact inverses, pure tones and clicks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denoise import dsp


@pytest.mark.parametrize(("n_fft", "hop"), [(512, 128), (512, 256), (256, 64), (1024, 256)])
def test_istft_inverts_stft(n_fft: int, hop: int) -> None:
    x = torch.randn(2, 3, 20 * hop, dtype=torch.float64)
    torch.testing.assert_close(dsp.istft(dsp.stft(x, n_fft, hop), n_fft, hop), x, rtol=0, atol=1e-10)


def test_stft_equals_that_of_scipy() -> None:
    n_fft, hop = 256, 64
    x = torch.randn(10 * hop, dtype=torch.float64)
    window = np.sqrt(scipy.signal.get_window("hann", n_fft))
    transform = scipy.signal.ShortTimeFFT(window, hop, fs=1.0, phase_shift=None)
    expected = transform.stft(x.numpy(), p0=0, p1=11)
    np.testing.assert_allclose(dsp.stft(x, n_fft, hop).numpy(), expected, atol=1e-10)


@pytest.mark.parametrize(
    "rates", [(48_000, 16_000), (16_000, 48_000), (44_100, 16_000), (8_000, 16_000), (44_101, 16_000)]
)
def test_resampling_keeps_the_phase_of_a_sine(rates: tuple[int, int]) -> None:
    rate, new_rate = rates
    n = rate // 2
    x = torch.sin(2 * math.pi * 440 * torch.arange(n, dtype=torch.float64) / rate).float()
    y = dsp.resample(x[None], rate, new_rate)[0]
    assert len(y) == math.ceil(n * new_rate / rate)
    expected = torch.sin(2 * math.pi * 440 * torch.arange(len(y), dtype=torch.float64) / new_rate).float()
    middle = slice(new_rate // 20, -new_rate // 20)
    assert float((y - expected)[middle].abs().max()) < 2e-3


@pytest.mark.parametrize("db", [-60.0, 0.0, 6.0])
def test_decibels_are_inverted(db: float) -> None:
    assert 20 * math.log10(dsp.db_to_amplitude(db)) == pytest.approx(db)


RATES = [8000, 11_025, 16_000, 22_050, 44_100, 44_101, 48_000, 192_000]


@settings(max_examples=60)
@given(st.integers(0, 3000), st.sampled_from(RATES), st.sampled_from(RATES), st.integers(1, 3))
def test_the_new_length_is_rounded_up(n: int, rate: int, new_rate: int, channels: int) -> None:
    resampled = dsp.resample(torch.zeros(channels, n), rate, new_rate)
    assert resampled.shape == (channels, math.ceil(n * new_rate / rate))


@pytest.mark.parametrize("rates", [(16_000, 48_000), (48_000, 16_000), (44_100, 16_000), (8000, 192_000)])
def test_resampling_keeps_the_position_and_symmetry_of_a_click(rates: tuple[int, int]) -> None:
    rate, new_rate = rates
    x = torch.zeros(1, rate // 2)
    x[0, rate // 4] = 1.0
    y, middle = dsp.resample(x, rate, new_rate)[0].numpy(), new_rate // 4
    assert abs(int(np.abs(y).argmax()) - middle) <= 0
    np.testing.assert_allclose(y[middle - 50 : middle], y[middle + 50 : middle : -1], atol=1e-4)


def test_frequencies_above_the_new_nyquist_frequency_are_removed() -> None:
    t = torch.arange(48_000, dtype=torch.float64) / 48_000
    y = dsp.resample(torch.sin(2 * torch.pi * 9500 * t).float()[None], 48_000, 16_000)[0, 1000:-1000]
    assert float(y.abs().max()) < 1e-4


def test_the_same_rate_changes_nothing() -> None:
    x = torch.randn(2, 100)
    assert torch.equal(dsp.resample(x, 16_000, 16_000), x)


def test_frames_are_centred_on_multiples_of_the_hop() -> None:
    x = torch.zeros(64 * 20)
    x[64 * 7] = 1.0
    power = dsp.stft(x, 256, 64).abs().square().sum(dim=0)
    assert int(power.argmax()) == 7
    torch.testing.assert_close(power[:8], power[7:15].flip(0))


@pytest.mark.parametrize("block_hops", [[7], [1, 3, 1, 2]])
def test_streamed_transforms_equal_those_of_the_whole_signal_one_hop_later(block_hops: list[int]) -> None:
    hop, x = 16, torch.randn(2, 3, 7 * 16, generator=torch.Generator().manual_seed(0))
    history = overlap = torch.zeros(2, 3, hop)
    spectra, outputs = [], []
    for block in x.split([n * hop for n in block_hops], dim=-1):
        spectrum, history = dsp.stream_stft(block, history)
        output, overlap = dsp.stream_istft(spectrum, overlap)
        spectra.append(spectrum)
        outputs.append(output)
    whole = dsp.stft(x, 2 * hop, hop).transpose(2, 3)
    torch.testing.assert_close(torch.cat(spectra, dim=2), whole[:, :, :-1])  # the last one waits for the next hop
    torch.testing.assert_close(torch.cat(outputs, dim=-1)[..., hop:], x[..., :-hop])


@pytest.mark.parametrize("exponent", [0.3, 0.5, 1.0])
def test_compressed_spectra_have_compressed_magnitudes_and_the_same_phases(exponent: float) -> None:
    z = torch.randn(3, 50, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    compressed = dsp.compress_spectrum(z, exponent, 1e-20)
    torch.testing.assert_close(compressed.abs(), z.abs() ** exponent)
    torch.testing.assert_close(compressed.abs(), dsp.compress_magnitude(dsp.power(z), exponent / 2, 1e-20))
    torch.testing.assert_close(compressed.angle(), z.angle())
    torch.testing.assert_close(dsp.expand_spectrum(compressed, exponent, 1e-20), z)
    magnitude = dsp.compress_magnitude(z.abs(), exponent, 0.0)
    torch.testing.assert_close(dsp.expand_magnitude(magnitude, exponent), z.abs())
    assert dsp.expand_magnitude(torch.tensor([-1.0]), exponent) == 0


def test_mu_law_is_inverted_and_follows_its_formula() -> None:
    x = torch.linspace(-1, 1, 201, dtype=torch.float64)
    compressed = dsp.mu_law_compress(x)
    assert float(dsp.mu_law_compress(torch.tensor(0.5, dtype=torch.float64))) == pytest.approx(
        math.log(128.5) / math.log(256)
    )
    assert (compressed.diff() > 0).all()
    torch.testing.assert_close(compressed[[0, 100, 200]], x[[0, 100, 200]])
    torch.testing.assert_close(dsp.mu_law_expand(compressed), x)
