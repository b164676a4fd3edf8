"""What every network must be, whatever it has learnt: the laws of `denoise.protocols.Network`, over every entry."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from denoise.errors import ConfigError
from denoise.frames import Grid, overlap_add, split
from denoise.protocols import Codec, Denoiser, Network, StreamingNetwork
from denoise.registry import NETWORKS, build, bundled, load, locate
from denoise.training.recipe import load_recipe
from denoise.weights import Card, save_weights

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*/recipe.toml"))

SIGMA = 0.2

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "conv-1d": (
        "conv-dae",
        {"ndim": 1, "channels": 1, "widths": [4, 6], "kernels": [4, 5], "strides": [2, 3], "blocks": [1, 2]},
    ),
    "conv-stereo-plain": (
        "conv-dae",
        {
            "ndim": 1,
            "channels": 2,
            "widths": [4, 6, 8],
            "kernels": [3, 3, 3],
            "strides": [2, 2, 2],
            "blocks": [0, 0, 0],
            "skips": False,
            "activation": "elu",
        },
    ),
    "conv-2d": (
        "conv-dae",
        {
            "ndim": 2,
            "channels": 3,
            "widths": [4, 6],
            "kernels": [3, 4],
            "strides": [1, 2],
            "blocks": [1, 2],
            "dilation_cycle": 2,
            "norm": True,
        },
    ),
    "conv-2d-bias-free": (
        "conv-dae",
        {
            "ndim": 2,
            "channels": 1,
            "widths": [4, 6],
            "kernels": [3, 2],
            "strides": [1, 2],
            "blocks": [0, 1],
            "residual": True,
            "bias": False,
            "activation": "relu",
        },
    ),
    "conv-2d-sigma": (
        "conv-dae",
        {"ndim": 2, "channels": 3, "widths": [4, 6], "kernels": [3, 2], "strides": [1, 2], "blocks": [1, 1]}
        | {"residual": True, "bias": False, "activation": "relu", "blind": False},
    ),
    "conv-2d-centred": (
        "conv-dae",
        {"ndim": 2, "channels": 3, "widths": [4, 6], "kernels": [3, 4], "strides": [1, 2], "blocks": [1, 2]}
        | {"residual": True, "bias": False, "activation": "relu", "blind": False, "centred": True}
        | {"pointwise": True},
    ),
    "conv-1d-centred": (
        "conv-dae",
        {"ndim": 1, "channels": 2, "widths": [4, 6], "kernels": [5, 4], "strides": [1, 4], "blocks": [1, 2]}
        | {"bias": False, "centred": True},
    ),
    "conv-variational": (
        "conv-dae",
        {"ndim": 2, "channels": 3, "widths": [4, 6, 8], "kernels": [3, 4, 4], "strides": [1, 2, 2], "blocks": [1, 1, 1]}
        | {"latents": [2, 0, 5]},
    ),
    "spectral-variational": (
        "spectral-dae",
        {
            "n_fft": 64,
            "hop": 16,
            "net": {"ndim": 1, "channels": 99, "out_channels": 66, "widths": [8, 10], "kernels": [3, 4]}
            | {"strides": [1, 2], "blocks": [1, 1], "latents": [3, 4]},
        },
    ),
    "dense": ("dense-ae", {"shape": [3, 8, 8], "widths": [20, 5]}),
    "causal": (
        "dpcrn",
        {"linear_hz": 2000.0, "bands": 16, "widths": [4, 6, 8], "blocks": 2, "hidden": 5, "squeeze": 2, "memory": 7},
    ),
    "lookahead": (
        "dpcrn",
        {"linear_hz": 2000.0, "bands": 16, "widths": [4, 6], "blocks": 2, "hidden": 5, "squeeze": 2, "memory": 7}
        | {"lookahead": 2},
    ),
    "flow": (
        "speech-flow",
        {"linear_hz": 2000.0, "bands": 16, "widths": [4, 6], "blocks": 2, "hidden": 5, "squeeze": 2, "memory": 7}
        | {"lookahead": 1},
    ),
    "spectral": (
        "spectral-dae",
        {
            "n_fft": 64,
            "hop": 16,
            "net": {
                "ndim": 1,
                "channels": 99,
                "out_channels": 66,
                "widths": [8, 10],
                "kernels": [3, 4],
                "strides": [1, 2],
                "blocks": [1, 2],
                "dilation_cycle": 2,
                "norm": True,
            },
        },
    ),
}


def every() -> dict[str, tuple[str, dict[str, Any]]]:
    """The small networks and those of the recipes, by name."""
    recipes = {path.parent.name: load_recipe(path) for path in RECIPES}
    recipes = {name: recipe for name, recipe in recipes.items() if recipe.objective == "denoising"}
    return SMALL | {f"recipe {name}": (recipe.architecture, recipe.model) for name, recipe in recipes.items()}


EVERY = every()


def make(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return build(*EVERY[name]).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=EVERY)
def net(request: pytest.FixtureRequest) -> Any:
    return make(request.param)


def noise(net: Any, *size: int, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, net.channels, *size, generator=torch.Generator().manual_seed(seed)) * 0.3


def run(net: Any, x: Tensor, sigma: float = SIGMA) -> Tensor:
    """Apply a network, one that is not blind with a sigma."""
    return net(x) if net.blind else net(x, torch.full(x.shape[:1], sigma, dtype=x.dtype))


def thin(net: Any, size: int, batch: int = 1) -> tuple[int, ...]:
    """A size of ``size`` along the last axis, as small as can be along the other."""
    return (size,) if net.ndim == 1 else (net.size_multiple, size)


def test_every_architecture_has_a_small_network_here() -> None:
    assert {architecture for architecture, _ in SMALL.values()} == set(NETWORKS)
    assert RECIPES


def test_it_fulfils_the_protocol(net: Any) -> None:
    assert isinstance(net, Network)
    assert isinstance(net, Denoiser)
    assert net.ndim in (1, 2)
    assert net.size_multiple >= 1
    assert net.context >= 0 if net.context is not None else isinstance(net, StreamingNetwork)
    assert net.window is None or net.window >= 1


@pytest.mark.parametrize("more", [None, 1, 2, 3, 7, 13])
def test_every_size_is_kept(net: Any, more: int | None) -> None:
    """1, and odd and even sizes around a multiple of the strides."""
    for base in {0, net.size_multiple} if more is not None else {1}:
        n = base + (more or 0)
        if net.window:
            n = min(n, net.window)
        sizes = [(n,)] if net.ndim == 1 else [(n, n), (1, n), (n, 1)]
        for size in sizes:
            x = noise(net, *size, batch=2)
            out = run(net, x)
            assert out.shape == x.shape
            assert torch.isfinite(out).all()


def test_a_network_of_one_size_refuses_a_larger_one(net: Any) -> None:
    if net.window is not None:
        with pytest.raises(ConfigError, match="at most"):
            run(net, noise(net, net.window, net.window + 1))


def test_sigma_is_refused_or_needed_and_never_ignored(net: Any) -> None:
    x = noise(net, *thin(net, 8))
    if net.blind:
        with pytest.raises(ConfigError, match="takes no sigma"):
            net(x, torch.full((1,), 0.1))
        return
    with pytest.raises(ConfigError, match="needs the noise level"):
        net(x)
    assert not torch.allclose(net(x, torch.full((1,), 0.1)), net(x, torch.full((1,), 0.3)), atol=1e-5)


@pytest.mark.parametrize("name", ["conv-2d-bias-free", "conv-2d-sigma", "conv-2d-centred", "recipe gaussian"])
@pytest.mark.parametrize("gain", [0.25, 8.0])
def test_without_biases_the_answer_scales_with_signal_and_noise(name: str, gain: float) -> None:
    net = make(name)
    x = noise(net, *thin(net, 16))
    torch.testing.assert_close(run(net, gain * x, gain * SIGMA), gain * run(net, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["conv-2d-centred", "conv-1d-centred", "recipe gaussian"])
def test_centred_ones_move_with_the_light(name: str) -> None:
    net = make(name)
    x = noise(net, *thin(net, 15))
    shift = torch.linspace(-3, 5, net.channels).reshape(-1, *[1] * net.ndim)
    torch.testing.assert_close(run(net, x + shift), run(net, x) + shift, rtol=1e-4, atol=1e-5)


def test_the_input_is_left_as_it_was_and_the_answer_is_the_same_again(net: Any) -> None:
    x = noise(net, *thin(net, 8))
    before = x.clone()
    first = run(net, x)
    assert torch.equal(x, before)
    assert torch.equal(run(net, x), first)


def test_examples_of_a_batch_do_not_see_each_other(net: Any) -> None:
    x = noise(net, *thin(net, 8), batch=3)
    alone = torch.cat([run(net, x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(run(net, x), alone, atol=1e-5, rtol=1e-4)


def test_every_weight_is_trained(net: Any) -> None:
    fresh = make_trainable(net)
    with torch.no_grad():
        for p in fresh.parameters():
            p.add_(
                0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
            )  # past the zeros of the start
    x = noise(net, *thin(net, 4 * net.size_multiple if net.window is None else 8), batch=2)
    run(fresh, x).square().mean().backward()
    still = [name for name, p in fresh.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still


def make_trainable(net: Any) -> Any:
    torch.manual_seed(1)
    return type(net)(net.config)


def test_context_bounds_what_an_output_depends_on(net: Any) -> None:
    """With positive weights nothing cancels, so that the gradient shows all that an output can depend on."""
    if net.window is not None or net.context is None:
        assert not net.context
        return
    wide = make_trainable(net).double() if not hasattr(net.config, "net") else make_trainable(net)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in wide.parameters():
            fan_in = p[0].numel() if p.ndim > 1 else 1
            p.copy_((torch.rand(p.shape, generator=generator) + 0.5) / fan_in)
    c, m = net.context, net.size_multiple
    n = 2 * c + 3 * m + 5
    reach = 0
    for at in {c + m, c + m + 1, c + m + m // 2, c + 2 * m - 1, 0, n - 1}:
        x = torch.rand(1, net.channels, *thin(net, n), generator=generator)
        x = x.to(next(wide.parameters()).dtype).requires_grad_()
        run(wide, x)[..., at].sum().backward()
        assert x.grad is not None
        seen = x.grad.flatten(0, -2).abs().sum(dim=0).nonzero().flatten()
        assert len(seen)
        reach = max(reach, at - int(seen.min()), int(seen.max()) - at)
    assert reach <= c
    assert reach >= c / 4  # the bound wastes little, and this test sees something


def test_one_sample_far_away_changes_nothing(net: Any) -> None:
    if net.window is not None or net.context is None:
        return
    n = net.context + 2 * net.size_multiple + 3
    x = noise(net, *thin(net, n))
    far = x.clone()
    far[..., -1] += 10.0
    here, there = run(net, x), run(net, far)
    assert not torch.allclose(here, there, atol=1e-3)
    torch.testing.assert_close(here[..., : n - 1 - net.context], there[..., : n - 1 - net.context], atol=1e-6, rtol=0)


def in_windows(net: Any, x: Tensor, grid: Grid, dim: int = -1) -> Tensor:
    windows = (window.map(run(net, window.data)) for window in split([x], grid, dim))
    return torch.cat([*overlap_add(windows, grid, dim)], dim)


@pytest.mark.parametrize(("fade", "extra"), [(0, 0), (5, 1)])
def test_windows_give_what_the_whole_gives(net: Any, fade: int, extra: int) -> None:
    if net.window is not None or net.context is None:
        return
    grid = Grid.fit(0, net.context, fade, net.size_multiple)
    x = noise(net, *thin(net, grid.window + grid.hop + extra * (net.size_multiple // 2 + 1)))
    whole = run(net, x)
    torch.testing.assert_close(in_windows(net, x, grid), whole, atol=1e-4, rtol=0)
    blind_edges = Grid.fit(grid.hop, 0, fade, net.size_multiple)
    assert not torch.allclose(in_windows(net, x, blind_edges), whole, atol=1e-4)  # so the context is needed


@pytest.mark.parametrize("name", [name for name in SMALL if "2d" in name])
def test_tiles_give_what_the_whole_gives(name: str) -> None:
    net = make(name)
    grid = Grid.fit(0, net.context, 3, net.size_multiple)
    x = noise(net, 2 * grid.window + 1, grid.window + 3)
    bands = (band.map(in_windows(net, band.data, grid)) for band in split([x], grid, -2))
    tiled = torch.cat([*overlap_add(bands, grid, -2)], -2)
    torch.testing.assert_close(tiled, run(net, x), atol=1e-4, rtol=0)


def test_half_precision_keeps_its_type(net: Any) -> None:
    x = noise(net, *thin(net, 16 if net.window is None else 8))
    with torch.autocast("cpu", torch.bfloat16):
        out = run(net, x)
    assert out.dtype == x.dtype
    expected = run(net, x)
    assert float((out - expected).square().mean()) < 1e-3 * float(expected.square().mean()) + 1e-6


def card_of(net: Any, architecture: str) -> Card:
    modality: Any = "audio" if net.ndim == 1 else "image"
    return Card("round-trip", architecture, modality, net.channels, size_multiple=net.size_multiple, blind=net.blind)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.0), (torch.float16, 5e-3)])
def test_saving_and_loading_gives_the_same_network(
    tmp_path: Path, name: str, dtype: torch.dtype, tolerance: float
) -> None:
    net, path = make(name), tmp_path / "net.safetensors"
    card = card_of(net, EVERY[name][0])
    save_weights(path, net, card, {"name": name}, dtype=dtype)
    loaded, loaded_card = load(path)
    assert loaded_card == card
    assert loaded.config == net.config
    assert not loaded.training
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    x = noise(net, *thin(net, 8))
    torch.testing.assert_close(
        run(loaded, x), run(net, x), atol=max(tolerance, 1e-6), rtol=0
    )  # kernels may differ by rounding
    if dtype == torch.float32:
        assert_same_tensors(loaded, net)


def assert_same_tensors(a: nn.Module, b: nn.Module) -> None:
    assert a.state_dict().keys() == b.state_dict().keys()
    assert all(torch.equal(p, b.state_dict()[key]) for key, p in a.state_dict().items())


@pytest.mark.parametrize("name", [name for name, (architecture, _) in SMALL.items() if architecture == "dense-ae"])
def test_a_codec_is_its_two_halves(name: str) -> None:
    net = make(name)
    assert isinstance(net, Codec)
    x = noise(net, net.window, net.window, batch=3)
    torch.testing.assert_close(net.decode(net.encode(x)), run(net, x))


@pytest.mark.parametrize("name", bundled(kind="denoiser"))
def test_bundled_weights_are_what_their_card_says(name: str) -> None:
    net, card = load(name)
    assert card.name == name
    assert (card.channels, card.size_multiple, card.blind) == (net.channels, net.size_multiple, net.blind)
    assert card.parameters == sum(p.numel() for p in net.parameters())
    assert card.modality == ("audio" if net.ndim == 1 else "image")
    assert (card.sample_rate is not None) == (card.modality == "audio")
    assert locate(name).stat().st_size <= 16 << 20
    x = noise(net, *thin(net, 3 * net.size_multiple + 1))
    assert torch.isfinite(run(net, x)).all()


def test_configs_are_values(net: Any) -> None:
    assert dataclasses.replace(net.config) == net.config
    with pytest.raises(dataclasses.FrozenInstanceError):
        net.config.activation = "relu"
