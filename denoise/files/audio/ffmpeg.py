"""FFmpeg's libraries by PyAV: how files are opened, and what is wrong with those that cannot be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from denoise.errors import InputError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

BUFFER_BYTES = 1 << 20  # read at a time: few calls from FFmpeg into Python, even of a film
NO_OTHER_SOURCES = {"protocol_whitelist": "none"}  # no file leads to others, or opens a connection, as SDP would
ENCRYPTED_TAGS = ("drms", "drmi", "enca", "encv", "aavd")  # sample entries of protected tracks in MP4
FIRST_BOXES = (b"ftyp", b"mdat", b"wide", b"free", b"skip")  # at the start of MP4 and MOV, beside moov
MAX_BOXES = 10_000
UNREADABLE = "cannot be read ({}). Get another copy, or convert it first."
UNWRITABLE = "cannot be written ({}). Free space, or choose another folder."


def import_av() -> Any:
    """Return the module av.

    Raises:
        InputError: the package is not installed.
    """
    try:
        return import_module("av")
    except ImportError as error:
        raise InputError(
            'needs FFmpeg\'s libraries. Install the extra: pip install "denoise-toolkit[media]", or convert it first.'
        ) from error


@contextmanager
def translate_errors(advice: str) -> Iterator[None]:
    """Turn errors of FFmpeg into `InputError`.

    Args:
        advice: what cannot be done, and what to do: ``UNREADABLE`` or ``UNWRITABLE``.
    """
    try:
        yield
    except import_av().FFmpegError as error:
        raise InputError(advice.format(error.strerror)) from None


def open_media(source: BinaryIO) -> InputContainer:
    """Open a file with FFmpeg.

    Args:
        source: the file, seekable.

    Returns:
        The file, from its first packet on.

    Raises:
        InputError: PyAV is missing, the file is damaged, or a track is encrypted.
    """
    av = import_av()
    try:
        with translate_errors(UNREADABLE):
            media = av.open(
                _View(source), metadata_errors="surrogateescape", buffer_size=BUFFER_BYTES, options=NO_OTHER_SOURCES
            )
    except InputError:
        _check_boxes(source)
        raise
    for kind, tag in [(stream.type, codec_tag(stream)) for stream in media.streams]:
        if tag in ENCRYPTED_TAGS:
            media.close()  # no stream may be used from here on
            raise InputError(
                f"its {kind} is encrypted ({tag}, DRM); expected an unprotected file. Get it without copy protection."
            )
    return media


def codec_tag(stream: Stream) -> str | None:
    """Return the tag by which a container names the codec of a stream.

    Args:
        stream: stream of an open file.

    Returns:
        Four characters; None if the codec is unknown, or the tag is a number beyond ASCII, as of AAC in AVI.
    """
    try:
        return stream.codec_context.codec_tag if stream.codec_context else None
    except UnicodeDecodeError:
        return None


def audio_stream(media: InputContainer, track: int) -> AudioStream:
    """Return an audio track, the only one that is read from then on.

    Args:
        media: the file.
        track: number of the audio track, from 0.

    Raises:
        InputError: there is no such track, or no decoder for it.
    """
    streams = media.streams.audio
    if not streams:
        contents = ", ".join(sorted({stream.type for stream in media.streams})) or "nothing"
        raise InputError(f"has no sound, only {contents}; expected an audio track.")
    discard = import_av().stream.Discard
    for stream in media.streams:
        stream.discard = discard.default if stream is streams[track] else discard.all
    if streams[track].codec_context is None:
        raise InputError(f"FFmpeg has no decoder for audio track {track + 1}. Convert it first.")
    return streams[track]


def read_packets(media: InputContainer, warnings: list[str], stream: Stream | None = None) -> Iterator[Packet]:
    """Return the packets of a file, up to its end or to damage that FFmpeg cannot pass; packets without data end them.

    Args:
        media: the file.
        warnings: to which damage is added.
        stream: the only stream to read; None reads all of them.
    """
    av, time = import_av(), 0.0
    streams = media.streams if stream is None else [stream]
    try:
        for packet in media.demux(*streams):
            if packet.pts is not None and packet.size:
                time = float(packet.pts * packet.time_base)
            yield packet
    except av.FFmpegError as error:
        warnings.append(f"is damaged after {time:.1f} s ({error.strerror}); what follows is left out.")
        for stream in streams:
            last = av.Packet()
            last.stream = stream
            yield last


class _View:
    """A file with a position of its own, so that it can be open several times."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._position = file, 0

    def read(self, n: int) -> bytes:
        self._file.seek(self._position)
        data = self._file.read(n)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset, whence = offset + self._position, os.SEEK_SET
        self._position = self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True


class Box(NamedTuple):
    """An outer box of an MP4: its type, the position of its header, and its length in bytes."""

    type: bytes
    start: int
    length: int


def list_boxes(source: BinaryIO) -> list[Box]:
    """Return the outer boxes of an MP4 or MOV; nonsense of other files.

    Args:
        source: the file, seekable.
    """
    boxes: list[Box] = []
    size, position = source.seek(0, os.SEEK_END), 0
    while position < size and len(boxes) < MAX_BOXES:
        source.seek(position)
        header = source.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        boxes.append(Box(header[4:8], position, length))
        if length < 8:
            break
        position += length
    return boxes


def describe_missing(source: BinaryIO, media: InputContainer) -> list[str]:
    """Return what FFmpeg does not read of a file without saying so.

    Args:
        source: the file, seekable.
        media: the same file, open.

    Returns:
        Warnings: of an MP4 that several recordings were joined to by their bytes, and of a Matroska that is cut off.
    """
    if "mp4" in media.format.name:
        types = [box.type for box in list_boxes(source)]
        n = types.count(b"moov")
        if n > 1 and b"moof" not in types:
            seconds = (media.duration or 0) / 1e6
            return [f"holds {n} recordings behind each other; only the first, of {seconds:.1f} s, is read."]
    if "matroska" in media.format.name:
        size, declared = source.seek(0, os.SEEK_END), _matroska_bytes(source)
        if declared is not None and declared > size:
            return [f"is cut off after {size:,} of {declared:,} bytes; what follows is missing."]
    return []


def _matroska_bytes(source: BinaryIO) -> int | None:
    """Return the length of a Matroska by its header, None where that does not state it, as of a live recording."""
    source.seek(0)
    head, end = source.read(1 << 12), 0
    for _ in range(2):  # the header of EBML, and the segment that holds everything else
        start = end + _number_bytes(head, end)  # behind the name
        size_bytes = _number_bytes(head, start)
        bits = 7 * size_bytes
        size = int.from_bytes(head[start : start + size_bytes], "big") & ((1 << bits) - 1)
        if start + size_bytes > len(head) or size == (1 << bits) - 1:
            return None
        end = start + size_bytes + size
    return end


def _number_bytes(head: bytes, start: int) -> int:
    """Return the length of a number of EBML: one more than the zeros before its first bit that is set."""
    return 9 - head[start].bit_length() if start < len(head) else 1


def _check_boxes(source: BinaryIO) -> None:
    """Refuse an MP4 without the index that is written when a recording ends."""
    types = [box.type for box in list_boxes(source)]
    if types and types[0] in FIRST_BOXES and b"moov" not in types:
        raise InputError(
            f"is cut off after {source.seek(0, os.SEEK_END):,} bytes: its index (moov box), which is written last, is "
            "missing. Get another copy, or restore the index with a repair program and a file of the same device."
        )
