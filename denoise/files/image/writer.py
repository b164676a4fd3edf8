"""Write image files in the format of the file that the frames come from."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from denoise.errors import InputError
from denoise.files.atomic import atomic_file
from denoise.files.image.container import ImageContainer, add_warning, frame_info
from denoise.files.image.registry import container_named, container_of_extension, has_pages
from denoise.files.image.tiff_codec import ASSOCIATED_ALPHA
from denoise.files.names import file_name
from denoise.signals import Image, ImageFormat

if TYPE_CHECKING:
    from denoise.files.image.reader import ImageReader


def write_image(
    target: str | Path | BinaryIO,
    frames: Iterable[Image],
    format: ImageFormat,
    *,
    overwrite: bool = False,
    find_original: Callable[[], ImageReader | None] = lambda: None,
) -> None:
    """Write frames in the container, mode and depth of a format, with the metadata in its ``info``.

    Identical neighbours in an animated PNG or WebP become one frame of their common duration.

    Args:
        target: path, whose extension decides about the container, or binary stream.
        frames: at least one frame, consumed one at a time.
        format: format of the file that the frames come from, as in `ImageReader.format`.
        overwrite: replace a file that exists.
        find_original: returns the reader of the file that the frames come from once all of them have come and are
            unchanged. A file of the same container is then copied, as encoding it again would lose something.

    Raises:
        InputError: the target exists or cannot be written; its extension is unknown; the container cannot hold the
            channels, the depth, the size or the number of the frames.
    """
    name = file_name(target, "<stdout>")
    try:
        if isinstance(target, str | Path):
            container = container_of_extension(Path(target).suffix)
        else:
            container = container_named(format.container)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    appended = format.info.get("jpeg_appended")
    if appended is not None and appended.description and container.name != "JPEG":
        add_warning(format, f"{container.name} cannot hold {appended.description}; it is dropped.")

    def copy(file: BinaryIO) -> bool:
        original = find_original()
        if original is None or not original.is_stored_in(container):
            return False
        file.seek(0)
        file.truncate()
        original.copy(file)
        return True

    def write(file: BinaryIO) -> None:
        fitted_frames = _fit_frames(frames, container, format, name)  # a single frame has come now
        if not copy(file):
            container.write(file, fitted_frames, format, name)
            copy(file)

    if isinstance(target, str | Path):
        with atomic_file(Path(target), overwrite=overwrite) as path, path.open("w+b") as file:
            write(file)
    else:
        buffer = io.BytesIO()  # a pipe cannot seek, and a failure must leave nothing behind
        write(buffer)
        target.write(buffer.getbuffer())


def _fit_frames(
    frames: Iterable[Image], container: type[ImageContainer], source: ImageFormat, name: str
) -> Iterator[Image]:
    """Check the number of frames, and undo premultiplied alpha where the container cannot hold it."""
    checked_frames = _check_count(frames, container, source, name)
    if container.has_premultiplied_alpha:
        return checked_frames
    return map(partial(_undo_premultiplied_alpha, source), count(), checked_frames)  # holds no frame


def _undo_premultiplied_alpha(source: ImageFormat, index: int, frame: Image) -> Image:
    extra_samples = frame_info(source, index).get("tiff", {}).get("extra", ())
    if frame.alpha is None or ASSOCIATED_ALPHA not in extra_samples:
        return frame
    alpha = frame.alpha[..., None] / np.float32(frame.full_scale)
    colours = np.divide(frame.as_float().pixels, alpha, out=np.zeros(frame.pixels.shape, np.float32), where=alpha > 0)
    return replace(frame, pixels=frame.from_float(colours))


def _check_count(
    frames: Iterable[Image], container: type[ImageContainer], source: ImageFormat, name: str
) -> Iterator[Image]:
    """Check that there is a frame, and only one where the container cannot hold more."""
    iterator = iter(frames)
    first_frames = list(islice(iterator, 1 if container.has_pages else 2))
    if not first_frames:
        raise InputError(f"{name}: the input has 0 frames; expected at least one. Check the input.")
    if len(first_frames) > 1 and (has_pages(source.container) or not container.can_animate):
        raise InputError(
            f"{name}: {container.name} holds one image; the input has several frames or pages. "
            "Choose the extension of the input."
        )
    return chain(first_frames, iterator)
