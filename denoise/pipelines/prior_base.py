"""The base of the pipelines of priors: a loaded prior, its labels, and functions applied in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import index
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Generator, Tensor, nn

from denoise.backends.device import cpu_by_default, pick_device
from denoise.cards import Card
from denoise.errors import ConfigError, InputError, shorten
from denoise.options import check_number
from denoise.priors.latent import add_normal_prior
from denoise.protocols import Codec, Device, Label, Prior, Progress, SamplingOptions
from denoise.registry import load

BATCH_SIZE = 64  # signals at a time, for any number of them
MAX_DIGITS = 10  # of the number of a class; Python refuses to parse thousands of them

FULL_SCALES = {"image": {"uint8": 255, "uint16": 65535}, "audio": {"int16": 1 << 15, "int32": 1 << 31}}
"""Full scale of the types of integers by modality, as in `denoise.denoise_image` and `denoise.denoise_audio`."""


class LoadedPrior:
    """A loaded prior; a codec without a prior gets a standard normal one over its latents.

    Args:
        prior: name of bundled weights, or path of the weights file of a prior or a codec.
        device: ``"auto"``, or a device of torch.

    Raises:
        ConfigError: there is no such prior.
        WeightsError: the file is damaged.
    """

    def __init__(self, prior: str | Path, *, device: Device = "auto") -> None:
        self.device = pick_device(device)
        self.model: Prior
        self.card: Card
        self.name = str(prior)
        module, card = load(prior, kind=("prior", "codec", "denoiser"))
        if not isinstance(module, Prior):
            if not isinstance(module, Codec):
                raise ConfigError(
                    f"{prior} is a {card.kind} for {card.modality}; expected a prior or a codec. See `denoise models`."
                )
            module, card = add_normal_prior(module), replace(card, shape=tuple(module.event_shape))
        self.model, self.card = module.to(self.device), card

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.card.name!r}, device={str(self.device)!r})"

    def label(self, name: str | None = None, text: str | None = None) -> Label:
        """Return the condition for a class or a text; give at most one of them.

        Args:
            name: a class by its name or number.
            text: a description in words.

        Raises:
            ConfigError: the prior has no such class, or takes no text.
        """
        if name is not None and text is not None:
            raise ConfigError("both a class and a text are given; expected at most one of them.")
        if text is not None:
            if not self.card.text:
                raise ConfigError(f"prior {self.card.name} takes no text{_list_classes(self.card)}.")
            return text
        if name is None:
            return None
        if name in self.card.classes:
            return self.card.classes.index(name)
        if name.isdecimal() and len(name) < MAX_DIGITS and int(name) < len(self.card.classes):
            return int(name)
        raise ConfigError(f"prior {self.card.name} has no class {name!r}{_list_classes(self.card)}.")

    def _map(
        self,
        function: Callable[[Tensor], Tensor],
        x: Tensor,
        progress: Progress | None = None,
        *,
        batch_size: int = BATCH_SIZE,
    ) -> Tensor:
        """Apply a function to batches on the device; the result is on the CPU."""
        batches = iter(x.split(batch_size))
        return self._in_batches(
            lambda size, _: function(next(batches).to(self.device)), len(x), progress, batch_size=batch_size
        )

    def _in_batches(
        self,
        function: Callable[[int, Progress | None], Tensor],
        n: int,
        progress: Progress | None,
        *,
        batch_size: int = BATCH_SIZE,
        dim: int = 0,
    ) -> Tensor:
        """Join what a function of a number of signals and of their progress computes; the result is on the CPU."""
        self._check_type()
        results = []
        with torch.no_grad(), cpu_by_default():
            for start in range(0, n, batch_size):
                size = min(batch_size, n - start)
                results.append(function(size, progress and partial(_report_part, progress, start, size, n)).cpu())
                if progress:
                    progress((start + size) / n)
        return torch.cat(results, dim=dim)

    def _check_type(self) -> None:
        """Refuse a model that a caller has converted, as signals and noise are of float32."""
        types = {p.dtype for p in self.model.parameters()} if isinstance(self.model, nn.Module) else set()
        if types - {torch.float32}:
            raise ConfigError(
                f"prior {self.card.name} holds parameters of {', '.join(sorted(map(str, types)))}; expected "
                "torch.float32. Call `model.float()`."
            )

    def _as_signals(self, x: Any, what: str = "signals") -> Tensor:
        """Return signals, (n, *shape), as a tensor of float32 of full scale 1.0, or refuse them."""
        signals, scales = as_batch(x, self.model.event_shape, what), FULL_SCALES.get(self.card.modality)
        dtype = str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else np.asarray(x).dtype.name
        if scales is None or dtype == "bool" or "float" in dtype:
            return signals
        if dtype not in scales:
            raise InputError(
                f"{what} are {dtype}; expected {' or '.join(scales)} of their full scale, or floats of 1.0."
            )
        return signals / scales[dtype]

    def _resolve(self, label: Any) -> Label:
        """Return a label as the model takes it: the index of a class, a text, or None."""
        if label is None:
            return None
        if isinstance(label, str):
            return label if self.card.text else self.label(label)
        try:
            return self.label(str(index(label)))
        except TypeError:
            raise ConfigError(f"label is {label!r}; expected a class by its name or number, or a text.") from None

    def _options(self, options: SamplingOptions, supported: frozenset[str]) -> SamplingOptions:
        options.check_supported(supported, f"prior {self.card.name}")
        return options

    def _refuse(self, ability: str) -> NoReturn:
        raise ConfigError(f"prior {self.card.name} ({self.card.architecture}) cannot {ability}; use another.")


def as_batch(x: Any, shape: Sequence[int], what: str) -> Tensor:
    """Return an array or a tensor, (n, *shape), as a tensor of float32.

    Args:
        x: what a caller gave.
        shape: shape of each of its entries.
        what: what they are, in the plural, for the message.

    Raises:
        InputError: it is no array of real numbers that are finite, or has another shape.
    """
    tensor = x if isinstance(x, Tensor) else _from_array(x)
    if tensor is None or tensor.is_complex():
        raise InputError(f"{what} are {shorten(x)}; expected a tensor or an array of real numbers.")
    if tensor.ndim != 1 + len(shape) or tensor.shape[1:] != torch.Size(shape) or not len(tensor):
        expected = ", ".join(["n", *map(str, shape)])
        raise InputError(f"{what} have shape {tuple(tensor.shape)}; expected ({expected}), n at least 1.")
    tensor = tensor.float()
    if not tensor.isfinite().all():
        raise InputError(f"{what} hold NaN or infinite values; expected finite ones.")
    return tensor


def _from_array(x: Any) -> Tensor | None:
    """Return an array, or what NumPy takes for one, as a tensor; None if it is not of real numbers."""
    try:
        array = np.asarray(x)
    except ValueError:  # of lists of several lengths
        return None
    return torch.from_numpy(array.astype(np.float32)) if array.dtype.kind in "biuf" else None


def as_generator(seed: int) -> Generator:
    """Return a generator of a seed.

    Args:
        seed: whole number of 64 bits.

    Raises:
        ConfigError: it is something else.
    """
    check_number("seed", seed, is_whole=True)
    if not -(1 << 63) <= seed < 1 << 64:
        raise ConfigError(f"seed is {seed}; expected a number of 64 bits.")
    return Generator().manual_seed(int(seed))


def check_count(n: int) -> None:
    """Refuse to make less than one signal."""
    check_number("n", n, is_whole=True)
    if n < 1:
        raise ConfigError(f"n is {n}; expected at least 1.")


def _report_part(progress: Progress, start: int, size: int, n: int, fraction: float) -> None:
    """Report the progress of a batch as that of all n signals."""
    progress((start + size * fraction) / n)


def _list_classes(card: Card) -> str:
    return f"; its classes are {', '.join(card.classes)}" if card.classes else "; it has no classes"
