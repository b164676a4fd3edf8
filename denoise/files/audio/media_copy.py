"""Write a media file anew with other audio tracks; everything else is copied as it is."""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from denoise.errors import InputError
from denoise.files.audio.ffmpeg import (
    BUFFER_BYTES,
    UNWRITABLE,
    Box,
    codec_tag,
    import_av,
    list_boxes,
    open_media,
    read_packets,
    translate_errors,
)
from denoise.files.audio.media import MediaContainer
from denoise.files.audio.media_track import EncodedTrack
from denoise.files.audio.track_decoder import is_picture

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream

FILE_KEYS = ("major_brand", "minor_version", "compatible_brands", "encoder")  # that each muxer writes itself
STALE_KEYS = (*FILE_KEYS, "itunsmpb", "itunnorm", "encoding params", "software")  # of the coding of the source
CODING_KEYS = ("ENCODER", "BPS", "DURATION", "NUMBER_OF_FRAMES", "NUMBER_OF_BYTES", "_STATISTICS_")  # of one coding
MP4_MUXERS = ("mp4", "mov", "ipod", "3gp")
MAX_INDEX_BYTES = 1 << 26  # of an MP4, in which its tags are looked for


def copy_media(source: BinaryIO, target: Path, container: MediaContainer, tracks: Sequence[EncodedTrack]) -> list[str]:
    """Copy a media file, with other audio tracks.

    Args:
        source: the file, seekable.
        target: path of the copy.
        container: its container.
        tracks: all audio tracks, in the order of the file.

    Returns:
        Warnings about streams and tags that the container does not hold.

    Raises:
        InputError: the copy cannot be written.
    """
    av = import_av()
    with ExitStack() as stack:
        media = stack.enter_context(open_media(source))
        stack.enter_context(translate_errors(UNWRITABLE))
        encoded = [stack.enter_context(av.open(f"file:{track.path}", buffer_size=BUFFER_BYTES)) for track in tracks]
        options = dict(container.options)
        if container.muxer in MP4_MUXERS:
            options |= _mp4_options(source, media)
        output = av.open(
            f"file:{target}", "w", format=container.muxer, container_options=options, metadata_errors="surrogateescape"
        )
        with output:
            warnings = _copy(source, media, encoded, output, [track.start for track in tracks])
        with av.open(f"file:{target}", metadata_errors="surrogateescape") as copy:
            kept = {key.lower() for key in copy.metadata}
        lost = sorted(key for key in media.metadata if key.lower() not in (*kept, *STALE_KEYS))
        if lost:
            warnings.append(f"{container.name} does not hold the tags {', '.join(lost)}; they are left out.")
        return warnings


def _copy(
    source: BinaryIO,
    media: InputContainer,
    encoded: Sequence[InputContainer],
    output: OutputContainer,
    starts: Sequence[Fraction],
) -> list[str]:
    warnings: list[str] = []
    damage: list[str] = []
    streams: dict[tuple[int, int], Stream] = {}  # of the copy, by numbers of the input and of its stream
    tracks = enumerate(encoded, 1)
    for stream in media.streams:
        if stream.type == "video" and stream.codec_context is None:
            raise InputError("the video is encrypted, or of a codec that FFmpeg does not know. Give a .wav as -o.")
        if stream.type == "audio":
            i, track = next(tracks)
            streams[i, 0] = _add_stream(output, track.streams[0], stream, media)
        elif output.format.name == "matroska" and is_picture(stream):
            _attach_picture(output, source, stream)
        elif _is_held(output.format.name, stream, media):
            streams[0, stream.index] = _add_stream(output, stream, stream, media)
        elif stream.type == "video" and not is_picture(stream):
            raise InputError(
                f"{output.format.name} does not hold {stream.codec_context.name}, and video is copied as it is. "
                "Give the extension of the source, or .mkv."
            )
        elif not _is_written_anew(stream, media):
            warnings.append(f"{output.format.name} does not hold the stream of {_describe(stream)}; it is left out.")
    left_out = FILE_KEYS if _family(media.format.name) == "mp4" else ("encoder",)
    output.metadata.update({key: text for key, text in media.metadata.items() if key.lower() not in left_out})
    output.set_chapters(media.chapters())
    output.start_encoding()
    packets = [_time_packets(0, media, None, damage)]
    packets += [_time_packets(i, *pair, damage) for i, pair in enumerate(zip(encoded, starts, strict=True), 1)]
    last_dts: dict[int, int] = {}
    for time, i, packet in heapq.merge(*packets, key=lambda item: item[:2]):
        if i and output.format.name == "avi" and time < -Fraction(packet.duration or 0) * packet.time_base / 2:
            continue  # the priming of the encoder: AVI knows no time before its start
        if (i, packet.stream_index) in streams:
            packet.stream = streams[i, packet.stream_index]
            output.mux_one(_in_order(packet, last_dts))
    return warnings + [f"the input {warning}" for warning in damage]


def _add_stream(output: OutputContainer, template: Stream, stream: Stream, media: InputContainer) -> Stream:
    """Add a stream with the coding of one stream and the metadata of another."""
    if template.codec_context is None:
        copy = output.add_stream_from_template(template)
    else:
        copy = output.add_stream_from_template(template, opaque=True)
        tag = codec_tag(template)
        if template is stream and tag is not None and _family(output.format.name) == _family(media.format.name):
            copy.codec_context.codec_tag = tag  # hvc1, which FFmpeg would change to hev1
    left_out = () if template is stream else CODING_KEYS
    copy.metadata.update({key: text for key, text in stream.metadata.items() if not key.upper().startswith(left_out)})
    copy.disposition = stream.disposition
    return copy


def _attach_picture(output: OutputContainer, source: BinaryIO, stream: Stream) -> None:
    """Attach a cover picture, as which FFmpeg reads attachments of Matroska but does not write them."""
    codec = stream.codec_context.name
    kind = "jpeg" if codec == "mjpeg" else codec
    with open_media(source) as media:
        picture = next(packet for packet in media.demux(media.streams[stream.index]) if packet.size)
        name = stream.metadata.get("filename", f"cover.{kind.replace('jpeg', 'jpg')}")
        output.add_attachment(name, stream.metadata.get("mimetype", f"image/{kind}"), bytes(picture))


def _is_held(muxer: str, stream: Stream, media: InputContainer) -> bool:
    """Return whether a container can hold a copy of a stream, by trial."""
    if _is_written_anew(stream, media):
        return False
    av = import_av()
    try:
        with av.open(io.BytesIO(), "w", format=muxer, metadata_errors="surrogateescape") as trial:
            _add_stream(trial, stream, stream, media)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _is_written_anew(stream: Stream, media: InputContainer) -> bool:
    """Return whether the muxer makes a stream of MP4 itself: the titles of chapters, and the time code."""
    if stream.type != "data" or _family(media.format.name) != "mp4":
        return False
    return "timecode" in stream.metadata or (stream.name == "bin_data" and bool(media.chapters()))


def _mp4_options(source: BinaryIO, media: InputContainer) -> dict[str, str]:
    """Return options of MP4.

    Its edit lists are exact to the sample, its index comes first where that of the source does, and its tags are in the
    table of keys of QuickTime, as phones write them, where those of the source are; covers do not fit beside that.
    """
    boxes = {box.type: box for box in list_boxes(source)} if _family(media.format.name) == "mp4" else {}
    flags = []
    if b"moov" in boxes and b"mdat" in boxes and boxes[b"moov"].start < boxes[b"mdat"].start:
        flags.append("faststart")
    has_cover = any(is_picture(stream) for stream in media.streams.video)
    if b"moov" in boxes and not has_cover and b"mdta" in _read_box(source, boxes[b"moov"]):
        flags.append("use_metadata_tags")
    rates = [stream.sample_rate for stream in media.streams.audio]
    return {"movie_timescale": str(max(rates))} | ({"movflags": "+".join(flags)} if flags else {})


def _read_box(source: BinaryIO, box: Box) -> bytes:
    source.seek(box.start)
    return source.read(min(box.length, MAX_INDEX_BYTES))


def _family(name: str) -> str:
    """Return FFmpeg's name of a container; one name for all that derive from MP4."""
    return "mp4" if name in MP4_MUXERS or "mp4" in name else name


def _describe(stream: Stream) -> str:
    return f"{stream.type} ({stream.codec_context.name})" if stream.codec_context else stream.type


def _time_packets(
    i: int, media: InputContainer, start: Fraction | None, damage: list[str]
) -> Iterator[tuple[Fraction, int, Packet]]:
    """Read the packets of a file, with the time of each and the number of the file.

    Args:
        i: number of the file.
        media: the file.
        start: time that the first packet shall have, in s; None leaves the times as they are.
        damage: to which damage of the file is added.
    """
    time, shift = start or Fraction(0), None if start is not None else Fraction(0)
    for packet in read_packets(media, damage):
        if not packet.size:
            continue  # the end of a stream
        time_base = Fraction(packet.time_base)
        if shift is None:
            shift = time - (packet.pts or 0) * time_base
        delay = round(shift / time_base)
        if packet.pts is not None:
            packet.pts += delay
        if packet.dts is not None:
            packet.dts += delay
            time = packet.dts * time_base
        yield time, i, packet


def _in_order(packet: Packet, last_dts: dict[int, int]) -> Packet:
    """Move a time stamp behind the one before it, as muxers demand."""
    packet.rescale_ts(import_av().rational.AVRational(packet.stream.time_base))
    if packet.dts is not None:
        last = last_dts.get(packet.stream_index)
        if last is not None and packet.dts <= last:
            packet.dts = last + 1
            packet.pts = packet.dts if packet.pts is None else max(packet.pts, packet.dts)
        last_dts[packet.stream_index] = packet.dts
    return packet
