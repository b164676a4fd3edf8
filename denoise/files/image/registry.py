"""The table of image containers."""

from __future__ import annotations

from typing import BinaryIO

from denoise.errors import InputError
from denoise.files.image.avif import Avif
from denoise.files.image.bmp import Bmp
from denoise.files.image.container import ImageContainer
from denoise.files.image.gif import Gif
from denoise.files.image.heif import Heif
from denoise.files.image.jpeg import Jpeg
from denoise.files.image.png import Png
from denoise.files.image.raw import Raw
from denoise.files.image.tiff import Tiff
from denoise.files.image.webp import WebP
from denoise.files.names import OR_FOLDER

CONTAINERS: tuple[type[ImageContainer], ...] = (Png, Jpeg, Tiff, WebP, Bmp, Gif, Heif, Avif)
"""All containers that are written; a file is of the first one that matches, unless it is a `Raw` file of a camera."""

WRITTEN_EXTENSIONS = frozenset(extension for container in CONTAINERS for extension in container.extensions)
"""Extensions of image files that can be written, lower case with the dot."""

IMAGE_EXTENSIONS = WRITTEN_EXTENSIONS | frozenset(Raw.extensions)
"""Extensions of image files, lower case with the dot."""

HEAD_BYTES = 64  # that `ImageContainer.matches` looks at
TEXT_BYTES = 16  # by which text is told from an unknown format


def detect_container(file: BinaryIO) -> type[ImageContainer]:
    """Return the container of a file by its content.

    Args:
        file: the file, at its start, seekable.

    Raises:
        InputError: the file is empty or of an unknown format.
    """
    head = file.read(HEAD_BYTES)
    if not head:
        raise InputError("the file is empty (0 bytes); an image was expected. Get another copy.")
    if Raw.matches_file(head, file):
        return Raw
    for container in CONTAINERS:
        if container.matches(head):
            return container
    if head[4:8] == b"ftyp":
        guess = "looks like a video"
    elif head.lstrip().startswith((b"<svg", b"<?xml")):
        guess = "looks like SVG or XML"
    elif all(9 <= byte < 127 for byte in head[:TEXT_BYTES]):
        guess = "looks like text"
    else:
        guess = "is of an unknown format"
    names = ", ".join(container.name for container in CONTAINERS)
    raise InputError(f"{guess}; expected {names} or camera raw. Convert the file.")


def container_of_extension(extension: str) -> type[ImageContainer]:
    """Return the container in which files with an extension are written.

    Args:
        extension: with the dot, in any case.

    Raises:
        InputError: the extension is unknown, or that of files which are only read.
    """
    for container in CONTAINERS:
        if extension.lower() in container.extensions:
            return container
    if extension.lower() in Raw.extensions:
        raise InputError(f"{extension.lower()} is only read, not written. Write TIFF or PNG.")
    expected = " ".join(sorted(WRITTEN_EXTENSIONS))
    if not extension:
        raise InputError(f"has no extension; expected one of {expected}{OR_FOLDER}.")
    raise InputError(f"the extension is {extension.lower()!r}; expected one of {expected}.")


def container_named(name: str) -> type[ImageContainer]:
    """Return a container by its name.

    Args:
        name: as in `ImageFormat.container`.

    Raises:
        InputError: the name is unknown.
    """
    for container in CONTAINERS:
        if container.name == name:
            return container
    expected = " ".join(container.name for container in CONTAINERS)
    raise InputError(f"the container is {name!r}; expected one of {expected}.")


def has_pages(name: str) -> bool:
    """Return whether files of the named container may hold pages; False for an unknown name."""
    return any(container.has_pages for container in CONTAINERS if container.name == name)
