"""JPEG as a measurement: the quantised DCT coefficients of the file, which every restored image must agree with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from denoise.colour import LUMA_601
from denoise.sampling.consistent_set import ConsistentSet

BLOCK = 8  # pixels
SHARPENINGS = 20  # the error of the chroma falls by at least half with each in both directions
RED, GREEN, BLUE = LUMA_601
TO_YCBCR = torch.tensor(
    [
        LUMA_601,
        [-0.5 * RED / (1 - BLUE), -0.5 * GREEN / (1 - BLUE), 0.5],
        [0.5, -0.5 * GREEN / (1 - RED), -0.5 * BLUE / (1 - RED)],
    ],
    dtype=torch.float64,
)
TO_RGB = torch.linalg.inv(TO_YCBCR)


@dataclass(frozen=True)
class QuantisationCells(ConsistentSet):
    """The quantisation of JPEG: each DCT coefficient of a signal lies within half a step of the one in the file.

    Coefficients are read from the decoded image, so that those of blocks that are clipped at black or white, or cut by
    the border of the image, may be off by a step. Like `denoise.sampling.operators.Clipping`, the operator is not
    linear: the misfit leads to the nearest image within the cells, and `diffpir` works with it.

    Args:
        y: decoded image, (1, 1 or 3, height, width), full scale 1.0; grey, or red, green and blue.
        tables: steps of luma and of chroma, or of luma alone, 64 each by rows, on the scale of 255.
        reductions: rows and columns of pixels in one sample of chroma, each 1 or 2.

    Reference:
        ITU-T T.81, 1992, section A.3.4; Iterative Procedures for Reduction of Blocking Effects in Transform Image
        Coding, Zakhor, 1992 (projection onto the cells).
    """

    measurement = "quantisation"

    y: Tensor
    tables: Sequence[Sequence[int]]
    reductions: tuple[int, int] = (1, 1)
    _steps: list[Tensor] = field(init=False)
    _centres: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        steps = [torch.tensor(table, dtype=self.y.dtype).view(BLOCK, BLOCK) / 255 for table in self.tables]
        centres = []
        for i, plane in enumerate(self.planes(self.y, is_upsampled=True)):
            step = steps[min(i, len(steps) - 1)]
            centres.append((to_blocks(plane) / step).round() * step)
        object.__setattr__(self, "_steps", steps)
        object.__setattr__(self, "_centres", centres)

    def project(self, x: Tensor) -> Tensor:
        """Return the nearest images whose coefficients lie in the cells, in luma and chroma, of the shape of x."""
        changes = []
        for i, plane in enumerate(self.planes(x)):
            step, centre = self._steps[min(i, len(self._steps) - 1)], self._centres[i]
            coefficients = to_blocks(plane)
            nearest = coefficients.clamp(centre - step / 2, centre + step / 2)
            change = from_blocks(nearest - coefficients, *plane.shape[-2:])
            rows, columns = self.reductions if i else (1, 1)
            change = change.repeat_interleave(rows, dim=-2).repeat_interleave(columns, dim=-1)
            changes.append(change[..., : x.shape[-2], : x.shape[-1]])
        change = torch.cat(changes, dim=1)
        return x + (change if x.shape[1] == 1 else torch.einsum("ij,bjhw->bihw", TO_RGB.to(x), change))

    def planes(self, x: Tensor, *, is_upsampled: bool = False) -> list[Tensor]:
        """Return the components of images around 0 as the file stores them, each (batch, 1, height, width).

        Args:
            x: images, (batch, 1 or 3, height, width).
            is_upsampled: whether a decoder has interpolated the chroma of the images, which is undone.
        """
        if x.shape[1] == 1:
            return [x - 128 / 255]
        luma, *chroma = torch.einsum("ij,bjhw->bihw", TO_YCBCR.to(x), x).split(1, dim=1)
        rows, columns = self.reductions
        bottom, right = -x.shape[-2] % rows, -x.shape[-1] % columns
        reduced = [F.avg_pool2d(F.pad(c, (0, right, 0, bottom), mode="replicate"), self.reductions) for c in chroma]
        return [luma - 128 / 255, *(self._undo_interpolation(c) if is_upsampled else c for c in reduced)]

    def _undo_interpolation(self, mean: Tensor) -> Tensor:
        """Return the chroma whose triangular interpolation has these block means: each is 6/8 of one, 1/8 of others."""
        kernels = [torch.tensor([1.0, 6.0, 1.0] if n == 2 else [0.0, 8.0, 0.0]).to(mean) / 8 for n in self.reductions]
        kernel, chroma = (kernels[0][:, None] * kernels[1])[None, None], mean
        for _ in range(SHARPENINGS):
            chroma = chroma + mean - F.conv2d(F.pad(chroma, (1, 1, 1, 1), mode="replicate"), kernel)
        return chroma

    def forward(self, x: Tensor) -> Tensor:
        """Return y less the way from x to the nearest image in the cells, so that the misfit is that way."""
        return self.y + x - self.project(x)


def dct_matrix() -> Tensor:
    """Return the orthonormal DCT-II of 8 entries, (frequencies, entries)."""
    positions = torch.arange(BLOCK, dtype=torch.float64)
    matrix = torch.cos(math.pi / BLOCK * positions[:, None] * (positions + 0.5)) * math.sqrt(2 / BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix


def to_blocks(x: Tensor) -> Tensor:
    """Return the DCT of blocks, (batch, 1, height, width) to (batch, rows, columns, 8, 8), with edges repeated."""
    bottom, right = -x.shape[-2] % BLOCK, -x.shape[-1] % BLOCK
    blocks = F.pad(x, (0, right, 0, bottom), mode="replicate")[:, 0]
    blocks = blocks.unfold(1, BLOCK, BLOCK).unfold(2, BLOCK, BLOCK)
    dct = dct_matrix().to(x)
    return dct @ blocks @ dct.T


def from_blocks(coefficients: Tensor, height: int, width: int) -> Tensor:
    """Return the image of blocks, the inverse of `to_blocks`, (batch, 1, height, width)."""
    dct = dct_matrix().to(coefficients)
    blocks = dct.T @ coefficients @ dct
    batch, rows, columns = blocks.shape[:3]
    image = blocks.transpose(2, 3).reshape(batch, 1, BLOCK * rows, BLOCK * columns)
    return image[..., :height, :width]
