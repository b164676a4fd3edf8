import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from denoise.registry import build
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


def test_on_the_way_to_a_draw_errors_count_by_their_square_alone() -> None:
    """Of all answers that are constant, the best is the mean of what is possible: here of a sound and its negative."""
    generator = torch.Generator().manual_seed(0)
    sound = 0.1 * torch.randn(1, 1, 8000, generator=generator)
    clean = torch.cat([sound, -sound])

    def loss(size: float, added: float) -> float:
        out = size * sound.expand(2, -1, -1)
        flow: Any = build("speech-flow", {"widths": [8, 8, 16], "blocks": 1, "hidden": 8, "squeeze": 2, "memory": 16})
        flow.on_the_way = lambda *_, sample_rate: (out, torch.full((2,), added))
        return float(OBJECTIVES["audio"](flow, Batch(clean, clean, 16_000), Loss(0.1))[0])

    for added in (0.1, 0.5, 1.0):
        assert loss(0.0, added) < min(loss(0.05, added), loss(0.5, added), loss(1.0, added))
    assert loss(0.5, 0.0) < loss(0.0, 0.0)  # magnitudes are wanted of the mean
    assert loss(1.0, 0.5) == pytest.approx(loss(1.0, 1.0) * (1 + 0.04) / (0.25 + 0.04), rel=1e-3)


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
        torch.testing.assert_close(metrics()["mse"], (out - clean).square().mean())
        return float(value)

    assert loss(clean) < loss(0.5 * (clean + noisy)) < loss(noisy)


def test_examples_count_the_same_at_any_noise_and_plain_ones_less_than_others() -> None:
    """One decibel of error matters as much at sigma 50 as at 10; in a patch that is easy for its noise, it does not."""

    def worth_of_a_decibel(decibel: float, sigma: float) -> float:
        """What the loss loses by one, from an error in decibels above that of photographs with such noise."""
        clean, usual = torch.zeros(1, 3, 8, 8), 0.0075 * sigma / 255
        batch = Batch(clean + sigma / 255, clean)
        outs = [torch.full_like(clean, (usual * 10 ** (d / 10)) ** 0.5) for d in (decibel, decibel + 1)]
        less, more = (float(OBJECTIVES["image"](Known(out), batch, Loss())[0]) for out in outs)
        return more - less

    assert worth_of_a_decibel(0, 10) == pytest.approx(worth_of_a_decibel(0, 50), rel=0.1)
    assert worth_of_a_decibel(-12, 25) < 0.2 * worth_of_a_decibel(6, 25)


def test_a_variational_network_pays_for_what_its_latents_tell() -> None:
    """The loss is that of the drawn answer plus the divergence from the standard normal, which torch knows, too."""
    torch.manual_seed(0)
    settings = {"ndim": 2, "channels": 3, "widths": [4, 6], "kernels": [3, 2], "strides": [1, 2], "blocks": [1, 1]}
    net = build("conv-dae", settings | {"latents": [2, 3]})
    clean = torch.rand(2, 3, 8, 8)
    batch = Batch(clean + 0.1 * torch.randn_like(clean), clean)
    usual = 1e-5 + 0.0075 * (batch.noisy - clean).square().mean(dim=(1, 2, 3)).sqrt()
    found: list[Tensor] = []

    def mean(level: int, q: Normal, stride: int) -> Tensor:
        assert (level, stride, q.loc.shape[1]) == (len(found), 2**level, (2, 3)[level])
        found.append(kl_divergence(q, Normal(torch.zeros_like(q.loc), 1.0)).sum().detach() / len(clean))
        return q.mean

    torch.testing.assert_close(net(batch.noisy), net(batch.noisy, draw=mean))
    nats = float(sum(found)) / clean[0].numel()
    for beta in (0.0, 2.0):
        torch.manual_seed(1)
        loss, metrics = OBJECTIVES["image"](net, batch, Loss(beta=beta))
        assert float(metrics()["kl"]) == pytest.approx(nats, rel=1e-5)
        expected = 0.1 * float(((net_drawn(net, batch) - clean).square().mean(dim=(1, 2, 3)) + usual).log10().mean())
        assert float(loss.detach()) == pytest.approx(expected + beta * nats / (5 * math.log(10)), rel=1e-5)


@torch.no_grad()
def net_drawn(net: Any, batch: Batch) -> Tensor:
    torch.manual_seed(1)
    return net(batch.noisy, draw=lambda level, q, stride: q.rsample())
