"""The objective of denoisers: which loss it minimises, what it reports and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from denoise.config import parse
from denoise.errors import ConfigError
from denoise.registry import build
from denoise.training.data import Batch
from denoise.training.losses.denoising import DENOISING_LOSSES, Estimate
from denoise.training.objectives import make_objective
from denoise.training.objectives.denoising import Denoising
from denoise.training.recipe import Loss, Recipe

UNET = {"ndim": 2, "channels": 3, "widths": [4, 6], "kernels": [3, 2], "strides": [1, 2], "blocks": [1, 1]}
IMAGE = {"architecture": "conv-dae", "modality": "image", "model": UNET, "image": {"folders": ["photos"]}}
AUDIO = {
    "architecture": "conv-dae",
    "modality": "audio",
    "model": {"ndim": 1, "channels": 1, "widths": [4], "kernels": [4], "strides": [2], "blocks": [1]},
    "audio": {"speech": ["speech"], "noise": ["noise"]},
}
FLOW = {"widths": [8, 8, 16], "blocks": 1, "hidden": 8, "squeeze": 2, "full_hidden": 16}


def objective(values: dict[str, Any], **changes: Any) -> Denoising:
    recipe = parse(Recipe, {"name": "tiny", "schedule": {"steps": 1}} | values | changes, "test")
    made = make_objective(recipe)
    assert isinstance(made, Denoising)
    return made


class Constant:
    """A blind network whose output is given."""

    blind, variational = True, False

    def __init__(self, output: Tensor) -> None:
        self.output = output

    def __call__(self, x: Tensor) -> Tensor:
        return self.output


@pytest.mark.parametrize(("values", "shape"), [(IMAGE, (2, 3, 16, 16)), (AUDIO, (2, 1, 8000))], ids=["image", "audio"])
def test_metrics_are_those_of_the_estimates(values: dict[str, Any], shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(shape, generator=generator) - 0.5
    noisy = clean + 0.1 * torch.randn(shape, generator=generator)
    batch = Batch(noisy, clean, None if values is IMAGE else 16_000)
    for denoised in (clean, 0.5 * (clean + noisy), noisy):
        _, metrics = objective(values).loss(Constant(denoised), batch)
        torch.testing.assert_close(metrics()["mse"], (denoised - clean).square().mean())


def test_a_flow_is_trained_at_points_of_its_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss has the estimates of `training_pair`, with the noise that was in their input."""
    flow = build("speech-flow", FLOW)
    clean = 0.1 * torch.randn(4, 1, 4000, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    denoised, path_noise = flow.training_pair(clean, clean, sample_rate=16_000)
    assert len(set(path_noise.tolist())) > 1
    estimates: list[Estimate] = []

    def loss(estimate: Estimate, settings: Loss) -> Tensor:
        estimates.append(estimate)
        return estimate.denoised.mean()

    monkeypatch.setitem(DENOISING_LOSSES, "audio", {"mean": loss})
    torch.manual_seed(0)
    objective(AUDIO, architecture="speech-flow", model=FLOW).loss(flow, Batch(clean, clean, 16_000))
    torch.testing.assert_close(estimates[0].denoised, denoised)
    torch.testing.assert_close(estimates[0].path_noise, path_noise)


def test_the_loss_of_a_variational_network_includes_its_divergence() -> None:
    """It is the loss of the sampled output plus the divergence from the standard normal distribution, as by torch."""
    torch.manual_seed(0)
    net = build("conv-dae", UNET | {"latents": [2, 3]})
    clean = torch.rand(2, 3, 8, 8)
    batch = Batch(clean + 0.1 * torch.randn_like(clean), clean)
    typical = 1e-5 + 0.0075 * (batch.noisy - clean).square().mean(dim=(1, 2, 3)).sqrt()
    divergences: list[Tensor] = []

    def mean(level: int, q: Normal, stride: int) -> Tensor:
        assert (level, stride, q.loc.shape[1]) == (len(divergences), 2**level, (2, 3)[level])
        divergences.append(kl_divergence(q, Normal(torch.zeros_like(q.loc), 1.0)).sum().detach() / len(clean))
        return q.mean

    torch.testing.assert_close(net(batch.noisy), net(batch.noisy, sample_latent=mean))
    nats = float(sum(divergences)) / clean[0].numel()
    for beta in (0.0, 2.0):
        torch.manual_seed(1)
        loss, metrics = objective(IMAGE, loss={"beta": beta}).loss(net, batch)
        assert float(metrics()["kl"]) == pytest.approx(nats, rel=1e-5)
        error = (sample_output(net, batch) - clean).square().mean(dim=(1, 2, 3))
        expected = 0.1 * float((error + typical).log10().mean())
        assert float(loss.detach()) == pytest.approx(expected + beta * nats / (5 * math.log(10)), rel=1e-5)


@torch.no_grad()
def sample_output(net: Any, batch: Batch) -> Tensor:
    torch.manual_seed(1)
    return net(batch.noisy, sample_latent=lambda level, q, stride: q.rsample())


@pytest.mark.parametrize(
    ("values", "changes", "message"),
    [
        (IMAGE, {"image": None}, r"no \[image\] section"),
        (AUDIO, {"audio": None}, r"no \[audio\] section"),
        (AUDIO, {"audio": {"speech": ["speech"]}}, "audio.noise names no folder"),
        (AUDIO, {"audio": AUDIO["audio"] | {"channels": 2}}, "takes 1 channels, audio.channels is 2"),
        (IMAGE, {"codec": "mnist-vae"}, "a codec is for priors"),
        (IMAGE, {"architecture": "ae", "model": {"shape": [1, 8, 8], "latent": 2}}, "ae is no denoiser"),
        (IMAGE, {"loss": {"name": "compressed-spectral"}}, "expected 'psnr' or 'log-mse' for image"),
        (AUDIO, {"loss": {"name": "psnr"}}, "expected 'compressed-spectral' for audio"),
        (IMAGE, {"loss": {"perceptual": 0.1}}, "loss.perceptual is for audio"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    def validate() -> None:
        refused = objective(values, **changes)
        refused.validate(refused.build())

    with pytest.raises(ConfigError, match=message):
        validate()


def test_the_loss_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A new loss is a function and a line of the table."""

    def l1(estimate: Estimate, settings: Loss) -> Tensor:
        return (estimate.denoised - estimate.clean).abs().mean()

    monkeypatch.setitem(DENOISING_LOSSES["image"], "l1", l1)
    clean = torch.rand(2, 3, 8, 8)
    batch = Batch(clean + 0.1, clean)
    loss, metrics = objective(IMAGE, loss={"name": "l1"}).loss(Constant(clean + 0.05), batch)
    assert float(loss) == pytest.approx(0.05, rel=1e-5)
    assert {"mse", "psnr", "r2"} == metrics().keys()
    default, _ = objective(IMAGE).loss(Constant(clean + 0.05), batch)
    named, _ = objective(IMAGE, loss={"name": "psnr"}).loss(Constant(clean + 0.05), batch)
    assert float(default) == float(named) != pytest.approx(0.05)
