"""How a track is stored in a file that FFmpeg reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO

from denoise.files.audio.ffmpeg import audio_stream, open_media, read_packets
from denoise.signals import AudioFormat

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

LOSSY_SUBTYPES = {"mp3": "MPEG_LAYER_III", "opus": "OPUS", "vorbis": "VORBIS"}  # names of libsndfile
LOSSLESS_CODECS = ("alac", "flac", "tta", "wavpack", "ape", "truehd", "mlp", "wmalossless", "tak", "shorten")
FFMPEG_TAGS = {"tracknumber": "track"}  # FFmpeg's name of a tag by libsndfile's
TAGS = ("title", "copyright", "artist", "comment", "date", "album", "license", "tracknumber", "genre")
MEASURED_S = 10.0  # of a track whose header states no bit rate


@dataclass(frozen=True)
class MediaFormat(AudioFormat):
    """How a track is stored in a file that FFmpeg reads.

    Args:
        codec: FFmpeg's name of the codec, such as ``"aac"``; empty takes that of the container.
        profile: FFmpeg's name of the profile of the codec, such as ``"HE-AAC"``.
        layout: FFmpeg's name of the channel layout, such as ``"5.1"``.
        bit_rate: bits per second; None for lossless codecs.
        start: time of the first sample in s, on the clock of the file.
    """

    codec: str = ""
    profile: str | None = None
    layout: str = ""
    bit_rate: int | None = None
    start: Fraction = Fraction(0)


def read_format(
    media: InputContainer,
    stream: AudioStream,
    frame: AudioFrame,
    container: str,
    sample_rate: int,
    bit_rate: int | None,
) -> MediaFormat:
    """Return the format of a track.

    Args:
        media: the file.
        stream: the track.
        frame: its first frame, which states rate and channels more surely than headers do.
        container: name of the container, as in `AudioFormat.format`.
        sample_rate: at which the track is read, in Hz.
        bit_rate: bits per second; None for lossless codecs.

    Raises:
        InputError: sample rate or channels are out of range.
    """
    codec = stream.codec.canonical_name
    return MediaFormat(
        sample_rate,
        frame.layout.nb_channels,
        container,
        _subtype(codec, frame.format.packed.name),
        tags=_read_tags(media.metadata),
        codec=codec,
        profile=stream.codec_context.profile,
        layout=frame.layout.name if "channels" not in frame.layout.name else "",
        bit_rate=bit_rate,
        start=Fraction(0) if frame.pts is None else frame.pts * Fraction(frame.time_base or 0),
    )


def is_lossless(codec: str) -> bool:
    """Return whether a codec keeps every sample.

    Args:
        codec: FFmpeg's name of the codec.
    """
    return codec in LOSSLESS_CODECS or codec.startswith(("pcm_", "dsd_"))


def read_bit_rate(source: BinaryIO, track: int) -> int | None:
    """Return the bit rate of a track by its header, or else measure it at the start of the track.

    Args:
        source: the file.
        track: number of the audio track, from 0.

    Returns:
        Bits per second; None if the track is lossless, or its packets state no time.
    """
    with open_media(source) as media:
        stream = audio_stream(media, track)
        if is_lossless(stream.codec.canonical_name):
            return None
        if stream.codec_context.bit_rate:
            return stream.codec_context.bit_rate
        n_bytes, duration = 0, Fraction(0)
        for packet in read_packets(media, [], stream):
            n_bytes += packet.size
            duration += (packet.duration or 0) * packet.time_base
            if duration >= MEASURED_S:
                break
    return round(8 * n_bytes / duration) if duration else None


def _subtype(codec: str, sample_format: str) -> str:
    """Return libsndfile's name for the coding, or FFmpeg's where there is none."""
    if not is_lossless(codec):
        return LOSSY_SUBTYPES.get(codec, codec.upper())
    if sample_format in ("flt", "dbl"):
        return "PCM_24" if codec.startswith("dsd_") else "FLOAT" if sample_format == "flt" else "DOUBLE"
    if sample_format == "s32":  # in which FFmpeg decodes 24 bits as well
        return "PCM_32" if codec.startswith("pcm_s32") else "PCM_24"
    return {"u8": "PCM_U8", "s16": "PCM_16"}[sample_format]


def _read_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that libsndfile knows."""
    lower = {key.lower(): text for key, text in metadata.items()}
    keys = {tag: FFMPEG_TAGS.get(tag, tag) for tag in TAGS}
    return {tag: lower[key] for tag, key in keys.items() if key in lower}
