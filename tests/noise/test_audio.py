import numpy as np
import pytest
import scipy.signal
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denoise import noise


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.floats(-20, 40), st.floats(1e-3, 1.0), st.floats(1e-3, 1.0))
def test_the_signal_to_noise_ratio_is_reached(snr_db: float, speech_level: float, noise_level: float) -> None:
    clean = speech_level * torch.randn(2, 4000, generator=seeded(1), dtype=torch.float64)
    added = noise.scale_to_snr(
        clean, noise_level * torch.randn(2, 4000, generator=seeded(2), dtype=torch.float64), snr_db
    )
    measured = 10 * ((clean**2).sum(1) / (added**2).sum(1)).log10()
    np.testing.assert_allclose(measured.numpy(), snr_db, atol=1e-6)


def test_silence_is_not_scaled() -> None:
    zeros, ones = torch.zeros(1, 100), torch.ones(1, 100)
    assert torch.equal(noise.scale_to_snr(zeros, ones, 5.0), ones)
    assert torch.equal(noise.scale_to_snr(ones, zeros, 5.0), zeros)
    assert torch.equal(noise.set_level(zeros, -20.0), zeros)


def test_gaussian_noise_has_its_sigma_and_follows_the_seed() -> None:
    x = torch.full((2, 1, 300, 300), 0.5)
    sigma = torch.tensor([0.1, 0.2])[:, None, None, None]
    y = noise.gaussian(x, sigma, seeded())
    assert torch.equal(y, noise.gaussian(x, sigma, seeded()))
    np.testing.assert_allclose((y - x).std(dim=(1, 2, 3)), [0.1, 0.2], rtol=0.01)


def test_reverberation_matches_scipy_convolution_from_the_direct_sound() -> None:
    x = torch.randn(500, generator=seeded(), dtype=torch.float64)
    response = torch.zeros(80, dtype=torch.float64)
    response[10], response[40] = 2.0, -1.0
    expected = scipy.signal.fftconvolve(x.numpy(), response[10:].numpy() / 2)[:500]
    np.testing.assert_allclose(noise.reverberate(x, response).numpy(), expected, atol=1e-10)


def test_band_limit_passes_low_and_removes_high_frequencies() -> None:
    t = torch.arange(16_000, dtype=torch.float64) / 16_000
    low, high = torch.sin(2 * torch.pi * 1000 * t), torch.sin(2 * torch.pi * 6000 * t)
    y = noise.band_limit(low + high, 16_000, 4000.0)
    assert float((y - low).abs().max()) < 1e-3


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_colour_tilts_the_spectrum(exponent: float) -> None:
    y = noise.colour(torch.randn(1 << 17, generator=seeded()), exponent, 16_000)
    frequency, power = scipy.signal.welch(y.numpy(), 16_000, nperseg=1024)
    band = (frequency > 200) & (frequency < 6000)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.05)


@settings(max_examples=20)
@given(st.floats(-60, 0))
def test_the_level_is_reached(level_db: float) -> None:
    y = noise.set_level(torch.randn(1, 5000, generator=seeded(), dtype=torch.float64), level_db)
    assert 10 * np.log10(float((y**2).mean())) == pytest.approx(level_db, abs=1e-6)


def test_generators_depend_on_each_number() -> None:
    samples = {
        float(torch.rand((), generator=noise.generator_for(*numbers)))
        for numbers in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    }
    assert len(samples) == 4
    a, b = (torch.rand(3, generator=noise.generator_for(1, 2, 3)) for _ in range(2))
    assert torch.equal(a, b)


def test_each_example_has_its_own_ratio() -> None:
    clean, added = torch.randn(3, 4000, generator=seeded()), torch.randn(3, 4000, generator=seeded(1))
    scaled = noise.scale_to_snr(clean, added, torch.tensor([[-5.0], [0.0], [20.0]]))
    measured = 10 * (clean.square().sum(1) / scaled.square().sum(1)).log10()
    np.testing.assert_allclose(measured.numpy(), [-5, 0, 20], atol=0.01)


def test_random_numbers_have_their_distributions() -> None:
    normal = noise.gaussian(torch.zeros(5000, dtype=torch.float64), 0.1, seeded(5)).numpy()
    assert scipy.stats.kstest(normal / 0.1, "norm").pvalue > 0.001
    uniform = noise.uniform(-3.0, 5.0, 5000, seeded()).double().numpy()
    assert scipy.stats.kstest(uniform, "uniform", args=(-3, 8)).pvalue > 0.001


@settings(max_examples=40)
@given(st.integers(1, 400), st.integers(1, 300), st.integers(0, 200), st.sampled_from([1.0, -0.6]))
def test_reverberation_keeps_time_and_level_of_the_direct_sound(n: int, taps: int, delay: int, direct: float) -> None:
    rng = np.random.default_rng(n)
    tail = np.concatenate([[direct], rng.uniform(-0.4, 0.4, taps - 1)])
    response = np.concatenate([rng.uniform(-0.05, 0.05, delay), tail])
    x = rng.normal(size=n)
    expected = scipy.signal.fftconvolve(x, tail / direct)[:n]
    actual = noise.reverberate(torch.from_numpy(x), torch.from_numpy(response)).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-9)


@pytest.mark.parametrize("n", [16_000, 15_999])
def test_band_limit_has_its_transition_below_the_cutoff(n: int) -> None:
    t = torch.arange(n, dtype=torch.float64) / 16_000
    window = torch.hann_window(
        n, periodic=False, dtype=torch.float64
    )  # no onset, so that each tone has a narrow spectrum

    def gain(frequency: float) -> float:
        tone = window * torch.sin(2 * torch.pi * frequency * t)
        out = noise.band_limit(tone, 16_000, 4000.0)
        assert out.shape == tone.shape
        return float(out.square().sum() / tone.square().sum()) ** 0.5

    assert gain(3000.0) == pytest.approx(1, abs=1e-6)
    assert gain(3800.0) == pytest.approx(0.5, abs=0.01)
    assert gain(4200.0) < 1e-3


def test_a_silent_impulse_response_is_ignored() -> None:
    assert torch.isfinite(noise.reverberate(torch.ones(10), torch.zeros(5))).all()


def test_clipping_affects_the_given_fraction() -> None:
    x = torch.randn(2, 20_000, generator=seeded())
    y = noise.clip(x, 0.05)
    assert abs(float((y != x).float().mean()) - 0.05) < 0.01
    assert float(y.abs().max()) <= float(x.abs().flatten().quantile(0.96))


@given(st.floats(-0.999, 0.999))
def test_mu_law_error_is_that_of_g711(value: float) -> None:
    """255 levels with an error of at most half a step, which grows with the amplitude."""
    x = torch.tensor([value], dtype=torch.float64)
    step = np.log1p(255) / 127 * (abs(value) + 1 / 255)
    assert abs(float(noise.mu_law(x)) - value) <= 0.55 * step
    assert torch.equal(noise.mu_law(noise.mu_law(x)), noise.mu_law(x))


@pytest.mark.parametrize("make", [noise.hum, noise.clicks, noise.wind, noise.tones, noise.broadband])
@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_synthetic_disturbances_have_their_level_and_follow_the_seed(make, rate: int) -> None:
    for seed in range(5):
        x = make(rate, rate, seeded(seed))
        assert x.shape == (rate,)
        assert torch.equal(x, make(rate, rate, seeded(seed)))
        assert 0.7 < float(noise.rms(x)) < 1.3
    assert not torch.allclose(make(rate, rate, seeded(0)), make(rate, rate, seeded(1)))


def test_hum_is_harmonic_and_wind_is_below_speech() -> None:
    rate = 16_000
    hertz = np.fft.rfftfreq(rate, 1 / rate)
    power = np.abs(np.fft.rfft(noise.hum(rate, rate, seeded(3)).numpy())) ** 2
    is_harmonic = (np.minimum(hertz % 50, 50 - hertz % 50) <= 3) | (np.minimum(hertz % 60, 60 - hertz % 60) <= 3)
    assert power[is_harmonic].sum() > 0.99 * power.sum()
    power = np.abs(np.fft.rfft(noise.wind(rate, rate, seeded(3)).numpy())) ** 2
    assert power[hertz < 300].sum() > 0.9 * power.sum()


def test_tones_are_harmonic_and_broadband_noise_is_not() -> None:
    rate = 16_000

    def concentration(x: torch.Tensor) -> float:
        """Fraction of the power in the 1 % strongest bins."""
        power = torch.fft.rfft(x * torch.hann_window(len(x))).abs().square().sort(descending=True).values
        return float(power[: len(power) // 100].sum() / power.sum())

    for seed in range(5):
        assert concentration(noise.tones(4 * rate, rate, seeded(seed))) > 0.99
        assert concentration(noise.broadband(4 * rate, rate, seeded(seed))) < 0.9
    for seed in range(20):  # tones begin at 50 to 500 Hz
        power = torch.fft.rfft(noise.tones(4 * rate, rate, seeded(seed)) * torch.hann_window(4 * rate)).abs().square()
        first = int((power > 0.01 * power.max()).nonzero()[0]) / 4
        assert 49 <= first <= 503


def test_beeps_are_on_and_off() -> None:
    rate = 16_000
    for seed in range(10):
        x = noise.beeps(4 * rate, rate, seeded(seed))
        power = x.square().unfold(0, rate // 50, rate // 50).mean(dim=1)
        assert 0.02 < float((power > 0.3).float().mean()) < 0.9
        assert float((power == 0).float().mean()) > 0.1
        assert float(x.abs().max()) < 2.2


def test_clicks_are_sparse() -> None:
    x = noise.clicks(48_000, 48_000, seeded(1)).square()
    assert float(x.topk(4_800).values.sum()) > 0.9 * float(x.sum())


@pytest.mark.parametrize("time", [10, 4_000, 144_000])
def test_impacts_are_short_and_loud(time: int) -> None:
    for seed in range(8):
        x = noise.impacts(time, 48_000, torch.Generator().manual_seed(seed))
        assert x.shape == (time,)
        assert 0.05 < float(x.abs().max()) <= 3.0
        if time == 144_000:  # most of it is silent
            assert float((x != 0).float().mean()) < 0.35
            is_loud = x.abs() > 0.1 * x.abs().max()
            assert float(is_loud.float().mean()) < 0.1
