"""Signals of one shape, with labels: data of codecs and priors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise.errors import ConfigError
from denoise.protocols import Label
from denoise.training.cifar import read_cifar
from denoise.training.data import Batch
from denoise.training.example_recipe import Examples


class LabelledExamples:
    """All signals of NumPy archives or of binary files of CIFAR-10, in memory, in the type of their files, with labels.

    Args:
        settings: ``[examples]`` section of the recipe.
        root: folder that the paths of the recipe are relative to.
        classes: number of classes that the network can be conditioned on; None for no limit.
        text: whether it can be conditioned on text.

    Raises:
        ConfigError: an archive cannot be read, the signals have several shapes or types, or the labels do not fit the
            network.
    """

    def __init__(self, settings: Examples, root: Path, classes: int | None = None, text: bool = True) -> None:
        self.settings = s = settings
        self.accepts_classes = classes != 0
        arrays, label_arrays = [], []
        names: tuple[str, ...] = ()
        for name in s.files:
            path = root / name
            with _open(path) as archive:
                arrays.append(_signals(archive, s.signals, path))
                labels = _array(archive, s.labels, path).astype(int) if s.labels else np.zeros(len(arrays[-1]), int)
                names = tuple(map(str, _array(archive, s.class_names, path))) if s.class_names else ()
            if labels.shape != (len(arrays[-1]),) or labels.min(initial=0) < 0:
                raise ConfigError(
                    f"{path}: {s.labels} has shape {labels.shape} and values from {labels.min(initial=0)}; expected "
                    f"{len(arrays[-1])} class indices from 0, one for each of {s.signals}."
                )
            label_arrays.append(labels)
        kinds = {(a.shape[1:], str(a.dtype)) for a in arrays}
        if len(kinds) > 1:
            described = " and ".join(sorted(f"{shape} of {dtype}" for shape, dtype in kinds))
            raise ConfigError(f"{root}: the archives hold signals of {described}; expected one shape and type.")
        signals, labels = np.concatenate(arrays), np.concatenate(label_arrays)
        if s.hold_out_every:
            is_kept = np.arange(len(signals)) % s.hold_out_every != 0
            signals, labels = signals[is_kept], labels[is_kept]
        self.signals, self.labels = torch.from_numpy(signals), labels.tolist() if s.labels else None
        if classes and labels.max() >= classes:
            raise ConfigError(
                f"{root / s.files[0]}: holds {labels.max() + 1} classes, the network has {classes}. Fix `classes` of "
                "the model."
            )
        if s.captions and not text:
            raise ConfigError(
                "examples.captions are text, which the network does not take. Set `text` or leave it out."
            )
        if s.time_shift_s * (s.sample_rate or 0) > signals.shape[-1] / 2:
            raise ConfigError(
                f"examples.time_shift_s is {s.time_shift_s:g}; expected at most half the length of a signal."
            )
        self.class_names = names or (tuple(map(str, range(max(self.labels) + 1))) if self.labels else ())

    def batch(self, size: int, generator: Generator) -> Batch:
        """Return random signals, (size, channels, *space), full scale 1.0, with their labels.

        Args:
            size: number of signals.
            generator: source of randomness.
        """
        s = self.settings
        rows = torch.randint(len(self.signals), (size,), generator=generator)
        x = to_float(self.signals[rows])
        if s.flip:
            is_mirrored = torch.rand(size, generator=generator) < 0.5
            x[is_mirrored] = x[is_mirrored].flip(-1)
        if s.speed_perturbation or s.time_shift_s:
            x = torch.stack([self.perturb(signal, generator) for signal in x])
        if s.binarise:
            x = (torch.rand(x.shape, generator=generator) < x).float()
        labels = tuple(self.label(int(row), generator) for row in rows) if self.labels else None
        return Batch(x, x, s.sample_rate, labels=labels)

    def perturb(self, x: Tensor, generator: Generator) -> Tensor:
        """Return audio at a random speed, and so another pitch, with a random shift in time.

        Args:
            x: audio, (channels, time).
            generator: source of randomness.

        Returns:
            Audio of the same shape, cut or padded with zeros.
        """
        s, time = self.settings, x.shape[-1]
        speed, shift = (2 * torch.rand(2, generator=generator) - 1).tolist()
        rate = round(1000 * (1 + s.speed_perturbation * speed))
        resampled = torch.from_numpy(soxr.resample(x.T.numpy(), rate, 1000)).T
        padding = (time - resampled.shape[-1]) // 2 + round(s.time_shift_s * (s.sample_rate or 0) * shift)
        return F.pad(resampled, (padding, time - resampled.shape[-1] - padding))  # negative padding cuts

    def label(self, row: int, generator: Generator) -> Label:
        """Return the label of an example for one batch: its class, a caption, or None.

        Args:
            row: index of the example.
            generator: source of randomness.
        """
        assert self.labels is not None
        s, label = self.settings, self.labels[row]
        u_dropout, u_caption = torch.rand(2, generator=generator).tolist()
        if u_dropout < s.label_dropout:
            return None
        if not s.captions:
            return label
        if self.accepts_classes and u_caption < 0.5:
            return label
        caption = s.captions[int(torch.randint(len(s.captions), (), generator=generator))]
        return caption.format(self.class_names[label])


def to_float(x: Tensor) -> Tensor:
    """Return signals of full scale 1.0.

    Args:
        x: uint8 or int16 of their full scale, or floats of 1.0, any shape.
    """
    return x.float() if x.is_floating_point() else x.float() / (255 if x.dtype == torch.uint8 else 32768)


def _signals(archive: Mapping[str, NDArray[Any]], name: str, path: Path) -> NDArray[Any]:
    """Return the signals of an archive, (n, C, *space), of a type that `to_float` knows the full scale of."""
    x = _array(archive, name, path)
    if x.dtype.kind != "f" and x.dtype not in (np.uint8, np.int16):
        raise ConfigError(
            f"{path}: {name} is of {x.dtype}; expected uint8 or int16 of their full scale, or floats of full scale 1.0."
        )
    return _channels_first(x)


def _channels_first(x: NDArray[Any]) -> NDArray[Any]:
    """Move or add the axis of channels: (n, H, W), (n, H, W, C) or (n, time) to (n, C, *space)."""
    if x.ndim == 4:
        return np.ascontiguousarray(np.moveaxis(x, -1, 1))
    return x[:, None]


@contextmanager
def _open(path: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    if path.suffix == ".bin":
        yield read_cifar(path)
        return
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):  # a single array, .npy
            raise ValueError
    except OSError as error:
        reason = error.strerror or "not a NumPy archive"
        raise ConfigError(f"{path}: cannot be read ({reason}). Give --data the folder that holds it.") from None
    except ValueError:
        raise ConfigError(
            f"{path}: not a NumPy archive (.npz). See the README of the recipe for how it is made."
        ) from None
    with archive:
        yield archive


def _array(archive: Mapping[str, NDArray[Any]], name: str, path: Path) -> NDArray[Any]:
    if name not in archive:
        raise ConfigError(f"{path}: holds {', '.join(archive)}, no {name}. Fix the name of the array in [examples].")
    return archive[name]
