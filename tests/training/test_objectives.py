import pytest
import torch
from torch import Tensor

from denoise.training.data import Batch
from denoise.training.objectives import OBJECTIVES, compressed_distance
from denoise.training.recipe import Loss


class Known:
    """A blind network whose answer is known."""

    blind = True

    def __init__(self, out: Tensor) -> None:
        self.out = out

    def __call__(self, x: Tensor) -> Tensor:
        return self.out


def test_the_distance_of_compressed_spectra_is_that_of_complex_numbers() -> None:
    a, b = torch.randn(2, 5, 6, 7, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    p, q = (torch.polar(x.abs() ** 0.3, x.angle()) for x in (a, b))
    expected = (p.abs() - q.abs()).square() + 0.4 * (p - q).abs().square()
    torch.testing.assert_close(compressed_distance(a, b, phase=0.4), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("modality", "shape", "perceptual"),
    [("image", (2, 3, 16, 16), 0.0), ("audio", (2, 1, 8000), 0.0), ("audio", (2, 2, 8000), 0.1)],
)
def test_no_loss_is_less_than_that_of_the_clean_signal(
    modality: str, shape: tuple[int, ...], perceptual: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(shape, generator=generator) - 0.5
    noisy = clean + 0.1 * torch.randn(shape, generator=generator)

    def loss(out: Tensor) -> float:
        value, metrics = OBJECTIVES[modality](Known(out), Batch(noisy, clean, 16_000), Loss(perceptual))
        torch.testing.assert_close(metrics["mse"], (out - clean).square().mean())
        return float(value)

    assert loss(clean) < loss(0.5 * (clean + noisy)) < loss(noisy)
