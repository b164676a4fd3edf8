"""Signals of one shape, with labels: data of codecs and priors."""

from __future__ import annotations

import warnings
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

from denoise.errors import ConfigError, shorten
from denoise.protocols import Label
from denoise.training.cifar import read_cifar
from denoise.training.data import Batch
from denoise.training.example_recipe import Examples

IMAGE_RANGE = (-1e-3, 1.001)  # of floats, with their rounding
AUDIO_RANGE = (-4.0, 4.0)  # peaks may exceed full scale, by 12 dB; integers in the type of floats do by far more


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
        positions: dict[str, int] = {}  # of the names of all files: theirs may differ in order and content
        for name in s.files:
            path = root / name
            with _open(path) as archive:
                arrays.append(_signals(archive, s, path))
                labels = _labels(archive, s, len(arrays[-1]), path)
                if s.class_names:
                    names = _names(archive, s.class_names, 1 + labels.max(), path)
                    labels = np.array([positions.setdefault(each, len(positions)) for each in names])[labels]
            label_arrays.append(labels)
        kinds = {(a.shape[1:], str(a.dtype)) for a in arrays}
        if len(kinds) > 1:
            described = " and ".join(sorted(f"{shape} of {dtype}" for shape, dtype in kinds))
            raise ConfigError(f"{root}: the archives hold signals of {described}; expected one shape and type.")
        signals, labels = np.concatenate(arrays), np.concatenate(label_arrays)
        if s.hold_out_every:
            is_kept = np.arange(len(signals)) % s.hold_out_every != 0
            signals, labels = signals[is_kept], labels[is_kept]
            if not len(signals):
                raise ConfigError(f"{root}: no signal is left; expected more than examples.hold_out_every leaves out.")
        self.signals, self.labels = torch.from_numpy(signals), labels.tolist() if s.labels else None
        n_classes = len(positions) or (int(labels.max()) + 1 if s.labels else 0)
        if classes and n_classes > classes:
            path = root / s.files[0]
            raise ConfigError(
                f"{path}: holds {n_classes} classes, the network has {classes}. Fix `classes` of the model."
            )
        self.class_names = tuple(positions) or tuple(map(str, range(n_classes)))
        if classes:
            self._check_classes(classes, root / s.files[0])
        if s.captions and not text:
            raise ConfigError(
                "examples.captions are text, which the network does not take. Set `text` or leave it out."
            )
        if s.time_shift_s * (s.sample_rate or 0) > signals.shape[-1] / 2:
            raise ConfigError(
                f"examples.time_shift_s is {s.time_shift_s:g}; expected at most half the length of a signal."
            )

    @property
    def has_levels(self) -> bool:
        """Whether the signals have 256 levels, also as floats; a thousand signals are examined."""
        x = self.signals[:1000]
        if not x.is_floating_point():
            return x.dtype == torch.uint8
        tolerance = 255 * max(torch.finfo(x.dtype).eps, torch.finfo(torch.float32).eps)
        levels = 255 * x.float()
        return bool(((levels - levels.round()).abs() <= tolerance).all())

    def _check_classes(self, classes: int, path: Path) -> None:
        """Refuse more classes than a network has; warn of those that it will learn nothing about."""
        if self.labels is None:
            raise ConfigError(
                f"{path}: has no labels, the network has {classes} classes. Fix examples.labels, or leave `classes` of "
                "the model out."
            )
        names = [*self.class_names, *map(str, range(len(self.class_names), classes))]
        without = [names[i] for i in sorted(set(range(classes)) - set(self.labels))]
        if without:
            warnings.warn(
                f"{path}: classes {', '.join(without)} have no examples, of which the network learns nothing; fix "
                "`classes` of the model, or the labels.",
                stacklevel=4,
            )

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


def _signals(archive: Mapping[str, NDArray[Any]], s: Examples, path: Path) -> NDArray[Any]:
    """Return the signals of an archive, (n, C, *space), of a type that `to_float` knows the full scale of."""
    x, name = _array(archive, s.signals, path), s.signals
    if x.dtype.kind != "f" and x.dtype not in (np.uint8, np.int16):
        raise ConfigError(
            f"{path}: {name} is of {x.dtype}; expected uint8 or int16 of their full scale, or floats of full scale 1.0."
        )
    if x.ndim < 2 or not x.size:
        raise ConfigError(
            f"{path}: {name} has shape {x.shape}; expected (n, H, W), (n, H, W, C) or (n, time), n at least 1."
        )
    if x.dtype.kind == "f":
        low, high = float(x.min()), float(x.max())  # NaN if any of them is
        lowest, highest = AUDIO_RANGE if s.sample_rate else IMAGE_RANGE
        expected = (
            "finite floats from -1 to 1" if s.sample_rate else "finite floats from 0 to 1; audio has a sample_rate"
        )
        if not lowest <= low <= high <= highest:
            raise ConfigError(f"{path}: {name} is {low:g} to {high:g}; expected {expected}. Divide by the full scale.")
    return _channels_first(x)


def _labels(archive: Mapping[str, NDArray[Any]], s: Examples, n: int, path: Path) -> NDArray[Any]:
    """Return the indices of the classes of n signals, zeros without labels."""
    if s.labels is None:
        return np.zeros(n, int)
    labels = _array(archive, s.labels, path)
    is_whole = labels.dtype.kind in "iub" or (
        labels.dtype.kind == "f" and bool((np.isfinite(labels) & (labels == np.rint(labels))).all())
    )
    if not is_whole or labels.shape != (n,) or labels.min(initial=0) < 0:
        described = f"values from {labels.min(initial=0)}" if is_whole else "values that are no whole numbers"
        raise ConfigError(
            f"{path}: {s.labels} has shape {labels.shape} and {described}; expected {n} class indices from 0, one for "
            f"each of {s.signals}."
        )
    return labels.astype(int)


def _names(archive: Mapping[str, NDArray[Any]], name: str, n_labels: int, path: Path) -> list[str]:
    """Return the names of the classes of an archive, one for each label at least."""
    array = _array(archive, name, path)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    names: list[str] = array.astype(str).ravel().tolist()
    if array.ndim != 1 or len(names) < n_labels or len({*names}) < len(names):
        raise ConfigError(
            f"{path}: {name} is {shorten(names)}, labels go up to {n_labels - 1}; expected as many different names."
        )
    return names


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
            f"{path}: not a NumPy archive (.npz), which numpy.savez writes. Fix examples.files."
        ) from None
    with archive:
        yield archive


def _array(archive: Mapping[str, NDArray[Any]], name: str, path: Path) -> NDArray[Any]:
    if name not in archive:
        raise ConfigError(f"{path}: holds {', '.join(archive)}, no {name}. Fix the name of the array in [examples].")
    try:
        return archive[name]
    except ValueError:  # pickled objects, such as strings of several types
        raise ConfigError(
            f"{path}: {name} holds Python objects; expected numbers or texts. Make it of one type."
        ) from None
