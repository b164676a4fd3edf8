"""What a prior makes: samples, ways between signals, several readings of one, likelihoods.

Signals are tensors (n, *shape), full scale 1.0; `denoise.pipelines.prior_files` knows their files.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator
from operator import index
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from denoise.errors import ConfigError
from denoise.nn.embeddings import Label
from denoise.pipelines.device import pick_device
from denoise.pipelines.prior_files import places, read_signal, write_signals
from denoise.priors.latent import estimated
from denoise.probability_path import karras_sigmas
from denoise.protocols import Progress
from denoise.registry import load
from denoise.sampling.posterior import coarse_mask, impute, inpaint
from denoise.weights import Card

AT_ONCE = 64  # signals at once, whatever the number asked for
STEPS = 40  # of a completion


class PriorPipeline:
    """A loaded prior. Everything drawn follows from ``seed``; what one prior cannot do is refused in one line."""

    def __init__(self, prior: str | Path, *, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.model, self.card = load(prior, kind="prior")
        self.name = str(prior)
        self.model.to(self.device)

    def label(self, name: str | None = None, text: str | None = None) -> Label:
        """What is asked for: a class by its name or number, or words.

        Raises:
            ConfigError: the prior knows no such class, or no words.
        """
        if name is not None and text is not None:
            raise ConfigError("a class and a text are asked for at once; give one of them.")
        if text is not None:
            if not self.card.text:
                raise ConfigError(f"prior {self.card.name} knows no words{_classes(self.card)}.")
            return text
        if name is None:
            return None
        if name in self.card.classes:
            return self.card.classes.index(name)
        if name.isdecimal() and int(name) < len(self.card.classes):
            return int(name)
        raise ConfigError(f"prior {self.card.name} knows no class {name!r}{_classes(self.card)}.")

    def places(self, out: str | Path, n: int, *, overwrite: bool = False) -> list[Path]:
        """Where `write` will put ``n`` signals, refused before they are made if it cannot be."""
        if n < 1:
            raise ConfigError(f"{n} samples are asked for; expected at least 1.")
        return places(out, n, self.card, overwrite=overwrite)

    def read(self, *files: str | Path) -> Tensor:
        """Files as signals that the prior knows, whatever their sizes; see `read_signal`. Shape: (n, *shape)."""
        if not files:
            raise ConfigError("no files are given to be read; expected at least one.")
        return torch.cat([read_signal(file, self.card) for file in files])

    def write(
        self, out: str | Path, made: Tensor, *, columns: int | None = None, overwrite: bool = False
    ) -> list[Path]:
        """Write signals into one file or a folder; see `write_signals`. Shape: made (n, *shape)."""
        return write_signals(out, made, self.card, columns=columns, overwrite=overwrite)

    def sample(
        self, n: int, *, label: Label = None, seed: int = 0, progress: Progress | None = None, **how: Any
    ) -> Tensor:
        """Draw ``n`` signals; ``how`` may say ``steps``, ``guidance`` and ``temperature``. Shape: (n, *shape).

        ``label``, here and below, is a class by its name or number, or words.
        """
        if n < 1:
            raise ConfigError(f"{n} samples are asked for; expected at least 1.")
        generator = torch.Generator().manual_seed(seed)
        asked = self._asked(self.model.sample, label, how)
        parts = _told(torch.empty(n).split(AT_ONCE), progress)
        return torch.cat([self.model.sample(len(part), generator=generator, **asked).cpu() for part in parts])

    def noise(self, seed: int) -> Tensor:
        """The noise that a seed stands for. Shape: (1, *noise shape)."""
        shape = getattr(self.model, "prior", self.model).event_shape
        return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))

    def encode(self, x: Tensor, *, label: Label = None) -> Tensor:
        """The noise that signals are made of. Shape: (n, *shape) to (n, *noise shape)."""
        self._need("encode_noise", "turn a signal into noise")
        asked = self._asked(self.model.encode_noise, label, {})
        return torch.cat([self.model.encode_noise(part.to(self.device), **asked).cpu() for part in x.split(AT_ONCE)])

    def decode(self, noise: Tensor, *, label: Label = None, progress: Progress | None = None, **how: Any) -> Tensor:
        """The signals that noise stands for. Shape: (n, *noise shape) to (n, *shape).

        Unguided unless told otherwise, which is the inverse of `encode`; `sample` is guided as the card says.
        """
        self._need("decode_noise", "make signals of given noise")
        asked = self._asked(self.model.decode_noise, label, how)
        parts = _told(noise.split(AT_ONCE), progress)
        return torch.cat([self.model.decode_noise(part.to(self.device), **asked).cpu() for part in parts])

    def decodings(self, x: Tensor, n: int, *, seed: int = 0) -> Tensor:
        """Decodings of ``n`` latents that one signal may have. Shape: x (1, *shape), returns (n, *shape).

        Raises:
            ConfigError: the prior has no codec that draws its latents.
        """
        codec: Any = getattr(self.model, "codec", None)
        if not hasattr(codec, "draw"):
            raise ConfigError(f"prior {self.card.name} has no codec that draws latents; take one with a VAE or an AAE.")
        if n < 1:
            raise ConfigError(f"{n} decodings are asked for; expected at least 1.")
        parts, generator = x.to(self.device).expand(n, *x.shape[1:]).split(AT_ONCE), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return torch.cat([codec.decode(codec.draw(part, generator)).cpu() for part in parts])

    @torch.no_grad()
    def complete(
        self,
        x: Tensor,
        mask: Tensor,
        n: int,
        *,
        label: Label = None,
        seed: int = 0,
        steps: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """``n`` ways to fill what the mask says is missing (0). Shape: x, mask (1, *shape), returns (n, *shape).

        ``steps`` are those of a solver, 40 if not told.

        Raises:
            ConfigError: the mask is of another shape, or the prior has no way to hold what is known.
        """
        if mask.shape != x.shape:
            raise ConfigError(f"the mask is of {tuple(mask.shape[1:])}, the signal of {tuple(x.shape[1:])}.")
        if n < 1:
            raise ConfigError(f"{n} completions are asked for; expected at least 1.")
        generator, label = torch.Generator().manual_seed(seed), self._known(label)
        known, there = (y.to(self.device).expand(n, *y.shape[1:]) for y in (x, mask))
        codec: Any = getattr(self.model, "codec", None)
        prior = getattr(self.model, "prior", self.model)
        if hasattr(prior, "score"):
            if hasattr(self.model, "score"):  # of signals, not of their latents
                return self._inpaint(self.model, known, there, label, steps or STEPS, generator, progress)
            z = codec.encode(known)
            if z.ndim > 2:  # latents with places: those of what is known are held
                coarse = coarse_mask(there[:, :1], tuple(z.shape[2:])).expand_as(z)
                z = self._inpaint(prior, z, coarse, label, steps or STEPS, generator, progress)
                return torch.where(there > 0, known, codec.decode(z)).cpu()
        if not hasattr(codec, "draw"):
            raise ConfigError(f"prior {self.card.name} ({self.card.architecture}) cannot complete; take another.")
        if steps is not None:
            raise ConfigError(f"prior {self.card.name} takes no steps to complete; leave them out.")
        start = self.model.sample(n, generator=generator, **self._asked(self.model.sample, label, {}))
        return impute(codec, known, there, start=start, generator=generator).cpu()

    def _inpaint(
        self,
        prior: Any,
        known: Tensor,
        mask: Tensor,
        label: Label,
        steps: int,
        generator: torch.Generator,
        progress: Progress | None,
    ) -> Tensor:
        c = getattr(prior, "prior", prior).config
        scale = c.sigma_data
        sigmas = karras_sigmas(steps, 0.004 * scale, 40 * scale)
        start = c.mean + sigmas[0] * torch.randn(known.shape, generator=generator)
        labels = [label] * len(known)

        def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
            if progress:
                progress(float((sigmas > sigma[0].cpu()).sum()) / steps)
            return prior(x, sigma, labels)

        return inpaint(denoiser, known, mask, sigmas, start=start.to(known), generator=generator).cpu()

    def latents(self, x: Tensor, *, progress: Progress | None = None) -> Tensor:
        """What the codec keeps of signals. Shape: (n, *shape) to (n, *latent shape).

        Raises:
            ConfigError: the prior has no codec.
        """
        if not hasattr(self.model, "codec"):
            raise ConfigError(f"prior {self.card.name} ({self.card.architecture}) has no codec; take another.")
        with torch.no_grad():
            parts = _told(x.split(AT_ONCE), progress)
            return torch.cat([self.model.codec.encode(part.to(self.device)).cpu() for part in parts])

    def reconstruct(self, x: Tensor) -> Tensor:
        """Signals as the codec remembers them. Shape: (n, *shape), kept."""
        with torch.no_grad():
            z = self.latents(x)
            return torch.cat([self.model.codec.decode(part.to(self.device)).cpu() for part in z.split(AT_ONCE)])

    def log_prob(
        self, x: Tensor, *, label: Label = None, seed: int = 0, progress: Progress | None = None
    ) -> tuple[Tensor, str]:
        """Log-likelihoods in nats, and of which kind they are. Shape: x (n, *shape), returns (n,).

        Raises:
            ConfigError: the prior has none.
        """
        generator, label = torch.Generator().manual_seed(seed), self._known(label)
        codec, prior = getattr(self.model, "codec", None), getattr(self.model, "prior", self.model)
        bounded = hasattr(codec, "posterior") and hasattr(prior, "log_prob")
        many = AT_ONCE if not bounded or not estimated(prior) else 4  # of those every sample takes long
        binary = bounded and self._likelihood() == "bernoulli"
        x = (torch.rand(x.shape, generator=generator) < x.cpu()).to(x) if binary else x
        parts = _told(x.to(self.device).split(many), progress)
        if bounded:
            draws = 5 if estimated(prior) else 500
            found = [self.model.bound(one, draws, generator, label=label) for one in parts]
            kind = f"importance-weighted bound, {draws} samples"
            kind += ", of pixels drawn black or white by their grey" if binary else ""
            return torch.cat(found).cpu(), kind + (", of compressed spectra" if hasattr(codec, "spectrum") else "")
        self._need("log_prob", "say how likely a signal is")
        labels = None if label is None else [label] * len(x)
        if estimated(self.model):
            found = [self.model.log_prob(one, labels and labels[: len(one)], generator=generator) for one in parts]
            return torch.cat(found).cpu(), "estimate along the probability flow, 1 probe"
        with torch.no_grad():
            found = [self.model.log_prob(one, labels and labels[: len(one)]) for one in parts]
            return torch.cat(found).cpu(), "exact"

    def bits_per_dim(self, nats: Tensor) -> Tensor:
        """Of likelihoods of `log_prob`, for each entry of what they are of. Shape: any, kept.

        Values of a density fill 256 levels; a Bernoulli or discretised distribution has levels of its own.
        """
        levels = 1 if self._likelihood() in ("bernoulli", "logistic") else 256
        return bits_per_dim(nats, math.prod((self._codec() or self.model).event_shape), levels)

    def _codec(self) -> Any:
        """The codec of pictures or of spectra, if there is one."""
        codec = getattr(self.model, "codec", None)
        return getattr(codec, "codec", codec)

    def _likelihood(self) -> str | None:
        return getattr(getattr(self._codec(), "config", None), "likelihood", None)

    def _known(self, label: Any) -> Label:
        """A label that the model knows, of any that was given."""
        if label is None:
            return None
        if isinstance(label, str):
            return label if self.card.text else self.label(label)
        try:
            return self.label(str(index(label)))
        except TypeError:
            raise ConfigError(f"a label is a class by its name or number, or words; {label!r} is none.") from None

    def _need(self, ability: str, words: str) -> None:
        inner = getattr(self.model, "prior", self.model)
        if not (hasattr(self.model, ability) and hasattr(inner, ability)):
            raise ConfigError(f"prior {self.card.name} ({self.card.architecture}) cannot {words}; take another.")

    def _asked(self, function: Any, label: Label, how: dict[str, Any]) -> dict[str, Any]:
        """The settings that a function takes; of what it does not know, one line."""
        prior = getattr(self.model, "prior", self.model)
        known = {*inspect.signature(getattr(prior, function.__name__)).parameters}
        if "asked" in known:  # the rest is handed on
            known |= {*inspect.signature(prior.decode_noise).parameters}
        asked = {key: value for key, value in how.items() if value is not None}
        unknown = sorted(set(asked) - known)
        if unknown:
            raise ConfigError(f"prior {self.card.name} takes no {', '.join(unknown)}; leave it out.")
        for key, least, most in (("steps", 1, 10_000), ("guidance", 0, 100), ("temperature", 0, 100)):
            if key in asked and not least <= asked[key] <= most:
                raise ConfigError(f"{key} is {asked[key]}; expected {least} to {most}.")
        label = self._known(label)
        return asked | ({} if label is None else {"label": label})


def _told(parts: Iterable[Tensor], progress: Progress | None) -> Iterator[Tensor]:
    """The parts of a work one by one, and how many of them are done."""
    waiting = [*parts]
    for i, part in enumerate(waiting):
        yield part
        if progress:
            progress((i + 1) / len(waiting))


def bits_per_dim(log_prob: Tensor, entries: int, levels: int = 256) -> Tensor:
    """From nats per event, of entries whose ``levels`` values fill [0, 1], to bits per entry. Shape: any, kept.

    With one level, of probabilities in place of densities.

    Reference:
        A Note on the Evaluation of Generative Models, 2015, arXiv:1511.01844.
    """
    return (math.log(levels) - log_prob / entries) / math.log(2)


def path_between(ends: Tensor, n: int, *, spherical: bool = True) -> Tensor:
    """``n`` places from one end to the other. Shape: ends (2, *event), returns (n, *event).

    Spherical keeps the length that noise has: between two draws of many dimensions, a straight way leads
    through places that no draw would come near.
    """
    if n < 2:
        raise ConfigError(f"{n} places between two ends are asked for; expected at least 2.")
    t = torch.linspace(0, 1, n).reshape(-1, *[1] * (ends.ndim - 1))
    a, b = ends[:1], ends[1:2]
    if not spherical:
        return a + t * (b - a)
    flat = ends.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(flat[0], flat[1], dim=0).clamp(-1, 1)
    angle = cosine.arccos()
    if angle < 1e-3:
        return a + t * (b - a)
    sine = angle.sin().clamp_min(1e-6)
    return ((1 - t) * angle).sin() / sine * a + (t * angle).sin() / sine * b


def grid_between(corners: Tensor, n: int, *, spherical: bool = True) -> Tensor:
    """A grid of n x n places, row by row, whose corners are given. Shape: (4, *event) to (n * n, *event)."""
    left, right = (path_between(corners[[i, i + 2]], n, spherical=spherical) for i in (0, 1))
    rows = [path_between(torch.stack([a, b]), n, spherical=spherical) for a, b in zip(left, right, strict=True)]
    return torch.cat(rows)


def principal_map(latents: Tensor) -> Tensor:
    """The two coordinates in which latents differ most, each scaled to [0, 1]. Shape: (n, features) to (n, 2)."""
    centred = latents - latents.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    places = centred @ directions[:2].T
    if places.shape[1] < 2:
        places = torch.cat([places, torch.zeros(len(places), 2 - places.shape[1])], dim=1)
    low, high = places.amin(dim=0), places.amax(dim=0)
    return (places - low) / (high - low).clamp_min(1e-12)


def _classes(card: Card) -> str:
    return f"; its classes are {', '.join(card.classes)}" if card.classes else "; it has no classes"
