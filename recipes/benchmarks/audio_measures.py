"""Measures of denoised speech, music and tones.

Imports of torch and SciPy are local, so that the measured peak memory of a peer does not include them.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from audio_common import WIDE_BAND, Denoise, Samples
from audio_networks import onnx_session, packaged_file
from common import Row
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

MUSIC_THIRDS = 1000 * 2 ** (np.arange(-11, 13) / 3)  # 79 Hz to 16 kHz
GAIN_ERROR = 0.03  # of a third octave, 0.26 dB
FLOOR_DB = -80.0  # of spectra, relative to the largest bin of the clean signal


def measure_delay(denoise: Denoise, clean: Samples, rate: int) -> int:
    """Return the delay of clean speech in samples, from the peak of the cross-correlation above 500 Hz.

    RNNoise's high-pass filter advances lower frequencies by up to 3 samples.
    """
    n = 2 * len(clean)
    cross = np.fft.rfft(denoise(clean, rate), n) * np.fft.rfft(clean, n).conj()
    cross[: 500 * n // rate] = 0
    lag = int(np.fft.irfft(cross, n).argmax())
    return lag if lag < n // 2 else lag - n


def quality(estimate: Samples, clean: Samples, rate: int, with_dnsmos: bool) -> Row:
    """Return PESQ, STOI and SI-SDR at 16 kHz; with ``with_dnsmos``, also DNSMOS P.835 if speechmos is installed."""
    import torch

    from denoise import metrics
    from denoise.dsp import resample

    y, x = (resample(torch.from_numpy(a)[None], rate, WIDE_BAND)[0] for a in (estimate, clean))
    row: Row = {"pesq": metrics.pesq(y, x, WIDE_BAND), "stoi": metrics.stoi(y, x, WIDE_BAND)}
    row["si_sdr"] = float(metrics.si_sdr(y, x))
    if not with_dnsmos or not find_spec("speechmos"):
        return row
    scores = dnsmos()(y.clamp(-1, 1).numpy(), WIDE_BAND, False)  # it refuses samples beyond full scale
    return row | {name: float(scores[f"{name}_mos"]) for name in ("ovrl", "sig", "bak")}


@cache
def dnsmos() -> Any:
    """Load DNSMOS P.835; the sessions of the package would use all processors, also those of other programs."""
    from speechmos.dnsmos import DNSMOS

    paths = [
        packaged_file("speechmos", f"speechmos/dnsmos_models/{name}") for name in ("sig_bak_ovr.onnx", "model_v8.onnx")
    ]
    model = DNSMOS(*paths)
    model.onnx_sess, model.p808_onnx_sess = (onnx_session(path) for path in paths)
    return model


def si_sdr(estimate: Samples, clean: Samples) -> float:
    """Return the scale-invariant signal-to-distortion ratio in dB of (time,)."""
    import torch

    from denoise import metrics

    return float(metrics.si_sdr(torch.from_numpy(estimate), torch.from_numpy(clean)))


def level_change(estimate: Samples, clean: Samples) -> float:
    """Return the gain in dB of the projection of ``estimate`` on ``clean``."""
    return float(20 * np.log10(max(1e-6, estimate @ clean / (clean @ clean))))


def log_spectral_distance(estimate: Samples, clean: Samples) -> float:
    """Return the rms difference of log power spectra over frequency in dB, mean over frames of 2048 samples."""
    from scipy.signal import stft

    power = [np.abs(stft(x, nperseg=2048)[2]) ** 2 for x in (estimate, clean)]
    floor = power[1].max() * 10 ** (FLOOR_DB / 10)
    difference = 10 * np.log10(np.maximum(power[0], floor) / np.maximum(power[1], floor))
    return float(np.sqrt((difference**2).mean(axis=0)).mean())


def third_octave_bands(hz: NDArray[np.float64], centres: NDArray[np.float64]) -> list[Mask]:
    """Return which of the frequencies belong to each third octave, given the centres of the bands in Hz."""
    return [(hz >= f * 2 ** (-1 / 6)) & (hz < f * 2 ** (1 / 6)) for f in centres]


def third_octave_loss(estimate: Samples, clean: Samples, noise: Samples, rate: int) -> Samples:
    """Return how much of the clean signal is missing in each third octave while it is louder than the noise.

    The gain of the clean signal is that of the projection of the estimate on it, so that noise that remains does not
    count, over the frames of 8192 samples in which the band of the clean signal is louder than the mean of the noise.

    Args:
        estimate: (time,).
        clean: (time,).
        noise: (time,), what was added to the clean signal.
        rate: in Hz.

    Returns:
        Losses in dB of the bands from 79 Hz to 16 kHz, (24,); NaN where fewer than 5 frames are louder than the noise,
        or where the standard error of the gain in that noise exceeds `GAIN_ERROR`.
    """
    from scipy.signal import stft

    hz = np.fft.rfftfreq(8192, 1 / rate)
    spectra = [stft(x, nperseg=8192)[2] for x in (estimate, clean, noise)]
    losses = []
    for band in third_octave_bands(hz, MUSIC_THIRDS):
        y, x, n = (spectrum[band] for spectrum in spectra)
        noise_power = (np.abs(n) ** 2).mean()
        is_louder = (np.abs(x) ** 2).mean(axis=0) > noise_power
        energy = (np.abs(x[:, is_louder]) ** 2).sum()
        is_measurable = is_louder.sum() >= 5 and noise_power < 2 * energy * GAIN_ERROR**2
        gain = (y * x.conj())[:, is_louder].real.sum() / energy if is_measurable else np.nan
        losses.append(-20 * np.log10(np.maximum(gain, 1e-6)))
    return np.array(losses)


def tone_energy(x: Samples, tones: Samples) -> float:
    """Return the energy of the least-squares projection of a signal on tones.

    Args:
        x: (time,).
        tones: sine and cosine of each tone, (time, 2 tones).
    """
    products = tones.T @ x
    return float(products @ np.linalg.solve(tones.T @ tones, products))
