"""The noise of frames of many kinds against the noise that was added, and denoising that does no harm to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from denoise.noise_profile import NoiseProfile
from denoise.pipelines import ImagePipeline
from denoise.pipelines.noise_estimate import FrameNoise, channel_groups, to_network, uniform_noise
from denoise.protocols import NetworkFacts
from denoise.signals import Image

Pixels = NDArray[Any]
Run = Callable[..., Pixels]
SIDE = 96  # pixels: one patch, the least that an estimate has
PHOTO = Path(__file__).parents[2] / "samples" / "photo.clean.png"


def text(size: int, ink: int | tuple[int, ...] = 40, paper: int | tuple[int, ...] = 235) -> Pixels:
    mode = "L" if isinstance(ink, int) else "RGB"
    image = Pillow.new(mode, (SIDE, SIDE), paper)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    rng = np.random.default_rng(size)
    for y in range(4, SIDE - size, round(1.35 * size)):
        words = ["".join(map(chr, rng.integers(97, 123, rng.integers(2, 9)))) for _ in range(20)]
        draw.text((6, y), " ".join(words), fill=ink, font=font)
    return np.asarray(image)


def code(size: int, quiet: int = 16) -> Pixels:
    n = -(-SIDE // size)
    modules = np.random.default_rng(size).integers(0, 2, (n, n), np.uint8).repeat(size, 0).repeat(size, 1)
    x = np.full((SIDE, SIDE), 255, np.uint8)
    inside = slice(quiet, SIDE - quiet)
    x[inside, inside] *= modules[inside, inside]
    return x


def checkers(size: int) -> Pixels:
    rows, columns = np.indices((SIDE, SIDE)) // size
    return np.where((rows + columns) % 2, 190, 60).astype(np.uint8)


def mosaic() -> Pixels:
    cells = np.random.default_rng(0).integers(20, 236, (SIDE // 8, SIDE // 8, 3), np.uint8)
    return cells.repeat(8, 0).repeat(8, 1)


def line_art() -> Pixels:
    image = Pillow.new("L", (4 * SIDE, 4 * SIDE), 250)
    draw, rng = ImageDraw.Draw(image), np.random.default_rng(0)
    for _ in range(14):
        x, y, r = rng.uniform(0, 4 * SIDE, 3)
        draw.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), outline=30, width=6)
        draw.line([*rng.uniform(0, 4 * SIDE, 4)], fill=30, width=5)
    return np.asarray(image.resize((SIDE, SIDE), Pillow.Resampling.BOX))


def stars() -> Pixels:
    rng = np.random.default_rng(0)
    rows, columns = np.indices((SIDE, SIDE))
    sky = np.full((SIDE, SIDE), 18.0)
    for _ in range(25):
        y, x = rng.uniform(0, SIDE, 2)
        distance, width = np.hypot(rows - y, columns - x), rng.uniform(0.8, 1.6)
        sky += 10 ** rng.uniform(1, 2.4) * np.exp(-(distance**2) / (2 * width**2))
    return np.rint(sky.clip(0, 255)).astype(np.uint8)


def photo(side: int = SIDE) -> Pixels:
    return np.asarray(Pillow.open(PHOTO))[100 : 100 + side, 200 : 200 + side]


PICTURES: dict[str, Callable[[], Pixels]] = {
    "text of 8 px": lambda: text(8),
    "text of 24 px": lambda: text(24),
    "text, black on white": lambda: text(12, 0, 255),
    "text, grey": lambda: text(14, 90, 190),
    "text, coloured": lambda: text(12, (20, 30, 90), (250, 240, 220)),
    "code of 2 px": lambda: code(2),
    "code of 2 px, no margin": lambda: code(2, quiet=0),
    "code of 4 px": lambda: code(4),
    "code of 8 px": lambda: code(8),
    "checkers of 2 px": lambda: checkers(2),
    "checkers of 8 px": lambda: checkers(8),
    "mosaic": mosaic,
    "line art": line_art,
    "stars": stars,
}


def add_noise(clean: Pixels, sigma: float, seed: int = 1) -> Pixels:
    """Return 8-bit pixels."""
    noise = np.random.default_rng(seed).normal(0, sigma, clean.shape)
    return np.rint(clean + noise).clip(0, 255).astype(np.uint8)


def psnr(x: Pixels, reference: Pixels) -> float:
    return float(10 * np.log10(255**2 / max(np.square(x.astype(float) - reference).mean(), 1e-3)))


def frame(x: Pixels) -> Image:
    return Image(x if x.ndim == 3 else x[..., None])


@cache
def pipeline() -> ImagePipeline:
    return ImagePipeline(precision="float32")


def estimate(x: Pixels, alpha: Pixels | None = None) -> FrameNoise:
    return pipeline().estimate_noise(Image(x if x.ndim == 3 else x[..., None], alpha))


def sigma_of(noise: FrameNoise) -> float:
    """Return the standard deviation over all channels, of 255."""
    return 255 * noise[0].mean_sigma


@cache
def denoised(name: str, sigma: float) -> tuple[float, float, float, float]:
    """Return estimated and true noise, and the PSNR of the noisy and the denoised picture."""
    clean = PICTURES[name]()
    noisy = add_noise(clean, sigma)
    estimates: list[FrameNoise] = []  # they take most of the time
    estimate_noise = pipeline().estimate_noise

    def record_estimate(image: Image) -> FrameNoise:
        estimates.append(estimate_noise(image))
        return estimates[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline(), "estimate_noise", record_estimate)
        output = pipeline().frame(frame(noisy)).pixels.reshape(clean.shape)
    return sigma_of(estimates[0]), (noisy - clean.astype(float)).std(), psnr(noisy, clean), psnr(output, clean)


def pictures(*limits: str) -> Any:
    """Return the parameters of a test, of which ``limits`` are known to fail."""
    mark = pytest.mark.xfail(strict=True, reason="known limit: black, white and fine structure hide the noise")
    return pytest.mark.parametrize("name", [pytest.param(n, marks=mark if n in limits else ()) for n in PICTURES])


def with_palette(x: Pixels, n_colours: int, *, is_dithered: bool) -> Pixels:
    picture = Pillow.fromarray(x)
    palette = picture.quantize(n_colours, dither=Pillow.Dither.NONE)
    dithered = picture.quantize(palette=palette, dither=Pillow.Dither.FLOYDSTEINBERG)
    return np.asarray((dithered if is_dithered else palette).convert("RGB"))


class TestPalettes:
    """Each colour of a palette is a peak of the histogram, also where the palette holds noise."""

    @pytest.mark.parametrize(("sigma", "n_colours", "is_dithered"), [(15, 64, False), (25, 256, True)])
    def test_noise_is_found(self, sigma: float, n_colours: int, is_dithered: bool) -> None:
        noisy = with_palette(add_noise(photo(), sigma), n_colours, is_dithered=is_dithered)
        assert sigma_of(estimate(noisy)) == pytest.approx(sigma, rel=0.25)

    def test_dithering_is_not_taken_for_noise(self) -> None:
        """What is estimated is what the histogram allows."""
        clean = with_palette(photo(), 64, is_dithered=True)
        found = sigma_of(estimate(clean))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("denoise.pipelines.noise_estimate.MAX_COLOURS", 0)
            assert found == sigma_of(estimate(clean)) < 3


class TestPictures:
    """Text, codes and drawings, which are easily taken for noise."""

    @pictures()
    def test_clean_pictures_have_no_noise_and_stay(self, name: str) -> None:
        found, _, _, output = denoised(name, 0)
        assert found <= 1
        assert output >= (45 if name == "stars" else 48)

    @pictures("code of 2 px", "code of 2 px, no margin", "checkers of 2 px", "line art")
    def test_noise_is_found(self, name: str) -> None:
        found, true, _, _ = denoised(name, 10)
        assert found == pytest.approx(true, rel=0.25)

    @pictures("code of 2 px, no margin", "checkers of 2 px", "line art")
    def test_noise_is_removed(self, name: str) -> None:
        _, _, noisy, output = denoised(name, 10)
        assert output >= noisy + 2

    @pictures()
    def test_noise_is_rather_kept_than_structure_removed(self, name: str) -> None:
        found, true, noisy, output = denoised(name, 10)
        assert found <= 1.25 * true
        assert output >= noisy - 0.2

    @pictures("code of 2 px", "code of 2 px, no margin", "code of 4 px")
    def test_faint_noise_is_found(self, name: str) -> None:
        """Of what a network can tell from structure, the estimate is the lower part."""
        found, true, _, _ = denoised(name, 2)
        assert 0.4 * true <= found <= 1.3 * true

    @pictures()
    def test_faint_noise_is_rather_kept_than_structure_removed(self, name: str) -> None:
        _, _, noisy, output = denoised(name, 2)
        assert output >= noisy - 0.2


class TestPhoto:
    @pytest.mark.parametrize("sigma", [2, 5, 10, 25, 50])
    def test_white_noise(self, sigma: float) -> None:
        noise = estimate(photo() / np.float32(255) + np.float32(sigma / 255) * normal(SIDE, SIDE, 3))
        # the finest texture of the photo counts as noise of about 1.5
        assert sigma_of(noise) == pytest.approx(sigma, rel=0.3 if sigma == 2 else 0.2)
        fine, coarse = np.sqrt(np.square(noise[0].sigma).reshape(2, -1).mean(axis=1))
        assert float(coarse / fine) == pytest.approx(1, abs=0.3 if sigma == 2 else 0.2)

    @pytest.mark.parametrize(
        "curve",
        [
            lambda v: 1.3 * (v - 128) + 128,
            lambda v: 0.9 * v,
            lambda v: 0.6 * v + 40,
            lambda v: (v - 16) * 255 / 219,
            lambda v: 255 * (v / 255) ** 0.8,
        ],
        ids=["contrast", "brightness", "less contrast", "video range", "gamma"],
    )
    def test_tone_curves_of_integers_hide_no_noise(self, curve: Any) -> None:
        """They leave gaps and doubled levels in the histogram."""
        table = np.rint(curve(np.arange(256.0)).clip(0, 255)).astype(np.uint8)
        clean = photo()
        noisy = table[add_noise(clean, 10)]
        true = (noisy - table[clean].astype(float)).std()
        assert sigma_of(estimate(noisy)) == pytest.approx(true, rel=0.25)

    def test_whole_numbers_as_floats_are_those_of_integers(self) -> None:
        noisy = add_noise(photo(), 10)
        found = pipeline().estimate_noise(Image(noisy.astype(np.float32)))[0]
        assert found.mean_sigma == pytest.approx(sigma_of(estimate(noisy)), rel=0.1)

    def test_clean_photo_stays(self) -> None:
        assert psnr(pipeline().frame(Image(photo())).pixels, photo()) >= 45

    def test_noise_that_grows_with_the_signal(self) -> None:
        clean = photo(2 * SIDE).astype(np.float32)
        sigma = np.sqrt(2**2 + 12**2 * clean / 255)
        noise = estimate((clean + sigma * normal(*clean.shape)) / 255)[0]
        expected = np.sqrt(2**2 + 12**2 * noise.levels)
        np.testing.assert_allclose(255 * noise.sigma[:3], expected, rtol=0.3)
        assert float(noise.sigma[:3, -1].mean()) > 1.3 * float(noise.sigma[:3, 0].mean())

    def test_noise_that_grows_along_a_ramp(self) -> None:
        ramp = np.linspace(20, 220, SIDE)[None, :, None] * np.ones((SIDE, 1, 3))
        noise = estimate(((ramp + np.sqrt(2**2 + 12**2 * ramp / 255) * normal(*ramp.shape)) / 255).astype(np.float32))
        expected = np.sqrt(2**2 + 12**2 * noise[0].levels)
        np.testing.assert_allclose(255 * noise[0].sigma[:3], expected, rtol=0.25)

    def test_noise_of_different_channels(self) -> None:
        sigma = np.array([4, 10, 20], np.float32)
        noise = estimate(((photo(2 * SIDE) + sigma * normal(2 * SIDE, 2 * SIDE, 3)) / 255).astype(np.float32))[0]
        ratio = 255 * np.sqrt(np.square(noise.sigma[:3]).mean(axis=1)) / sigma
        np.testing.assert_allclose(ratio[1:], 1, rtol=0.2)
        assert 0.8 <= ratio[0] <= 1.6  # the other channels leak into the least noisy one

    @pytest.mark.parametrize("tint", [(1, 1, 1), (1, 0.9, 0.7), (0, 1, 0), (1, 1, 0)])
    @pytest.mark.parametrize("scanner", [0, 1])
    def test_noise_that_channels_share(self, tint: tuple[float, ...], scanner: float) -> None:
        """Grain of a photograph in black and white that is toned or scanned in colours, or of a single colour."""
        grainy = 40 + 0.6 * photo(2 * SIDE)[..., :1] + 10 * normal(2 * SIDE, 2 * SIDE, 1)
        noisy = grainy * np.array(tint) + scanner * normal(2 * SIDE, 2 * SIDE, 3)
        noise = estimate((noisy / 255).astype(np.float32))[0]
        found = 255 * np.sqrt(np.square(noise.sigma[:3]).mean(axis=1))
        np.testing.assert_allclose(found, np.hypot(10 * np.array(tint), scanner), rtol=0.25, atol=1)

    @pytest.mark.parametrize("blur", [0.5, 0.6])
    def test_correlated_noise_that_channels_share(self, blur: float) -> None:
        """Grain of a film, scanned in colours with noise of 1."""
        grain = gaussian_filter(normal(2 * SIDE, 2 * SIDE, 1), (blur, blur, 0))
        rows, columns = np.mgrid[: 2 * SIDE, : 2 * SIDE]
        clean = 128 + 50 * np.stack([np.sin(rows / 30), np.sin(columns / 25), np.cos((rows + columns) / 40)], axis=-1)
        noisy = clean + 10 * grain / grain.std() + normal(2 * SIDE, 2 * SIDE, 3)
        fine, coarse = np.sqrt(
            np.square(estimate((noisy / 255).astype(np.float32))[0].sigma).reshape(2, -1).mean(axis=1)
        )
        assert 255 * fine == pytest.approx(10, rel=0.25)
        assert coarse > 1.1 * fine

    def test_noise_of_a_mosaic_is_correlated(self) -> None:
        """Bilinear interpolation of an RGGB mosaic."""
        noisy = photo(2 * SIDE) / np.float32(255) + np.float32(0.04) * normal(2 * SIDE, 2 * SIDE, 3)
        pattern = np.tile([[0, 1], [1, 2]], (SIDE, SIDE))[..., None] == np.arange(3)
        total, weight = (gaussian_filter(x.astype(np.float32), (0.7, 0.7, 0)) for x in (noisy * pattern, pattern))
        noise = estimate(np.where(pattern, noisy, total / weight).astype(np.float32))[0]
        fine, coarse = np.sqrt(np.square(noise.sigma).reshape(2, -1).mean(axis=1))
        assert float(coarse / fine) > 1.3


class TestLittleNoise:
    """Images of 8 bits with less noise than their rounding stay as they are."""

    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch, models: dict[str, Path]) -> Run:
        """Denoise with a network of black output, and the given estimate, of 255."""

        class Black:
            facts, device, precision = NetworkFacts(ndim=2, channels=3, blind=False), "cpu", "float32"

            def denoise(self, x: Pixels, sigma: Pixels | None = None) -> Pixels:
                return np.zeros_like(x)

        black = ImagePipeline(models["sigma-image"], precision="float32")
        black.network = Black()

        def denoise(found: float, image: Image, **options: Any) -> Pixels:
            noise = uniform_noise(found / 255, image.pixels.shape[2])
            monkeypatch.setattr(black, "estimate_noise", lambda _: noise)
            return black.frame(image, **options).pixels

        return denoise

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_8_bits(self, run: Run, channels: int) -> None:
        image = Image(np.full((9, 12, channels), 77, np.uint8))
        for found in (0.0, 0.29):
            np.testing.assert_array_equal(run(found, image), image.pixels)
        assert (run(0.31, image) == 0).all()
        assert (run(0.0, image, sigma=0.2 / 255) == 0).all()

    @pytest.mark.parametrize("dtype", [np.uint16, np.float32])
    def test_more_bits(self, run: Run, dtype: Any) -> None:
        image = Image(np.ones((9, 12, 3), dtype))
        assert (run(0.1, image) == 0).all()
        np.testing.assert_array_equal(run(0.0, image), image.pixels)

    def test_a_clean_drawing_is_reported(self, tmp_path: Path) -> None:
        Pillow.fromarray(code(4)).save(tmp_path / "a.png")
        result = pipeline().file(tmp_path / "a.png", tmp_path / "b.png")
        assert "no noise was found" in result.warnings[0]
        np.testing.assert_array_equal(Pillow.open(tmp_path / "b.png"), code(4))
        assert result.asdict()["noise_after_sigma_255"] == result.asdict()["noise_before_sigma_255"]

    @pytest.mark.parametrize("options", [{"sigma": 0.0}, {"strength": 0.0}])
    def test_equal_pixels_have_equal_noise(self, tmp_path: Path, options: dict[str, float]) -> None:
        clean = np.asarray(Pillow.open(PHOTO))[:SIDE, : 2 * SIDE]
        noisy = clean + np.random.default_rng(0).normal(0, 0.5 * np.sqrt(clean))  # by intensity
        Pillow.fromarray(np.rint(noisy).clip(0, 255).astype(np.uint8)).save(tmp_path / "a.png")
        result = pipeline().file(tmp_path / "a.png", tmp_path / "b.png", **options).asdict()
        np.testing.assert_array_equal(Pillow.open(tmp_path / "b.png"), Pillow.open(tmp_path / "a.png"))
        assert result["noise_after_sigma_255"] == result["noise_before_sigma_255"] > 1


class TestFrames:
    """Any kind of frame, in its own units."""

    @staticmethod
    def noisy(*shape: int, sigma: float = 10.0) -> Pixels:
        """Return pixels about grey that are never clipped, of 255."""
        rows, columns = np.indices(shape[:2])
        clean = 120 + 40 * np.sin(rows / 15) * np.cos(columns / 20)
        noise = sigma * normal(*shape)
        return (clean.reshape(*shape[:2], *[1] * (len(shape) - 2)) + noise).astype(np.float32)

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_channels(self, channels: int) -> None:
        noise = estimate(self.noisy(SIDE, SIDE, channels).round().astype(np.uint8))
        groups = channel_groups(channels)
        assert [profile.channels for profile in noise] == [len(range(4)[group]) for group in groups]
        for profile in noise:
            assert 255 * profile.mean_sigma == pytest.approx(10, rel=0.1)

    def test_black_ink_has_its_own_noise(self) -> None:
        x = self.noisy(SIDE, SIDE, 4, sigma=4)
        x[..., 3] = self.noisy(SIDE, SIDE, sigma=20)
        colours, black = estimate(x.round().clip(0, 255).astype(np.uint8))
        assert 255 * colours.mean_sigma == pytest.approx(4, rel=0.2)
        assert 255 * black.mean_sigma == pytest.approx(20, rel=0.2)

    def test_grey_in_three_channels_is_treated_as_grey(self) -> None:
        x = self.noisy(SIDE, SIDE, 1).round().astype(np.uint8)
        (grey,), (repeated,) = estimate(x), estimate(x.repeat(3, axis=2))
        np.testing.assert_allclose(repeated.sigma, grey.sigma.repeat(3, axis=0), rtol=1e-6)
        np.testing.assert_allclose(repeated.levels, grey.levels.repeat(3, axis=0), rtol=1e-6)

    @pytest.mark.parametrize("shape", [(1, 1, 3), (1, 60, 3), (60, 1, 1), (2, 3, 1), (9, 40, 4)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_any_size(self, shape: tuple[int, ...], dtype: Any) -> None:
        x = self.noisy(*shape)
        image = Image((x if dtype == np.uint8 else x / 255).astype(dtype))
        noise = pipeline().estimate_noise(image)
        assert all(0 <= profile.mean_sigma < 0.2 for profile in noise)
        assert all(np.isfinite(profile.sigma).all() for profile in noise)
        y = pipeline().frame(image).pixels
        assert (y.shape, y.dtype) == (x.shape, dtype)
        assert np.abs(y.astype(float) - image.pixels).max() <= 0.25 * image.full_scale

    @pytest.mark.parametrize("colour", [(255, 255, 255), (10, 200, 90)])
    def test_one_colour_has_no_noise(self, colour: tuple[int, int, int]) -> None:
        x = np.full((SIDE, SIDE, 3), colour, np.uint8)
        assert sigma_of(estimate(x)) < 0.5
        assert (pipeline().frame(Image(x)).pixels == x).all()

    @pytest.mark.parametrize("bars", [((40, 41), (0, 0)), ((0, 0), (200, 7))])
    def test_black_bars_tell_nothing(self, bars: Any) -> None:
        x = self.noisy(100, 120, 3)
        assert sigma_of(estimate(np.pad(x, (*bars, (0, 0))))) == sigma_of(estimate(x)) > 5

    def test_hidden_pixels_tell_nothing(self) -> None:
        x = self.noisy(SIDE, SIDE, 3).round().astype(np.uint8)
        alpha = np.zeros((SIDE, SIDE), np.uint8)
        assert [profile.mean_sigma for profile in estimate(x, alpha)] == [0]
        assert (pipeline().frame(Image(x, alpha)).pixels == x).all()
        alpha[:, :60] = 1
        x[:, 60:] = np.random.default_rng(0).integers(0, 256, (SIDE, 36, 3))
        (first,) = estimate(x, alpha)
        x[:, 60:] = 0
        np.testing.assert_array_equal(estimate(x, alpha)[0].sigma, first.sigma)
        assert 255 * first.mean_sigma == pytest.approx(10, rel=0.2)

    def test_noise_of_the_black_ink_alone_is_removed(self) -> None:
        x = np.full((SIDE, SIDE, 4), 128, np.uint8)
        x[..., 3] = add_noise(x[..., 3], 20)
        y = pipeline().frame(Image(x)).pixels
        assert y[..., 3].std() < 5
        assert (y[..., :3] == 128).all()

    def test_a_narrow_visible_strip_has_its_own_noise(self) -> None:
        x = add_noise(np.full((2 * SIDE, 2 * SIDE, 3), 128, np.uint8), 20)
        alpha = np.zeros(x.shape[:2], np.uint8)
        alpha[90:110] = 255
        assert sigma_of(estimate(x, alpha)) == pytest.approx(20, rel=0.2)

    def test_units_of_the_frame_do_not_matter(self) -> None:
        """Sixteen bits have the estimate of floats, and floats in units of their own have it in these units."""
        x = self.noisy(SIDE, SIDE, 3) / np.float32(255)
        floats = estimate(x)[0]
        deep = estimate((65535 * x).round().astype(np.uint16))[0]
        np.testing.assert_allclose(deep.sigma, floats.sigma, rtol=0.01, atol=1e-5)
        own = estimate(4095 * x)[0]
        assert own.mean_sigma == pytest.approx(4095 * floats.mean_sigma, rel=0.05)
        assert float(own.levels.mean()) == pytest.approx(4095 * float(floats.levels.mean()), rel=0.05)
        other = estimate(1e7 * x)[0]
        np.testing.assert_allclose(other.sigma / 1e7, own.sigma / 4095, rtol=0.02, atol=1e-5)

    def test_noise_by_contrast_does_not_depend_on_the_contrast(self) -> None:
        x = self.noisy(SIDE, SIDE, 1, sigma=20) / np.float32(255)
        high, low = sigma_of(estimate(x)), sigma_of(estimate(0.3 + 0.3 * x))
        assert low == pytest.approx(0.3 * high, rel=0.1)


class TestNetworkInputs:
    """Channels of images and of their maps belong together."""

    PROFILE = NoiseProfile(np.zeros((3, 1), np.float32), np.arange(1, 7, dtype=np.float32)[:, None])

    @staticmethod
    def network(channels: int, sigma_maps: int) -> NetworkFacts:
        return NetworkFacts(ndim=2, channels=channels, blind=False, sigma_maps=sigma_maps)

    @staticmethod
    def images(*shape: int) -> Pixels:
        return np.random.default_rng(0).random(shape, np.float32)

    def test_channels_of_a_colour_network(self) -> None:
        x = self.images(2, 3, 5, 4)
        images, maps = to_network(x, self.PROFILE, self.network(3, 6))
        np.testing.assert_array_equal(images, x)
        assert maps is not None
        assert maps.shape == (2, 6, 5, 4)
        assert maps[0, :, 2, 2].tolist() == [1, 2, 3, 4, 5, 6]

    def test_grey_image_for_a_colour_network(self) -> None:
        x = self.images(2, 1, 5, 4)
        profile = NoiseProfile(np.zeros((1, 1), np.float32), np.array([[1], [2]], np.float32))
        images, maps = to_network(x, profile, self.network(3, 6))
        assert (images == x).all()
        assert images.shape == (2, 3, 5, 4)
        assert maps is not None
        assert maps[1, :, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]

    def test_colours_for_a_grey_network(self) -> None:
        x = self.images(2, 3, 5, 4)
        images, maps = to_network(x, self.PROFILE, self.network(1, 2))
        assert images.shape == (6, 1, 5, 4)
        assert (images[1, 0] == x[0, 1]).all()
        assert maps is not None
        assert maps[:, :, 0, 0].tolist() == [[1, 4], [2, 5], [3, 6]] * 2

    def test_networks_of_one_sigma_get_the_mean(self) -> None:
        images, sigma = to_network(self.images(2, 3, 5, 4), self.PROFILE, self.network(3, 1))
        assert sigma is not None
        assert sigma.tolist() == pytest.approx([(14 / 3) ** 0.5] * len(images))
        assert to_network(images, None, self.network(3, 6))[1] is None

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_uniform_noise_of_each_group(self, channels: int) -> None:
        noise = uniform_noise(0.1, channels)
        assert [profile.channels for profile in noise] == ([3, 1] if channels == 4 else [channels])
        assert all(profile.mean_sigma == pytest.approx(0.1) for profile in noise)


def normal(*shape: int) -> Pixels:
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


def label_image() -> NDArray[np.uint16]:
    """Return numbered discs, (256, 256)."""
    rng, (y, x) = np.random.default_rng(0), np.indices((256, 256))
    labels = np.zeros((256, 256), np.uint16)
    for i in range(1, 40):
        row, column, radius = rng.integers(20, 236), rng.integers(20, 236), rng.integers(5, 25)
        labels[(y - row) ** 2 + (x - column) ** 2 < radius**2] = i
    return labels


class TestImagesThatTellNoNoise:
    """Thumbnails, and flat areas of more than 8 bits, which come back as they are."""

    @pytest.mark.parametrize(
        "pixels",
        [
            label_image(),
            label_image() * np.uint16(1000),
            (label_image() + 24_000).astype(np.uint16),
            (label_image() > 0).astype(np.float32),
            label_image().astype(np.float32),
        ],
        ids=["labels", "distant labels", "high labels", "mask", "labels in floats"],
    )
    def test_flat_areas_of_more_than_8_bits_are_exact(self, pixels: NDArray[Any]) -> None:
        image = Image(pixels[..., None])
        assert ImagePipeline("photo").frame(image).equals(image)

    def test_hidden_pixels_do_not_make_noise_of_flat_areas(self) -> None:
        hidden = np.random.default_rng(0).integers(0, 65_536, (256, 256, 1)).astype(np.uint16)
        visible = label_image() > 20
        x = np.where(visible[..., None], label_image()[..., None], hidden)
        image = Image(x, np.where(visible, 65_535, 0).astype(np.uint16))
        assert ImagePipeline("photo").frame(image).equals(image)

    @pytest.mark.parametrize("sigma", [2.0, 10.0])
    @pytest.mark.parametrize("scale", [1, 257])
    def test_noise_in_flat_areas_of_more_than_8_bits_is_removed(self, sigma: float, scale: int) -> None:
        clean = 5.0 * label_image()
        noisy = (clean + sigma * normal(*clean.shape) + 20).round().clip(0, 255)
        (profile,) = ImagePipeline("photo").estimate_noise(Image((noisy * scale).astype(np.uint16)[..., None]))
        assert 65_535 / scale * profile.mean_sigma == pytest.approx(sigma, rel=0.2)
        denoised = ImagePipeline("photo").frame(Image((noisy * scale).astype(np.uint16)[..., None])).pixels[..., 0]
        assert np.square(denoised / scale - 20 - clean).mean() < sigma**2 / 4

    @pytest.mark.parametrize("factor", [2, 3])
    def test_enlarged_noise_is_found(self, factor: int) -> None:
        noisy = (120 + 40 * np.sin(np.arange(64) / 15) + 20 * normal(64, 64)).astype(np.float32) / 255
        image = Image(noisy.repeat(factor, 0).repeat(factor, 1)[..., None])
        assert 255 * ImagePipeline("photo").estimate_noise(image)[0].mean_sigma > 5

    def test_pixels_of_8_bits_are_as_exact_in_16(self) -> None:
        with Pillow.open(PHOTO) as file:
            x = np.asarray(file.convert("L"))[..., None]
        image = Image(x.astype(np.uint16))
        assert ImagePipeline("photo").frame(Image(x)).equals(Image(x))
        assert ImagePipeline("photo").frame(image).equals(image)

    @pytest.mark.parametrize("side", [8, 16, 24, 31])
    def test_thumbnails_stay_as_they_are_unless_sigma_is_given(self, side: int) -> None:
        with Pillow.open(PHOTO) as file:
            clean = np.asarray(file.resize((side, side), Pillow.Resampling.LANCZOS))
        image = Image(clean)
        assert ImagePipeline("photo").frame(image).equals(image)
        noisy = (clean + 20 * normal(*clean.shape)).round().clip(0, 255).astype(np.uint8)
        denoised = ImagePipeline("photo").frame(Image(noisy), sigma=20 / 255).pixels
        assert np.square(denoised - 1.0 * clean).mean() < np.square(noisy - 1.0 * clean).mean()

    def test_visible_pixels_count(self) -> None:
        noisy = (128 + 20 * normal(64, 64, 3)).round().clip(0, 255).astype(np.uint8)
        alpha = np.zeros((64, 64), np.uint8)
        alpha[:20, :20] = 255
        assert ImagePipeline("photo").estimate_noise(Image(noisy, alpha))[0].mean_sigma == 0
        alpha[:40, :40] = 255
        sigma = 255 * ImagePipeline("photo").estimate_noise(Image(noisy, alpha))[0].mean_sigma
        assert sigma == pytest.approx(20, rel=0.2)

    def test_priors_estimate_the_noise_of_small_images(self) -> None:
        noisy = (128 + 20 * normal(28, 28, 1)).round().clip(0, 255).astype(np.uint8)
        sigma = 255 * ImagePipeline("mnist-diffusion").estimate_noise(Image(noisy))[0].mean_sigma
        assert sigma == pytest.approx(20, rel=0.3)
