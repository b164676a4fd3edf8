"""Autoregressive priors of discrete signals: p(x) is the product of p(entry | all entries before it).

Entries are in raster order: rows from top to bottom, pixels from left to right, the colours of a pixel in turn (red,
then green given red, then blue given both). `pixelcnn` and `pixelrnn` are the networks; `raster` is
what they share.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from denoise.config import config
from denoise.dsp import mu_law_compress, mu_law_expand
from denoise.errors import ConfigError
from denoise.nn.embeddings import Condition
from denoise.probability_path import standard_uniform
from denoise.protocols import DEFAULT_OPTIONS, Label, Progress, SamplingOptions, Support

LEVELS = 256
MIN_TEMPERATURE = 1e-4  # instead of 0, which takes the most probable level
Entry = tuple[int, ...]
"""Position of an entry in a signal: (channel, row, column), or (channel, time)."""


@config
class AutoregressiveConfig:
    """Settings that autoregressive priors share.

    Args:
        shape: shape of one signal, (channels, height, width) or (channels, time).
        likelihood: ``"categorical"`` for a softmax over 256 levels from 0 to 1, ``"mu-law"`` for one over 256 levels of
            mu-law companded audio from -1 to 1, ``"bernoulli"`` for pixels of 0 and 1.
        classes: number of classes for conditioning.
        embedding: features of the embedding of a class.
        features: features of each entry; those of a pixel are divided equally among its colours.
    """

    shape: tuple[int, ...]
    likelihood: Literal["bernoulli", "categorical", "mu-law"] = "categorical"
    classes: int = 0
    embedding: int = 16
    features: int = 32

    def __post_init__(self) -> None:
        if len(self.shape) not in (2, 3) or min(self.shape) < 1 or math.prod(self.shape) > 1 << 20:
            raise ConfigError(
                f"shape is {self.shape}; expected (channels, height, width) or (channels, time), a million entries at "
                "most."
            )
        if self.classes < 0 or not 1 <= self.embedding <= 1 << 14:
            raise ConfigError(f"classes is {self.classes}, embedding {self.embedding}; expected at least 0 and 1.")
        if not self.shape[0] <= self.features <= 1 << 14 or self.features % self.shape[0]:
            raise ConfigError(f"features is {self.features}; expected a multiple of the {self.shape[0]} channels.")


class Autoregressive(nn.Module, ABC):
    """A network of the logits of every entry given those before it: exact likelihoods, and sampling entry by entry.

    Subclasses define `forward`, and `scan` if sampling can reuse the activations of earlier entries.

    Args:
        config: settings.

    Reference:
        Pixel Recurrent Neural Networks, 2016, arXiv:1601.06759, eq. 1 and 2.
    """

    config: AutoregressiveConfig
    text = False
    sampling_options = completion_options = frozenset({"temperature"})

    def __init__(self, config: AutoregressiveConfig) -> None:
        super().__init__()
        self.config = config
        self.event_shape = torch.Size(config.shape)
        self.classes = config.classes
        is_binary = config.likelihood == "bernoulli"
        self.levels, self.outputs = (2, 1) if is_binary else (LEVELS, LEVELS)  # outputs: logits of an entry
        description = "mu-law levels" if config.likelihood == "mu-law" else ""
        self.support = Support(config.shape, "binary" if is_binary else "discrete", description)
        self.condition = Condition(config.embedding, config.classes) if config.classes else None

    @abstractmethod
    def forward(self, inputs: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the logits of each entry, which depend on the entries before it and on the label alone.

        Args:
            inputs: signals as the network takes them, (batch, *event_shape), -1 to 1.
            labels: condition of each signal; None is unconditional.

        Returns:
            (batch, *event_shape, outputs); with a Bernoulli likelihood one logit, of the pixel being 1.
        """

    def scan(self, inputs: Tensor, labels: Sequence[Label]) -> Iterator[tuple[Entry, Tensor]]:
        """Yield the position and the logits, (batch, outputs), of each entry in order.

        The caller writes the value of an entry into ``inputs`` before it takes the next one. This naive loop evaluates
        the whole network for each entry.

        Args:
            inputs: as for `forward`; entries that are not yet known are 0.
            labels: condition of each signal.
        """
        channels, *space = self.event_shape
        for *position, channel in product(*map(range, space), range(channels)):
            entry = (channel, *position)
            yield entry, self(inputs, labels)[(slice(None), *entry)]

    def log_prob(self, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return the log-probability of the levels that are nearest to signals, exact.

        Args:
            x: signals, (batch, *event_shape).
            labels: condition of each signal; None is unconditional.

        Returns:
            Log-probabilities in nats, (batch,).
        """
        levels = self.to_levels(x)
        log_p = self.log_probabilities(self(self.to_inputs(levels), labels or [None] * len(x)))
        return log_p.gather(-1, levels[..., None]).flatten(1).sum(dim=1)

    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        """Sample signals.

        Args:
            n: number of signals.
            label: condition of all signals.
            options: temperature, which divides the logits.
            generator: source of randomness.

        Returns:
            Signals, (n, *event_shape).
        """
        missing = torch.zeros(n, *self.event_shape, device=next(self.parameters()).device, dtype=torch.float32)
        return self.complete(missing, missing, label=label, options=options, generator=generator)

    @torch.no_grad()
    def complete(
        self,
        x: Tensor,
        mask: Tensor,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Sample missing entries in raster order, each given all entries before it, observed or sampled.

        These are samples of the posterior if no observed entry comes after a missing one, as with the lower half of an
        image. An entry does not take those after it into account.

        Args:
            x: signals, (n, *event_shape); missing entries have any value.
            mask: 1 where entries are observed, 0 where they are missing, (n, *event_shape).
            label: condition of all signals.
            options: temperature, which divides the logits.
            generator: source of randomness.
            progress: called with the fraction of the entries that are done.

        Returns:
            Signals that agree with x where the mask is 1, (n, *event_shape).
        """
        options.check_supported(self.sampling_options, "an autoregressive prior")
        temperature = max(1.0 if options.temperature is None else options.temperature, MIN_TEMPERATURE)
        is_observed = mask > 0
        inputs = self.to_inputs(self.to_levels(x.where(is_observed, 0.0)))
        inputs = inputs.where(is_observed, 0.0)
        thresholds = standard_uniform(x.shape, generator).to(inputs.device)
        for done, (entry, logits) in enumerate(self.scan(inputs, [label] * len(x)), 1):
            at: tuple[slice | int, ...] = (slice(None), *entry)
            cumulative = self.log_probabilities(logits / temperature).exp().cumsum(-1)
            # thresholds may be 0, and the sum of all probabilities below 1: a level of probability 0 is never taken
            levels = (cumulative <= thresholds[at][:, None] * cumulative[:, -1:]).sum(dim=-1)
            inputs[at] = inputs[at].where(is_observed[at], self.to_inputs(levels))
            if progress:
                progress(done / self.event_shape.numel())
        return x.where(is_observed, self.to_signals(inputs).to(x))

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Return the log-probabilities of all levels, (..., outputs) to (..., levels)."""
        padded_logits = F.pad(logits, (1, 0)) if self.levels == 2 else logits  # Bernoulli: a softmax of 0 and the logit
        dtype = torch.promote_types(logits.dtype, torch.float32)  # not in bfloat16
        return padded_logits.log_softmax(dim=-1, dtype=dtype)

    def to_levels(self, x: Tensor) -> Tensor:
        """Return the levels, integers from 0, that are nearest to signals of any shape."""
        if self.config.likelihood == "mu-law":
            x = (mu_law_compress(x.clamp(-1, 1)) + 1) / 2
        return ((self.levels - 1) * x.clamp(0, 1)).round().long()

    def to_inputs(self, levels: Tensor) -> Tensor:
        """Return the input of the network for levels, -1 to 1."""
        return (2 * levels / (self.levels - 1) - 1).to(next(self.parameters()).dtype)

    def to_signals(self, inputs: Tensor) -> Tensor:
        """Return the signals of inputs of the network, the inverse of `to_levels` and `to_inputs`."""
        if self.config.likelihood == "mu-law":
            return mu_law_expand(inputs)
        return ((self.levels - 1) * (inputs + 1) / 2).round() / (self.levels - 1)
