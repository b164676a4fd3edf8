"""Encode one track with FFmpeg's libraries, in the codec of its source where there is an encoder."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.audio.ffmpeg import UNWRITABLE, import_av, translate_errors
from denoise.files.audio.media_format import FFMPEG_TAGS, MediaFormat, is_lossless
from denoise.files.audio.metadata.positions import channel_mask, mask_names
from denoise.signals import AudioFormat

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import OutputContainer

ENCODERS = {"mp3": "libmp3lame", "opus": "libopus", "amr_nb": "libopencore_amrnb"}
"""Encoders by FFmpeg's name of the codec, where it is not that of the encoder."""

EXPERIMENTAL = ("vorbis", "dts", "truehd", "mlp")  # encoders that FFmpeg itself advises against
AC3_KBIT = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
MP2_KBIT = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
ALLOWED_KBIT = {"ac3": AC3_KBIT, "mp2": MP2_KBIT}
DEFAULT_BIT_RATE = 96_000  # per channel, where the source is of another codec
MAX_BIT_RATE = 10_000_000
MIN_BIT_RATES = {"aac": 48_000}  # per channel: what HE-AAC does with less, its encoder cannot
LAYOUTS = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "6.1", "7.1")  # by number of channels, where none is stated

SKIPPING_CODECS = ("wmav1", "wmav2")
"""Codecs of which FFmpeg's decoder skips one frame more than its encoder puts ahead of the sound."""

BACK_ENCODERS = ("aac", "alac", "libopus")
"""Encoders with layouts of their own for five and six channels, whose surround channels FFmpeg calls those at the back,
not at the side; other layouts they refuse, or write without the names of the channels."""

PERMUTED = (("libopus", "5.0"), ("libopus", "6.1"))
"""Encoders and layouts whose channels come out in another order, by an error of FFmpeg."""


class TrackEncoder:
    """A file with one track that FFmpeg writes; an `AudioEncoder`.

    Args:
        target: path, or seekable file.
        muxer: FFmpeg's name of the container.
        encoders: names of encoders to try, as by `encoders_for`.
        format: format of the source.
        options: FFmpeg's options of the container.

    Attributes:
        warnings: what had to change.
        clips_as: as of `AudioEncoder`.
        padding: time in s by which the first packet comes before the first sample, once that is written.

    Raises:
        InputError: no encoder can hold the format.
    """

    def __init__(
        self,
        target: str | bytes | BinaryIO,
        muxer: str,
        encoders: Sequence[str],
        format: AudioFormat,
        options: Mapping[str, str],
    ) -> None:
        self.warnings: list[str] = []
        self.padding = Fraction(0)
        self._rate, self._position = format.sample_rate, 0
        stated = _layout(format)
        layouts = dict.fromkeys((stated, *LAYOUTS[format.channels - 1 : format.channels]))
        for layout, encoder in itertools.product(layouts, encoders):
            media = _open_encoder(target, muxer, encoder, layout, format, options)
            if media is not None:
                break
        else:
            raise InputError(
                f"{muxer} cannot hold {format.channels} channels at {format.sample_rate} Hz (tried "
                f"{', '.join(encoders) or 'no encoder'}). Choose another extension, such as .m4a or .flac."
            )
        if layout != stated:
            self.warnings.append(
                f"{encoder} does not know the loudspeakers {stated}; the channels are those of {layout}."
            )
        self._media: OutputContainer | None = media
        self._stream = media.streams.audio[0]
        context = self._stream.codec_context
        self.clips_as = "" if context.format.packed.name in ("flt", "dbl") else context.codec.canonical_name
        self._lead = context.frame_size if context.codec.canonical_name in SKIPPING_CODECS else 0
        if isinstance(format, MediaFormat):
            self._warn_changes(format)

    def _warn_changes(self, format: MediaFormat) -> None:
        context = self._stream.codec_context
        written = f"{context.codec.canonical_name} at {context.sample_rate:,} Hz"
        if context.bit_rate:
            written += f" and {context.bit_rate / 1000:.0f} kbit/s"
        if context.codec.canonical_name != format.codec:
            self.warnings.append(f"{format.codec} has no encoder here; the sound is written as {written}.")
        elif context.sample_rate != format.sample_rate:
            self.warnings.append(f"{format.codec} has no {format.sample_rate:,} Hz; the sound is written as {written}.")
        elif (format.profile or "").startswith("HE"):
            self.warnings.append(f"{format.profile} has no encoder here; the sound is written as {written}.")

    def write(self, x: NDArray[Any]) -> None:
        """Append samples.

        Args:
            x: (channels, time), full scale 1.0; integers clip there.

        Raises:
            InputError: the file cannot be written.
        """
        if self._media is None or not x.shape[1]:
            return
        if not self._position and self._lead:
            x = np.concatenate([np.zeros((x.shape[0], self._lead), x.dtype), x], axis=1)
        context = self._stream.codec_context
        packed = (
            context.format.packed.name
        )  # which PyAV makes planar: of eight planes it would fill more than there are
        samples = _from_float(x, packed, context.codec.name).T.reshape(1, -1)
        frame = import_av().AudioFrame.from_ndarray(np.ascontiguousarray(samples), packed, context.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._position - self._lead, Fraction(1, self._rate)
        self._mux(self._media, frame)
        self._position += x.shape[1]

    def close(self) -> None:
        """Finish the file; a second call does nothing."""
        media, self._media = self._media, None
        if media is None:
            return
        with translate_errors(UNWRITABLE), media:
            if self._position:
                self._mux(media, None)

    def _mux(self, media: OutputContainer, frame: AudioFrame | None) -> None:
        with translate_errors(UNWRITABLE):
            for packet in self._stream.encode(frame):
                if packet.pts is not None:
                    self.padding = max(self.padding, -packet.pts * Fraction(packet.time_base))
                media.mux_one(packet)


def encoders_for(muxer: str, format: AudioFormat, others: Sequence[str]) -> list[str]:
    """Return the encoders that a container may take for a track, the codec of the source first.

    Args:
        muxer: FFmpeg's name of the container.
        format: format of the source.
        others: encoders for other codecs than that of the source; lossless ones are preferred for lossless sources.
    """
    codec = format.codec if isinstance(format, MediaFormat) else ""
    was_lossless = is_lossless(codec) or format.subtype.startswith(("PCM", "FLOAT", "DOUBLE", "ALAC"))
    others = sorted(others, key=lambda encoder: is_lossless(encoder) != was_lossless)
    return [encoder for encoder in dict.fromkeys([ENCODERS.get(codec, codec), *others]) if _is_held(muxer, encoder)]


def _is_held(muxer: str, encoder: str) -> bool:
    """Return whether an encoder exists, is recommended by FFmpeg, and fits into a container."""
    is_miscounted = muxer == "avi" and encoder.startswith("adpcm_")  # when copied: its packets get a wrong duration
    if not encoder or encoder in EXPERIMENTAL or is_miscounted:
        return False
    with import_av().open(io.BytesIO(), "w", format=muxer) as media:
        try:
            media.add_stream(encoder)
        except (ValueError, LookupError):  # av.codec.UnknownCodecError is a ValueError
            return False
    return True


def _open_encoder(
    target: str | bytes | BinaryIO,
    muxer: str,
    encoder: str,
    layout: str,
    format: AudioFormat,
    options: Mapping[str, str],
) -> OutputContainer | None:
    """Return a file with one audio track whose encoder is open, or None if it does not hold the format."""
    av = import_av()
    codec = av.Codec(encoder, "w")
    if encoder in BACK_ENCODERS:
        layout = layout.replace("(side)", "")
    if (encoder, layout) in PERMUTED:
        return None
    file = f"file:{os.fsdecode(target)}" if isinstance(target, str | bytes) else target
    media: OutputContainer = av.open(
        file, "w", format=muxer, container_options=dict(options), metadata_errors="surrogateescape"
    )
    media.metadata.update({FFMPEG_TAGS.get(key, key): text for key, text in format.tags.items()})
    rates = codec.audio_rates or [format.sample_rate]
    higher = [rate for rate in rates if rate >= format.sample_rate]
    stream = cast("AudioStream", media.add_stream(encoder, rate=min(higher) if higher else max(rates)))
    stream.layout = layout
    stream.format = _sample_format([item.name for item in codec.audio_formats or ()], format.subtype)
    if not is_lossless(codec.canonical_name):
        stream.bit_rate = _bit_rate(codec.canonical_name, format)
    try:
        stream.codec_context.open()
    except av.FFmpegError:
        media.close()
        return None
    return media


def _layout(format: AudioFormat) -> str:
    """Return FFmpeg's name of the layout of the channels."""
    if isinstance(format, MediaFormat) and format.layout:
        return format.layout
    names = mask_names(channel_mask(format))
    is_stated = 2 < format.channels == len(names)
    return str(import_av().AudioLayout("+".join(names)).name) if is_stated else LAYOUTS[format.channels - 1]


def _sample_format(names: Sequence[str], subtype: str) -> str:
    """Return the sample format of an encoder that holds a subtype with the fewest bits."""
    wanted = ("s16", "s16p") if subtype in ("PCM_16", "PCM_U8", "PCM_S8") else ("fltp", "flt", "s32", "s32p")
    return next((name for name in wanted if name in names), names[0])


def _bit_rate(codec: str, format: AudioFormat) -> int:
    """Return the bit rate of the source, within what the codec allows."""
    bit_rate = format.bit_rate if isinstance(format, MediaFormat) else None
    if bit_rate is None or (isinstance(format, MediaFormat) and codec != format.codec):
        bit_rate = min(bit_rate or MAX_BIT_RATE, DEFAULT_BIT_RATE * format.channels)
    bit_rate = max(bit_rate, MIN_BIT_RATES.get(codec, 0) * format.channels)
    allowed = ALLOWED_KBIT.get(codec)
    return 1000 * min(allowed, key=lambda kbit: abs(1000 * kbit - bit_rate)) if allowed else bit_rate


def _from_float(x: NDArray[Any], sample_format: str, encoder: str) -> NDArray[Any]:
    """Return samples, full scale 1.0, in the packed sample format of an encoder; integers are rounded and clipped."""
    if sample_format in ("flt", "dbl"):
        return x.astype(np.float32 if sample_format == "flt" else np.float64)
    bits = {"u8": 8, "s16": 16}.get(sample_format, 32 if encoder.startswith("pcm_s32") else 24)
    half = 2 ** (bits - 1)
    integers = np.rint(x.astype(np.float64) * half).clip(-half, half - 1).astype(np.int64)
    if sample_format == "u8":
        return (integers + 128).astype(np.uint8)
    return integers.astype(np.int16) if sample_format == "s16" else (integers << (32 - bits)).astype(np.int32)
