"""The benchmarks of priors, against closed forms."""

import json
import math
from pathlib import Path
from typing import Any

import anomaly
import attributes
import generative
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from denoise.cards import Card
from denoise.pipelines.typicality import complexity
from denoise.priors.flows import Flow, FlowConfig
from denoise.priors.latent import build_latent_prior
from denoise.registry import build
from denoise.weights import save_weights


def test_anomalies_are_what_the_protocol_says() -> None:
    digits = torch.rand(5, 1, 8, 6, generator=torch.Generator().manual_seed(0))
    kinds = anomaly.make_anomalies(digits, torch.Generator().manual_seed(1))
    assert all(x.shape == digits.shape and x.min() >= 0 and x.max() <= 1 for x in kinds.values())
    assert not kinds["blank"].any()
    assert torch.equal(kinds["half"][:, :, :4], digits[:, :, :4])
    assert not kinds["half"][:, :, 4:].any()
    torch.testing.assert_close(kinds["inverted"] + digits, torch.ones_like(digits))
    sorted_pixels = [x.flatten(1).sort(dim=1).values for x in (digits, kinds["shuffled"])]
    assert torch.equal(*sorted_pixels)
    orders = [np.argsort(np.argsort(x.flatten())) for x in kinds["shuffled"].numpy()]
    assert len({tuple(order) for order in orders}) == 5
    inner = (digits - 0.5).abs() < 0.05  # where no noise is clipped
    assert 0.1 < float((kinds["noisy"] - digits)[inner].std()) < 0.3


def test_scores_of_anomalies_are_higher_where_the_likelihood_is_lower() -> None:
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x[::2] = x[::2].round()  # of lower complexity
    nats = torch.linspace(-60, -40, 20)
    scores = anomaly.make_scores(nats, x, None)
    for name, score in scores.items():
        low, middle = score(torch.tensor([-500.0, -50.0]), x[:1].expand(2, -1, -1, -1), None)
        assert low > middle, name
    assert scores["typicality"](torch.tensor([0.0]), x[:1], None) == 50
    sizes = complexity(x).numpy()
    inverse = np.linalg.inv(np.cov(nats.numpy(), sizes))
    offset = np.array([-55.0 - nats.mean(), sizes[3] - sizes.mean()])
    assert scores["anomaly"](torch.tensor([-55.0]), x[3:4], None).item() == pytest.approx(
        (offset @ inverse @ offset) ** 0.5
    )
    with_errors, errors = anomaly.make_scores(nats, x, nats.square()), torch.tensor([9.0, 2000.0])
    assert with_errors["denoising error"](nats[:2], x[:2], errors).tolist() == [9.0, 2000.0]
    far, near = with_errors["anomaly"](torch.tensor([-45.0, -45.0]), x[3:4].expand(2, -1, -1, -1), errors)
    assert far > near
    bits = 55.0 / math.log(2) - 8 * sizes[3]
    assert scores["-log p - complexity"](torch.tensor([-55.0]), x[3:4], None).item() == pytest.approx(
        bits * math.log(2)
    )


class Pipeline:
    """As much of a `PriorPipeline` as the benchmark takes, around a module."""

    from denoise.pipelines.prior import PriorPipeline

    def __new__(cls, module: nn.Module) -> PriorPipeline:
        pipeline = cls.PriorPipeline.__new__(cls.PriorPipeline)
        pipeline.model, pipeline.device, pipeline.name = module, torch.device("cpu"), "tiny"
        pipeline.card = Card("tiny", "flow", "image", 1, kind="prior", shape=tuple(module.event_shape))
        return pipeline


def arrays(x: Tensor) -> dict[str, Tensor]:
    return {"continuous": generative.dequantise(x), "discrete": x, "binary": (x > 0.5).float()}


def test_likelihoods_state_kind_and_events() -> None:
    levels = torch.randint(256, (30, 1, 4, 4), generator=torch.Generator().manual_seed(0)) / 255
    pipeline = Pipeline(Flow(FlowConfig((1, 4, 4), "normal", scale=0.5)))
    x = arrays(levels)["continuous"][:20]
    assert torch.equal((256 * x).floor(), 255 * levels[:20])  # noise stays within one level
    expected = float((0.5 * (x / 0.5).square() + math.log(0.5) + 0.5 * math.log(2 * math.pi)).sum(dim=(1, 2, 3)).mean())
    row = generative.likelihood(pipeline, arrays(levels), 20)
    assert row == {
        "-log p, nats": pytest.approx(expected, rel=1e-5),
        "bits/dim": pytest.approx(expected / 16 / math.log(2) + 8, rel=1e-5),
        "likelihood": "exact",
        "of": "continuous",
    }
    assert set(generative.likelihood(pipeline, arrays(levels), 0).values()) == {None}
    vae = build("vae", {"shape": [1, 4, 4], "latent": 2, "likelihood": "bernoulli"})
    latent = Pipeline(build_latent_prior(vae, Flow(FlowConfig((2,), "normal"))))
    row = generative.likelihood(latent, arrays(levels), 5)
    assert (row["likelihood"], row["of"]) == ("importance-weighted bound", "binary")
    assert row["bits/dim"] == pytest.approx(row["-log p, nats"] / 16 / math.log(2))
    gan = Pipeline(build("gan", {"shape": [1, 4, 4], "latent": 2}))
    assert set(generative.likelihood(gan, arrays(levels), 5).values()) == {None}


COLOURS = {(1, 0, 0): 0, (1, 1, 0): 60, (0, 1, 0): 120, (0, 1, 1): 180, (0, 0, 1): 240, (1, 0, 1): 300}


def test_hues_are_those_of_pure_colours() -> None:
    x = torch.tensor([*COLOURS]).float()[:, :, None, None].expand(-1, -1, 2, 2)
    hue, chroma = attributes.mean_colour(x)
    offset = (hue - torch.tensor([*COLOURS.values()]) + 180) % 360 - 180  # 359.99 is a hue of 0
    assert offset.abs().max() < 1e-3
    torch.testing.assert_close(chroma, torch.ones(6))
    torch.testing.assert_close(attributes.hue_distance(x, 330.0), torch.tensor([30.0, 90, 150, 150, 90, 30]))
    grey = torch.full((1, 3, 2, 2), 0.5)
    with_hue, others = attributes.split_by_hue(torch.cat([x, grey]), 110.0)
    assert torch.equal(with_hue, x[2:3])  # yellow, 50 degrees away, is neither
    assert torch.equal(others, x[[0, 3, 4, 5]])


class ByBrightness(nn.Module):
    """A classifier: class 1 are the bright images."""

    def forward(self, x: Tensor) -> Tensor:
        brightness = x.flatten(1).mean(dim=1)
        return torch.stack([0.5 - brightness, brightness - 0.5], dim=1)


def test_the_accuracy_of_classes_is_that_of_their_samples() -> None:
    pipeline = Pipeline(build("gan", {"shape": [1, 4, 4], "latent": 2, "classes": 2}))
    assert generative.class_accuracy(pipeline, ByBrightness(), 10) is None  # whose card lists no classes
    pipeline.card = Card("tiny", "gan", "image", 1, kind="prior", shape=(1, 4, 4), classes=("dark", "bright"))
    levels = {0: 0.2, 1: 0.9}

    def sample(n: int, *, label: int, seed: int, guidance: float | None) -> Tensor:
        assert guidance == 2.0
        x = torch.full((n, 1, 4, 4), levels[label])
        x[0] = 1 - x[0]  # one of each class is wrong
        return x

    pipeline.sample = sample  # type: ignore[method-assign, assignment]
    assert generative.class_accuracy(pipeline, ByBrightness(), 10, 2.0) == pytest.approx(0.8)


def test_midpoints_of_a_normal_distribution_are_likely() -> None:
    pipeline = Pipeline(Flow(FlowConfig((1, 4, 4), "maf", transforms=1, hidden=(8,))))
    samples = pipeline.sample(200, seed=0)
    assert generative.unlikely_midpoints(pipeline, samples, samples[:40]) < 0.1
    far = 100 + samples[:40]
    assert generative.unlikely_midpoints(pipeline, samples, far) == 1
    gan = Pipeline(build("gan", {"shape": [1, 4, 4], "latent": 2}))
    assert generative.unlikely_midpoints(gan, samples, far) is None


def test_the_guidance_of_a_latent_prior_is_that_of_its_prior() -> None:
    net = {"kind": "mlp", "widths": [8], "blocks": 1, "embedding": 8}
    diffusion = {"architecture": "diffusion", "shape": [3], "net": net, "guidance": 1.7}
    codec = {"architecture": "vae", "shape": [1, 8, 8], "latent": 3, "body": {"kind": "dense", "widths": [8]}}
    assert generative.default_guidance(build("latent-prior", {"codec": codec, "prior": diffusion})) == 1.7
    assert generative.default_guidance(build("gan", {"shape": [1, 4, 4], "latent": 2})) is None


def test_the_plot_has_a_point_for_each_prior(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    points: list[tuple[float, float]] = []
    scatter = Axes.scatter

    def record(self: Axes, x: float, y: float, **settings: Any) -> Any:
        points.append((x, y))
        return scatter(self, x, y, **settings)

    monkeypatch.setattr(Axes, "scatter", record)
    rows = [{"prior": str(i), "samples/s": 10.0**-i, "Frechet distance": 2.0 + i, "recall": 0.5} for i in range(3)]
    generative.draw_trilemma(rows, tmp_path / "plot.png")
    assert points == [(1.0, 2.0), (0.1, 3.0), (0.01, 4.0)]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_whole_run_measures_each_prior(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    archive = {}
    for split, n in (("train", 200), ("test", 40)):
        labels = rng.integers(0, 2, n)
        images = rng.integers(0, 60, (n, 8, 8)) + 150 * labels[:, None, None]
        archive |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels}
    np.savez(tmp_path / "data.npz", **archive)
    settings = {"flow": {"shape": [1, 8, 8], "kind": "maf", "hidden": [8]}, "gan": {"shape": [1, 8, 8], "latent": 2}}
    for name, values in settings.items():
        card = Card(name, name, "image", 1, kind="prior", shape=(1, 8, 8), training_minutes=3.0)
        save_weights(tmp_path / f"{name}.safetensors", build(name, values), card, {})
    generative.main(
        tmp_path / "data.npz",
        ",".join(str(tmp_path / f"{name}.safetensors") for name in settings),
        n=20,
        limit=4,
        pairs=2,
        epochs=1,
        threads=1,
        json_file=tmp_path / "table.json",
        plot=None,
        out=None,
        record=False,
    )
    result = json.loads((tmp_path / "table.json").read_text())
    flow, gan = result["table"]
    assert (flow["prior"], flow["likelihood"], flow["minutes"]) == ("flow", "exact", 3.0)
    assert (gan["prior"], gan["likelihood"], gan["calls"]) == ("gan", None, 1)
    for row in (flow, gan):
        assert row["samples/s"] > 0
        assert 0 <= row["recall"] <= 1
    assert "the fastest of at least 3, processor time, 1 thread" in result["protocol"]


def test_neighbours_are_nearest_in_features() -> None:
    brightness = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False))
    nn.init.ones_(brightness[1].weight)
    train = torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2).contiguous()
    samples = torch.tensor([[2.0, 0, 0, 0], [0.9, 0.9, 0.9, 0.9]]).reshape(2, 1, 2, 2)
    assert torch.equal(generative.nearest_neighbours(brightness, samples, train), train[[1, 2]])
