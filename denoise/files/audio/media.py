"""Containers that FFmpeg reads and writes, of audio and of video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, ClassVar, Literal

from denoise.errors import InputError
from denoise.files.audio.container import AudioContainer
from denoise.files.audio.ffmpeg import open_media
from denoise.files.audio.track_decoder import TrackDecoder
from denoise.files.audio.track_encoder import TrackEncoder, encoders_for
from denoise.signals import AudioFormat


@dataclass(frozen=True)
class MediaContainer(AudioContainer):
    """A container that FFmpeg reads and writes; PyAV is imported where it is used.

    Args:
        name: as in `AudioFormat.format`.
        extensions: lower case with the dot.
        muxer: FFmpeg's name of the container when writing; empty if it is only read.
        encoders: FFmpeg's encoders to try, where there is none for the codec of the source.
        signatures: positions and bytes of which one starts a file.
        content: what files with these extensions hold: ``"video"``; several audio ``"tracks"``, tags and pictures; or
            one ``"track"`` and nothing else.
        options: FFmpeg's options when writing.
    """

    writes_tags: ClassVar[bool] = True

    muxer: str = ""
    encoders: tuple[str, ...] = ()
    signatures: tuple[tuple[int, bytes], ...] = ()
    content: Literal["video", "tracks", "track"] = "track"
    options: Mapping[str, str] = field(default_factory=dict)

    def matches(self, head: bytes) -> bool:
        """Return whether a file starts with a signature of the container."""
        return any(head[start : start + len(signature)] == signature for start, signature in self.signatures)

    def open(self, source: BinaryIO) -> TrackDecoder:
        """Open the first audio track for reading.

        Args:
            source: the file, seekable.

        Raises:
            InputError: as `TrackDecoder`.
        """
        decoder = self.open_track(source, 0)
        if decoder.n_tracks > 1:
            decoder.warnings.append(f"holds {decoder.n_tracks} audio tracks; the first is read.")
        return decoder

    def open_track(self, source: BinaryIO, track: int) -> TrackDecoder:
        """Open an audio track for reading.

        Args:
            source: the file, seekable.
            track: number of the audio track, from 0.

        Raises:
            InputError: as `TrackDecoder`.
        """
        return TrackDecoder(source, self.name, track)

    def create(self, target: str | bytes | BinaryIO, format: AudioFormat, frames: int | None) -> TrackEncoder:
        """Create a file with one track.

        Args:
            target: path, or seekable file.
            format: format of the source, perhaps of another container; its codec is kept if the container holds it.
            frames: not used.

        Raises:
            InputError: PyAV is missing, the container is only read, or it cannot hold the format.
        """
        if not self.muxer:
            raise InputError(f"{self.name} is only read. Choose another extension of the output, such as .flac.")
        encoders = encoders_for(self.muxer, format, self.encoders)
        return TrackEncoder(target, self.muxer, encoders, format, self.options)


READ_FORMATS = (
    "aac",
    "aiff",
    "au",
    "caf",
    "dts",
    "mlp",
    "mpc",
    "mpc8",
    "ogg",
    "qcp",
    "shn",
    "tak",
    "truehd",
    "wav",
    "w64",
)
"""FFmpeg's names of formats with signatures that it does not take other files for."""


def open_otherwise(source: BinaryIO, container: AudioContainer) -> TrackDecoder | None:
    """Open a recording that its container cannot read, as that of a codec which libsndfile does not know.

    Args:
        source: the file, seekable.
        container: its container.

    Returns:
        The decoder; None if FFmpeg does not read the file either, or PyAV is missing.
    """
    try:
        with open_media(source) as media:
            is_known = media.format.name in READ_FORMATS
        return TrackDecoder(source, container.name) if is_known else None
    except InputError:
        return None


MP4_BOXES = tuple((4, box) for box in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"))
EBML, ASF_GUID = b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"
ADTS_SYNCS = tuple((0, sync) for sync in (b"\xff\xf0", b"\xff\xf1", b"\xff\xf8", b"\xff\xf9"))
TS_SYNC = b"\x47\x40"

MEDIA_CONTAINERS = (
    MediaContainer(
        "M4A", (".m4a", ".m4b"), "mp4", ("aac",), ((4, b"ftypM4A"), (4, b"ftypM4B")), "tracks", {"brand": "M4A "}
    ),
    MediaContainer("3GP", (".3gp", ".3g2"), "3gp", ("aac",), ((4, b"ftyp3g"),), "video"),
    MediaContainer("MOV", (".mov", ".qt"), "mov", ("aac",), ((4, b"ftypqt"),), "video"),
    MediaContainer("MP4", (".mp4", ".m4v"), "mp4", ("aac",), MP4_BOXES, "video"),
    MediaContainer("MKV", (".mkv",), "matroska", ("aac", "flac"), ((0, EBML),), "video"),
    MediaContainer("WEBM", (".webm",), "webm", ("libopus",), (), "video"),
    MediaContainer("MKA", (".mka",), "matroska", ("aac", "flac"), (), "tracks"),
    MediaContainer("WMV", (".wmv", ".asf"), "asf", ("wmav2", "aac"), ((0, ASF_GUID),), "video"),
    MediaContainer("WMA", (".wma",), "asf", ("wmav2", "aac"), (), "tracks"),
    MediaContainer("TS", (".ts",), "mpegts", ("ac3", "aac"), ((0, TS_SYNC),), "video"),
    MediaContainer(
        "M2TS", (".mts", ".m2ts"), "mpegts", ("ac3", "aac"), ((4, TS_SYNC),), "video", {"mpegts_m2ts_mode": "1"}
    ),
    MediaContainer("MPEG", (".mpg", ".mpeg", ".vob"), "vob", ("mp2", "ac3"), ((0, b"\0\0\1\xba"),), "video"),
    MediaContainer("AVI", (".avi",), "avi", ("libmp3lame", "aac"), ((8, b"AVI "),), "video"),
    MediaContainer("FLV", (".flv",), "flv", ("aac",), ((0, b"FLV\1"),), "video"),
    MediaContainer("MP2", (".mp2",), "mp2", ("mp2",)),  # read as MP3, whose frames differ in one field
    MediaContainer("ADTS", (".aac",), "adts", ("aac",), ADTS_SYNCS),
    MediaContainer("AC3", (".ac3",), "ac3", ("ac3",), ((0, b"\x0b\x77"),)),
    MediaContainer("EAC3", (".eac3", ".ec3"), "eac3", ("eac3",)),
    MediaContainer("AWB", (".awb",), signatures=((0, b"#!AMR-WB"),)),
    MediaContainer("AMR", (".amr",), "amr", ("libopencore_amrnb",), ((0, b"#!AMR"),)),
    MediaContainer("TTA", (".tta",), "tta", ("tta",), ((0, b"TTA1"),)),
    MediaContainer("WV", (".wv",), "wv", ("wavpack",), ((0, b"wvpk"),)),
    MediaContainer("APE", (".ape",), signatures=((0, b"MAC "),)),
    MediaContainer("DSF", (".dsf",), signatures=((0, b"DSD "),)),
    MediaContainer("DSDIFF", (".dff",), signatures=((0, b"FRM8"),)),
)
"""Containers by their signatures; those without one share that of another and are only chosen by extension."""
