"""The recipes of the lectures have the layers of the lectures' listings, and their losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.pipelines.prior import PriorPipeline
from denoise.training.data import Batch
from denoise.training.loop import train
from denoise.training.objectives import make_objective
from denoise.training.objectives.codec import Elbo
from denoise.training.recipe import Recipe, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
VAE = "64-32 ELU 32-16 8-32 ELU 32-64"  # 16: mean and log-variance of 8 latents
LISTINGS = {
    "lecture-conv-audio": "2-256 Mish 256-512 Mish 512-1024 Mish 1024-512 Mish 512-256 Mish 256-2",
    "lecture-dense-image": "3072-512 ELU 512-256 ELU 256-64 Tanh 64-256 ELU 256-512 ELU 512-3072",
    "lecture-ae-digits": "64-32 ELU 32-8 8-32 ELU 32-64",
    "lecture-vae-digits": VAE,
    "lecture-vae-digits-mse": VAE,
}


def recipe(name: str, *settings: str) -> Recipe:
    return load_recipe(RECIPES / name / "recipe.toml", settings)


def describe(layer: nn.Module) -> str:
    if isinstance(layer, nn.Linear):
        return f"{layer.in_features}-{layer.out_features}"
    if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
        return f"{layer.in_channels}-{layer.out_channels}"
    return type(layer).__name__


def test_every_recipe_of_a_lecture_has_its_listing() -> None:
    assert {path.parent.name for path in RECIPES.glob("lecture-*/recipe.toml")} == LISTINGS.keys()


@pytest.mark.parametrize("name", LISTINGS)
def test_layers_are_those_of_the_listing(name: str) -> None:
    module = make_objective(recipe(name)).build()
    leaves = [layer for layer in module.modules() if not list(layer.children())]
    layers = [describe(layer) for layer in leaves if not isinstance(layer, nn.Flatten | nn.Unflatten)]
    layers = [layer for layer in layers if layer != "UnconditionalDistribution"]  # the prior, without layers
    assert " ".join(layers) == LISTINGS[name]


def test_the_dense_autoencoder_normalises_pixels_by_mean_and_deviation_of_a_half() -> None:
    module: Any = make_objective(recipe("lecture-dense-image")).build()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(module.encode(x), module.encoder(((x - 0.5) / 0.5).flatten(1)))


@pytest.mark.parametrize(
    ("name", "negative_log_likelihood"),
    [
        ("lecture-vae-digits", lambda decoded, x: F.binary_cross_entropy_with_logits(decoded, x, reduction="sum")),
        ("lecture-vae-digits-mse", lambda decoded, x: 12.5 * (decoded - x).square().sum()),
    ],
)
def test_the_loss_is_n_over_m_times_reconstruction_and_divergence(name: str, negative_log_likelihood: Any) -> None:
    """One by one, for a batch of M = 5 of N = 1000 images, up to the constant of the normal distribution."""
    objective = make_objective(recipe(name))
    assert isinstance(objective, Elbo)
    objective.dataset_size = 1000
    model: Any = objective.build()
    x = torch.rand(5, 1, 8, 8)
    torch.manual_seed(1)
    loss, _ = objective.loss(model, Batch(x, x))
    torch.manual_seed(1)
    noise = torch.randn(1, 5, 8)[0]
    total = torch.zeros(())
    for image, eps in zip(x, noise, strict=True):
        mean, log_variance = model.codec.encoder(image[None])[0].split(8)
        z = mean + (log_variance / 2).exp() * eps
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
        total = total + negative_log_likelihood(model.codec.decoder(z[None])[0], image) + divergence
    is_normal = name.endswith("mse")
    constant = 1000 * 64 * 0.5 * float(np.log(2 * np.pi * 0.2**2)) if is_normal else 0.0
    torch.testing.assert_close(loss - constant, 1000 / 5 * total, rtol=1e-4, atol=1e-2)


def test_the_estimates_of_all_batches_average_to_the_sum_over_the_data() -> None:
    objective: Any = make_objective(recipe("lecture-vae-digits"))
    objective.dataset_size = 12
    model = objective.build()
    with torch.no_grad():
        model.codec.encoder[-1].bias[8:] = -20.0  # hardly any noise: the bound has one value
        model.codec.encoder[-1].weight[8:] = 0.0
        x = torch.rand(12, 1, 8, 8)
        parts = [objective.loss(model, Batch(part, part))[0] for part in x.split(3)]
        whole = objective.loss(model, Batch(x, x))[0]
    torch.testing.assert_close(torch.stack(parts).mean(), whole, rtol=1e-4, atol=0)


def quick(name: str, *settings: str) -> Recipe:
    return recipe(name, "schedule.steps=300", "schedule.log_every=100", "schedule.ema=0.9", *settings)


def test_the_dense_autoencoder_learns_from_the_binary_files_of_cifar(tmp_path: Path) -> None:
    (folder := tmp_path / "image/cifar-10-batches-bin").mkdir(parents=True)
    ramp = torch.linspace(0, 1, 32)
    for i in range(5):
        slopes = torch.rand(20, 3, 2, 1, 1, generator=torch.Generator().manual_seed(i))
        planes = 0.5 * (slopes[:, :, 0] * ramp[:, None] + slopes[:, :, 1] * ramp)
        records = [bytes([0]) + (255 * x).byte().numpy().tobytes() for x in planes]
        (folder / f"data_batch_{i + 1}.bin").write_bytes(b"".join(records))
    rows: list[dict[str, Any]] = []
    settings = quick("lecture-dense-image", "schedule.batch=16", "schedule.warmup=10", "schedule.steps=100")
    train(settings, tmp_path, tmp_path / "out", device="cpu", precision="32-true", report=rows.append)
    assert rows[-1]["r2"] > 0.4
    pipeline = PriorPipeline(tmp_path / "out/lecture-dense-image.safetensors", device="cpu")
    assert pipeline.sample(2).shape == (2, 3, 32, 32)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PriorPipeline]:
    """The plain and the variational autoencoder, after a short training."""
    root = tmp_path_factory.mktemp("lectures")
    (root / "image").mkdir()
    images = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    np.savez(root / "image/digits8.npz", images=images)
    pipelines = {}
    for name in ("lecture-ae-digits", "lecture-vae-digits"):
        train(quick(name, "schedule.steps=1500"), root, root / name, device="cpu", precision="32-true")
        pipelines[name] = PriorPipeline(root / name / f"{name}.safetensors", device="cpu")
    return pipelines


def distance(samples: Tensor) -> float:
    """Return the mean distance of samples from the nearest digit that was not trained on."""
    held_out = torch.from_numpy(load_digits().images[::5] / 16).float().flatten(1)
    return float(torch.cdist(samples.flatten(1), held_out).amin(dim=1).mean())


def test_samples_of_a_plain_autoencoder_are_worse_and_its_reconstructions_better(
    digits: dict[str, PriorPipeline],
) -> None:
    held_out = torch.from_numpy(load_digits().images[::5] / 16).float()[:, None]
    plain, variational = digits["lecture-ae-digits"], digits["lecture-vae-digits"]
    assert plain.reconstruction_r2(held_out)[0] > variational.reconstruction_r2(held_out)[0] > 0.3
    assert distance(plain.sample(256)) > 1.1 * distance(variational.sample(256))


def test_one_image_is_decoded_several_times_by_the_variational_autoencoder_alone(
    digits: dict[str, PriorPipeline],
) -> None:
    x = torch.from_numpy(load_digits().images[:1] / 16).float()[None]
    decoded = digits["lecture-vae-digits"].decodings(x, 20)
    assert decoded.shape == (20, 1, 8, 8)
    assert 0.01 < float(decoded.std(dim=0).mean()) < 0.3
    assert float((decoded.mean(dim=0) - x[0]).square().mean()) < float((decoded.mean() - x).square().mean())
    plain = digits["lecture-ae-digits"]
    torch.testing.assert_close(plain.decodings(x, 1), plain.reconstruct(x))
