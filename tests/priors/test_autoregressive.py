"""Autoregressive priors: causality, exact probabilities, and cached sampling against the naive loop."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from denoise.errors import ConfigError
from denoise.priors.autoregressive import Autoregressive, Entry
from denoise.priors.pixelcnn import PixelCNN, PixelCNNConfig
from denoise.priors.pixelrnn import PixelRNN, PixelRNNConfig, skew, unskew
from denoise.protocols import SamplingOptions
from denoise.registry import build as build_prior
from denoise.training.recipe import load_recipe

BUILDERS: dict[str, Callable[..., Autoregressive]] = {
    "pixelcnn": lambda shape, likelihood="bernoulli", classes=0: PixelCNN(
        PixelCNNConfig(shape, likelihood, classes, features=12, dilations=(1, 2, 1))
    ),
    "diagonal": lambda shape, likelihood="bernoulli", classes=0: PixelRNN(
        PixelRNNConfig(shape, likelihood, classes, features=12, hidden=6, layers=2, first_kernel=3)
    ),
    "row": lambda shape, likelihood="bernoulli", classes=0: PixelRNN(
        PixelRNNConfig(shape, likelihood, classes, features=12, kind="row", hidden=6, layers=2, first_kernel=3)
    ),
}
IMAGES = [*product(BUILDERS, [(1, 5, 6), (3, 3, 4)])]
SIGNALS = [*IMAGES, ("pixelcnn", (1, 8)), ("pixelcnn", (2, 8))]
BINARY = [(name, (1, 2, 3)) for name in BUILDERS] + [(name, (3, 1, 2)) for name in BUILDERS] + [("pixelcnn", (1, 6))]


def build(name: str, shape: tuple[int, ...], likelihood: str = "bernoulli", classes: int = 0) -> Any:
    """Build a random prior in float64, with weights large enough that every path counts."""
    torch.manual_seed(0)
    prior = BUILDERS[name](shape, likelihood, classes).double().eval()
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return prior.requires_grad_(False)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def order(shape: tuple[int, ...]) -> list[Entry]:
    """Return the entries in raster order: by rows, then columns, then colours."""
    channels, *space = shape
    return [(channel, *position) for position in product(*map(range, space)) for channel in range(channels)]


def every_binary_signal(shape: tuple[int, ...]) -> Tensor:
    n = torch.Size(shape).numel()
    return torch.tensor([*product([0.0, 1.0], repeat=n)], dtype=torch.float64).reshape(-1, *shape)


def sensitivity(prior: Any) -> Tensor:
    """Return the largest derivative of the logits of each entry by each input, in order, (entries, entries)."""
    entries = order(tuple(prior.event_shape))
    inputs = (2 * torch.rand(8, *prior.event_shape, generator=seeded(), dtype=torch.float64) - 1).requires_grad_()
    logits = prior(inputs, [None] * 8)
    rows = []
    for entry in entries:
        weights = torch.randn(prior.outputs, generator=seeded(1), dtype=torch.float64)
        (gradient,) = torch.autograd.grad(
            (logits[(slice(None), *entry)] @ weights).sum(), inputs, retain_graph=True, allow_unused=True
        )
        rows.append(torch.stack([gradient[(slice(None), *other)].abs().max() for other in entries]))
    return torch.stack(rows)


@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical"])
@pytest.mark.parametrize(("name", "shape"), SIGNALS)
def test_logits_depend_on_earlier_entries_alone(name: str, shape: tuple[int, ...], likelihood: str) -> None:
    depends = sensitivity(build(name, shape, likelihood)) > 0
    assert not depends.triu().any()
    assert depends.diagonal(-1).any()


@pytest.mark.parametrize(("name", "shape"), [case for case in SIGNALS if case[0] != "row"])
def test_there_is_no_blind_spot(name: str, shape: tuple[int, ...]) -> None:
    n = len(order(shape))
    assert torch.equal(sensitivity(build(name, shape)) > 0, torch.ones(n, n).tril(-1).bool())


def test_a_row_lstm_sees_a_triangle() -> None:
    """One layer after a first convolution of 3 x 3: k rows above, k columns to the right."""
    torch.manual_seed(0)
    config = PixelRNNConfig((1, 4, 9), "bernoulli", kind="row", features=4, hidden=4, layers=1, first_kernel=3)
    prior = PixelRNN(config).double()
    entries = order((1, 4, 9))
    depends = sensitivity(prior)[entries.index((0, 3, 3))] > 0
    rightmost = [max(j for (_, i, j), d in zip(entries, depends, strict=True) if d and i == row) for row in range(4)]
    assert rightmost == [6, 5, 4, 2]


@pytest.mark.parametrize("dilations", [(1,), (1, 2, 4), (3, 1)])
def test_the_receptive_field_of_the_twin_is_that_of_its_dilations(dilations: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    prior = PixelCNN(PixelCNNConfig((1, 20), "mu-law", features=16, dilations=dilations, first_kernel=5)).double()
    depends = (sensitivity(prior) > 0)[-1].nonzero()[:, 0].tolist()
    field = 2 + sum(dilations)  # two entries by the first convolution, and one more distance for each block
    assert depends == [*range(19 - field, 19)]


@pytest.mark.parametrize("classes", [0, 2])
@pytest.mark.parametrize(("name", "shape"), BINARY)
def test_probabilities_sum_to_one(name: str, shape: tuple[int, ...], classes: int) -> None:
    prior, x = build(name, shape, classes=classes), every_binary_signal(shape)
    for label in (None, 1) if classes else (None,):
        p = prior.log_prob(x, [label] * len(x)).exp()
        assert float(p.sum()) == pytest.approx(1, abs=1e-9)
        assert p.std() > 0.1 / len(x)  # not uniform


@pytest.mark.parametrize(("name", "shape"), BINARY)
def test_samples_have_their_probabilities(name: str, shape: tuple[int, ...]) -> None:
    prior, x = build(name, shape, classes=2), every_binary_signal(shape)
    n = 20_000
    powers = 2 ** torch.arange(5, -1, -1)
    for label in (None, 1):
        samples = prior.sample(n, label=label, generator=seeded()).flatten(1).long()
        frequencies = torch.bincount(samples @ powers, minlength=64) / n
        p = prior.log_prob(x, [label] * 64).exp()
        z = (frequencies - p) / (p * (1 - p) / n).sqrt()
        assert z.abs().max() < 4.5
        assert z.square().mean() < 1.8


@pytest.mark.parametrize("name", BUILDERS)
def test_completions_of_the_lower_half_are_samples_of_the_posterior(name: str) -> None:
    prior, x = build(name, (1, 2, 3)), every_binary_signal((1, 2, 3))
    upper = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    is_consistent = (x[:, 0, 0] == upper).all(dim=1)
    p = prior.log_prob(x[is_consistent]).softmax(dim=0)
    observed, mask = x[is_consistent][:1].clone(), torch.tensor([1.0, 0.0])[None, None, :, None].expand(1, 1, 2, 3)
    observed[:, :, 1] = torch.nan  # any value
    n = 20_000
    completed = prior.complete(observed.expand(n, 1, 2, 3), mask.expand(n, 1, 2, 3), generator=seeded())
    assert (completed[:, 0, 0] == upper).all()
    codes = completed[:, 0, 1].long() @ torch.tensor([4, 2, 1])
    frequencies = torch.bincount(codes, minlength=8) / n
    z = (frequencies - p) / (p * (1 - p) / n).sqrt()
    assert z.abs().max() < 4


def naive(prior: Any, monkeypatch: pytest.MonkeyPatch, call: Callable[[], Tensor]) -> Tensor:
    """Return the result of a call in which the whole network is evaluated for each entry."""
    with monkeypatch.context() as patch:
        patch.setattr(type(prior), "scan", Autoregressive.scan)
        return call()


@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical", "mu-law"])
@pytest.mark.parametrize(("name", "shape"), SIGNALS)
def test_cached_sampling_equals_the_naive_loop(
    name: str, shape: tuple[int, ...], likelihood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = build(name, shape, likelihood, classes=3)
    options = SamplingOptions(temperature=0.7)

    def sample() -> Tensor:
        return prior.sample(3, label=1, options=options, generator=seeded(5))

    assert torch.equal(sample(), naive(prior, monkeypatch, sample))
    x = prior.sample(3, generator=seeded(1))
    mask = (torch.rand(x.shape, generator=seeded(2)) < 0.5).float()

    def complete() -> Tensor:
        return prior.complete(x, mask, generator=seeded(3))

    assert torch.equal(complete(), naive(prior, monkeypatch, complete))


@pytest.mark.parametrize("recipe", ["mnist-pixelcnn", "mnist-pixelrnn", "mnist-row-lstm"])
def test_cached_sampling_multiplies_twenty_times_less(recipe: str) -> None:
    settings = load_recipe(Path(__file__).parents[2] / "recipes" / recipe / "recipe.toml")
    prior: Any = build_prior(settings.architecture, settings.model).eval().requires_grad_(False)
    inputs = torch.zeros(1, 1, 28, 28)
    with FlopCounterMode(display=False) as cached:
        assert len([*islice(prior.scan(inputs, [None]), 28)]) == 28
    with FlopCounterMode(display=False) as naive:
        next(Autoregressive.scan(prior, inputs, [None]))
    assert 0 < 20 * cached.get_total_flops() / 28 < naive.get_total_flops()


def test_samples_of_a_prior_in_bfloat16_have_its_probabilities() -> None:
    prior: Any = PixelCNN(PixelCNNConfig((1, 8, 8), "bernoulli", features=4, dilations=(1,))).bfloat16()
    for p in prior.parameters():
        p.requires_grad_(False).zero_()
    prior.head.bias.fill_(-6.9)
    p, n = float(prior.head.bias.sigmoid()), 3000  # about 0.001
    frequency = float(prior.sample(n, generator=seeded()).float().mean())
    assert frequency == pytest.approx(p, abs=4 * (p / n / 64) ** 0.5)


@pytest.mark.parametrize(("name", "shape"), SIGNALS)
def test_cached_logits_are_those_of_the_network(name: str, shape: tuple[int, ...]) -> None:
    prior = build(name, shape, "categorical", classes=3)
    inputs = prior.to_inputs(prior.to_levels(torch.rand(2, *shape, generator=seeded())))
    logits = prior(inputs, [1, None])
    scanned = [(entry, row.clone()) for entry, row in prior.scan(inputs, [1, None])]
    assert [entry for entry, _ in scanned] == order(shape)
    for entry, row in scanned:
        torch.testing.assert_close(row, logits[(slice(None), *entry)])


@pytest.mark.parametrize("name", BUILDERS)
def test_temperature_zero_takes_the_most_probable_level(name: str) -> None:
    prior = build(name, (1, 2, 3))
    (first, *others) = prior.sample(20, options=SamplingOptions(temperature=0), generator=seeded())
    for other in others:
        assert torch.equal(first, other)
    logits = prior(prior.to_inputs(first[None].long()), [None])[0, ..., 0]
    assert torch.equal(first, (logits > 0).to(first))


@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical", "mu-law"])
def test_every_level_is_recovered_from_its_signal(likelihood: str) -> None:
    prior = PixelCNN(PixelCNNConfig((1, 4), likelihood))  # type: ignore[arg-type]
    levels = torch.arange(prior.levels)
    signals = prior.to_signals(prior.to_inputs(levels))
    assert torch.equal(prior.to_levels(signals), levels)
    assert (signals.min(), signals.max()) == ((-1, 1) if likelihood == "mu-law" else (0, 1))
    assert (signals.diff() > 0).all()
    x = torch.linspace(signals.min().item(), 1, 1000)
    error = (prior.to_signals(prior.to_inputs(prior.to_levels(x))) - x).abs()
    assert error.max() < {"bernoulli": 0.51, "categorical": 0.5 / 255 + 1e-6, "mu-law": 0.022}[likelihood]


@pytest.mark.parametrize("shape", [(4, 7), (1, 5), (6, 1), (3, 3)])
def test_unskew_inverts_skew(shape: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *shape)
    skewed = skew(x)
    assert skewed.shape == (2, 3, shape[0], sum(shape) - 1)
    for i, j in product(*map(range, shape)):
        assert torch.equal(skewed[:, :, i, i + j], x[:, :, i, j])
    assert int((skewed != 0).sum()) == x.numel()
    assert torch.equal(unskew(skewed), x)


@pytest.mark.parametrize(
    ("build_config", "reason"),
    [
        (lambda: PixelCNNConfig((28,)), "shape"),
        (lambda: PixelCNNConfig((3, 4, 4), features=32), "multiple of the 3 channels"),
        (lambda: PixelCNNConfig((1, 4, 4), kernel=4), "odd"),
        (lambda: PixelCNNConfig((1, 4, 4), dilations=()), "dilations"),
        (lambda: PixelRNNConfig((1, 100)), "pixelcnn for audio"),
        (lambda: PixelRNNConfig((3, 4, 4), features=33, hidden=16), "hidden"),
        (lambda: PixelRNNConfig((1, 4, 4), layers=0), "layers"),
        (lambda: PixelRNNConfig((1, 4, 4), classes=-1), "classes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(build_config: Callable[[], Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as error:
        build_config()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("threshold", [0.0, 1 - 2**-24])
def test_levels_of_probability_0_are_never_sampled(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ends of the uniform distribution, which torch.rand returns once in 2^24 times."""
    torch.manual_seed(0)
    prior = PixelCNN(PixelCNNConfig((1, 2, 3), features=8, dilations=(1,)))
    with torch.no_grad():
        prior.head.weight.zero_()
        prior.head.bias.fill_(-1e4)
        prior.head.bias[100:201] = torch.randn(101)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, threshold))
    levels = (255 * prior.sample(4)).round()
    assert levels.unique().tolist() == [100 if threshold == 0 else 200]
