"""The measures and the framing of the audio benchmarks, against closed forms."""

import subprocess

import audio_measures as measures
import audio_networks as networks
import common
import general_audio
import hum
import numpy as np
import pytest
from scipy.signal import firwin, lfilter

RATE = 48_000


def white(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)


def test_third_octave_loss_is_that_of_a_filter_and_ignores_remaining_noise() -> None:
    clean = white(8)
    band = firwin(8191, [891, 1122], fs=RATE, pass_zero=False)  # the third octave at 1 kHz
    component = lfilter(band, 1, np.pad(clean, (0, 4095)))[4095:]
    noise = 0.1 * white(8, seed=1)
    estimate = clean - 0.5 * component + noise
    losses = measures.third_octave_loss(estimate, clean, noise, RATE)
    centre = int(np.abs(measures.MUSIC_THIRDS - 1000).argmin())
    assert losses[centre] == pytest.approx(6.02, abs=0.5)
    far = np.abs(np.arange(len(losses)) - centre) > 1
    assert np.abs(losses[far]).max() < 0.3


def test_third_octave_loss_leaves_out_bands_below_the_noise() -> None:
    t = np.arange(4 * RATE) / RATE
    clean = np.sin(2 * np.pi * 1000 * t).astype(np.float32)
    losses = measures.third_octave_loss(clean, clean, 0.01 * white(4), RATE)
    is_counted = ~np.isnan(losses)
    assert is_counted[np.abs(measures.MUSIC_THIRDS - 1000).argmin()]
    assert is_counted.sum() <= 3
    assert np.abs(losses[is_counted]).max() < 1e-3


def test_log_spectral_distance_of_a_gain_is_that_gain() -> None:
    x = white(2)
    assert measures.log_spectral_distance(x / 2, x) == pytest.approx(20 * np.log10(2), abs=0.01)
    assert measures.log_spectral_distance(x, x) == 0


def test_level_change_is_the_gain_of_the_clean_signal() -> None:
    x, noise = white(2), white(2, seed=1)
    noise -= (noise @ x) / (x @ x) * x
    assert measures.level_change(0.25 * x + noise, x) == pytest.approx(20 * np.log10(0.25), abs=1e-3)


@pytest.mark.parametrize("is_beeping", [False, True])
def test_tone_energy_finds_tones_of_any_phase_in_noise(is_beeping: bool) -> None:
    n = 4 * RATE
    tone, basis = hum.tones([100, 200, 300], n, is_beeping)
    assert measures.tone_energy(tone, basis) == pytest.approx(float((tone.astype(float) ** 2).sum()), rel=1e-4)
    noise = 0.01 * white(4)
    expected = (noise.astype(float) ** 2).sum() * basis.shape[1] / n  # white noise is spread evenly
    assert measures.tone_energy(noise, basis) < 10 * expected


@pytest.mark.parametrize(("power", "hop"), [(0.5, 256), (1.0, 256), (0.5, 128)])
def test_overlap_add_of_unchanged_frames_is_the_identity(power: float, hop: int) -> None:
    window = networks.hann(512) ** power
    for n in (1, 511, 512, 5000):
        x = white(1)[:n]
        y = networks.overlap_add(lambda frames: frames, x, hop, window, networks.matched_synthesis(window, hop))
        np.testing.assert_allclose(y, x, atol=1e-5)


def test_noise_profile_of_music_has_the_level_of_its_noise() -> None:
    clean = 0.1 * white(3)
    conditions = [*general_audio.conditions(clean, "piece", 0, [5.0, 15.0], seed=0)]
    assert [c.name for c in conditions] == ["hum 5 dB", "hum 15 dB", "hiss 5 dB", "hiss 15 dB", "none"]
    for condition, snr in zip(conditions[:-1], [5, 15, 5, 15], strict=True):
        noise = condition.noisy - condition.clean
        assert 20 * np.log10(np.std(condition.clean) / np.std(noise)) == pytest.approx(snr, abs=0.1)
        tolerance = 3.6 if condition.name.startswith("hum") else 0.5  # hum drifts by 20 percent to either side
        assert 20 * np.log10(np.std(condition.profile) / np.std(noise)) == pytest.approx(0, abs=tolerance)
    assert np.array_equal(conditions[-1].noisy, conditions[-1].clean)


def test_peers_without_their_package_or_command_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:

    def without_package() -> None:
        raise ModuleNotFoundError(name="no_package")

    def without_command() -> None:
        subprocess.run(["no-such-command"], check=True)

    known = {"installed": object, "package": without_package, "command": without_command}
    assert common.select_systems("speech", "all", known) == ["speech", "installed"]
    message = capsys.readouterr().err
    assert "no_package" in message
    assert "no-such-command" in message


def test_best_setting_counts_and_stays_without_noise() -> None:
    profiles = []

    class Subtraction:
        """Returns the input, delayed in the first setting, and takes the noise alone."""

        def __init__(self, delay: int) -> None:
            self.delay = delay

        def learn_noise(self, noise: np.ndarray, rate: int) -> None:
            profiles.append((len(noise), rate))

        def __call__(self, samples: np.ndarray, rate: int) -> np.ndarray:
            return np.roll(samples, self.delay)

    systems = {"subtraction": [lambda: Subtraction(50), lambda: Subtraction(0)]}
    rows = [*general_audio.measure_piece(systems, 0.1 * white(3), "piece", 0, [15.0], seed=0)]
    assert [(row["noise"], row["setting"]) for row in rows] == [("hum 15 dB", 1), ("hiss 15 dB", 1), ("none", 1)]
    assert [row["SI-SDR"] for row in rows] == pytest.approx([15, 15, 100], abs=0.1)
    assert profiles == [(2 * RATE, RATE)] * 5  # both settings in two noises, one without
