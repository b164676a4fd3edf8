"""Anomaly scores: a Mahalanobis distance that the mode of a distribution does not fool."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.spatial.distance
import torch
from torch import Tensor

from denoise.cards import Card, TypicalStatistics
from denoise.errors import ConfigError
from denoise.metrics import auroc
from denoise.pipelines.prior import PriorPipeline
from denoise.pipelines.typicality import anomaly_scores, complexity, denoising_error, typical_statistics
from denoise.registry import build
from denoise.weights import record_typical, save_weights


def examples(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return log-likelihoods and images whose noise, and hence complexity, differs."""
    generator = torch.Generator().manual_seed(seed)
    sigma = torch.rand(n, 1, 1, 1, generator=generator)
    x = (0.5 + 0.1 * sigma * torch.randn(n, 1, 8, 8, generator=generator)).clamp(0, 1)
    return -50 - 20 * sigma.flatten() + torch.randn(n, generator=generator), x


def test_complexity_is_that_of_the_differences_along_a_row() -> None:
    _, x = examples(3)
    pixels = np.rint(255 * x.numpy()).astype(int)
    for size, image in zip(complexity(x).tolist(), pixels, strict=True):
        differences = [(int(row[i]) - (int(row[i - 1]) if i else 0)) % 256 for row in image[0] for i in range(len(row))]
        assert size == len(zlib.compress(bytes(differences), 9))
    ramp = torch.arange(64).div(255).expand(1, 1, 64, 64)
    assert complexity(ramp) < 60 < complexity(torch.rand(1, 1, 64, 64))


def test_scores_are_mahalanobis_distances() -> None:
    nats, x = examples(60)
    others, y = examples(7, seed=1)
    statistics = np.stack([nats.numpy(), complexity(x).numpy()], axis=1)
    inverse = np.linalg.inv(np.cov(statistics.T))
    points = np.stack([others.numpy(), complexity(y).numpy()], axis=1)
    expected = [scipy.spatial.distance.mahalanobis(point, statistics.mean(axis=0), inverse) for point in points]
    np.testing.assert_allclose(anomaly_scores(others, y, typical_statistics(nats, x)), expected, rtol=1e-5)


def test_denoising_errors_are_a_third_quantity() -> None:
    nats, x = examples(60)
    errors = 0.1 * nats + torch.randn(60, generator=torch.Generator().manual_seed(2))
    statistics = typical_statistics(nats, x, errors=errors)
    joined = np.stack([nats.numpy(), complexity(x).numpy(), errors.numpy()], axis=1)
    np.testing.assert_allclose(statistics.covariance, np.cov(joined.T), rtol=1e-5)
    mean, inverse = joined.mean(axis=0), np.linalg.inv(np.cov(joined.T))
    expected = [scipy.spatial.distance.mahalanobis(point, mean, inverse) for point in joined]
    np.testing.assert_allclose(anomaly_scores(nats, x, statistics, errors=errors), expected, rtol=1e-5)


class Shrink:
    """The posterior mean of normal signals of variance 0.25, whose error is known."""

    data_mean, data_std = 0.0, 0.5

    def __call__(self, x: Tensor, sigma: Tensor, labels: object = None) -> Tensor:
        return 0.25 / (0.25 + sigma[:, None, None] ** 2) * x


def test_denoising_errors_are_those_of_noise_of_twice_the_standard_deviation() -> None:
    x = 0.5 * torch.randn(4, 1, 20_000, generator=torch.Generator().manual_seed(1))
    # the gain at sigma 1 is 0.2: the signal loses 0.8 of its amplitude, noise of variance 0.04 is left
    expected = (0.8**2 * x.square().mean(dim=(1, 2)) + 0.04).log()
    torch.testing.assert_close(denoising_error(Shrink(), x), expected, atol=0.03, rtol=0)  # type: ignore[arg-type]
    torch.testing.assert_close(denoising_error(Shrink(), x[:1]), denoising_error(Shrink(), x)[:1])  # type: ignore[arg-type]


def test_squared_scores_of_the_examples_sum_to_their_degrees_of_freedom() -> None:
    nats, x = examples(40)
    scores = anomaly_scores(nats, x, typical_statistics(nats, x))
    assert float(scores.square().sum()) == pytest.approx(2 * 39)


def test_scores_do_not_depend_on_the_unit_of_the_likelihood() -> None:
    nats, x = examples(30)
    in_bits = nats.double() / np.log(2)
    expected = anomaly_scores(nats, x, typical_statistics(nats, x))
    torch.testing.assert_close(anomaly_scores(in_bits, x, typical_statistics(in_bits, x)), expected, rtol=1e-5, atol=0)


def test_a_likelihood_of_zero_is_infinitely_anomalous() -> None:
    nats, x = examples(30)
    statistics = typical_statistics(nats, x)
    scores = anomaly_scores(torch.tensor([-torch.inf, torch.nan, -60.0]), x[:3], statistics)
    assert scores[0] == torch.inf
    assert scores[1].isnan()
    assert scores[2].isfinite()


@pytest.mark.parametrize(
    ("n", "scale", "reason"),
    [
        (9, 1, "9 typical examples; expected at least 10"),
        (1, 1, "1 typical example; expected"),
        (20, 0, "do not differ"),
    ],
)
def test_examples_that_say_nothing_are_refused(n: int, scale: int, reason: str) -> None:
    nats, x = examples(n)
    with pytest.raises(ConfigError, match=reason):
        typical_statistics(scale * nats, x)


def test_a_covariance_that_is_not_symmetric_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected a symmetric one"):
        TypicalStatistics((1.0, 2.0), ((3.0, 1.0), (-50.0, 4.0)))
    with pytest.raises(ConfigError, match="expected two or three quantities"):
        TypicalStatistics((1.0, 2.0), ((3.0, 1.0, 0.0), (1.0, 4.0, 0.0), (0.0, 0.0, 1.0)))
    with pytest.raises(ConfigError, match="do not differ"):  # all pairs are fine, the third is determined by the others
        TypicalStatistics((1.0, 2.0, 3.0), ((1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 2.0)))


@pytest.mark.parametrize("name", ["mnist-diffusion", "mnist-matching"])
def test_half_a_digit_is_anomalous_under_priors_that_denoise(name: str) -> None:
    prior = PriorPipeline(name, device="cpu")
    digits, others = PriorPipeline("mnist-flow", device="cpu").sample(72).split([48, 24])
    half = others.clone()
    half[:, :, 14:] = 0
    errors = [prior.denoising_errors(x) for x in (digits, others, half)]
    assert all(each is not None for each in errors)
    generator = torch.Generator().manual_seed(0)
    nats = [torch.randn(len(x), generator=generator) for x in (digits, others, half)]  # estimates take minutes
    typical = typical_statistics(nats[0], digits, errors=errors[0])
    scores = [anomaly_scores(nats[i], x, typical, errors=errors[i]) for i, x in ((1, others), (2, half))]
    assert auroc(*scores) > 0.95


@pytest.fixture
def normal(tmp_path: Path) -> Path:
    """Weights of a normal distribution of sounds, whose mode is silence."""
    module = build("flow", {"shape": [1, 400], "kind": "normal", "scale": 0.1})
    card = Card("normal", "flow", "audio", 1, kind="prior", sample_rate=8000, shape=(1, 400))
    save_weights(tmp_path / "normal.safetensors", module, card, {}, torch.float32)
    return tmp_path / "normal.safetensors"


def test_the_mode_is_the_likeliest_signal_and_anomalous(normal: Path) -> None:
    prior = PriorPipeline(normal, device="cpu")
    typical, others, silence = prior.sample(100), prior.sample(100, seed=1), torch.zeros(1, 1, 400)
    nats, of_silence = (prior.log_prob(x)[0] for x in (others, silence))
    assert of_silence > nats.max()
    with pytest.raises(ConfigError, match="weights of normal hold no statistics of typical examples"):
        prior.anomaly_scores(others, nats)
    statistics = prior.typical_statistics(typical)
    assert statistics.protocol == "100 examples; exact"
    scores = prior.anomaly_scores(others, nats, statistics)
    assert auroc(scores, prior.anomaly_scores(silence, of_silence, statistics)) == 1
    assert float(scores.median()) < 2
    record_typical(normal, statistics)
    stored = PriorPipeline(normal, device="cpu")
    torch.testing.assert_close(stored.anomaly_scores(others, nats), scores)
    torch.testing.assert_close(stored.sample(2), prior.sample(2))


def test_few_examples_are_refused_before_their_likelihoods_are_computed(
    normal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = PriorPipeline(normal, device="cpu")
    monkeypatch.setattr(prior, "log_prob", None)
    with pytest.raises(ConfigError, match="9 typical examples"):
        prior.typical_statistics(torch.zeros(9, 1, 400))


def test_a_blank_image_is_anomalous_under_the_bundled_prior_of_digits() -> None:
    prior = PriorPipeline("mnist-vae", device="cpu")
    digits, blank = PriorPipeline("mnist-flow", device="cpu").sample(12), torch.zeros(1, 1, 28, 28)
    nats, of_blank = (prior.log_prob(x)[0] for x in (digits, blank))
    assert of_blank > nats.max()
    scores = prior.anomaly_scores(digits, nats)
    assert float(scores.median()) < 3
    assert auroc(scores, prior.anomaly_scores(blank, of_blank)) > 0.95
