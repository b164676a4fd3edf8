"""Laws of `denoise.protocols.Network`, whatever the weights, over every architecture and every recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from denoise.cards import Card
from denoise.errors import ConfigError
from denoise.frames import Grid, overlap_add, split
from denoise.models.conv_dae import ConvDAE
from denoise.models.spectral_dae import SpectralDAE
from denoise.protocols import Codec, Denoiser, Network, StreamingNetwork
from denoise.registry import NETWORKS, build, bundled, load, locate
from denoise.training.recipe import load_recipe
from denoise.weights import save_weights

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
    "conv-2d-maps": (
        "conv-dae",
        {"ndim": 2, "channels": 3, "widths": [4, 6], "kernels": [3, 4], "strides": [1, 2], "blocks": [1, 2]}
        | {"residual": True, "bias": False, "activation": "relu", "blind": False, "centred": True}
        | {"sigma_maps": 6, "max_change": 4.0},
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
        {
            "linear_hz": 2000.0,
            "bands": 16,
            "widths": [4, 6, 8],
            "blocks": 2,
            "hidden": 5,
            "squeeze": 2,
            "full_hidden": 7,
        },
    ),
    "noise-floor": (
        "noise-floor-dpcrn",
        {"linear_hz": 2000.0, "bands": 16, "widths": [4, 6], "blocks": 1, "hidden": 5, "squeeze": 2, "full_hidden": 7}
        | {"floor_frames": 8},
    ),
    "lookahead": (
        "dpcrn",
        {"linear_hz": 2000.0, "bands": 16, "widths": [4, 6], "blocks": 2, "hidden": 5, "squeeze": 2, "full_hidden": 7}
        | {"lookahead": 2},
    ),
    "flow": (
        "speech-flow",
        {"linear_hz": 2000.0, "bands": 16, "widths": [4, 6], "blocks": 2, "hidden": 5, "squeeze": 2, "full_hidden": 7}
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


def all_networks() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the small networks and those of the recipes, by name."""
    recipes = {path.parent.name: load_recipe(path) for path in RECIPES}
    recipes = {name: recipe for name, recipe in recipes.items() if recipe.objective == "denoising"}
    return SMALL | {f"recipe {name}": (recipe.architecture, recipe.model) for name, recipe in recipes.items()}


EVERY = all_networks()


def make(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return build(*EVERY[name]).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=EVERY)
def net(request: pytest.FixtureRequest) -> Any:
    return make(request.param)


def noise(net: Any, *size: int, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, net.channels, *size, generator=torch.Generator().manual_seed(seed)) * 0.3


def run(net: Any, x: Tensor, sigma: float = SIGMA) -> Tensor:
    """Apply a network, with a sigma unless it is blind."""
    return net(x) if net.blind else net(x, torch.full(x.shape[:1], sigma, dtype=x.dtype))


def thin(net: Any, size: int) -> tuple[int, ...]:
    """Return a size of ``size`` along the last axis, and the smallest along the other."""
    return (size,) if net.ndim == 1 else (net.size_multiple, size)


def test_every_architecture_has_a_small_network_here() -> None:
    assert {architecture for architecture, _ in SMALL.values()} == set(NETWORKS)
    assert RECIPES


def test_networks_implement_the_protocol(net: Any) -> None:
    assert isinstance(net, Network)
    assert isinstance(net, Denoiser)
    assert net.ndim in (1, 2)
    assert net.variational in (True, False)
    assert net.size_multiple >= 1
    assert net.context >= 0 if net.context is not None else isinstance(net, StreamingNetwork)
    assert net.window is None or net.window >= 1


@pytest.mark.parametrize("excess", [None, 1, 2, 3, 7, 13])
def test_every_size_is_kept(net: Any, excess: int | None) -> None:
    """1, and odd and even sizes beyond a multiple of the strides."""
    for base in {0, net.size_multiple} if excess is not None else {1}:
        n = base + (excess or 0)
        if net.window:
            n = min(n, net.window)
        sizes = [(n,)] if net.ndim == 1 else [(n, n), (1, n), (n, 1)]
        for size in sizes:
            x = noise(net, *size, batch=2)
            denoised = run(net, x)
            assert denoised.shape == x.shape
            assert torch.isfinite(denoised).all()


def test_a_network_of_one_size_refuses_a_larger_one(net: Any) -> None:
    if net.window is not None:
        with pytest.raises(ConfigError, match="at most"):
            run(net, noise(net, net.window, net.window + 1))


def test_sigma_is_refused_or_required_and_never_ignored(net: Any) -> None:
    x = noise(net, *thin(net, 8))
    if net.blind:
        with pytest.raises(ConfigError, match="takes no sigma"):
            net(x, torch.full((1,), 0.1))
        return
    with pytest.raises(ConfigError, match="needs the noise level"):
        net(x)
    assert not torch.allclose(net(x, torch.full((1,), 0.1)), net(x, torch.full((1,), 0.3)), atol=1e-5)


@pytest.mark.parametrize("name", ["conv-2d-bias-free", "conv-2d-sigma", "conv-2d-maps", "recipe gaussian"])
@pytest.mark.parametrize("gain", [0.25, 8.0])
def test_without_biases_the_output_scales_with_signal_and_noise(name: str, gain: float) -> None:
    net = make(name)
    x = noise(net, *thin(net, 16))
    torch.testing.assert_close(run(net, gain * x, gain * SIGMA), gain * run(net, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["conv-2d-centred", "conv-1d-centred", "conv-2d-maps", "recipe gaussian"])
def test_centred_networks_commute_with_an_offset(name: str) -> None:
    net = make(name)
    x = noise(net, *thin(net, 15))
    offset = torch.linspace(-3, 5, net.channels).reshape(-1, *[1] * net.ndim)
    torch.testing.assert_close(run(net, x + offset), run(net, x) + offset, rtol=1e-4, atol=1e-5)


def test_one_sigma_is_a_constant_map() -> None:
    net = make("conv-2d-maps")
    x = noise(net, 15, 21)
    torch.testing.assert_close(net(x, torch.full((len(x), 6, 15, 21), SIGMA)), run(net, x), rtol=1e-5, atol=1e-6)


def test_maps_change_the_output_where_they_change_and_nothing_beyond_the_context() -> None:
    net = make("conv-2d-maps")
    side = 2 * net.context + 16
    x, maps = noise(net, side, side), torch.full((1, 6, side, side), SIGMA)
    changed = maps.clone()
    changed[:, :, :8] *= 3
    difference = (net(x, maps) - net(x, changed)).abs().amax(dim=(0, 1, 3))
    assert difference[:8].min() > 1e-4
    assert difference[8 + net.context :].max() == 0


def test_nothing_changes_by_more_than_its_multiple_of_sigma_or_where_sigma_is_zero() -> None:
    net = make("conv-2d-maps")
    x, maps = 5 * noise(net, 16, 16), torch.zeros(1, 6, 16, 16)
    maps[:, 4, :, 8:] = 0.01  # the greatest of the six maps bounds the change
    change = (net(x, maps) - x).abs()
    assert change[..., :8].max() == 0
    assert 0.039 < float(change[..., 8:].max()) <= 0.04 + 1e-6


def test_maps_of_another_shape_are_refused() -> None:
    net = make("conv-2d-maps")
    for shape in [(1, 5, 16, 16), (1, 6, 16, 15), (1, 6, 16)]:
        with pytest.raises(ConfigError, match="sigma has shape"):
            net(noise(net, 16, 16), torch.ones(shape))


def test_the_input_is_not_modified_and_the_output_is_deterministic(net: Any) -> None:
    x = noise(net, *thin(net, 8))
    original = x.clone()
    first = run(net, x)
    assert torch.equal(x, original)
    assert torch.equal(run(net, x), first)


def test_variational_networks_use_samples_of_their_latents(net: Any) -> None:
    if not net.variational:
        return
    x = noise(net, *thin(net, 4 * net.size_multiple))
    levels: list[tuple[int, int]] = []

    def sample_latent(level: int, q: Normal, stride: int) -> Tensor:
        levels.append((level, stride))
        return q.loc + 3.0 * q.scale

    assert not torch.allclose(net(x, sample_latent=sample_latent), run(net, x), atol=1e-4)
    assert levels == sorted(set(levels))  # each level once, with growing strides
    assert torch.equal(net(x, sample_latent=lambda level, q, stride: q.mean), run(net, x))


def test_examples_of_a_batch_are_independent(net: Any) -> None:
    x = noise(net, *thin(net, 8), batch=3)
    separate = torch.cat([run(net, x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(run(net, x), separate, atol=1e-5, rtol=1e-4)


def test_every_weight_has_a_gradient(net: Any) -> None:
    fresh = make_trainable(net)
    with torch.no_grad():
        for p in fresh.parameters():
            # away from layers that are 0 at initialisation
            p.add_(0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    x = noise(net, *thin(net, 4 * net.size_multiple if net.window is None else 8), batch=2)
    run(fresh, x).square().mean().backward()
    untrained = [name for name, p in fresh.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not untrained


def make_trainable(net: Any) -> Any:
    torch.manual_seed(1)
    return type(net)(net.config)


def test_context_bounds_the_receptive_field(net: Any) -> None:
    """With positive weights nothing cancels, so that the gradient covers the whole receptive field."""
    if net.window is not None or net.context is None:
        assert not net.context
        return
    if isinstance(net, ConvDAE):  # bounded outputs have no gradient
        net = ConvDAE(dataclasses.replace(net.config, max_change=None))
    positive = make_trainable(net)
    positive = positive if isinstance(net, SpectralDAE) else positive.double()  # its spectra are float32
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in positive.parameters():
            fan_in = p[0].numel() if p.ndim > 1 else 1
            p.copy_((torch.rand(p.shape, generator=generator) + 0.5) / fan_in)
    c, m = net.context, net.size_multiple
    n = 2 * c + 3 * m + 5
    reach = 0
    for position in {c + m, c + m + 1, c + m + m // 2, c + 2 * m - 1, 0, n - 1}:
        x = torch.rand(1, net.channels, *thin(net, n), generator=generator)
        x = x.to(next(positive.parameters()).dtype).requires_grad_()
        run(positive, x)[..., position].sum().backward()
        assert x.grad is not None
        field = x.grad.flatten(0, -2).abs().sum(dim=0).nonzero().flatten()
        assert len(field)
        reach = max(reach, position - int(field.min()), int(field.max()) - position)
    assert reach <= c
    assert reach >= c / 4  # the bound is not far too large, and the test is not empty


def test_samples_beyond_the_context_change_nothing(net: Any) -> None:
    if net.window is not None or net.context is None:
        return
    n = net.context + 2 * net.size_multiple + 3
    x = noise(net, *thin(net, n))
    far = x.clone()
    far[..., -1] += 10.0
    a, b = run(net, x), run(net, far)
    assert not torch.allclose(a, b, atol=1e-3)
    torch.testing.assert_close(a[..., : n - 1 - net.context], b[..., : n - 1 - net.context], atol=1e-6, rtol=0)


def denoise_windows(net: Any, x: Tensor, grid: Grid, dim: int = -1) -> Tensor:
    windows = (window.map(run(net, torch.from_numpy(window.data)).numpy()) for window in split([x.numpy()], grid, dim))
    return torch.from_numpy(np.concatenate([*overlap_add(windows, grid, dim)], dim))


@pytest.mark.parametrize(("fade", "extra"), [(0, 0), (5, 1)])
def test_windows_give_the_output_of_the_whole_signal(net: Any, fade: int, extra: int) -> None:
    if net.window is not None or net.context is None:
        return
    grid = Grid.fit(0, net.context, fade, net.size_multiple)
    x = noise(net, *thin(net, grid.window + grid.hop + extra * (net.size_multiple // 2 + 1)))
    whole = run(net, x)
    torch.testing.assert_close(denoise_windows(net, x, grid), whole, atol=1e-4, rtol=0)
    without_context = Grid.fit(grid.hop, 0, fade, net.size_multiple)
    assert not torch.allclose(denoise_windows(net, x, without_context), whole, atol=1e-4)  # the context is needed


@pytest.mark.parametrize("name", [name for name in SMALL if "2d" in name])
def test_tiles_give_the_output_of_the_whole_image(name: str) -> None:
    net = make(name)
    grid = Grid.fit(0, net.context, 3, net.size_multiple)
    x = noise(net, 2 * grid.window + 1, grid.window + 3)
    rows = split([x.numpy()], grid, -2)
    bands = (band.map(denoise_windows(net, torch.from_numpy(band.data), grid).numpy()) for band in rows)
    tiled = torch.from_numpy(np.concatenate([*overlap_add(bands, grid, -2)], -2))
    torch.testing.assert_close(tiled, run(net, x), atol=1e-4, rtol=0)


def test_autocast_keeps_the_type_of_the_input(net: Any) -> None:
    x = noise(net, *thin(net, 16 if net.window is None else 8))
    with torch.autocast("cpu", torch.bfloat16):
        denoised = run(net, x)
    assert denoised.dtype == x.dtype
    expected = run(net, x)
    assert float((denoised - expected).square().mean()) < 1e-3 * float(expected.square().mean()) + 1e-6


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
def test_a_denoising_codec_decodes_its_latents(name: str) -> None:
    net = make(name)
    assert isinstance(net, Codec)
    x = noise(net, net.window, net.window, batch=3)
    z = net.encode(x)
    assert (x.shape[1:], z.shape[1:]) == (net.event_shape, net.latent_shape)
    torch.testing.assert_close(net.decode(z), run(net, x))


@pytest.mark.parametrize("name", bundled(kind="denoiser"))
def test_bundled_weights_match_their_card(name: str) -> None:
    net, card = load(name)
    assert card.name == name
    assert (card.channels, card.size_multiple, card.blind) == (net.channels, net.size_multiple, net.blind)
    assert card.parameters == sum(p.numel() for p in net.parameters())
    assert card.modality == ("audio" if net.ndim == 1 else "image")
    assert (card.sample_rate is not None) == (card.modality == "audio")
    assert locate(name).stat().st_size <= 16 << 20
    x = noise(net, *thin(net, 3 * net.size_multiple + 1))
    assert torch.isfinite(run(net, x)).all()


def test_configs_are_frozen_values(net: Any) -> None:
    assert dataclasses.replace(net.config) == net.config
    with pytest.raises(dataclasses.FrozenInstanceError):
        net.config.activation = "relu"
