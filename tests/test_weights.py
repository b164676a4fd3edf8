"""Weights files restore modules exactly; a damaged or hostile file is refused in one line."""

import json
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from denoise.cards import Card, read_header
from denoise.errors import ConfigError, WeightsError
from denoise.registry import DEFAULTS, POSTERIOR_MODEL, SIGMA_MODEL, build, bundled, load, locate
from denoise.weights import load_tensors, record_metrics, save_weights

SETTINGS = {"ndim": 2, "channels": 3, "widths": [4, 6], "kernels": [3, 2], "strides": [1, 2], "blocks": [1, 1]}
CARD = Card("tiny", "conv-dae", "image", 3, data=("made here",), sigma=(0.0, 0.2))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(0)
    module = build("conv-dae", SETTINGS)
    path = tmp_path / "tiny.safetensors"
    save_weights(path, module, CARD, {"seed": 0}, torch.float32)
    return path, module


def rewrite(path: Path, **changes: object) -> None:
    """The same tensors under another header."""
    module = build("conv-dae", SETTINGS)
    header = {"format_version": 1, "card": asdict(CARD), "config": SETTINGS, "recipe": {}} | changes
    save_file(module.state_dict(), path, metadata={k: json.dumps(v) for k, v in header.items()})


def test_weights_are_restored(saved: tuple[Path, torch.nn.Module]) -> None:
    path, module = saved
    restored, card = load(path)
    assert card == CARD
    assert read_header(path)["recipe"] == {"seed": 0}
    for name, tensor in module.state_dict().items():
        assert torch.equal(restored.state_dict()[name], tensor)


def test_loading_does_not_advance_the_random_numbers_of_the_caller(saved: tuple[Path, torch.nn.Module]) -> None:
    state = torch.get_rng_state()
    load(saved[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_float16_is_close(saved: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    _, module = saved
    save_weights(tmp_path / "half.safetensors", module, CARD, {})
    x = torch.rand(1, 3, 16, 16)
    half, _ = load(tmp_path / "half.safetensors")
    torch.testing.assert_close(half(x), module(x), atol=2e-3, rtol=0)


def test_int8_error_is_at_most_half_a_step(saved: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    _, module = saved
    small = tmp_path / "small.safetensors"
    with torch.no_grad():
        next(module.parameters())[0] = 0.0  # a row of zeros
    save_weights(small, module, CARD, {}, torch.int8)
    restored = load(small)[0].state_dict()
    for name, tensor in module.state_dict().items():
        error = (restored[name] - tensor).abs()
        if tensor.ndim > 1:  # int8, one scale per row
            error, step = error.flatten(1).amax(dim=1), tensor.flatten(1).abs().amax(dim=1) / 127
        else:  # float16
            step = 2e-3 * tensor.abs()
        assert (error <= 0.5001 * step).all()
    stored = load_file(small)
    assert sum(t.nbytes for t in stored.values() if t.ndim > 1) < 0.6 * sum(
        t.nbytes / 2 for t in module.state_dict().values() if t.ndim > 1
    )  # about half of float16, including the scales


def test_int8_without_scales_is_refused(saved: tuple[Path, torch.nn.Module]) -> None:
    path, module = saved
    save_weights(path, module, CARD, {}, torch.int8)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    remaining = {key: value for key, value in tensors.items() if key != "encoder.0.0.weight:scale"}
    assert len(remaining) < len(tensors)
    save_file(remaining, path, metadata=metadata)
    with pytest.raises(WeightsError, match="scales"):
        load(path)


def test_metrics_are_recorded(saved: tuple[Path, torch.nn.Module]) -> None:
    path, module = saved
    record_metrics(path, {"a": {"rows": [{"psnr": 30.0}], "protocol": "first"}})
    record_metrics(path, {"b": {"rows": [], "protocol": "second"}})
    restored, card = load(path)
    assert set(card.metrics) == {"a", "b"}
    assert card.metrics["a"]["rows"][0]["psnr"] == 30.0
    assert torch.equal(next(restored.parameters()), next(module.parameters()))


def damage(path: Path, kind: str) -> None:
    data = path.read_bytes()
    module = build("conv-dae", SETTINGS)
    state = module.state_dict()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "random":
        path.write_bytes(bytes(range(256)) * 40)
    elif kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "huge header":
        path.write_bytes((1 << 62).to_bytes(8, "little") + data[8:])
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    elif kind == "no card":
        save_file(state, path)
    elif kind == "not a number":
        rewrite(path)
        header = {k: json.dumps(v) for k, v in {"format_version": 1, "card": asdict(CARD)}.items()}
        header |= {"config": json.dumps(SETTINGS), "recipe": "{}"}
        save_file({k: torch.full_like(v, torch.nan) for k, v in state.items()}, path, metadata=header)
    elif kind == "newer":
        rewrite(path, format_version=99)
    elif kind == "other architecture":
        rewrite(path, card=asdict(CARD) | {"architecture": "os.system"})
    elif kind == "other widths":
        rewrite(path, config=SETTINGS | {"widths": [4, 8]})
    elif kind == "absurd widths":
        rewrite(path, config=SETTINGS | {"widths": [1 << 40, 1 << 40]})
    elif kind == "other channels":
        rewrite(path, card=asdict(CARD) | {"channels": 1})
    elif kind == "unknown key":
        rewrite(path, card=asdict(CARD) | {"run": "this"})
    elif kind == "singular statistics":
        rewrite(path, card=asdict(CARD) | {"typical": {"mean": [1, 2], "covariance": [[1, 1], [1, 1]]}})
    elif kind == "deep json":
        save_file(state, path, metadata=dict.fromkeys(("format_version", "card", "config", "recipe"), "[" * 100_000))


KINDS = ["empty", "random", "truncated", "huge header", "pickle", "no card", "not a number", "newer"]
KINDS += ["singular statistics"]
KINDS += ["other channels", "other architecture", "other widths", "absurd widths", "unknown key", "deep json"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_in_one_line(saved: tuple[Path, torch.nn.Module], kind: str) -> None:
    path, _ = saved
    damage(path, kind)
    with pytest.raises(WeightsError) as caught:
        load(path)
    message = str(caught.value)
    assert "tiny.safetensors" in message
    assert "\n" not in message
    assert len(message) < 500


def test_missing_names_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(ConfigError, match="no-such-model"):
        load("no-such-model")


def test_tensors_of_another_network_are_refused(saved: tuple[Path, torch.nn.Module]) -> None:
    with pytest.raises(WeightsError, match="lacks tensor"):
        load_tensors(saved[0], build("dense-ae", {"shape": [3, 8, 8], "widths": [4]}))


@pytest.mark.parametrize("name", bundled())
def test_every_bundled_model_loads_and_states_its_origin(name: str) -> None:
    module, card = load(name)
    assert card.name == name
    assert card.data
    assert card.licence
    assert card.metrics
    assert card.channels == (module.event_shape[0] if card.kind == "prior" else module.channels)
    assert card.parameters == sum(p.numel() for p in module.parameters())
    assert locate(name).stat().st_size <= 16 * 2**20


def test_the_bundle_is_below_its_size_limits() -> None:
    assert {*DEFAULTS.values(), POSTERIOR_MODEL, SIGMA_MODEL} <= set(bundled())
    assert sum(locate(name).stat().st_size for name in bundled()) <= 64 * 2**20
    assert sum(locate(name).stat().st_size for name in bundled(kind="prior")) <= 16 * 2**20


def test_a_network_with_a_new_sigma_input_ignores_it_before_training(tmp_path: Path) -> None:
    settings = {"ndim": 2, "channels": 3, "widths": [4, 6], "kernels": [3, 2], "strides": [1, 2], "blocks": [1, 1]}
    small = build("conv-dae", settings)
    save_weights(tmp_path / "a.safetensors", small, Card("a", "conv-dae", "image", 3), {}, torch.float32)
    large = build("conv-dae", settings | {"blind": False})
    with pytest.raises(WeightsError, match="do not fit"):
        load_tensors(tmp_path / "a.safetensors", large)
    load_tensors(tmp_path / "a.safetensors", large, partial=True)
    x = torch.rand(2, 3, 9, 10)
    torch.testing.assert_close(large(x, torch.tensor([0.1, 3.0])), small(x))
    blind = build("conv-dae", settings)  # the sigma input is dropped again
    save_weights(tmp_path / "b.safetensors", large, Card("b", "conv-dae", "image", 3, blind=False), {}, torch.float32)
    load_tensors(tmp_path / "b.safetensors", blind, partial=True)
    torch.testing.assert_close(blind(x), small(x))


def test_a_larger_network_starts_as_the_smaller_one(tmp_path: Path) -> None:
    settings = {"widths": [4, 6, 8], "blocks": 1, "hidden": 8, "squeeze": 2, "full_hidden": 8}
    small = build("dpcrn", settings).eval()
    with torch.no_grad():
        for p in small.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.3)
    path = tmp_path / "small.safetensors"
    save_weights(path, small, CARD, {}, torch.float32)
    x = torch.randn(1, 1, 16_000, generator=torch.Generator().manual_seed(0))
    for lookahead in (2, 0):
        torch.manual_seed(0)
        large = build("dpcrn", {**settings, "blocks": 3, "lookahead": lookahead}).eval()
        load_tensors(path, large, partial=True)
        after_warm_up = slice(8_000 if lookahead else 0, None)  # look-ahead frames reach the recurrent state first
        expected = small(x, sample_rate=16_000)[..., after_warm_up]
        torch.testing.assert_close(large(x, sample_rate=16_000)[..., after_warm_up], expected, atol=1e-3, rtol=0)
    with pytest.raises(WeightsError, match="lacks tensor"):
        load_tensors(path, large)
    with pytest.raises(WeightsError, match="do not fit"):
        load_tensors(path, build("dpcrn", {**settings, "hidden": 9}), partial=True)


def test_tensors_that_the_network_lacks_are_ignored_when_partial(tmp_path: Path) -> None:
    vae = {"architecture": "vae", "shape": [1, 8, 8], "latent": 4}
    path = tmp_path / "normal.safetensors"
    normal = build("latent-prior", {"codec": vae, "prior": {"architecture": "flow", "kind": "normal", "shape": [4]}})
    save_weights(path, normal, Card("normal", "latent-prior", "image", 1, kind="prior"), {}, torch.float32)
    maf = {"architecture": "flow", "kind": "maf", "shape": [4], "hidden": [8]}
    other = build("latent-prior", {"codec": vae, "prior": maf})
    load_tensors(path, other, partial=True)
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(other.codec.encode(x), normal.codec.encode(x))
    with pytest.raises(WeightsError, match="shares no tensor"):
        load_tensors(path, build("dpcrn", {}), partial=True)
