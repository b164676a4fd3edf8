"""Interpolation of missing samples by autoregressive models."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

RIDGE = 1e-8  # of normal equations, relative to their diagonal
SILENCE = 1e-20  # power of samples
# order of the model, and what it is fitted to on each side of a gap: for voices, and for what lasts longer
MODELS_S = ((0.008, 0.05), (0.024, 0.05), (0.032, 0.1))
MAX_ORDER = 1024  # cost and memory grow with its cube and square, and rates go up to 192 kHz
SHORT_GAP_S, TRIAL_MARGIN_S = 0.004, 0.002  # a gap as short is filled by the first model
MAX_TRIAL = 1024  # samples of the gaps by which a model is chosen


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
    known = torch.ones_like(x, dtype=torch.bool) if known is None else known
    lengths = torch.unique_consecutive(known, return_counts=True)[1].tolist()
    runs = [run for run, is_known in zip(x.split(lengths), known.split(lengths), strict=True) if is_known[0]]
    products = sum((_gram(run, order) for run in runs if len(run) > order), x.new_zeros(order + 1, order + 1))
    products = products + products.flip(0, 1)  # forward: the last sample of a section is predicted; backward: the first
    gram, right = products[1:, 1:].clone(), products[1:, :1]
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() + SILENCE)
    coefficients = torch.cholesky_solve(right, torch.linalg.cholesky(gram))[:, 0]
    return torch.cat([x.new_ones(1), -coefficients])


def _gram(x: Tensor, order: int) -> Tensor:
    """Return the Gram matrix of all sections of order + 1 samples, by the differences along its diagonals.

    Two neighbours on a diagonal share all products but one at each end, so that the cost is that of the matrix
    and of its first row, not of its product.
    """
    n, n_sections = order + 1, len(x) - order
    n_fft = 1 << (len(x) + order).bit_length()
    first = torch.fft.irfft(torch.fft.rfft(x, n_fft) * torch.fft.rfft(x[:n_sections], n_fft).conj(), n_fft)[:n]
    head, tail = x[:order], x[n_sections:]
    differences = torch.outer(tail, tail) - torch.outer(head, head)
    skewed = F.pad(differences.flip(1), (0, order)).flatten()[: 2 * order**2 - order]  # diagonals become columns
    sums = skewed.view(order, 2 * order - 1).cumsum(0).flatten()
    index = torch.arange(n)
    gram = first[(index[:, None] - index).abs()]
    gram[1:, 1:] += F.pad(sums, (0, order)).view(order, 2 * order)[:, :order].flip(1)
    return gram


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


def fill_gap(x: Tensor, missing: Tensor, first: int, last: int, sample_rate: int) -> Tensor:
    """Fill a gap of a recording by the model that best fills two more gaps, one on each side.

    Args:
        x: recording, (time,); missing samples have any finite value.
        missing: whether each sample is missing, (time,).
        first: first sample of the gap.
        last: sample behind the gap.
        sample_rate: rate in Hz.

    Returns:
        Samples of the gap, (last - first,); zeros if nothing is known beside it.
    """
    length, best, lowest = min(last - first, MAX_TRIAL), MODELS_S[0], math.inf
    margin = length // 2 + round(TRIAL_MARGIN_S * sample_rate)
    trials = [
        (start, start + length)
        for start in (first - margin - length, last + margin)
        if start >= 0 and start + length <= len(x) and not missing[start : start + length].any()
    ]
    if length > SHORT_GAP_S * sample_rate and trials:
        for model in MODELS_S:
            error = 0.0
            for start, end in trials:
                hidden = missing.clone()
                hidden[start:end] = True
                filled = _fill(x, hidden, start, end, sample_rate, *model)
                error += float((filled - x[start:end]).square().sum())
            if error < lowest:
                best, lowest = model, error
    return _fill(x, missing, first, last, sample_rate, *best)


def _fill(
    x: Tensor, missing: Tensor, first: int, last: int, sample_rate: int, order_s: float, context_s: float
) -> Tensor:
    context = round(context_s * sample_rate)
    begin, end = max(0, first - context), min(len(x), last + context)
    section, is_missing = x[begin:end].double(), missing[begin:end]
    order = min(round(order_s * sample_rate), MAX_ORDER, (end - begin) // 3)
    if is_missing.all() or order < 1:
        return torch.zeros_like(x[first:last])
    return interpolate_autoregressive(section, is_missing, order)[first - begin : last - begin].to(x)
