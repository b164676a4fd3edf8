"""The benchmarks of priors, against closed forms."""

import math

import anomaly
import generative
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from denoise.priors.flows import Flow, FlowConfig
from denoise.priors.latent import build_latent_prior
from denoise.registry import build
from denoise.weights import Card


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
    scores = anomaly.make_scores(nats, x)
    for name, score in scores.items():
        low, middle = score(torch.tensor([-500.0, -50.0]), x[:1].expand(2, -1, -1, -1))
        assert low > middle, name
    assert scores["typicality"](torch.tensor([0.0]), x[:1]) == 50


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
        "nats": pytest.approx(expected, rel=1e-5),
        "bits/dim": pytest.approx(expected / 16 / math.log(2) + 8, rel=1e-5),
        "likelihood": "exact",
        "of": "continuous",
    }
    assert set(generative.likelihood(pipeline, arrays(levels), 0).values()) == {None}
    vae = build("vae", {"shape": [1, 4, 4], "latent": 2, "likelihood": "bernoulli"})
    latent = Pipeline(build_latent_prior(vae, Flow(FlowConfig((2,), "normal"))))
    row = generative.likelihood(latent, arrays(levels), 5)
    assert (row["likelihood"], row["of"]) == ("importance-weighted bound", "binary")
    assert row["bits/dim"] == pytest.approx(row["nats"] / 16 / math.log(2))
    gan = Pipeline(build("gan", {"shape": [1, 4, 4], "latent": 2}))
    assert set(generative.likelihood(gan, arrays(levels), 5).values()) == {None}


def test_neighbours_are_nearest_in_features() -> None:
    brightness = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False))
    nn.init.ones_(brightness[1].weight)
    train = torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2).contiguous()
    samples = torch.tensor([[2.0, 0, 0, 0], [0.9, 0.9, 0.9, 0.9]]).reshape(2, 1, 2, 2)
    assert torch.equal(generative.nearest_neighbours(brightness, samples, train), train[[1, 2]])
