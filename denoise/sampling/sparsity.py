"""Declipping and interpolation of audio by sparsity of its short-time spectra, without a trained model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TOLERANCE = 0.01  # misfit of signal and sparse spectrum, relative to the frame, at which a frame is done
BATCH = 256  # frames at a time


def a_spade(low: Tensor, high: Tensor, *, window: int, redundancy: int = 2, step: int = 2) -> Tensor:
    """Find a signal within bounds whose short-time spectra are sparse, by A-SPADE.

    Samples whose bounds are equal are known. A clipped sample is bounded on one side, a missing one is not bounded.
    Each frame raises the number of its spectral lines until they agree with the bounds.

    Args:
        low: lower bounds, (channels, time); minus infinity where there is none.
        high: upper bounds, the same shape.
        window: length of a frame in samples, a multiple of 4; frames start a quarter of it apart.
        redundancy: length of the transform over that of a frame.
        step: spectral lines that an iteration adds.

    Returns:
        Signal of the same shape, within the bounds.

    Reference:
        Sparsity and Cosparsity for Audio Declipping: A Flexible Non-Convex Approach, 2015, arXiv:1506.01830; revised
        in A Proper Version of Synthesis-based Sparse Audio Declipper, 2019, arXiv:1905.00628, algorithm 1.
    """
    hop, time = window // 4, low.shape[1]
    padding = (window - hop, window - hop + -time % hop)
    taper = torch.hann_window(window, dtype=low.dtype).sqrt()
    known = low == high
    bounds = [F.pad(bound, padding).unfold(1, window, hop).flatten(0, 1) for bound in (low, high)]
    is_open = (~F.pad(known, padding, value=True)).unfold(1, window, hop).flatten(0, 1).any(dim=1)
    frames = torch.where(bounds[0].isfinite(), bounds[0], torch.where(bounds[1].isfinite(), bounds[1], 0.0)) * taper
    for index in is_open.nonzero()[:, 0].split(BATCH):
        low_frames, high_frames = (_weigh(bound[index], taper) for bound in bounds)
        frames[index] = _find_sparse(frames[index], low_frames, high_frames, redundancy * window, step)
    pieces = (frames * taper).unflatten(0, (len(low), -1)).transpose(1, 2)
    size = (1, time + sum(padding))
    joined = F.fold(pieces, size, (1, window), stride=(1, hop))[:, 0, 0] / 2  # the sum of squared tapers
    return torch.where(known, low, joined[:, padding[0] : padding[0] + time].clamp(low, high))


def _weigh(bound: Tensor, taper: Tensor) -> Tensor:
    """Return the bounds of a weighted frame; where the weight is 0, infinite ones stay."""
    return torch.where(bound.isfinite(), bound * taper, bound)


def _find_sparse(x: Tensor, low: Tensor, high: Tensor, n_fft: int, step: int) -> Tensor:
    """Return frames within bounds, (frames, window), that agree with their largest spectral lines."""
    result, remaining = x.clone(), torch.arange(len(x))
    goal = TOLERANCE * x.norm(dim=1)
    dual = torch.zeros(len(x), n_fft // 2 + 1, dtype=torch.fft.rfft(x[:1]).dtype)
    for lines in range(step, n_fft // 2, step):
        spectrum = torch.fft.rfft(x, n_fft, norm="ortho")
        sum_ = spectrum + dual
        magnitude = sum_.abs()
        threshold = magnitude.topk(lines, dim=1).values[:, -1:]
        sparse = torch.where(magnitude >= threshold, sum_, 0)
        x = torch.fft.irfft(sparse - dual, n_fft, norm="ortho")[:, : x.shape[1]].clamp(low, high)
        misfit = torch.fft.rfft(x, n_fft, norm="ortho") - sparse
        result[remaining] = x
        is_open = (2**0.5 * misfit.norm(dim=1)) > goal
        if not is_open.any():
            break
        dual = (dual + misfit)[is_open]
        x, low, high, goal, remaining = x[is_open], low[is_open], high[is_open], goal[is_open], remaining[is_open]
    return result
