"""The classifier of audio: laws of its features, and what the bundled one says."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import soxr
import torch
from torch import Tensor

from denoise.errors import ConfigError
from denoise.models.audio_classifier import AudioClassifier, AudioClassifierConfig

NAMES = ("speech", "music", "sounds")


@pytest.fixture(scope="module")
def classifier() -> AudioClassifier:
    torch.manual_seed(0)
    return AudioClassifier(AudioClassifierConfig(NAMES)).eval()


def speech(rate: int) -> Tensor:
    x, stored_rate = soundfile.read("samples/speech.wav", dtype="float32")
    return torch.from_numpy(soxr.resample(x[:, 0] if x.ndim > 1 else x, stored_rate, rate))[None, None, : 2 * rate]


def test_the_level_does_not_matter(classifier: AudioClassifier) -> None:
    x = speech(16_000)
    for gain in (1e-12, 0.1, 30.0, 1e25):
        torch.testing.assert_close(classifier(gain * x, sample_rate=16_000), classifier(x, sample_rate=16_000))


def test_channels_are_averaged_and_offsets_ignored(classifier: AudioClassifier) -> None:
    x = speech(16_000)
    expected = classifier(x, sample_rate=16_000)
    torch.testing.assert_close(classifier(x.expand(1, 5, -1), sample_rate=16_000), expected)
    torch.testing.assert_close(classifier(torch.cat([x, -x], dim=1), sample_rate=16_000), expected)
    features = classifier.to_features(x, 16_000), classifier.to_features(x + 0.2, 16_000)
    torch.testing.assert_close(features[0], features[1], rtol=0, atol=0.02)


def test_a_batch_is_classified_item_by_item(classifier: AudioClassifier) -> None:
    x = torch.randn(3, 2, 20_000, generator=torch.Generator().manual_seed(0))
    logits = classifier(x, sample_rate=16_000)
    assert logits.shape == (3, len(NAMES))
    torch.testing.assert_close(logits, torch.cat([classifier(each[None], sample_rate=16_000) for each in x]))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 192_000])
def test_features_are_those_of_the_frequencies_at_any_rate(classifier: AudioClassifier, rate: int) -> None:
    """A tone is at the same place at every rate, and no band that a rate has is empty."""
    t = torch.arange(2 * rate) / rate
    for hz, position in ((250.0, 8), (937.5, 30)):
        tone = torch.sin(2 * np.pi * hz * t)[None, None]
        assert int(classifier.to_features(tone, rate)[0].mean(dim=0).argmax()) == position
    white = torch.randn(1, 1, 2 * rate, generator=torch.Generator().manual_seed(0))
    means = classifier.to_features(white, rate)[0].mean(dim=0)
    assert (means[2:40] > 0.5).all()


@pytest.mark.parametrize("n", [0, 1, 511, 512, 5000])
def test_short_and_silent_recordings(classifier: AudioClassifier, n: int) -> None:
    assert torch.isfinite(classifier(torch.zeros(1, 1, n), sample_rate=16_000)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_names": ("a",)}, "expected 2 to 100 different names"),
        ({"class_names": ("a", "a")}, "expected 2 to 100 different names"),
        ({"class_names": NAMES, "widths": ()}, "expected 1 to 8 numbers"),
        ({"class_names": NAMES, "bands": 0}, "expected 1 to 1000 bands"),
        ({"class_names": NAMES, "top_hz": 500.0}, "linear_hz"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AudioClassifierConfig(**settings)  # type: ignore[arg-type]
