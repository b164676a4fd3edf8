"""Signals of one shape, with labels: what codecs and priors learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise.errors import ConfigError
from denoise.nn.embeddings import Label
from denoise.training.data import Batch
from denoise.training.recipe import Examples


class LabelledExamples:
    """All examples in memory, in the numbers of their files, with labels that a network of so many ``classes``, and of
    words or not, understands.

    Raises:
        ConfigError: there are more classes, or captions for a network without words.

    Shape:
        signals: (n, channels, height, width) or (n, channels, time).
        batch: clean (batch, channels, *space), float32, full scale 1.0.
    """

    def __init__(self, settings: Examples, root: Path, classes: int | None = None, text: bool = True) -> None:
        self.settings = s = settings
        self.numbered = classes != 0
        arrays, labels = [], []
        names: tuple[str, ...] = ()
        for name in s.files:
            path = root / name
            archive = _open(path)
            arrays.append(_channels_first(_array(archive, s.signals, path)))
            labels.append(_array(archive, s.labels, path).astype(int) if s.labels else np.zeros(len(arrays[-1]), int))
            names = tuple(map(str, _array(archive, s.names, path))) if s.names else ()
        if len({(a.shape[1:], a.dtype) for a in arrays}) > 1:
            raise ConfigError(f"{root}: the archives hold signals of different shapes or types; expected one.")
        signals, found = np.concatenate(arrays), np.concatenate(labels)
        if s.hold_out:
            kept = np.arange(len(signals)) % s.hold_out != 0
            signals, found = signals[kept], found[kept]
        self.signals, self.labels = torch.from_numpy(signals), found.tolist() if s.labels else None
        if classes and found.max() >= classes:
            raise ConfigError(
                f"{root / s.files[0]}: holds {found.max() + 1} classes; the network knows {classes}. Mend classes."
            )
        if s.captions and not text:
            raise ConfigError(
                "examples.captions are words, which the network does not know; set text or leave them out."
            )
        if s.shift_s * (s.sample_rate or 0) > signals.shape[-1] / 2:
            raise ConfigError(f"examples.shift_s is {s.shift_s:g}; expected less than half of a sound.")
        self.names = names or (tuple(map(str, range(max(self.labels) + 1))) if self.labels else ())

    def batch(self, size: int, generator: Generator) -> Batch:
        s = self.settings
        rows = torch.randint(len(self.signals), (size,), generator=generator)
        x = light(self.signals[rows])
        if s.flip:
            mirrored = torch.rand(size, generator=generator) < 0.5
            x[mirrored] = x[mirrored].flip(-1)
        if s.speed or s.shift_s:
            x = torch.stack([self.replayed(sound, generator) for sound in x])
        if s.binary:
            x = (torch.rand(x.shape, generator=generator) < x).float()
        labels = tuple(self.label(int(row), generator) for row in rows) if self.labels else None
        return Batch(x, x, s.sample_rate, labels=labels)

    def replayed(self, x: Tensor, generator: Generator) -> Tensor:
        """A sound at another speed, and so another pitch, from another moment on. Shape: (channels, time), kept."""
        s, time = self.settings, x.shape[-1]
        speed, shift = (2 * torch.rand(2, generator=generator) - 1).tolist()
        rate = round(1000 * (1 + s.speed * speed))
        played = torch.from_numpy(soxr.resample(x.T.numpy(), rate, 1000)).T
        before = (time - played.shape[-1]) // 2 + round(s.shift_s * (s.sample_rate or 0) * shift)
        return F.pad(played, (before, time - played.shape[-1] - before))  # negative ones cut

    def label(self, row: int, generator: Generator) -> Label:
        """What is told of an example: its class, a caption, or nothing."""
        assert self.labels is not None
        s, label = self.settings, self.labels[row]
        told, worded = torch.rand(2, generator=generator).tolist()
        if told < s.label_dropout:
            return None
        if not s.captions:
            return label
        if self.numbered and worded < 0.5:
            return label
        caption = s.captions[int(torch.randint(len(s.captions), (), generator=generator))]
        return caption.format(self.names[label])


def light(x: Tensor) -> Tensor:
    """Integers of their full scale as floats of 1.0. Shape: any, kept."""
    return x.float() if x.is_floating_point() else x.float() / (255 if x.dtype == torch.uint8 else 32768)


def _channels_first(x: NDArray[np.generic]) -> NDArray[np.generic]:
    """Shape: (n, height, width), (n, height, width, 1 or 3) or (n, time) to (n, channels, *space)."""
    if x.ndim == 4:
        return np.ascontiguousarray(np.moveaxis(x, -1, 1))
    return x[:, None]


def _open(path: Path) -> np.lib.npyio.NpzFile:
    try:
        return np.load(path, allow_pickle=False)
    except OSError as error:
        reason = error.strerror or "no NumPy archive"
        raise ConfigError(f"{path}: cannot be read ({reason}). Give --data the folder that holds it.") from None
    except ValueError:
        raise ConfigError(f"{path}: is no NumPy archive (.npz). See the recipe for what it holds.") from None


def _array(archive: np.lib.npyio.NpzFile, name: str, path: Path) -> NDArray[np.generic]:
    if name not in archive:
        raise ConfigError(f"{path}: holds {', '.join(archive)}, no {name}. Name the array in [examples].")
    found: NDArray[np.generic] = archive[name]
    return found
