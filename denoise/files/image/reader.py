"""Read image files frame by frame."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from denoise.errors import InputError
from denoise.files.image.container import ImageContainer, SizeLimit
from denoise.files.image.damage import translate_errors
from denoise.files.image.orientation import apply_orientation
from denoise.files.image.registry import detect_container
from denoise.files.names import file_name
from denoise.options import MAX_MEGAPIXELS, check_max_megapixels
from denoise.signals import Image

MAX_STREAM_BYTES_PER_PIXEL = 16  # of the most wasteful file
MAX_STREAM_METADATA_BYTES = 64 << 20


class ImageReader:
    """The frames of an image file, decoded one at a time; a context manager that can be iterated again.

    Args:
        source: path, or binary stream; a stream that cannot seek is read into memory.
        max_megapixels: largest number of pixels of a frame, in millions.
        name: name of the source in messages; None takes the path or the name of the stream.

    Attributes:
        format: what `write_image` needs to write another file of this kind. Its info about single frames (durations,
            kinds of TIFF pages) grows as they are yielded.
        size: (width, height) of the first frame in pixels, as stored; an EXIF orientation is kept, not applied.
        n_frames: number of frames.
        warnings: remarks about the file.

    Raises:
        InputError: the source is no readable image, is damaged or cut off, or is above ``max_megapixels``.
        ConfigError: ``max_megapixels`` is not a positive number.
    """

    def __init__(
        self, source: str | Path | BinaryIO, *, max_megapixels: float = MAX_MEGAPIXELS, name: str | None = None
    ) -> None:
        self.name = name or file_name(source, "<stdin>")
        check_max_megapixels(max_megapixels)
        self.warnings: list[str] = []
        self._owns_file = isinstance(source, str | Path)
        with self._translate_errors():
            self._file = _open_file(source, max_megapixels)
        try:
            with self._translate_errors():
                container = detect_container(self._file)
                self._container = container(self._file, SizeLimit(max_megapixels))
        except BaseException:
            self.close()
            raise
        self.warnings[:0] = self._container.warnings
        self.format = self._container.format()
        self.format.info["warnings"] = self.warnings  # writers append what they cannot keep
        self.size, self.n_frames = self._container.size, self._container.n_frames

    def _translate_errors(self, index: int = 0) -> AbstractContextManager[None]:
        name = f"{self.name}: frame {index + 1}" if index else self.name
        return translate_errors(name, self.warnings)

    def __iter__(self) -> Iterator[Image]:
        """Yield the frames from the first to the last.

        Raises:
            InputError: the data are cut off, damaged, not finite, or of an unsupported kind.
        """
        infos = self.format.info["frames"]
        infos.clear()
        frames = self._container.read_frames()
        for index in range(self.n_frames):
            with self._translate_errors(index):
                frame, info = next(frames)
            infos.append(info)
            yield frame
            del frame

    def is_stored_in(self, container: type[ImageContainer]) -> bool:
        """Tell whether the file is of a container; raw files of cameras are of their own.

        Args:
            container: container of a file to write.
        """
        return type(self._container) is container

    def copy(self, file: BinaryIO) -> None:
        """Write the file itself to another one, byte for byte, after the last frame.

        Args:
            file: file that is written.
        """
        self._file.seek(0)
        shutil.copyfileobj(self._file, file)
        self.warnings.clear()  # they are about what another encoding would lack

    def close(self) -> None:
        """Close the file, unless it was opened by the caller."""
        if self._owns_file:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_image(
    source: str | Path | BinaryIO, *, max_megapixels: float = MAX_MEGAPIXELS, name: str | None = None
) -> Image:
    """Read the first frame of an image file.

    Args:
        source: path or binary stream.
        max_megapixels: largest number of pixels of the frame, in millions.
        name: name of the source in messages; None takes the path or the name of the stream.

    Raises:
        InputError: as `ImageReader`.
    """
    with ImageReader(source, max_megapixels=max_megapixels, name=name) as reader:
        return next(iter(reader))


def read_displayed(
    source: str | Path | BinaryIO, *, max_megapixels: float = MAX_MEGAPIXELS, name: str | None = None
) -> Image:
    """Read the first frame of an image file as viewers show it, turned by its EXIF orientation.

    Args:
        source: as of `read_image`.
        max_megapixels: as of `read_image`.
        name: as of `read_image`.

    Raises:
        InputError: as `ImageReader`.
    """
    with ImageReader(source, max_megapixels=max_megapixels, name=name) as reader:
        return apply_orientation(next(iter(reader)), reader.format)


def _open_file(source: str | Path | BinaryIO, max_megapixels: float) -> BinaryIO:
    """Return a file that can seek."""
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            raise InputError("is a directory; an image file was expected. Name the files in it.")
        try:
            return path.open("rb")
        except FileNotFoundError as error:
            raise InputError("no such file; an image was expected. Check the path.") from error
        except OSError as error:
            raise InputError(f"cannot be opened ({error.strerror}); a readable file was expected.") from error
    if source.seekable() and source.tell() == 0:
        return source
    limit = int(max_megapixels * 1e6) * MAX_STREAM_BYTES_PER_PIXEL + MAX_STREAM_METADATA_BYTES
    data = source.read(limit + 1)
    if len(data) > limit:
        raise InputError(
            f"the stream has more than {limit >> 20} MiB; expected an image of up to {max_megapixels:g} megapixels. "
            "Raise --max-megapixels."
        )
    return io.BytesIO(data)
