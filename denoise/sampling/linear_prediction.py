"""Interpolation of missing samples by autoregressive models."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-8  # of normal equations, relative to their diagonal
SILENCE = 1e-20  # power of samples


def fit_autoregressive(x: Tensor, order: int, known: Tensor | None = None) -> Tensor:
    """Fit an autoregressive model by least squares of forward and backward prediction (modified covariance method).

    Unlike Burg's method it is exact for tones, and need not be stable.

    Args:
        x: signal, (time,).
        order: number of coefficients, less than the number of samples.
        known: samples to use, (time,), in runs longer than the order; None uses all.

    Returns:
        Prediction error filter, (order + 1,), of which the first coefficient is 1.

    Reference:
        Digital Spectral Analysis with Applications, Marple, 1987, section 8.5.
    """
    sections = x.unfold(0, order + 1, 1)
    if known is not None:
        sections = sections[known.unfold(0, order + 1, 1).all(dim=1)]
    sections = torch.cat([sections.flip(1), sections])  # the predicted sample comes first
    target, regressors = sections[:, 0], sections[:, 1:]
    gram = regressors.T @ regressors
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() + SILENCE)
    coefficients = torch.cholesky_solve((regressors.T @ target)[:, None], torch.linalg.cholesky(gram))[:, 0]
    return torch.cat([x.new_ones(1), -coefficients])


def interpolate_autoregressive(x: Tensor, missing: Tensor, order: int) -> Tensor:
    """Replace missing samples by those with the least prediction error.

    Janssen's method fits the model to the filled signal, again and again; a model of the known runs alone is better.

    Args:
        x: signal, (time,); missing samples have any finite value.
        missing: whether each sample is missing, (time,).
        order: order of the model, less than the number of samples.

    Returns:
        Signal of the same shape, unchanged where no sample is missing.

    Reference:
        Adaptive Interpolation of Discrete-Time Signals That Can Be Modeled as Autoregressive Processes,
        Janssen, Veldhuis and Vries, 1986.
    """
    index = missing.nonzero()[:, 0]
    if not len(index):
        return x
    known = torch.where(missing, 0.0, x)
    n_fft = 1 << (len(x) + 2 * order).bit_length()
    power = torch.fft.rfft(fit_autoregressive(x, order, ~missing), n_fft).abs().square()
    correlation = torch.fft.irfft(power, n_fft)  # of the filter
    matrix = correlation[(index[:, None] - index).abs().clamp_max(order + 1)]
    matrix.diagonal().add_(RIDGE * correlation[0])
    right = -torch.fft.irfft(power * torch.fft.rfft(known, n_fft), n_fft)[index]
    y = known.clone()
    y[index] = torch.cholesky_solve(right[:, None], torch.linalg.cholesky(matrix))[:, 0]
    return y
