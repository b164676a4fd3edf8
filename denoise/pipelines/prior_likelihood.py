"""What the likelihood of a prior says about signals: log-probabilities and anomaly scores."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from denoise.cards import TypicalStatistics
from denoise.errors import ConfigError, InputError
from denoise.metrics import bits_per_dim
from denoise.pipelines.prior_base import LoadedPrior, as_generator
from denoise.pipelines.typicality import anomaly_scores, check_examples, denoising_error, typical_statistics
from denoise.probability_path import standard_uniform
from denoise.protocols import DenoisingPrior, HasEstimatedLogProb, HasLogProb, HasLogProbBound, Label, Progress, Support

BELOW, ABOVE = 0.5, 1.0  # of levels, where samples of other priors may be, but not images from -1 to 1
BINARISED = ", of stochastically binarised pixels"


class LikelihoodPipeline(LoadedPrior):
    """The part of `denoise.pipelines.prior.PriorPipeline` for priors with likelihoods."""

    @property
    def support(self) -> Support:
        """The space on which likelihoods are defined.

        Raises:
            ConfigError: the prior has no likelihood.
        """
        if not isinstance(self.model, HasLogProb | HasEstimatedLogProb | HasLogProbBound):
            self._refuse("compute likelihoods")
        return self.model.support

    @torch.no_grad()
    def log_prob(
        self, x: Tensor, *, label: Label = None, seed: int = 0, progress: Progress | None = None
    ) -> tuple[Tensor, str]:
        """Return log-likelihoods, and whether they are exact, estimates or bounds.

        Args:
            x: signals, (n, *shape), integers of the full scale of their type, or floats of 1.0. The likelihood is
                computed in float32, without gradients; `denoise.protocols.HasLogProb` of the model has them.
            label: class by its name or number, or a text; None is unconditional.
            seed: seed of estimates and bounds.
            progress: called with the fraction done.

        Returns:
            Log-likelihoods in nats, (n,), and a description of their kind.

        Raises:
            ConfigError: the prior has no likelihood.
            InputError: the signals have another shape, or are far outside of the support.
        """
        x = self._as_signals(x)
        self._check_support(x)
        model, label, generator = self.model, self._resolve(label), as_generator(seed)

        def labels(batch: Tensor) -> list[Label] | None:
            return None if label is None else [label] * len(batch)

        if isinstance(model, HasLogProb):
            x, suffix = _prepare(x, model.support, generator)
            return self._map(lambda batch: model.log_prob(batch, labels(batch)), x, progress), f"exact{suffix}"
        if isinstance(model, HasEstimatedLogProb):
            nats = self._map(
                lambda batch: model.estimate_log_prob(batch, labels(batch), generator=generator), x, progress
            )
            return nats, model.estimate_kind
        if not isinstance(model, HasLogProbBound):
            self._refuse("compute likelihoods")
        samples, (x, suffix) = model.bound_samples, _prepare(x, model.support, generator)
        nats = self._map(
            lambda batch: model.log_prob_bound(batch, samples, label=label, generator=generator),
            x,
            progress,
            batch_size=model.bound_batch,
        )
        return nats, f"{model.bound_kind}, {samples} samples{suffix}"

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
            Mean and covariance of log-likelihood and complexity, and of the denoising error of a prior that denoises
            and whose likelihood is an estimate.

        Raises:
            ConfigError: the prior has no likelihood, or there are too few examples.
        """
        check_examples(len(x))
        x = self._as_signals(x)
        nats, kind = self.log_prob(x, label=label, seed=seed, progress=progress)
        errors = self.denoising_errors(x, label=label)
        return typical_statistics(nats, x, f"{len(x)} examples; {kind}", self._label_name(label), errors=errors)

    def denoising_errors(self, x: Tensor, *, label: Label = None) -> Tensor | None:
        """Return how badly the prior removes strong noise from signals, which estimates of the likelihood do not tell.

        Args:
            x: signals, (n, *shape).
            label: class by its name or number, or a text; None is unconditional.

        Returns:
            Logarithms of the error, (n,), see `typicality.denoising_error`; None of a prior that is no denoiser, or
            whose likelihood is no estimate.
        """
        model, label = self.model, self._resolve(label)
        if not (isinstance(model, DenoisingPrior) and isinstance(model, HasEstimatedLogProb)):
            return None
        return self._map(lambda batch: denoising_error(model, batch, label), self._as_signals(x))

    def anomaly_scores(
        self, x: Tensor, nats: Tensor, typical: TypicalStatistics | None = None, *, label: Label = None
    ) -> Tensor:
        """Return how atypical signals are, by their likelihoods, complexity and, if the statistics have it, error.

        See `denoise.pipelines.typicality.anomaly_scores`.

        Args:
            x: signals, (n, *shape).
            nats: their log-likelihoods of `log_prob`, (n,).
            typical: statistics of typical examples; None takes those of the weights.
            label: class or text of `log_prob`.

        Returns:
            Distances in standard deviations, (n,).

        Raises:
            ConfigError: there are no statistics, they are of likelihoods with another label, or of a denoising error
                that the prior has not.
        """
        typical = typical or self.card.typical
        if typical is None:
            raise ConfigError(
                f"weights of {self.card.name} hold no statistics of typical examples; give some, such as training data."
            )
        if typical.label != (name := self._label_name(label)):
            labels = [f"of {label!r}" if label else "unconditional" for label in (name, typical.label)]
            raise ConfigError(
                f"likelihoods are {labels[0]}, those of the typical examples {labels[1]}; expected the same label."
            )
        x, errors = self._as_signals(x), None
        if len(typical.mean) > 2:
            errors = self.denoising_errors(x, label=label)
            if errors is None:
                raise ConfigError(
                    f"the statistics of typical examples hold a denoising error, which prior {self.card.name} has not; "
                    "give statistics of this prior."
                )
        return anomaly_scores(nats, x, typical, errors=errors)

    def bits_per_dim(self, nats: Tensor) -> Tensor:
        """Convert likelihoods of `log_prob` to bits for each entry of the space on which they are defined.

        Densities are taken for 256 levels, and mean something for signals with noise of one level only. Discrete and
        binary distributions have levels of their own.

        Args:
            nats: log-likelihoods in nats, any shape.

        Returns:
            Bits per dimension, of the same shape.

        Raises:
            ConfigError: the prior has no likelihood.
        """
        support = self.support
        return bits_per_dim(nats, math.prod(support.shape), 256 if support.values == "continuous" else 1)

    def _check_support(self, x: Tensor) -> None:
        """Refuse what no levels are near to, such as floats from 0 to 255: a likelihood of it means nothing."""
        is_of_levels = isinstance(self.model, HasLogProb | HasLogProbBound) and self.support.values != "continuous"
        lowest, (low, high) = -1 if self.card.modality == "audio" else 0, (float(each) for each in x.aminmax())
        if is_of_levels and (low < lowest - BELOW or high > 1 + ABOVE):
            raise InputError(
                f"signals are {low:g} to {high:g}; expected {lowest} to 1, of {self.support.values} values. Divide by "
                "the full scale."
            )

    def _label_name(self, label: Label) -> str | None:
        """Return the name of a class, or a text."""
        label = self._resolve(label)
        return self.card.classes[label] if isinstance(label, int) else label


def _prepare(x: Tensor, support: Support, generator: Generator) -> tuple[Tensor, str]:
    """Return signals as a likelihood takes them, and what was done to them and what it is of, for its description.

    Grey pixels are drawn as 0 or 1, with their level as probability, if the likelihood is of binary ones.
    """
    description = f", of {support.description}" if support.description else ""
    if support.values != "binary" or not bool(((x > 0) & (x < 1)).any()):
        return x, description
    return (standard_uniform(x.shape, generator) < x.cpu()).to(x), BINARISED + description
