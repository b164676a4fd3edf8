"""The choice of the model for each frame: `gaussian` for white noise where it has the lower risk, else `photo`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw

import denoise
from denoise.noise_profile import NoiseProfile
from denoise.options import DenoiseOptions
from denoise.pipelines.image import ImagePipeline
from denoise.pipelines.white_noise import estimate_risks
from denoise.protocols import ArrayNetwork
from denoise.signals import Image

SIGMA = 25 / 255
OPTIONS = DenoiseOptions(steps=1)


def linear(factor: float) -> ArrayNetwork:
    """A network that multiplies its input."""
    facts = SimpleNamespace(channels=3, sigma_maps=1)
    return cast(ArrayNetwork, SimpleNamespace(facts=facts, denoise=lambda x, sigma: factor * x))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=3), st.sampled_from([1, 3]), st.floats(0.02, 0.3))
def test_risk_of_a_linear_denoiser_is_that_of_the_closed_form(
    factors: list[float], channels: int, sigma: float
) -> None:
    rng = np.random.default_rng(0)
    clean = 0.5 + 0.3 * np.sin(np.arange(200) / 9)[:, None, None] * np.ones((200, 150, channels))
    noisy = (clean + sigma * rng.normal(size=clean.shape)).astype(np.float32)
    expected = [(1 - a) ** 2 * np.square(clean).mean() + a**2 * sigma**2 for a in factors]
    patches = np.moveaxis(noisy, -1, 0)[None]
    risks = estimate_risks(patches, sigma, [linear(a) for a in factors])
    assert risks == pytest.approx(expected, rel=0.06, abs=0.06 * sigma**2)


def profile(fine: list[list[float]], coarse_ratio: float = 1.0) -> NoiseProfile:
    sigma = np.array(fine, np.float32)
    levels = np.linspace(0, 1, sigma.shape[1], dtype=np.float32)[None].repeat(len(sigma), axis=0)
    return NoiseProfile(levels, np.concatenate([sigma, coarse_ratio * sigma]))


@pytest.mark.parametrize(
    ("noise", "is_white"),
    [
        (NoiseProfile.uniform(0.1, 3), True),
        (NoiseProfile.uniform(0.1, 3).in_units(1e-30), True),
        (NoiseProfile.uniform(0.0, 3), False),
        (profile([[0.1, 0.102, 0.098]] * 3), True),
        (profile([[0.1, 0.12, 0.1]] * 3), False),  # of a sensor, or clipped
        (profile([[0.1], [0.1], [0.12]]), False),
        (profile([[0.1]], 1.1), False),  # of neighbours that correlate
        (profile([[0.1]], 0.9), False),  # of sharpening
    ],
)
def test_white_noise_is_of_one_strength(noise: NoiseProfile, is_white: bool) -> None:
    assert noise.is_white is is_white


def scene() -> NDArray[np.float32]:
    """Smooth shades with edges, as in photographs."""
    y, x = np.mgrid[:192, :192] / 192
    shades = np.stack([0.3 + 0.4 * x, 0.5 + 0.2 * np.sin(6 * y), 0.7 - 0.3 * x * y], axis=-1)
    shades[(x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.06] = (0.9, 0.8, 0.3)
    return shades.astype(np.float32)


def with_noise(sigma: NDArray[Any] | float, channels: int = 3) -> Image:
    noise = np.random.default_rng(0).normal(size=(192, 192, channels))
    return Image((scene() + sigma * noise).astype(np.float32))


@pytest.fixture(scope="module")
def automatic() -> ImagePipeline:
    return ImagePipeline()


@pytest.fixture(scope="module")
def photo() -> ImagePipeline:
    return ImagePipeline("photo")


@pytest.mark.parametrize("scale", [1.0, 4095.0])
def test_white_noise_is_for_the_model_of_less_risk(
    automatic: ImagePipeline, photo: ImagePipeline, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = with_noise(SIGMA)
    noisy = Image(noisy.pixels * np.float32(scale))
    gaussian = ImagePipeline("gaussian")
    for risks, chosen in (([2.0, 1.0], gaussian), ([1.0, 2.0], photo)):

        def estimate(patches: NDArray[Any], sigma: float, networks: Any, risks: list[float] = risks) -> list[float]:
            assert sigma == pytest.approx(SIGMA, rel=0.1)
            return risks

        monkeypatch.setattr("denoise.pipelines.white_noise.estimate_risks", estimate)
        denoised, diagnostics = automatic.denoise_frame(noisy, OPTIONS)
        assert np.array_equal(denoised.pixels, chosen.frame(noisy).pixels)
        assert diagnostics.models == (chosen.card.name,)


@pytest.mark.parametrize(
    "noisy",
    [
        with_noise(4 / 255),  # weak noise may be texture
        with_noise(0.04 + 0.16 * scene()),  # of a sensor
        with_noise(0.0),
        Image(
            scene() + np.float32(SIGMA) * np.random.default_rng(0).normal(size=(192, 192, 1)).astype(np.float32)
        ),  # film
    ],
)
def test_other_noise_is_for_photo(
    automatic: ImagePipeline, photo: ImagePipeline, noisy: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("denoise.pipelines.white_noise.estimate_risks", lambda *_: [2.0, 1.0])
    assert np.array_equal(automatic.frame(noisy).pixels, photo.frame(noisy).pixels)


def test_sigma_and_a_named_model_overrule(
    automatic: ImagePipeline, photo: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("denoise.pipelines.white_noise.estimate_risks", lambda *_: [2.0, 1.0])
    noisy = with_noise(SIGMA)
    assert photo.denoise_frame(noisy, OPTIONS)[1].models == ("photo",)
    assert np.array_equal(automatic.frame(noisy, sigma=SIGMA).pixels, photo.frame(noisy, sigma=SIGMA).pixels)
    assert np.array_equal(denoise.denoise_image(noisy.pixels), ImagePipeline("gaussian").frame(noisy).pixels)


def page() -> NDArray[np.float32]:
    """Letters on paper."""
    image = PillowImage.new("RGB", (192, 192), (250, 250, 240))
    draw = ImageDraw.Draw(image)
    for row in range(0, 192, 12):
        draw.text((4, row), "The quick brown fox, 1234567890: i.e. text;", fill=(20, 20, 30))
    return np.asarray(image).astype(np.float32) / 255


@pytest.mark.parametrize("clean", [scene(), page()])
def test_the_choice_is_no_worse_than_photo(
    clean: NDArray[np.float32], automatic: ImagePipeline, photo: ImagePipeline
) -> None:
    noisy = Image((clean + SIGMA * np.random.default_rng(0).normal(size=clean.shape)).astype(np.float32))
    errors = [float(np.square(pipeline.frame(noisy).pixels - clean).mean()) for pipeline in (automatic, photo)]
    assert errors[0] <= 1.02 * errors[1]


def test_a_file_names_the_model_of_white_noise(
    automatic: ImagePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("denoise.pipelines.white_noise.estimate_risks", lambda *_: [2.0, 1.0])
    noisy = 0.35 + 0.3 * scene() + 12 / 255 * np.random.default_rng(0).normal(size=scene().shape)  # never clipped
    frames = [PillowImage.fromarray(np.rint(255 * noisy).astype(np.uint8))] * 2
    frames[0].save(tmp_path / "one.png")
    frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])
    for name, row in (("one.png", ["gaussian", "white noise"]), ("two.tif", ["photo", "default"])):
        facts = automatic.file(tmp_path / name, tmp_path / f"out-{name}").asdict()
        assert [facts["model"], facts["model_reason"]] == row


def test_a_file_names_its_model(automatic: ImagePipeline, photo: ImagePipeline, tmp_path: Path) -> None:
    PillowImage.fromarray(np.rint(255 * scene()).astype(np.uint8)).save(tmp_path / "a.png")
    for pipeline, reason in ((automatic, "default"), (photo, "given")):
        row = pipeline.file(tmp_path / "a.png", tmp_path / f"{reason}.png").asdict()
        assert (row["model"], row["model_reason"]) == ("photo", reason)
