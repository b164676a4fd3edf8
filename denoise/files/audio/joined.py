"""Recordings of several parts, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.audio.container import AudioDecoder
from denoise.signals import AudioFormat

BLOCK_FRAMES = 1 << 16


class JoinedDecoder:
    """The parts of a recording one after the other, at the sample rate of the first; an `AudioDecoder`.

    A part with one channel has it repeated where another part has more; other missing channels are silent.

    Args:
        openers: functions that open the parts in order; one part is open at a time.

    Raises:
        InputError: no part can be read.
    """

    is_live = False

    def __init__(self, openers: Sequence[Callable[[], AudioDecoder]]) -> None:
        self.warnings: list[str] = []
        self._openers: list[Callable[[], AudioDecoder]] = []
        formats: list[AudioFormat] = []
        lengths: list[float | None] = []  # in seconds
        errors: list[InputError] = []
        for opener in openers:
            try:
                with closing(opener()) as decoder:
                    format, frames = decoder.format, decoder.frames
            except InputError as error:
                errors.append(error)
                self.warnings.append(f"a part {self._describe_time(lengths)} is left out: {error}")
                continue
            if formats and format.sample_rate != formats[0].sample_rate:
                self.warnings.append(
                    f"the sample rate is {format.sample_rate} Hz {self._describe_time(lengths)}; "
                    f"resampled to {formats[0].sample_rate} Hz."
                )
            if formats and format.channels != formats[-1].channels:
                self.warnings.append(
                    f"the number of channels is {format.channels} {self._describe_time(lengths)}, "
                    f"{formats[-1].channels} before; the output has the largest number throughout."
                )
            self._openers.append(opener)
            formats.append(format)
            lengths.append(None if frames is None else frames / format.sample_rate)
        if not formats:
            raise errors[0]
        self.format = replace(formats[0], channels=max(format.channels for format in formats))
        seconds = [length for length in lengths if length is not None]
        rate = self.format.sample_rate
        self.frames = sum(round(length * rate) for length in seconds) if len(seconds) == len(lengths) else None
        self._blocks = self._read_parts()
        self._pending = np.empty((self.format.channels, 0), np.float32)

    def _describe_time(self, lengths: Sequence[float | None]) -> str:
        return f"from {sum(length or 0 for length in lengths):.1f} s on"

    def read(self, n: int) -> NDArray[Any]:
        """Return the next samples.

        Args:
            n: number of samples of each channel.

        Returns:
            (channels, up to n), fewer at the end, full scale 1.0.
        """
        blocks, n_read = [self._pending], self._pending.shape[1]
        while n_read < n and (block := next(self._blocks, None)) is not None:
            blocks.append(block)
            n_read += block.shape[1]
        x = np.concatenate(blocks, axis=1)
        self._pending = x[:, n:]
        return x[:, :n]

    def _read_parts(self) -> Generator[NDArray[Any], None, None]:
        for opener in self._openers:
            with closing(opener()) as decoder:
                for block in self._resample(decoder):
                    yield self._fill_channels(block)
                self.warnings += decoder.warnings

    def _resample(self, decoder: AudioDecoder) -> Iterator[NDArray[Any]]:
        rate, new_rate = decoder.format.sample_rate, self.format.sample_rate
        stream: Any = None
        while (block := decoder.read(BLOCK_FRAMES)).shape[1]:
            if rate == new_rate:
                yield block
                continue
            stream = stream or soxr.ResampleStream(rate, new_rate, len(block), block.dtype)
            yield stream.resample_chunk(np.ascontiguousarray(block.T)).T
        if stream is not None:
            yield stream.resample_chunk(np.empty((0, decoder.format.channels), np.float32), last=True).T

    def _fill_channels(self, x: NDArray[Any]) -> NDArray[Any]:
        missing = self.format.channels - len(x)
        if not missing:
            return x
        return np.repeat(x, self.format.channels, 0) if len(x) == 1 else np.pad(x, ((0, missing), (0, 0)))

    def close(self) -> None:
        """Release the part that is open; the source stays open."""
        self._blocks.close()
