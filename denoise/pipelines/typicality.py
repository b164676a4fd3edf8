"""Anomaly scores: how far a signal is from what is typical of a prior, by its log-likelihood, complexity and more.

A high likelihood does not make a signal typical. In high dimensions, the samples of a distribution lie in its typical
set, where the log-likelihood is near its mean, and not at its modes; and simple signals, such as a blank image, are
likelier than any example under most priors. A score of the log-likelihood alone would rank them as normal.
"""

from __future__ import annotations

import zlib

import torch
from torch import Generator, Tensor

from denoise.cards import TypicalStatistics
from denoise.errors import ConfigError
from denoise.probability_path import standard_normal
from denoise.protocols import DenoisingPrior, Label

LEVEL = 2.0  # of the noise of a denoising error, in standard deviations of the signals: what is told apart is large
DRAWS = 4  # of this noise, the same for all signals
MIN_EXAMPLES = 10  # of a covariance of two quantities that is to mean anything


def complexity(x: Tensor) -> Tensor:
    """Return the size of signals under lossless compression, an estimate of their complexity.

    As in PNG, entries of 8 bits are predicted by their left neighbours, and the differences are compressed by DEFLATE.

    Args:
        x: signals, full scale 1.0, (n, *shape).

    Returns:
        Sizes in bytes, (n,).

    Reference:
        Input complexity and out-of-distribution detection with likelihood-based generative models, 2019,
        arXiv:1909.11480, section 3.
    """
    lowest = 0.0 if x.ndim == 4 else -1.0  # of images and of sounds
    levels = (255 * x.clamp(lowest, 1.0)).round().cpu()
    differences = levels.diff(dim=-1, prepend=torch.zeros_like(levels[..., :1])).remainder(256).byte()
    sizes = [len(zlib.compress(each.numpy().tobytes(), 9)) for each in differences]
    return torch.tensor(sizes, dtype=torch.float32, device="cpu")


def denoising_error(prior: DenoisingPrior, x: Tensor, label: Label = None) -> Tensor:
    """Return the logarithm of the error with which a prior removes strong noise from signals.

    What noise of twice the standard deviation of the signals hides, the prior replaces by what it expects, such as the
    other half of half a digit. Estimates of the density do not tell: they are governed by weak noise.

    Args:
        prior: denoiser at all noise levels.
        x: signals, full scale 1.0, (n, *shape).
        label: condition of all signals.

    Returns:
        Logarithm of the mean squared error, (n,).

    Reference:
        Multiscale Score Matching for Out-of-Distribution Detection, 2020, arXiv:2010.13132, which takes the norms of
        scores, of which this error is a multiple, at ten levels.
    """
    sigma = torch.full((len(x),), LEVEL * prior.data_std).to(x)
    labels = None if label is None else [label] * len(x)
    errors = [
        (prior(x + sigma[0] * noise.to(x), sigma, labels) - x).square().flatten(1).mean(dim=1)
        for noise in standard_normal((DRAWS, *x.shape[1:]), Generator().manual_seed(0))
    ]
    return torch.stack(errors).mean(dim=0).log()


def typical_statistics(
    nats: Tensor, x: Tensor, protocol: str = "", label: str | None = None, *, errors: Tensor | None = None
) -> TypicalStatistics:
    """Return the statistics of typical examples, such as training data, of which about a hundred suffice.

    Args:
        nats: log-likelihoods of the examples under a prior, (n,).
        x: the examples, full scale 1.0, (n, *shape).
        protocol: the examples, and the kind of their likelihoods.
        label: class or text that the likelihoods are conditional on; None is unconditional.
        errors: `denoising_error` of the examples, (n,), if there is one.

    Returns:
        Mean and covariance of log-likelihood, `complexity` and error.

    Raises:
        ConfigError: there are too few examples, or they do not differ in what is measured.
    """
    check_examples(len(x))
    statistics = _join(nats, x, errors)
    covariance = torch.cov(statistics.T)
    covariance = (covariance + covariance.T) / 2  # rounding leaves it asymmetric
    return TypicalStatistics(
        tuple(statistics.mean(dim=0).tolist()), tuple(map(tuple, covariance.tolist())), protocol, label
    )


def check_examples(n: int) -> None:
    """Refuse too few typical examples with a `ConfigError`, before their likelihoods are computed."""
    if n < MIN_EXAMPLES:
        examples = "example" if n == 1 else "examples"
        raise ConfigError(f"{n} typical {examples}; expected at least {MIN_EXAMPLES}, better 100 or more.")


def anomaly_scores(nats: Tensor, x: Tensor, typical: TypicalStatistics, *, errors: Tensor | None = None) -> Tensor:
    """Return how atypical signals are: the Mahalanobis distance of log-likelihood and complexity to their means.

    With the likelihood alone it would be the typicality test, ``|log p - mean log p|``. Together with the complexity it
    also finds signals that are less likely than others as simple as they are, such as half a digit.

    Args:
        nats: log-likelihoods under the prior, (n,).
        x: the signals, full scale 1.0, (n, *shape).
        typical: statistics of typical examples under the same prior.
        errors: `denoising_error` of the signals, (n,), if the statistics are of three quantities.

    Returns:
        Distances in standard deviations, (n,): about 1 for typical signals, of which 1 % have more than 3 if both
        statistics are normal (3.4 of three); infinite for a likelihood of 0, NaN for one that is NaN.

    Reference:
        Detecting Out-of-Distribution Inputs to Deep Generative Models Using Typicality, 2019, arXiv:1906.02994, eq. 3;
        Input complexity and out-of-distribution detection, 2019, arXiv:1909.11480; Density of States Estimation for
        Out-of-Distribution Detection, 2020, arXiv:2006.09273, for a density of several statistics.
    """
    offsets = _join(nats, x, errors) - torch.tensor(typical.mean, dtype=torch.double)
    covariance = torch.tensor(typical.covariance, dtype=torch.double)
    squares = (offsets * torch.linalg.solve(covariance, offsets.T).T).sum(dim=1)
    return torch.where(offsets[:, 0] == -torch.inf, torch.inf, squares.clamp_min(0).sqrt())


def _join(nats: Tensor, x: Tensor, errors: Tensor | None) -> Tensor:
    quantities = [nats, complexity(x)] + ([] if errors is None else [errors])
    return torch.stack([each.double().cpu() for each in quantities], dim=1)
