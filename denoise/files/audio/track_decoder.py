"""Decode one track of a file that FFmpeg reads, in step with the clock of the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import soxr
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.audio.ffmpeg import audio_stream, describe_missing, import_av, open_media, read_packets
from denoise.files.audio.media_format import read_bit_rate, read_format
from denoise.signals import MAX_SAMPLE_RATE, AudioFormat

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.stream import Stream

DSD_HZ = 88_200  # above 44 kHz, DSD holds only the noise of its own quantisation
GAP_S = 0.015  # that time stamps may be off without a gap; shorter than the packets that get lost
MAX_GAP_S, MAX_OVERLAP_S = 3600.0, 1.0  # time stamps that jump further are those of several recordings
SILENCE_S = 1.0  # of a gap that is filled at a time
SAMPLE_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}  # of NumPy by FFmpeg's names
EARLY_S = 0.1  # that a track may be shorter than its header says


class TrackDecoder:
    """One track of a file that FFmpeg reads; an `AudioDecoder`.

    Samples are where their time stamps say: the priming and padding of encoders are left out, gaps are filled with
    silence, and overlaps are cut out.

    Args:
        source: the file, seekable.
        container: name of the container, as in `AudioFormat.format`.
        track: number of the audio track, from 0.

    Attributes:
        n_tracks: number of audio tracks of the file.
        start: time of the first sample in s, on the clock of the file.

    Raises:
        InputError: the file is damaged, encrypted or without sound, or the track is empty.
    """

    is_live = False

    def __init__(self, source: BinaryIO, container: str, track: int = 0) -> None:
        self.warnings: list[str] = []
        self.name = f"audio track {track + 1}"
        bit_rate = read_bit_rate(source, track)
        self._media = open_media(source)
        try:
            self._stream = audio_stream(self._media, track)
            self.n_tracks = len(self._media.streams.audio)
            self.warnings += describe_missing(source, self._media)
            frames = self._decode_packets()
            first = next(frames, None)
            if first is None:
                raise InputError(f"{self.name} has no samples; expected at least one. Record it again.")
            rate = first.sample_rate if first.sample_rate <= MAX_SAMPLE_RATE else DSD_HZ
            media_format = read_format(self._media, self._stream, first, container, rate, bit_rate)
        except BaseException:
            self.close()
            raise
        self.format: AudioFormat = media_format
        self.start = media_format.start
        duration, time_base = self._stream.duration, self._stream.time_base
        seconds = None if duration is None or time_base is None else duration * time_base
        self.frames = None if seconds is None else round(seconds * rate)
        self._blocks = self._place_frames(chain([first], frames), first, seconds)
        if rate != first.sample_rate:
            self._blocks = _resample(self._blocks, first.sample_rate, rate, self.format.channels)
            self.warnings.append(f"is read at {rate:,} Hz, as PCM of 24 bits.")
        self._block = np.empty((self.format.channels, 0), np.float32)

    def read(self, n: int) -> NDArray[Any]:
        """Return the next samples.

        Args:
            n: number of samples of each channel.

        Returns:
            (channels, up to n), full scale 1.0.

        Raises:
            InputError: the track changes its format, or its time stamps jump.
        """
        blocks, missing = [self._block], n - self._block.shape[1]
        while missing > 0 and (block := next(self._blocks, None)) is not None:
            blocks.append(block)
            missing -= block.shape[1]
        x = np.concatenate([block for block in blocks if block.shape[1]] or blocks[:1], axis=1)
        self._block = x[:, n:]
        return np.ascontiguousarray(x[:, :n])

    def close(self) -> None:
        """Close FFmpeg's handle; the source stays open."""
        self._media.close()

    def _decode_packets(self) -> Iterator[AudioFrame]:
        """Packets -> frames; a damaged packet leaves a gap."""
        av, n_damaged = import_av(), 0
        for packet in read_packets(self._media, self.warnings, self._stream):
            if packet.has_sidedata("encryption_info"):
                raise InputError(f"{self.name} is encrypted (DRM); expected none. Get it without copy protection.")
            try:
                yield from cast("list[AudioFrame]", packet.decode())
            except av.FFmpegError:
                n_damaged += 1
        if n_damaged:
            self.warnings.append(f"{n_damaged:,} packets of {self.name} are damaged and left out.")

    def _place_frames(
        self, frames: Iterable[AudioFrame], first: AudioFrame, seconds: Fraction | None
    ) -> Iterator[NDArray[Any]]:
        """Frames -> samples, each where its time stamp says.

        Args:
            frames: all frames.
            first: the first of them.
            seconds: length of the track by the header, or None.
        """
        rate, position, tail = first.sample_rate, 0, None
        limit = round(seconds * rate) if seconds and "mp4" in self._media.format.name and self._stream.frames else None
        silence, overlap = [], []
        for frame in frames:
            if _kind(frame) != _kind(first):
                raise InputError(
                    f"{self.name} changes from {_kind(first)} to {_kind(frame)} after {position / rate:.1f} s; "
                    "expected one format. Convert it first, as by ffmpeg -i IN -c:v copy -ar 48000 -ac 2 OUT"
                )
            if tail is not None:  # more than the header says
                yield tail
                limit = tail = None
            shift = 0
            if frame.pts is not None and frame.time_base is not None and first.pts is not None:
                shift = round((frame.pts * frame.time_base - self.start) * rate) - position
            x = _to_float(frame)
            if shift > GAP_S * rate:
                silence.append(self._check_jump(shift / rate, position / rate))
                yield from _zeros(x, shift, round(SILENCE_S * rate))
                position += shift
            elif shift < -GAP_S * rate:
                overlap.append(self._check_jump(shift / rate, position / rate))
                x = x[:, -shift:]
            position += x.shape[1]
            if limit is not None and position > limit:  # the padding of the encoder, if no frame follows
                x, tail = np.split(x, [max(0, x.shape[1] - (position - limit))], axis=1)
            yield x
        if silence or overlap:
            self.warnings.append(
                f"the time stamps of {self.name} have gaps: {sum(silence):.2f} s of silence are inserted, "
                f"{-sum(overlap):.2f} s of overlap are left out."
            )
        if limit is not None and position < limit - EARLY_S * rate:
            self.warnings.append(f"{self.name} ends after {position / rate:.1f} of {limit / rate:.1f} s.")

    def _check_jump(self, jump: float, time: float) -> float:
        if not -MAX_OVERLAP_S <= jump <= MAX_GAP_S:
            raise InputError(
                f"the time stamps of {self.name} jump by {jump:,.1f} s after {time:.1f} s; expected those of one "
                "recording. Convert it first, as by ffmpeg -i IN -c copy OUT"
            )
        return jump


def is_picture(stream: Stream) -> bool:
    """Return whether a stream of a file is a cover picture."""
    return bool(stream.disposition & import_av().stream.Disposition.attached_pic)


def _kind(frame: AudioFrame) -> str:
    return f"{frame.sample_rate} Hz {frame.layout.name} {frame.format.name}"


def _to_float(frame: AudioFrame) -> NDArray[Any]:
    """Return the samples of a frame, (channels, time), full scale 1.0."""
    channels = frame.layout.nb_channels
    if frame.format.is_planar:  # PyAV lists planes that are none behind the eighth, and to_ndarray would read them
        dtype = np.dtype(SAMPLE_TYPES[frame.format.packed.name])
        planes: list[Any] = list(frame.planes[:channels])
        x = np.stack([np.frombuffer(plane, dtype, frame.samples) for plane in planes])
    else:
        x = frame.to_ndarray().reshape(-1, channels).T
    if x.dtype == np.uint8:
        return (x.astype(np.float32) - 128) / 128
    if x.dtype == np.int16:
        return x.astype(np.float32) / 2**15
    return x / 2**31 if x.dtype == np.int32 else x


def _zeros(like: NDArray[Any], n: int, block: int) -> Iterator[NDArray[Any]]:
    """Return silence in blocks."""
    for start in range(0, n, block):
        yield np.zeros((like.shape[0], min(block, n - start)), like.dtype)


def _resample(blocks: Iterator[NDArray[Any]], rate: int, rate_out: int, channels: int) -> Iterator[NDArray[Any]]:
    """Resample blocks; the output has no delay."""
    stream = soxr.ResampleStream(rate, rate_out, channels, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block.T, np.float32)).T
    yield stream.resample_chunk(np.empty((0, channels), np.float32), last=True).T
