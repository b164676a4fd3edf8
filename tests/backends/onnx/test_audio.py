"""Audio through pipelines: onnxruntime against torch, and what only torch can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from denoise.backends import load_network
from denoise.backends.onnx.load import cache_folder
from denoise.errors import ConfigError, DenoiseError, WeightsError
from denoise.options import DenoiseOptions
from denoise.pipelines.audio import AudioPipeline
from denoise.pipelines.stream import AudioStream

MAX_DIFFERENCE = 1e-5  # a hundredth of what the exporter allows
SAMPLES = Path(__file__).parents[3] / "samples"
NAMES = ["speech", "general", "floor-audio", "lookahead-audio", "keep-audio", "vary-audio"]


def recording(rate: int, channels: int, seconds: float = 1.5) -> NDArray[np.float32]:
    """Tones that come and go, with noise of each channel."""
    time = np.arange(round(rate * seconds)) / rate
    tones = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 16)) * (3 * time % 1)
    noise = np.random.default_rng(0).normal(size=(channels, len(time)))
    return (0.1 * tones + 0.02 * noise).astype(np.float32)


def denoise(pipeline: AudioPipeline, x: NDArray[Any], rate: int, chunk: int, **options: Any) -> NDArray[Any]:
    chunks = [x[:, i : i + chunk] for i in range(0, x.shape[1], chunk)]
    return np.concatenate([*pipeline.stream(chunks, rate, **options)], axis=1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("rate", "channels", "chunk", "options"),
    [
        (48_000, 1, 10**9, {}),
        (44_100, 2, 997, {"stereo": "linked"}),
        (16_000, 2, 4096, {"stereo": "separate", "strength": 0.5}),
        (96_000, 3, 33_333, {"attenuation_limit": 12.0}),
    ],
)
def test_pipelines_agree_with_torch(
    name: str,
    rate: int,
    channels: int,
    chunk: int,
    options: dict[str, Any],
    exported: dict[str, Path],
    models: dict[str, Path],
) -> None:
    torch_pipeline = AudioPipeline(models.get(name, name), backend="torch")
    if not torch_pipeline.links_channels:
        options = {key: value for key, value in options.items() if key != "stereo"}
    x = recording(rate, channels)
    denoised = denoise(AudioPipeline(exported[name]), x, rate, chunk, **options)
    expected = denoise(torch_pipeline, x, rate, x.shape[1], **options)
    assert denoised.shape == x.shape
    assert np.abs(denoised - expected).max() <= MAX_DIFFERENCE


def test_an_inverted_channel_agrees_with_torch(exported: dict[str, Path]) -> None:
    x = recording(16_000, 1) * [[1], [-1]] + np.array([[0.0], [2.0**-15]])
    denoised, expected = (denoise(AudioPipeline(model), x, 16_000, 997) for model in (exported["speech"], "speech"))
    assert np.abs(denoised - expected).max() <= MAX_DIFFERENCE


@pytest.mark.parametrize("name", ["general", "floor-audio"])
@pytest.mark.parametrize(("rate", "channels", "seconds"), [(48_000, 1, 2.5), (44_100, 2, 1.0), (8000, 3, 0.1)])
def test_noise_profiles_agree_with_torch(
    name: str, rate: int, channels: int, seconds: float, exported: dict[str, Path], models: dict[str, Path]
) -> None:
    """Of more frames than are computed at once, of several, and where the rate has no high frequencies."""
    pipelines = [AudioPipeline(model, backend="auto") for model in (exported[name], models.get(name, name))]
    noise = np.random.default_rng(1).normal(0, 0.02, (channels, round(seconds * rate))).astype(np.float32)
    profile, expected_profile = (pipeline.measure_noise(noise, rate) for pipeline in pipelines)
    np.testing.assert_allclose(profile, expected_profile, rtol=1e-4, atol=1e-12)
    x = recording(rate, channels)
    denoised, expected = (denoise(pipeline, x, rate, 997, noise_profile=expected_profile) for pipeline in pipelines)
    assert np.abs(denoised - expected).max() <= MAX_DIFFERENCE
    assert np.abs(denoised - denoise(pipelines[0], x, rate, 997)).max() > 100 * MAX_DIFFERENCE


@pytest.mark.parametrize("n", [1, 767, 1535, 1536, 2304])
def test_noise_of_any_length_has_a_profile(n: int, exported: dict[str, Path], models: dict[str, Path]) -> None:
    noise = np.random.default_rng(1).normal(0, 0.02, (2, 1, n)).astype(np.float32)
    measured: list[Any] = [
        load_network(model, modality="audio")[0] for model in (exported["floor-audio"], models["floor-audio"])
    ]
    profile, expected = (network.measure_noise(noise, sample_rate=48_000) for network in measured)
    assert profile.shape == expected.shape == (2, 192)
    np.testing.assert_allclose(profile, expected, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("is_steady", [False, True])
def test_looking_ahead_agrees_with_torch(is_steady: bool, exported: dict[str, Path]) -> None:
    networks: list[Any] = [load_network(model, modality="audio")[0] for model in (exported["general"], "general")]
    x = np.random.default_rng(0).normal(0, 0.01, (1, 2, 400, 128)).astype(np.float32)
    x[:, :, 300:310] = 0.0
    x[:, :, 350:] *= 0.01
    x = (
        x.reshape(1, 2, -1)
        if is_steady
        else x.reshape(1, 2, -1) * np.exp(-np.arange(400 * 128) / 9_000, dtype=np.float32)
    )
    recent = []
    for network in networks:
        start = network.initial_state(1, 2, 8_000)
        state, ahead = network.update_noise_floor(x[..., : 256 * 128], start), network.update_noise_floor(x, start)
        lowered = network.apply_lookahead(state, ahead)
        recent.append(lowered["floor.recent"] if isinstance(lowered, dict) else lowered.floor.recent.numpy())
    np.testing.assert_allclose(*recent, rtol=1e-3)
    assert networks[0].lookahead_hops == networks[1].lookahead_hops == 256


def test_live_audio_agrees_with_torch(exported: dict[str, Path]) -> None:
    x = recording(48_000, 1, 0.4)
    streams = [AudioStream(model, sample_rate=48_000) for model in (exported["speech"], "speech")]
    assert streams[0].latency == streams[1].latency == 2 * 768
    denoised, expected = (
        np.concatenate([stream.process(x[:, i : i + 128]) for i in range(0, x.shape[1], 128)], axis=1)
        for stream in streams
    )
    assert np.abs(denoised - expected).max() <= MAX_DIFFERENCE


def test_a_cache_that_cannot_be_written_is_not_needed(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    pipeline = AudioPipeline(models["keep-audio"], backend="onnx")
    x = recording(16_000, 1)
    np.testing.assert_allclose(denoise(pipeline, x, 16_000, 5000), x, atol=1e-6)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/denoise/onnx")


def test_exported_files_are_refused_where_they_do_not_fit(exported: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"blur-image.onnx is a denoiser for image; expected a denoiser for audio"):
        AudioPipeline(exported["blur-image"])
    with pytest.raises(ConfigError, match=r"speech.onnx: is an exported model, which torch does not run"):
        AudioPipeline(exported["speech"], backend="torch")
    with pytest.raises(ConfigError, match="model lookahead-audio takes no noise profile; use general"):
        AudioPipeline(exported["lookahead-audio"]).measure_noise(recording(16_000, 1), 16_000)
    profile = np.ones((1, 7), np.float32)
    with pytest.raises(ConfigError, match=r"the noise profile has shape \(1, 7\); expected \(1, 192\)"):
        AudioStream(exported["floor-audio"], sample_rate=16_000, noise_profile=profile)
    with pytest.raises(ConfigError, match=r"one output and no posterior samples; use speech-flow"):
        AudioPipeline(exported["vary-audio"]).check(DenoiseOptions(steps=1, seed=1))


def test_hostile_metadata_is_refused(exported: dict[str, Path], tmp_path: Path) -> None:
    import onnx

    for changes, message in (
        ({"format_version": "1"}, "format version 1; this release reads 2"),
        ({"card": "{}"}, "has no metadata of this package"),
        ({"facts": "[1]"}, "has no metadata of this package"),
        ({"stream": '{"hop_s": 0.01, "delay": "many"}'}, "has no metadata of this package"),
    ):
        model = onnx.load(exported["floor-audio"])
        properties = {each.key: each.value for each in model.metadata_props}
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, properties | changes)
        path = tmp_path / "hostile.onnx"
        onnx.save(model, path)
        with pytest.raises(WeightsError, match=message) as caught:
            AudioPipeline(path)
        assert isinstance(caught.value, DenoiseError)
        assert "\n" not in str(caught.value)


def test_the_model_is_chosen_as_with_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rate, x = 48_000, {"noise": 0.1 * np.random.default_rng(0).normal(size=(1, 96_000))}
    x["speech"] = soundfile.read(SAMPLES / "speech.wav", dtype="float32", always_2d=True)[0].T
    pipelines = [AudioPipeline(backend=backend) for backend in ("torch", "onnx")]
    for name, samples in x.items():
        choices = []
        for pipeline in pipelines:
            survey = pipeline.new_survey(1, DenoiseOptions(steps=1))
            survey.examine([samples[:, i : i + 2 * rate] for i in range(0, samples.shape[1], 2 * rate)], rate)
            choices.append(survey.model())
        torch_choice, onnx_choice = choices
        assert torch_choice.model == onnx_choice.model == ("speech" if name == "speech" else "general")
        assert onnx_choice.speech_fraction == pytest.approx(torch_choice.speech_fraction, abs=1e-4)
