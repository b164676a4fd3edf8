"""HEIF with HEVC (HEIC), of 8, 10 and 12 bits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.image.boxes import colour_info, read_brands, read_items
from denoise.files.image.container import FrameInfo, ImageContainer, frame_info, interleave_alpha, split_alpha
from denoise.files.image.subsampling import chroma_subsampling
from denoise.signals import Image, ImageFormat

if TYPE_CHECKING:
    from pillow_heif import HeifImage

HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
AVIF_BRANDS = {b"avif", b"avis"}
QUALITY = 95
PRESET = "ultrafast"  # a seventh of the time of the default, for a fifth more bytes
MAX_BITS = 12  # of the encoder
KEPT_PROPERTIES = (
    "metadata", "thumbnails", "pixel_aspect_ratio", "content_light_level", "mastering_display_colour_volume",
    "ambient_viewing_environment", "nominal_diffuse_white_luminance",
)  # fmt: skip
BT601 = 6
MATRICES = (1, 5, BT601, 9)  # that the encoder has, but for the identity, which needs all chroma samples
NCLX_KEYS = ("color_primaries", "transfer_characteristics", "matrix_coefficients", "full_range_flag")


class Heif(ImageContainer):
    """HEIF with HEVC (HEIC); of a file with several images, the primary one.

    Rotation, mirroring and cropping of the file are applied, so its EXIF orientation is 1. pillow-heif is imported
    where it is used, since few runs need it.
    """

    name = "HEIF"
    extensions = (".heic", ".heif", ".hif")
    modes: ClassVar[dict[str, str]] = {"L": "L", "LA": "RGBA", "RGB": "RGB", "RGBA": "RGBA"}
    dtypes = (np.uint8, np.uint16)
    max_side = 16_384

    @classmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file names a brand of HEIF and none of AVIF."""
        brands = read_brands(head)
        return bool(brands & HEIF_BRANDS) and not brands & AVIF_BRANDS

    def open_image(self) -> tuple[HeifImage, int]:
        """Return the primary image, not yet decoded, and the number of images."""
        self.file.seek(0)
        images = import_pillow_heif("").open_heif(
            io.BytesIO(self.file.read()), convert_hdr_to_8bit=False, hdr_to_16bit=False
        )
        return images[images.primary_index], len(images)

    def read_header(self) -> None:
        """Read the header with libheif.

        Raises:
            InputError: the file is encrypted or above the limit of size.
        """
        self.file.seek(0)
        items = read_items(self.file.read())
        if items is not None:
            items.check_readable()
        image, n_images = self.open_image()
        self.size, self.n_frames = image.size, 1
        self.limit.check(*self.size)
        info: dict[str, Any] = dict(image.info)
        import_pillow_heif("").set_orientation(info)  # libheif has turned the pixels
        self.mode, self.bits = _natural_mode(image.mode), info["bit_depth"]
        self.info = {key: info[key] for key in ("exif", "xmp", "icc_profile", "chroma") if info.get(key)}
        if nclx := info.get("nclx_profile"):
            self.info |= colour_info(*(int(nclx[key]) for key in NCLX_KEYS))
        self.info["heif"] = {key: info[key] for key in KEPT_PROPERTIES if key in info}
        if tiling := info.get("tiling"):
            self.info["heif"]["tile_size"] = tiling["tile_width"]
        if n_images > 1:
            self.warnings.append(f"holds {n_images} images; the primary one is read.")
        if items is not None and items.has_sequence:
            self.warnings.append("holds a sequence of images; the primary one is read.")
        if items is not None and (kinds := items.auxiliary_kinds()):
            self.warnings.append(f"holds auxiliary images ({', '.join(kinds)}); they are not read.")

    def read_frames(self) -> Iterator[tuple[Image, FrameInfo]]:
        """Decode the primary image.

        Yields:
            The image and its mode.
        """
        image, _ = self.open_image()
        samples = np.asarray(image)
        samples = samples.reshape(*samples.shape[:2], -1)
        if self.bits > 8:
            samples = expand_bits(samples, self.bits)
        channels = 1 if samples.shape[2] <= 2 else 3
        frame = split_alpha(np.array(samples[:, : image.size[0]]), channels)
        if image.premultiplied_alpha:
            frame = divide_alpha(frame)
        del image, samples
        yield frame, {"mode": self.mode}

    @classmethod
    def write(cls, file: IO[bytes], frames: Iterator[Image], source: ImageFormat, name: str) -> None:
        """Write one frame with x265: 8 bits as they are, 16 bits with those of the source, at most 12.

        Args:
            file: empty file, readable and seekable.
            frames: one frame.
            source: format of the file that the frame comes from.
            name: name of the target in errors.

        Raises:
            InputError: HEIF cannot hold the frame.
        """
        pillow_heif = import_pillow_heif(f"{name}: ")
        frame = next(frames)
        mode = cls.stored_mode(frame, frame_info(source, 0), name)
        samples = interleave_alpha(frame)
        if mode == "RGBA" and samples.shape[2] == 2:
            samples = samples[..., [0, 0, 0, 1]]
        bits = 8
        if samples.dtype == np.uint16:
            bits = source.bits if 8 < source.bits < MAX_BITS else MAX_BITS
            samples, mode = reduce_bits(samples, bits), f"{mode};{bits}"
        options: dict[str, Any] = dict(source.info.get("heif", {}))
        options |= {key: source.info[key] for key in ("exif", "xmp", "icc_profile") if source.info.get(key)}
        if "nclx" in source.info and "icc_profile" not in options:
            nclx = dict(zip(NCLX_KEYS, source.info["nclx"], strict=True))
            if nclx["matrix_coefficients"] not in MATRICES:
                nclx["matrix_coefficients"] = BT601
            options |= {"nclx_profile": nclx} | nclx
        options |= {"quality": QUALITY, "bit_depth": bits}
        options["enc_params"] = {"chroma": chroma_subsampling(source), "preset": PRESET}
        height, width = samples.shape[:2]
        try:
            pillow_heif.from_bytes(mode, (width, height), np.ascontiguousarray(samples).tobytes()).save(file, **options)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{name}: HEIF cannot hold the image ({reason}). Write PNG or TIFF.") from error


def import_pillow_heif(prefix: str) -> ModuleType:
    """Return the module pillow_heif.

    Args:
        prefix: start of the error.

    Raises:
        InputError: the package is not installed.
    """
    try:
        return import_module("pillow_heif")
    except ImportError as error:
        raise InputError(
            f'{prefix}HEIC needs the package pillow-heif. Install the extra: pip install ".[heic]"'
        ) from error


def _natural_mode(mode: str) -> str:
    """Return the mode of pixels for a mode of pillow-heif."""
    mode = mode.split(";")[0]
    return {"I": "L", "La": "LA", "RGBa": "RGBA"}.get(mode, mode)


def expand_bits(x: NDArray[np.uint16], bits: int) -> NDArray[Any]:
    """Return samples of 8 to 16 bits at the scale of 16 bits: black and white stay, and `reduce_bits` inverts it.

    Args:
        x: any shape, uint16, full scale ``2 ** bits - 1``.
        bits: bits per sample.
    """
    return (x << (16 - bits)) | (x >> (2 * bits - 16))


def reduce_bits(x: NDArray[np.uint16], bits: int) -> NDArray[np.uint16]:
    """Round samples of 16 bits to fewer bits.

    Args:
        x: any shape, uint16, full scale 65535.
        bits: bits per sample, 8 to 15.
    """
    peak = np.uint32((1 << bits) - 1)
    return ((x.astype(np.uint32) * peak + 32_767) // 65_535).astype(np.uint16)


def divide_alpha(frame: Image) -> Image:
    """Return an image whose pixels were multiplied by its alpha with straight pixels.

    Args:
        frame: image with alpha, integers.
    """
    if frame.alpha is None:
        return frame
    alpha = np.maximum(frame.alpha, 1).astype(np.float32)[..., None]
    straight = np.minimum(frame.pixels * (np.float32(frame.full_scale) / alpha), frame.full_scale)
    return Image(np.rint(straight).astype(frame.pixels.dtype), frame.alpha)
