"""Pipelines of priors: samples, interpolation, completion, reconstruction and likelihoods.

Signals are tensors (n, *shape), full scale 1.0; `denoise.pipelines.prior_files` reads and writes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Generator, Tensor

from denoise.errors import ConfigError
from denoise.metrics import bits_per_dim, r2
from denoise.models.spectral_codec import SpectralCodec
from denoise.pipelines.device import pick_device
from denoise.pipelines.latent_space import attribute_direction
from denoise.pipelines.prior_files import output_paths, read_signal, trajectory_path, write_signals, write_trajectory
from denoise.pipelines.typicality import anomaly_scores, typical_statistics
from denoise.priors.latent import LatentPrior, add_normal_prior
from denoise.protocols import (
    Codec,
    Completer,
    HasEstimatedLogProb,
    HasLogProb,
    HasLogProbBound,
    HasTrajectory,
    Label,
    NoiseDecoder,
    NoiseEncoder,
    Prior,
    Progress,
    SamplingOptions,
    StochasticCodec,
)
from denoise.registry import load
from denoise.weights import Card, TypicalStatistics

BATCH_SIZE = 64  # signals at a time, for any number of them
BINARISED = ", of stochastically binarised pixels"


class PriorPipeline:
    """A loaded prior. Results are determined by ``seed``; what a prior cannot do is refused with a `ConfigError`.

    A codec without a prior gets a standard normal one over its latents.

    Args:
        prior: name of bundled weights, or path of the weights file of a prior or a codec.
        device: ``"auto"``, or a device of torch.

    Raises:
        ConfigError: there is no such prior.
        WeightsError: the file is damaged.
    """

    def __init__(self, prior: str | Path, *, device: str = "auto") -> None:
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
        if name.isdecimal() and int(name) < len(self.card.classes):
            return int(name)
        raise ConfigError(f"prior {self.card.name} has no class {name!r}{_list_classes(self.card)}.")

    def output_paths(self, out: str | Path, n: int, *, overwrite: bool = False) -> list[Path]:
        """Return the paths that `write` will create, so that a problem is reported before the signals are computed.

        Args:
            out: file or folder.
            n: number of signals.
            overwrite: whether files may be replaced.

        Raises:
            ConfigError: the extension does not fit the signals.
            InputError: a file exists.
        """
        _check_count(n, "samples")
        return output_paths(out, n, self.card, overwrite=overwrite)

    def read(self, *files: str | Path) -> Tensor:
        """Read files as signals of the shape of the prior; see `read_signal`.

        Args:
            files: images or audio files of any size.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: no file is given.
            InputError: a file cannot be read.
        """
        if not files:
            raise ConfigError("no files to read; expected at least one.")
        return torch.cat([read_signal(file, self.card) for file in files])

    def write(
        self, out: str | Path, signals: Tensor, *, columns: int | None = None, overwrite: bool = False
    ) -> list[Path]:
        """Write signals into one file or a folder; see `write_signals`.

        Args:
            out: file or folder.
            signals: signals, (n, *shape).
            columns: columns of the grid of a .png; by default about as many as rows.
            overwrite: whether files may be replaced.

        Returns:
            Paths of the files.
        """
        return write_signals(out, signals, self.card, columns=columns, overwrite=overwrite)

    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        solver: str | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Sample signals.

        Args:
            n: number of signals.
            label: class by its name or number, or a text; None is unconditional.
            seed: seed of the noise.
            steps: steps of the solver.
            guidance: scale of classifier-free guidance.
            temperature: factor of the noise.
            solver: name in `denoise.sampling.solvers.SOLVERS`.
            progress: called with the fraction done.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: an option is out of range or not supported by the prior, or it has no such class.
        """
        _check_count(n, "samples")
        options = self._options(SamplingOptions(steps, guidance, temperature, solver), self.model.sampling_options)
        label, generator = self._resolve(label), Generator().manual_seed(seed)
        signals = []
        for start in range(0, n, BATCH_SIZE):
            size = min(BATCH_SIZE, n - start)
            signals.append(self.model.sample(size, label=label, options=options, generator=generator).cpu())
            if progress:
                progress((start + size) / n)
        return torch.cat(signals)

    def trajectory(
        self,
        n: int,
        *,
        frames: int = 17,
        label: Label = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        solver: str | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Sample signals as `sample` does, and show how noise is added to them and how it was removed.

        Args:
            n: number of signals.
            frames: largest number of points on the way to noise and back, at least 3; they are evenly spaced steps.
            label: class by its name or number, or a text; None is unconditional.
            seed: seed of the noise.
            steps: steps of the solver.
            guidance: scale of classifier-free guidance.
            temperature: factor of the noise.
            solver: name in `denoise.sampling.solvers.SOLVERS`.
            progress: called with the fraction done.

        Returns:
            Signals, (frames, n, *shape): samples first and last, noise in the middle.

        Raises:
            ConfigError: the prior does not remove noise step by step, or as of `sample`.
        """
        _check_count(n, "samples")
        if frames < 3:
            raise ConfigError(f"number of frames is {frames}; expected at least 3: sample, noise, sample.")
        model = self.model
        if not isinstance(model, HasTrajectory):
            self._refuse("show a trajectory, since it does not remove noise step by step")
        options = self._options(SamplingOptions(steps, guidance, temperature, solver), model.sampling_options)
        label, generator = self._resolve(label), Generator().manual_seed(seed)
        parts = []
        for start in range(0, n, BATCH_SIZE):
            size = min(BATCH_SIZE, n - start)
            points = model.trajectory(size, label=label, options=options, generator=generator)
            half = min(frames, len(points)) // 2
            chosen = torch.linspace(0, len(points) // 2, half + 1).round().long()  # the way back mirrors them
            chosen = torch.cat([chosen, len(points) - 1 - chosen[:-1].flip(0)])
            parts.append(points[chosen.to(points.device)].cpu())
            if progress:
                progress((start + size) / n)
        return torch.cat(parts, dim=1)

    def trajectory_path(self, out: str | Path, *, overwrite: bool = False) -> Path:
        """Return the path that `write_trajectory` will write, so that a problem is reported before.

        Args:
            out: file.
            overwrite: whether it may be replaced.

        Raises:
            ConfigError: the extension is not .png or .gif, or the prior does not remove noise step by step.
            InputError: the file exists.
        """
        if not isinstance(self.model, HasTrajectory):
            self._refuse("show a trajectory, since it does not remove noise step by step")
        return trajectory_path(out, overwrite=overwrite)

    def write_trajectory(self, out: str | Path, trajectory: Tensor, *, overwrite: bool = False) -> Path:
        """Write a trajectory as a strip or an animation; see `write_trajectory`.

        Args:
            out: file, .png or .gif.
            trajectory: signals of `trajectory`, (frames, n, *shape).
            overwrite: whether the file may be replaced.

        Returns:
            Path of the file.
        """
        return write_trajectory(out, trajectory, self.card, overwrite=overwrite)

    def noise(self, seed: int) -> Tensor:
        """Return the noise of a seed, (1, *noise_shape), as `decode` takes it.

        Raises:
            ConfigError: the prior has no noise.
        """
        if not isinstance(self.model, NoiseDecoder):
            self._refuse("decode noise")
        return torch.randn(1, *self.model.noise_shape, generator=Generator().manual_seed(seed))

    def encode(self, x: Tensor, *, label: Label = None) -> Tensor:
        """Return the noise of signals.

        Args:
            x: signals, (n, *shape).
            label: class by its name or number, or a text.

        Returns:
            Noise, (n, *noise_shape).

        Raises:
            ConfigError: the prior cannot be inverted.
        """
        model = self.model
        if not isinstance(model, NoiseEncoder):
            self._refuse("encode signals as noise")
        label = self._resolve(label)
        return self._map(lambda batch: model.encode_noise(batch, label=label), x)

    def decode(
        self,
        noise: Tensor,
        *,
        label: Label = None,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return the signals of noise.

        The default guidance is 1, which makes it the inverse of `encode`; that of `sample` is the prior's.

        Args:
            noise: noise, (n, *noise_shape).
            label: class by its name or number, or a text; None is unconditional.
            steps: steps of the solver.
            guidance: scale of classifier-free guidance.
            solver: name in `denoise.sampling.solvers.SOLVERS`.
            progress: called with the fraction done.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the prior has no noise, or an option is out of range or not supported.
        """
        model = self.model
        if not isinstance(model, NoiseDecoder):
            self._refuse("decode noise")
        options = self._options(SamplingOptions(steps, guidance, solver=solver), model.sampling_options)
        label = self._resolve(label)
        return self._map(lambda batch: model.decode_noise(batch, label=label, options=options), noise, progress)

    @property
    def samples_latents(self) -> bool:
        """Whether the prior has a codec whose latents are random variables."""
        return isinstance(self.model, LatentPrior) and isinstance(self.model.codec, StochasticCodec)

    def decodings(self, x: Tensor, n: int, *, seed: int = 0) -> Tensor:
        """Decode several samples of the latents of one signal, or its only latents once.

        Args:
            x: signal, (1, *shape).
            n: number of samples; 1 if the latents are no random variables.
            seed: seed of the latents' noise.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the prior has no codec, or one whose latents are no random variables and n is more than 1.
        """
        codec, generator = self._latent_prior().codec, Generator().manual_seed(seed)
        _check_count(n, "decodings")
        if isinstance(codec, StochasticCodec):
            return self._map(
                lambda batch: codec.decode(codec.sample_posterior(batch, generator)), x.expand(n, *x.shape[1:])
            )
        if n > 1:
            raise ConfigError(
                f"number of decodings is {n}; expected 1, as the latents of {self.card.name} are not random. "
                "Leave it out, or use a VAE or an AAE."
            )
        return self.reconstruct(x)

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
        """Fill in the missing entries of a signal in several ways.

        Args:
            x: signal, (1, *shape); missing entries have any value.
            mask: 1 where entries are observed, 0 where they are missing, (1, *shape).
            n: number of completions.
            label: class by its name or number, or a text; None is unconditional.
            seed: seed of the noise.
            steps: steps of the solver, 40 by default.
            progress: called with the fraction done.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the mask has another shape, or the prior cannot complete signals or takes no steps.
        """
        if mask.shape != x.shape:
            raise ConfigError(
                f"mask is of shape {tuple(mask.shape[1:])}; expected {tuple(x.shape[1:])}, as the signal."
            )
        _check_count(n, "completions")
        label = self._resolve(label)
        if not isinstance(self.model, Completer):
            self._refuse("complete signals")
        options = self._options(SamplingOptions(steps), self.model.completion_options)
        x, mask = (y.to(self.device).expand(n, *y.shape[1:]) for y in (x, mask))
        generator = Generator().manual_seed(seed)
        return self.model.complete(x, mask, label=label, options=options, generator=generator, progress=progress).cpu()

    def latents(self, x: Tensor, *, progress: Progress | None = None) -> Tensor:
        """Return the latents of signals.

        Args:
            x: signals, (n, *shape).
            progress: called with the fraction done.

        Returns:
            Latents, (n, *latent_shape).

        Raises:
            ConfigError: the prior has no codec.
        """
        return self._map(self._latent_prior().codec.encode, x, progress)

    def decode_latents(self, z: Tensor, *, progress: Progress | None = None) -> Tensor:
        """Return the signals of latents.

        Args:
            z: latents, (n, *latent_shape).
            progress: called with the fraction done.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the prior has no codec.
        """
        return self._map(self._latent_prior().codec.decode, z, progress)

    def attribute(self, examples: Tensor, others: Tensor) -> Tensor:
        """Return the direction of an attribute in the latents: their mean with it minus their mean without it.

        Args:
            examples: signals with the attribute, (n, *shape).
            others: signals without it, alike in everything else, (m, *shape).

        Returns:
            Direction, (1, *latent_shape).

        Raises:
            ConfigError: the prior has no codec.
        """
        return attribute_direction(self.latents(examples), self.latents(others))

    def edit(self, x: Tensor, direction: Tensor, strength: float = 1.0, *, progress: Progress | None = None) -> Tensor:
        """Add an attribute to signals, or remove it: encode them, move their latents along a direction, decode.

        Args:
            x: signals, (n, *shape).
            direction: direction of `attribute`, (1, *latent_shape).
            strength: multiple of the direction; 0 reconstructs, negative values remove the attribute.
            progress: called with the fraction done.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the prior has no codec.
        """
        return self.decode_latents(self.latents(x) + strength * direction, progress=progress)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Encode and decode signals with the codec.

        Args:
            x: signals, (n, *shape).

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the prior has no codec.
        """
        return self.decode_latents(self.latents(x))

    def reconstruction_r2(self, x: Tensor) -> tuple[float, str]:
        """Return the coefficient of determination of the codec's reconstructions.

        Spectra are compared for spectral codecs, whose phases differ from those of the signal.

        Args:
            x: signals, (n, *shape).

        Returns:
            R^2, 1 for perfect reconstructions, and what was compared: ``"signals"`` or ``"compressed spectra"``.

        Raises:
            ConfigError: the prior has no codec.
        """
        codec = self._latent_prior().codec
        if not isinstance(codec, SpectralCodec):
            return float(r2(self.reconstruct(x), x)), "signals"
        inner, spectra = codec.codec, self._map(codec.to_spectrum, x)
        return float(r2(self._map(lambda batch: inner.decode(inner.encode(batch)), spectra), spectra)), (
            "compressed spectra"
        )

    @torch.no_grad()
    def log_prob(
        self, x: Tensor, *, label: Label = None, seed: int = 0, progress: Progress | None = None
    ) -> tuple[Tensor, str]:
        """Return log-likelihoods, and whether they are exact, estimates or bounds.

        Args:
            x: signals, (n, *shape).
            label: class by its name or number, or a text; None is unconditional.
            seed: seed of estimates and bounds.
            progress: called with the fraction done.

        Returns:
            Log-likelihoods in nats, (n,), and a description of their kind.

        Raises:
            ConfigError: the prior has no likelihood.
        """
        model, label, generator = self.model, self._resolve(label), Generator().manual_seed(seed)

        def labels(batch: Tensor) -> list[Label] | None:
            return None if label is None else [label] * len(batch)

        if isinstance(model, HasLogProb):
            kind = "exact"
            if model.support.values == "binary" and bool(((x > 0) & (x < 1)).any()):
                x, kind = _binarise(x, generator), kind + BINARISED
            if model.support.description:
                kind += f", of {model.support.description}"
            return self._map(lambda batch: model.log_prob(batch, labels(batch)), x, progress), kind
        if isinstance(model, HasEstimatedLogProb):
            nats = self._map(
                lambda batch: model.estimate_log_prob(batch, labels(batch), generator=generator), x, progress
            )
            return nats, "estimate along the probability flow, 1 probe"
        if not isinstance(model, HasLogProbBound):
            self._refuse("compute likelihoods")
        samples, kind = model.bound_samples, f"{model.bound_kind}, {model.bound_samples} samples"
        if model.support.values == "binary":
            x, kind = _binarise(x, generator), kind + BINARISED
        if model.support.description:
            kind += f", of {model.support.description}"
        nats = self._map(
            lambda batch: model.log_prob_bound(batch, samples, label=label, generator=generator),
            x,
            progress,
            batch_size=model.bound_batch,
        )
        return nats, kind

    def typical_statistics(
        self, x: Tensor, *, label: Label = None, seed: int = 0, progress: Progress | None = None
    ) -> TypicalStatistics:
        """Return the statistics of typical examples that `anomaly_scores` compares with.

        Args:
            x: examples such as training data, better 100 or more, (n, *shape).
            label: class by its name or number, or a text; None is unconditional.
            seed: seed of estimates and bounds.
            progress: called with the fraction done.

        Returns:
            Mean and covariance of log-likelihood and complexity.

        Raises:
            ConfigError: the prior has no likelihood, or there are too few examples.
        """
        nats, kind = self.log_prob(x, label=label, seed=seed, progress=progress)
        return typical_statistics(nats, x, f"{len(x)} examples; {kind}")

    def anomaly_scores(self, x: Tensor, nats: Tensor, typical: TypicalStatistics | None = None) -> Tensor:
        """Return how atypical signals are, by their likelihoods and their complexity; see `typicality.anomaly_scores`.

        Args:
            x: signals, (n, *shape).
            nats: their log-likelihoods of `log_prob`, (n,).
            typical: statistics of typical examples; None takes those of the weights.

        Returns:
            Distances in standard deviations, (n,).

        Raises:
            ConfigError: there are no statistics.
        """
        typical = typical or self.card.typical
        if typical is None:
            raise ConfigError(
                f"weights of {self.card.name} hold no statistics of typical examples; give some, such as training data."
            )
        return anomaly_scores(nats, x, typical)

    def bits_per_dim(self, nats: Tensor) -> Tensor:
        """Convert likelihoods of `log_prob` to bits for each entry of the space on which they are defined.

        Densities are taken for 256 levels; discrete and binary distributions have levels of their own.

        Args:
            nats: log-likelihoods in nats, any shape.

        Returns:
            Bits per dimension, of the same shape.

        Raises:
            ConfigError: the prior has no likelihood.
        """
        if not isinstance(self.model, HasLogProb | HasEstimatedLogProb | HasLogProbBound):
            self._refuse("compute likelihoods")
        support = self.model.support
        return bits_per_dim(nats, math.prod(support.shape), 256 if support.values == "continuous" else 1)

    def _map(
        self,
        function: Callable[[Tensor], Tensor],
        x: Tensor,
        progress: Progress | None = None,
        *,
        batch_size: int = BATCH_SIZE,
    ) -> Tensor:
        """Apply a function to batches on the device; the result is on the CPU."""
        results = []
        with torch.no_grad():
            for start in range(0, len(x), batch_size):
                batch = x[start : start + batch_size]
                results.append(function(batch.to(self.device)).cpu())
                if progress:
                    progress((start + len(batch)) / len(x))
        return torch.cat(results)

    def _latent_prior(self) -> LatentPrior:
        if not isinstance(self.model, LatentPrior):
            raise ConfigError(f"prior {self.card.name} ({self.card.architecture}) has no codec; use another.")
        return self.model

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


def _check_count(n: int, what: str) -> None:
    if n < 1:
        raise ConfigError(f"number of {what} is {n}; expected at least 1.")


def _list_classes(card: Card) -> str:
    return f"; its classes are {', '.join(card.classes)}" if card.classes else "; it has no classes"


def _binarise(x: Tensor, generator: Generator) -> Tensor:
    """Draw pixels as 0 or 1 with their grey level as probability."""
    return (torch.rand(x.shape, generator=generator) < x.cpu()).to(x)
