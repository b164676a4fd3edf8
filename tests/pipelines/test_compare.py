"""The image of input, output and difference shows the pixels of the files."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageCms, ImageOps

from denoise.errors import ConfigError, InputError
from denoise.files.image import read_image, write_image
from denoise.files.image.panel import Column
from denoise.pipelines import compare
from denoise.pipelines.compare import BAND, CROP, HEIGHT, WIDTH, compare_image, find_crop, write_visible
from denoise.signals import Image, ImageFormat

rng = np.random.default_rng(0)


class Panel:
    """Arguments of `draw_panel`; views are floats, so that differences keep their sign."""

    def __init__(self, columns: list[Column], width: int, box: Any, caption: str) -> None:
        self.titles = [column.title for column in columns]
        self.overviews = [column.overview.astype(float) for column in columns]
        self.crops = [column.crop.astype(float) for column in columns]
        self.box, self.caption = box, caption


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[Panel]:
    calls, original = [], compare.draw_panel

    def draw(columns: list[Column], width: int, box: Any, caption: str) -> Image:
        calls.append(Panel(columns, width, box, caption))
        return original(columns, width, box, caption)

    monkeypatch.setattr(compare, "draw_panel", draw)
    return calls


def saved(path: Path, x: NDArray[Any], **options: Any) -> Path:
    Pillow.fromarray(x).save(path, **options)
    return path


def noise(*shape: int, low: int = 0, high: int = 255) -> NDArray[np.uint8]:
    return rng.integers(low, high, shape, np.uint8, endpoint=True)


def enlarge(x: NDArray[Any], factor: int) -> NDArray[Any]:
    return np.kron(x, np.ones((factor, factor, 1)))


class TestViews:
    def test_views_show_the_pixels_of_the_files(self, tmp_path: Path, panels: list[Panel]) -> None:
        x = noise(48, 64, 3, low=40, high=200)
        y = x.copy()
        y[:10, :, 0] += 10  # red is brighter: the difference is negative
        y[20:30, :, 2] -= 10
        compare_image(saved(tmp_path / "x.png", x), saved(tmp_path / "y.png", y), tmp_path / "z.png")
        (shown,) = panels
        assert shown.titles == ["before", "after", "removed x8"]
        assert shown.caption == "Framed and enlarged x7: 64 x 48 pixels at 0, 0 of 64 x 48."
        for views in (shown.overviews, shown.crops):
            assert (views[0] == enlarge(x, 7)).all()
            assert (views[1] == enlarge(y, 7)).all()
            expected = 127.5 + 8 * (enlarge(x, 7) - enlarge(y, 7))
            np.testing.assert_allclose(views[2], expected, rtol=0, atol=0.6)
            assert (views[2][:, :, 1] == 128).all()  # middle grey where nothing changed
            assert (views[2][:70, :, 0] < 60).all()
            assert (views[2][140:210, :, 2] > 195).all()

    @pytest.mark.parametrize(
        ("amount", "factor"), [(0, 32), (1, 32), (3, 32), (4, 16), (10, 8), (30, 4), (60, 2), (64, 1), (255, 1)]
    )
    def test_gain_keeps_the_difference_in_range(
        self, tmp_path: Path, panels: list[Panel], amount: int, factor: int
    ) -> None:
        x = np.full((200, 200), 255, np.uint8)
        compare_image(saved(tmp_path / "x.png", x), saved(tmp_path / "y.png", x - amount), tmp_path / "z.png")
        assert panels[0].titles[2] == f"removed x{factor}"
        expected = min(255, 127.5 + factor * amount)
        np.testing.assert_allclose(panels[0].crops[2], expected, rtol=0, atol=0.6)
        np.testing.assert_allclose(panels[0].overviews[2], expected, rtol=0, atol=0.6)

    @pytest.mark.parametrize(("shape", "up", "down"), [((640, 960), 1, 2), ((480, 720), 2, 3), ((1080, 90), 2, 3)])
    def test_overview_of_a_large_image_is_averaged_over_areas(
        self, tmp_path: Path, panels: list[Panel], shape: tuple[int, int], up: int, down: int
    ) -> None:
        """The oracle enlarges by an integer factor, then averages over whole pixels."""
        x = noise(*shape)
        tall, wide = (side * up // down for side in shape)
        fine = enlarge(x[..., None].astype(float), up)
        expected = fine.reshape(tall, down, wide, down, 1).mean(axis=(1, 3))
        compare_image(saved(tmp_path / "x.png", x), saved(tmp_path / "y.png", x // 2), tmp_path / "z.png")
        (shown,) = panels
        np.testing.assert_allclose(shown.overviews[0], expected.repeat(3, axis=2), rtol=0, atol=0.51)
        factor = int(shown.titles[2].removeprefix("removed x"))
        difference = factor * (shown.overviews[0] - shown.overviews[1])  # of two rounded numbers
        np.testing.assert_allclose(shown.overviews[2], np.clip(127.5 + difference, 0, 255), rtol=0, atol=factor + 0.6)

    @pytest.mark.parametrize(
        ("width", "height"),
        [(1, 1), (1, 300), (300, 1), (3, 5000), (5000, 3), (161, 159), (160, 160), (1301, 41), (20, 9)],
    )
    def test_odd_shapes(self, tmp_path: Path, panels: list[Panel], width: int, height: int) -> None:
        x, y = noise(height, width, 3), noise(height, width, 3)
        compare_image(saved(tmp_path / "x.png", x), saved(tmp_path / "y.png", y), tmp_path / "z.png")
        (shown,) = panels
        with Pillow.open(tmp_path / "z.png") as sheet:
            assert (sheet.format, sheet.mode, sheet.width) == ("PNG", "RGB", 3 * WIDTH + 2 * 16 + 2 * 24)
        tall, wide = shown.overviews[0].shape[:2]
        assert 1 <= tall <= HEIGHT
        assert 1 <= wide <= WIDTH
        assert shown.overviews[2].shape == shown.overviews[1].shape == (tall, wide, 3)
        rows, columns = find_crop(Image(y))
        for view, pixels in zip(shown.crops[:2], (x, y), strict=True):
            crop = pixels[rows, columns]
            assert crop.shape == (min(CROP, height), min(CROP, width), 3)
            factor = len(view) // len(crop)
            assert factor >= 3
            assert max(view.shape) <= WIDTH
            assert (view == enlarge(crop, factor)).all()
        left, top, right, bottom = shown.box
        assert 0 <= left < right < wide + 0.51
        assert 0 <= top < bottom < tall + 0.51
        assert left / wide == pytest.approx(columns.start / width, abs=1 / wide)
        assert bottom / tall == pytest.approx(rows.stop / height, abs=1 / tall)


def scene(height: int, width: int) -> NDArray[np.float32]:
    """A uniform area, fine texture in the left third, and bars of 60 x 60 pixels at row 300, column 420."""
    x = np.full((height, width, 1), 0.5, np.float32)
    x[:, : width // 3] += rng.normal(0, 0.1, (height, width // 3, 1)).astype(np.float32)
    for row in range(300, 360, 6):
        x[row : row + 3, 420:480], x[row + 3 : row + 6, 420:480] = 0, 1
    return x


class TestCrop:
    def test_edges_beside_smooth_areas_are_preferred_to_texture(self) -> None:
        rows, columns = find_crop(Image(scene(600, 800)))
        assert rows.start <= 300 < 360 <= rows.stop
        assert columns.start <= 420 < 480 <= columns.stop
        assert (rows.stop - rows.start, columns.stop - columns.start) == (CROP, CROP)

    def test_crop_has_the_same_content_after_transforms(self) -> None:
        """Mirrored, transposed, inverted, and in other dtypes and channels."""
        x = scene(600, 800)
        for image, (top, left) in (
            (Image(x[::-1]), (240, 420)),
            (Image(x[:, ::-1]), (300, 320)),
            (Image(x.swapaxes(0, 1)), (420, 300)),
            (Image((1 - x).clip(0, 1)), (300, 420)),
            (Image((x.repeat(3, axis=2).clip(0, 1) * 65535).astype(np.uint16)), (300, 420)),
            (Image(np.concatenate([np.zeros((600, 800, 3), np.float32), x], axis=2)), (300, 420)),
        ):
            rows, columns = find_crop(image)
            assert rows.start <= top < top + 60 <= rows.stop
            assert columns.start <= left < left + 60 <= columns.stop

    def test_transparent_pixels_are_ignored(self) -> None:
        x = np.full((600, 800, 1), 204, np.uint8)  # as bright as the backdrop
        x[300:360:2, 420:480] = 0
        x[100:110, 700:710] = 150
        alpha = np.full(x.shape[:2], 255, np.uint8)
        assert find_crop(Image(x, alpha))[0].stop > 300
        alpha[300:360, 420:480] = 0
        rows, columns = find_crop(Image(x, alpha))
        assert rows.start < 100 < 110 < rows.stop
        assert columns.start < 700 < 710 < columns.stop
        assert find_crop(Image(x, np.zeros_like(alpha))) == (slice(0, CROP), slice(0, CROP))

    def test_crop_is_the_upper_left_of_equal_ones(self) -> None:
        assert find_crop(Image(np.zeros((500, 700, 3), np.uint8))) == (slice(0, CROP), slice(0, CROP))

    def test_large_images_need_little_memory(self) -> None:
        """Beyond their own pixels, which would be 144 MB in float32."""
        x = Image(np.broadcast_to(np.arange(4000).astype(np.uint8)[None, :, None], (3000, 4000, 3)))
        tracemalloc.start()
        try:
            find_crop(x)
            assert compare._overview(x, 0.12).shape == (360, 480, 3)
            assert tracemalloc.get_traced_memory()[1] < 48e6
        finally:
            tracemalloc.stop()


def read_by_pillow(path: Path) -> NDArray[Any]:
    """In RGB, on light grey."""
    with Pillow.open(path) as image:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            backdrop = Pillow.new("RGBA", image.size, (204, 204, 204, 255))
            image = Pillow.alpha_composite(backdrop, image)
        return np.asarray(image.convert("RGB"), float)


class TestModes:
    @pytest.mark.parametrize(
        ("mode", "name"),
        [
            ("1", "x.png"), ("1", "x.tif"), ("L", "x.png"), ("LA", "x.png"), ("P", "x.png"), ("P", "x.gif"),
            ("RGB", "x.jpg"), ("RGB", "x.webp"), ("RGB", "x.bmp"), ("RGBA", "x.png"), ("RGBA", "x.webp"),
            ("CMYK", "x.tif"), ("CMYK", "x.jpg"),
        ],
    )  # fmt: skip
    def test_modes_of_8_bits(self, tmp_path: Path, panels: list[Panel], mode: str, name: str) -> None:
        colours = Pillow.fromarray(noise(30, 40, 4), "RGBA")
        first = colours if mode == "RGBA" else colours.convert("LA" if mode == "LA" else "RGB").convert(mode)
        others = [first.rotate(180)] if name.endswith((".tif", ".gif")) else []  # the first frame is shown
        first.save(tmp_path / name, **({"save_all": True, "append_images": others} if others else {}))
        compare_image(tmp_path / name, tmp_path / name, tmp_path / "z.png")
        (shown,) = panels
        for view in (shown.overviews[0], shown.crops[1]):
            np.testing.assert_allclose(view, enlarge(read_by_pillow(tmp_path / name), 12), rtol=0, atol=1)
        assert (shown.overviews[2] == 128).all()

    @pytest.mark.parametrize("dtype", [np.uint16, np.float32])
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("alpha", [False, True])
    def test_modes_of_16_and_32_bits(
        self, tmp_path: Path, panels: list[Panel], dtype: Any, channels: int, alpha: bool
    ) -> None:
        white = 1 if dtype == np.float32 else 65535
        x = (rng.uniform(0.1, 0.9, (30, 40, channels)) * white).astype(dtype)
        opacity = (rng.uniform(0, 1, (30, 40)) * white).astype(dtype) if alpha else None
        darker = Image((x - 0.001 * white).astype(dtype), opacity)  # 65 of 65535: less than a step of 8 bits
        for name, image in (("x.tif", Image(x, opacity)), ("y.tif", darker)):
            write_image(tmp_path / name, [image], ImageFormat("TIFF"))
        compare_image(tmp_path / "x.tif", tmp_path / "y.tif", tmp_path / "z.png")
        opaque = np.ones((30, 40, 1)) if opacity is None else opacity[..., None] / white
        expected = (x / white * opaque + 0.8 * (1 - opaque)).repeat(3 // channels, axis=2) * 255
        (shown,) = panels
        assert shown.titles[2] == "removed x32"
        np.testing.assert_allclose(shown.overviews[0], enlarge(expected, 12), rtol=0, atol=0.6)
        np.testing.assert_allclose(
            shown.overviews[2], enlarge(127.5 + 32 * 0.255 * opaque.repeat(3, axis=2), 12), rtol=0, atol=0.8
        )

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif"])
    def test_orientation_of_the_exif_is_applied(
        self, tmp_path: Path, panels: list[Panel], name: str, orientation: int
    ) -> None:
        exif = Pillow.Exif()
        exif[0x0112] = orientation
        x = saved(tmp_path / name, noise(30, 40, 3), exif=exif.tobytes())
        with Pillow.open(x) as image:
            expected = np.asarray(ImageOps.exif_transpose(image))
        y = saved(tmp_path / "y.bmp", read_image(x).pixels)  # as stored, and without EXIF
        compare_image(x, y, tmp_path / "z.png")
        (shown,) = panels
        assert (shown.overviews[0] == enlarge(expected, len(shown.overviews[0]) // len(expected))).all()
        assert (shown.overviews[2] == 128).all()

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_an_image_is_written_as_it_is_seen(self, tmp_path: Path, orientation: int) -> None:
        exif = Pillow.Exif()
        exif[0x0112] = orientation
        x = saved(tmp_path / "x.jpg", noise(30, 40, 3), exif=exif.tobytes())
        write_visible(x, tmp_path / "y.png")
        with Pillow.open(x) as image, Pillow.open(tmp_path / "y.png") as seen:
            expected = np.asarray(ImageOps.exif_transpose(image))
            assert (seen.format, seen.mode) == ("PNG", "RGB")
            assert "exif" not in seen.info  # a viewer does not turn it once more
            np.testing.assert_allclose(np.asarray(seen), expected, rtol=0, atol=1)

    def test_an_image_of_several_bands_is_written_as_it_is_seen(self, tmp_path: Path) -> None:
        x = noise(2 * BAND + 9, 20, 3)
        write_visible(saved(tmp_path / "x.bmp", x), tmp_path / "y.png")
        np.testing.assert_array_equal(np.asarray(Pillow.open(tmp_path / "y.png")), x)

    @pytest.mark.parametrize("exif", [b"", b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\0\x63"])
    def test_damaged_exif_is_ignored(self, tmp_path: Path, panels: list[Panel], exif: bytes) -> None:
        x = saved(tmp_path / "x.png", noise(30, 40, 3), exif=exif)
        compare_image(x, x, tmp_path / "z.png")
        assert panels[0].overviews[0].shape[:2] == (360, 480)

    def test_rgb_profile_is_kept(self, tmp_path: Path) -> None:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        cmyk = profile[:16] + b"CMYK" + profile[20:]
        for name, stored, expected in (("a.png", profile, profile), ("b.png", cmyk, None), ("c.png", None, None)):
            x = saved(tmp_path / name, noise(5, 5, 3), **({"icc_profile": stored} if stored else {}))
            compare_image(x, x, tmp_path / f"see-{name}")
            with Pillow.open(tmp_path / f"see-{name}") as sheet:
                assert sheet.info.get("icc_profile") == expected


class TestErrors:
    def test_errors_leave_no_file(self, tmp_path: Path) -> None:
        x, y = saved(tmp_path / "x.png", noise(5, 7)), saved(tmp_path / "y.png", noise(7, 5))
        (tmp_path / "is.png").write_text("mine")
        (tmp_path / "text.png").write_text("not an image")
        for before, after, target, error, message in (
            (x, x, "z.jpg", ConfigError, r"z\.jpg: expected a \.png for a comparison\. Choose such a name"),
            (x, y, "z.png", InputError, r"y\.png: is 5 x 7 pixels; expected 7 x 5 as .*x\.png\. Give two"),
            (x, x, "is.png", InputError, r"is\.png: exists already\. Give --overwrite"),
            (x, tmp_path / "no.png", "z.png", InputError, r"no\.png: no such file"),
            (tmp_path / "text.png", x, "z.png", InputError, r"text\.png: looks like text"),
        ):
            with pytest.raises(error, match=message):
                compare_image(before, after, tmp_path / target)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["is.png", "text.png", "x.png", "y.png"]
        assert (tmp_path / "is.png").read_text() == "mine"
        compare_image(x, x, tmp_path / "is.png", overwrite=True)
        with Pillow.open(tmp_path / "is.png") as sheet:
            assert sheet.width > 3 * WIDTH

    def test_limit_of_megapixels(self, tmp_path: Path) -> None:
        x = saved(tmp_path / "x.png", noise(40, 50))
        with pytest.raises(InputError, match="Raise --max-megapixels"):
            compare_image(x, x, tmp_path / "z.png", max_megapixels=0.001)
        compare_image(x, x, tmp_path / "z.png", max_megapixels=0.002)
