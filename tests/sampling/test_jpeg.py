"""The quantisation of JPEG against libjpeg and scipy."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn
from torch import Tensor

from denoise.sampling.jpeg import QuantisationCells, from_blocks, to_blocks

REDUCTIONS = {0: (1, 1), 1: (1, 2), 2: (2, 2)}


def scene(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth shades and a texture, away from black and white, where decoders clip."""
    y, x = np.mgrid[:height, :width]
    shades = np.stack([120 + 40 * np.sin(x / 9), 100 + 50 * np.cos(y / 7), 130 + 30 * np.sin((x + y) / 5)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 12, shades.shape)
    return np.rint(shades + noise).clip(30, 225).astype(np.uint8)


def encode(pixels: NDArray[np.uint8], **settings: Any) -> tuple[NDArray[np.uint8], list[list[int]]]:
    """Pixels after JPEG, and the tables."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **settings)
    with Image.open(file) as image:
        return np.asarray(image), [list(table) for table in image.quantization.values()]  # type: ignore[attr-defined]


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.atleast_3d(pixels).astype(np.float64) / 255).permute(2, 0, 1)[None]


def to_pixels(x: Tensor) -> NDArray[np.uint8]:
    return np.rint(255 * x[0].permute(1, 2, 0).numpy()).clip(0, 255).astype(np.uint8).squeeze()


def test_blocks_have_the_transform_of_scipy() -> None:
    x = torch.randn(2, 1, 16, 24, dtype=torch.float64)
    blocks = to_blocks(x)
    expected = dctn(x[1, 0, 8:, 16:].numpy(), norm="ortho")
    torch.testing.assert_close(blocks[1, 1, 2], torch.from_numpy(expected))
    torch.testing.assert_close(from_blocks(blocks, 16, 24), x)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(48, 64), (41, 51)])
def test_the_original_lies_in_the_cells_of_its_file(subsampling: int, size: tuple[int, int]) -> None:
    clean = scene(*size)
    decoded, tables = encode(clean, quality=30, subsampling=subsampling)
    cells = QuantisationCells(to_tensor(decoded), tables, REDUCTIONS[subsampling])
    x = to_tensor(clean)
    change = 255 * (cells.project(x) - x)
    other = 255 * (cells.project(1 - x) - (1 - x))
    assert change.abs().mean() < 0.2 < 20 < other.abs().mean()  # libjpeg computes with integers, and blocks are cut


def test_a_projected_image_is_coded_as_the_file_again() -> None:
    clean = scene(48, 64)[..., 0]
    decoded, tables = encode(clean, quality=20)
    cells = QuantisationCells(to_tensor(decoded), tables)
    x = cells.project(to_tensor(clean) + 0.05 * torch.randn(1, 1, 48, 64, dtype=torch.float64))
    inner = to_tensor(decoded) + 0.9 * (x - to_tensor(decoded))  # off the borders, which rounding crosses
    again, _ = encode(to_pixels(inner), qtables=tables)
    assert not np.array_equal(to_pixels(inner), decoded)
    assert np.array_equal(again, decoded)
    torch.testing.assert_close(cells.project(x), x)


@pytest.mark.parametrize("subsampling", [0, 2])
def test_colours_are_coded_as_the_file_again(subsampling: int) -> None:
    clean = scene(48, 64)
    decoded, tables = encode(clean, quality=20, subsampling=subsampling)
    y = to_tensor(decoded)
    cells = QuantisationCells(y, tables, REDUCTIONS[subsampling])
    noisy = y + 0.05 * torch.randn(y.shape, dtype=torch.float64)
    outside, _ = encode(to_pixels(noisy), qtables=tables, subsampling=subsampling)
    inner = cells.project(noisy)
    inner = inner + 0.2 * (cells.project(y) - inner)
    again, _ = encode(to_pixels(inner), qtables=tables, subsampling=subsampling)
    difference = np.abs(again.astype(int) - decoded)
    assert np.mean(difference) < 0.1 < 1 < np.mean(np.abs(outside.astype(int) - decoded))
