"""Discrete Fourier transforms of real frames as matrix products, for graphs without complex numbers.

Runtimes are slow and inexact at transforms whose length is no power of two; these are as exact as float32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

MAX_FACTOR = 64


class RealFourier:
    """Transforms of one length, as two smaller ones along the rows and columns of a matrix, with a rotation between.

    The length may follow from the shape of a tensor that is traced: the matrices are then computed in the graph.

    Args:
        n: length of a frame, an even number.

    Reference:
        An Algorithm for the Machine Calculation of Complex Fourier Series, Cooley and Tukey, 1965.
    """

    def __init__(self, n: int) -> None:
        factors = torch.arange(1, MAX_FACTOR + 1)
        self.columns: Any = (factors * (n % factors == 0)).amax()  # a tensor, as all sizes are that are traced
        self.rows: Any = torch.div(n, self.columns, rounding_mode="floor")
        row, column, half = _range(self.rows), _range(self.columns), _range(_halve(self.columns) + 1)
        self.row_cos, self.row_sin = _unit_circle(row[:, None] * row, self.rows)
        self.turn_cos, self.turn_sin = _unit_circle(row[:, None] * column, n)
        self.column_cos, self.column_sin = _unit_circle(column[:, None] * half, self.columns)
        bins = _range(_halve(n) + 1)
        is_edge = (bins * 2) % n == 0
        self.weights = torch.where(is_edge, 1.0, 2.0) / n  # the other half of the bins is the conjugate of this one

    def transform(self, x: Tensor) -> Tensor:
        """Return the spectra of frames, as `torch.fft.rfft`.

        Args:
            x: frames, (..., n).

        Returns:
            Real and imaginary parts, (..., n // 2 + 1, 2).
        """
        shape = x.shape[:-1]
        columns = x.reshape(*shape, self.rows, self.columns).transpose(-1, -2)
        real, imaginary = columns @ self.row_cos, -(columns @ self.row_sin)
        real, imaginary = real.transpose(-1, -2), imaginary.transpose(-1, -2)
        real, imaginary = (
            real * self.turn_cos + imaginary * self.turn_sin,
            imaginary * self.turn_cos - real * self.turn_sin,
        )
        parts = (
            real @ self.column_cos + imaginary @ self.column_sin,
            imaginary @ self.column_cos - real @ self.column_sin,
        )
        flat = [part.transpose(-1, -2).reshape(*shape, -1)[..., : self.weights.shape[0]] for part in parts]
        return torch.stack(flat, dim=-1)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Return the frames of spectra, as `torch.fft.irfft`.

        Args:
            spectrum: real and imaginary parts, (..., n // 2 + 1, 2).

        Returns:
            Frames, (..., n).
        """
        shape = spectrum.shape[:-2]
        weighted = spectrum * self.weights[:, None]
        weighted = torch.cat([weighted, torch.zeros_like(weighted)], dim=-2)
        weighted = weighted[..., : self.rows * self.column_cos.shape[1], :]
        real, imaginary = (
            part.reshape(*shape, -1, self.rows).transpose(-1, -2) for part in (weighted[..., 0], weighted[..., 1])
        )
        real, imaginary = (
            real @ self.column_cos.T - imaginary @ self.column_sin.T,
            real @ self.column_sin.T + imaginary @ self.column_cos.T,
        )
        real, imaginary = (
            real * self.turn_cos - imaginary * self.turn_sin,
            real * self.turn_sin + imaginary * self.turn_cos,
        )
        columns = real.transpose(-1, -2) @ self.row_cos - imaginary.transpose(-1, -2) @ self.row_sin
        return columns.transpose(-1, -2).reshape(*shape, -1)


def _range(n: Any) -> Tensor:
    return torch.arange(n)


def _halve(n: Any) -> Tensor:
    return torch.div(n, 2, rounding_mode="floor")


def _unit_circle(steps: Tensor, n: int | Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of ``steps`` of ``n`` steps of a turn."""
    angles = (steps % n).float() * (2 * math.pi) / n
    return angles.cos(), angles.sin()
