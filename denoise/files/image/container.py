"""The interface of an image container: how to detect, read and write it, and its limits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.signals import Image, ImageFormat

FrameInfo = dict[str, Any]
"""What a file holds about one frame: ``mode``, ``duration``, ``disposal``, ``colors``, ``palette``, ``tiff``, ..."""

NATURAL_MODES = {(1, False): "L", (1, True): "LA", (3, False): "RGB", (3, True): "RGBA", (4, False): "CMYK"}
"""Pillow's mode of pixels with these channels, with alpha or without."""


@dataclass(frozen=True)
class SizeLimit:
    """Limit of the size of frames, checked before pixels are decoded.

    Args:
        max_megapixels: largest number of pixels of a frame, in millions.
    """

    max_megapixels: float

    def check(self, width: int, height: int) -> None:
        """Check the size of a frame.

        Args:
            width: columns of pixels.
            height: rows of pixels.

        Raises:
            InputError: there are no pixels, or more than the limit.
        """
        if width < 1 or height < 1:
            raise InputError(f"is {width} x {height} pixels; expected at least 1 x 1. Re-export the file.")
        if width * height > self.max_megapixels * 1e6:
            raise InputError(
                f"is {width} x {height} pixels ({width * height / 1e6:,.1f} megapixels); expected at most "
                f"{self.max_megapixels:g}. Raise --max-megapixels if the file can be trusted."
            )


class ImageContainer(ABC):
    """An open image file. Its class describes the container: how it is detected, read and written, and its limits.

    To add a container, derive a class in a file of its own and append it to
    `denoise.files.image.registry.CONTAINERS`. A class that needs an optional package imports it in `read_header`
    and in `write`, and raises `InputError` with the extra to install where the package is missing.

    Args:
        file: the open file, seekable.
        limit: limit of the size of frames.

    Attributes:
        name: name of the container, as in `ImageFormat.container`.
        extensions: extensions of its files, lower case with the dot; the first is the usual one.
        modes: for each of `NATURAL_MODES` that it can hold, the mode in which it is written.
        dtypes: types of pixels that it can hold.
        max_side: largest width and height in pixels.
        has_bilevel: whether images of one bit per pixel stay so.
        palette_modes: those of `NATURAL_MODES` that are written with a palette where the source had one.
        can_animate: whether a file may hold an animation.
        has_pages: whether a file may hold pages of different sizes and modes.
        has_premultiplied_alpha: whether a file may hold colours that are multiplied by alpha.
        size: (width, height) of the first frame in pixels, as stored.
        n_frames: number of frames or pages.
        mode: stored mode of the first frame.
        bits: bits per channel.
        info: what else the file holds, in the keys of `ImageFormat.info`.
        warnings: remarks about the file.
    """

    name: ClassVar[str]
    extensions: ClassVar[tuple[str, ...]]
    modes: ClassVar[Mapping[str, str]]
    dtypes: ClassVar[tuple[type[np.generic], ...]] = (np.uint8,)
    max_side: ClassVar[int] = 2**31
    has_bilevel: ClassVar[bool] = False
    palette_modes: ClassVar[tuple[str, ...]] = ()
    can_animate: ClassVar[bool] = False
    has_pages: ClassVar[bool] = False
    has_premultiplied_alpha: ClassVar[bool] = False

    size: tuple[int, int]
    n_frames: int
    mode: str
    bits: int
    info: dict[str, Any]

    def __init__(self, file: BinaryIO, limit: SizeLimit) -> None:
        self.file = file
        self.limit = limit
        self.warnings: list[str] = []
        self.read_header()

    @classmethod
    @abstractmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file is of this container.

        Args:
            head: the first 64 bytes of the file, fewer if it is shorter.
        """

    @abstractmethod
    def read_header(self) -> None:
        """Set ``size``, ``n_frames``, ``mode``, ``bits`` and ``info`` without decoding pixels.

        Raises:
            InputError: the file is of an unsupported kind or above the limit of size. Whatever a decoder raises for
                damaged files is translated by the caller.
        """

    @abstractmethod
    def read_frames(self) -> Iterator[tuple[Image, FrameInfo]]:
        """Decode the frames one at a time, from the first to the last; may be called again.

        Yields:
            The frame and what the file holds about it.

        Raises:
            InputError: as `read_header`.
        """

    def format(self) -> ImageFormat:
        """Return the format of the file, with an empty list of ``frames`` in its info."""
        return ImageFormat(self.name, self.mode, self.bits, self.info | {"frames": []})

    @classmethod
    @abstractmethod
    def write(cls, file: IO[bytes], frames: Iterator[Image], source: ImageFormat, name: str) -> None:
        """Write frames with the mode, the depth and the metadata of the file that they come from.

        Args:
            file: empty file, readable and seekable.
            frames: at least one; more than one only where ``can_animate`` or ``has_pages``.
            source: format of the file that the frames come from, perhaps of another container. Its info about
                single frames may grow while ``frames`` is consumed.
            name: name of the target in errors.

        Raises:
            InputError: the container cannot hold a frame.
        """

    @classmethod
    def stored_mode(cls, frame: Image, info: FrameInfo, name: str) -> str:
        """Return the mode in which a frame is written.

        Args:
            frame: frame to be written.
            info: what the source holds about it, see `frame_info`.
            name: name of the target in errors.

        Returns:
            Mode in Pillow's names.

        Raises:
            InputError: the container cannot hold the size, the depth or the channels of the frame.
        """
        height, width, channels = frame.pixels.shape
        dtype = frame.pixels.dtype
        if max(width, height) > cls.max_side:
            raise InputError(
                f"{name}: {width} x {height} pixels; {cls.name} holds at most {cls.max_side} a side. Write PNG."
            )
        if dtype not in cls.dtypes:
            raise InputError(
                f"{name}: {cls.name} cannot hold {'floats' if dtype == np.float32 else '16 bits'}; "
                "8 bits were expected. Write PNG (16 bits) or TIFF."
            )
        natural_mode = NATURAL_MODES.get((channels, frame.alpha is not None), "CMYK with alpha")
        if natural_mode not in cls.modes:
            feature = "CMYK" if frame.alpha is None else "alpha"
            raise InputError(
                f"{name}: {cls.name} cannot hold {feature}; the image is {natural_mode}. Write TIFF or PNG."
            )
        if dtype == np.uint8 and info["mode"] == "1" and natural_mode == "L" and cls.has_bilevel:
            return "1"
        if dtype == np.uint8 and info["mode"] == "P" and natural_mode in cls.palette_modes:
            return "P"
        return cls.modes[natural_mode]


def add_warning(source: ImageFormat, warning: str) -> None:
    """Add a remark about writing to the warnings of the reader of a file, once.

    Args:
        source: format of the file that is read.
        warning: one sentence that follows the name of the file.
    """
    warnings = source.info.get("warnings", [])
    if warning not in warnings:
        warnings.append(warning)


def frame_info(source: ImageFormat, index: int) -> FrameInfo:
    """Return what the source file holds about a frame.

    Args:
        source: format of the source.
        index: index of the frame; beyond the last frame of the source, its last one is used.

    Returns:
        Info of the frame, at least with ``mode``.
    """
    infos = source.info.get("frames") or [{}]
    return {"mode": source.mode} | infos[min(index, len(infos) - 1)]


def split_alpha(x: NDArray[Any], channels: int) -> Image:
    """Return an image of interleaved samples.

    Args:
        x: (height, width, samples), alpha last if there is one.
        channels: number of channels without alpha.
    """
    if x.shape[2] == channels:
        return Image(x)
    return Image(np.ascontiguousarray(x[..., :channels]), np.ascontiguousarray(x[..., channels]))


def interleave_alpha(frame: Image) -> NDArray[Any]:
    """Return the interleaved samples of an image, (height, width, samples), alpha last if there is one."""
    return frame.pixels if frame.alpha is None else np.concatenate([frame.pixels, frame.alpha[..., None]], axis=2)
