"""Weights come back as they were, and a damaged or hostile file is one clear line."""

import json
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from denoise.errors import ConfigError, WeightsError
from denoise.registry import DEFAULTS, WITH_DRAWS, WITH_SIGMA, build, bundled, load, locate
from denoise.weights import Card, load_tensors, read_header, record_metrics, save_weights

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


def test_weights_come_back(saved: tuple[Path, torch.nn.Module]) -> None:
    path, module = saved
    again, card = load(path)
    assert card == CARD
    assert read_header(path)["recipe"] == {"seed": 0}
    for name, tensor in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_float16_is_close(saved: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    _, module = saved
    save_weights(tmp_path / "half.safetensors", module, CARD, {})
    x = torch.rand(1, 3, 16, 16)
    half, _ = load(tmp_path / "half.safetensors")
    torch.testing.assert_close(half(x), module(x), atol=2e-3, rtol=0)


def test_int8_is_off_by_half_a_step_at_most(saved: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    _, module = saved
    small = tmp_path / "small.safetensors"
    with torch.no_grad():
        next(module.parameters())[0] = 0.0  # a row that says nothing
    save_weights(small, module, CARD, {}, torch.int8)
    again = load(small)[0].state_dict()
    for name, tensor in module.state_dict().items():
        step = tensor.flatten(1).abs().amax(dim=1) / 127 if tensor.ndim > 1 else 2e-3 * tensor.abs()
        off = (again[name] - tensor).flatten(1).abs().amax(dim=1) if tensor.ndim > 1 else (again[name] - tensor).abs()
        assert (off <= 0.5001 * step).all()
    stored = load_file(small)
    assert sum(t.nbytes for t in stored.values() if t.ndim > 1) < 0.6 * sum(
        t.nbytes / 2 for t in module.state_dict().values() if t.ndim > 1
    )  # below the half of float16, scales and all


def test_int8_without_its_scales_is_refused(saved: tuple[Path, torch.nn.Module]) -> None:
    path, module = saved
    save_weights(path, module, CARD, {}, torch.int8)
    with safe_open(path, framework="pt") as file:
        told = file.metadata()
    whole = load_file(path)
    lost = {key: value for key, value in whole.items() if key != "encoder.0.0.weight:scale"}
    assert len(lost) < len(whole)
    save_file(lost, path, metadata=told)
    with pytest.raises(WeightsError, match="scales"):
        load(path)


def test_figures_are_recorded(saved: tuple[Path, torch.nn.Module]) -> None:
    path, module = saved
    record_metrics(path, {"a": {"rows": [{"psnr": 30.0}], "protocol": "so"}})
    record_metrics(path, {"b": {"rows": [], "protocol": "else"}})
    again, card = load(path)
    assert set(card.metrics) == {"a", "b"}
    assert card.metrics["a"]["rows"][0]["psnr"] == 30.0
    assert torch.equal(next(again.parameters()), next(module.parameters()))


def damaged(path: Path, kind: str) -> None:
    whole = path.read_bytes()
    module = build("conv-dae", SETTINGS)
    state = module.state_dict()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "random":
        path.write_bytes(bytes(range(256)) * 40)
    elif kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "huge header":
        path.write_bytes((1 << 62).to_bytes(8, "little") + whole[8:])
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
    elif kind == "deep json":
        save_file(state, path, metadata=dict.fromkeys(("format_version", "card", "config", "recipe"), "[" * 100_000))


KINDS = ["empty", "random", "truncated", "huge header", "pickle", "no card", "not a number", "newer"]
KINDS += ["other channels", "other architecture", "other widths", "absurd widths", "unknown key", "deep json"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_file_is_one_clear_line(saved: tuple[Path, torch.nn.Module], kind: str) -> None:
    path, _ = saved
    damaged(path, kind)
    with pytest.raises(WeightsError) as caught:
        load(path)
    message = str(caught.value)
    assert "tiny.safetensors" in message
    assert "\n" not in message
    assert len(message) < 500


def test_missing_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(ConfigError, match="no-such-model"):
        load("no-such-model")


def test_tensors_of_another_network_are_refused(saved: tuple[Path, torch.nn.Module]) -> None:
    with pytest.raises(WeightsError, match="do not fit"):
        load_tensors(saved[0], build("dense-ae", {"shape": [3, 8, 8], "widths": [4]}))


@pytest.mark.parametrize("name", bundled())
def test_every_bundled_model_loads_and_tells_its_origin(name: str) -> None:
    module, card = load(name)
    assert card.name == name
    assert card.data
    assert card.licence
    assert card.metrics
    assert card.channels == (module.channels if card.kind == "denoiser" else module.event_shape[0])
    assert card.parameters == sum(p.numel() for p in module.parameters())
    assert locate(name).stat().st_size <= 16 * 2**20


def test_the_bundle_is_small() -> None:
    assert {*DEFAULTS.values(), WITH_DRAWS, WITH_SIGMA} <= set(bundled())
    assert sum(locate(name).stat().st_size for name in bundled()) <= 40 * 2**20
    assert sum(locate(name).stat().st_size for name in bundled(kind="prior")) <= 16 * 2**20


def test_a_network_that_grows_an_ear_for_sigma_does_not_hear_it_at_first(tmp_path: Path) -> None:
    settings = {"ndim": 2, "channels": 3, "widths": [4, 6], "kernels": [3, 2], "strides": [1, 2], "blocks": [1, 1]}
    small = build("conv-dae", settings)
    save_weights(tmp_path / "a.safetensors", small, Card("a", "conv-dae", "image", 3), {}, torch.float32)
    large = build("conv-dae", settings | {"blind": False})
    with pytest.raises(WeightsError, match="do not fit"):
        load_tensors(tmp_path / "a.safetensors", large)
    load_tensors(tmp_path / "a.safetensors", large, grown=True)
    x = torch.rand(2, 3, 9, 10)
    torch.testing.assert_close(large(x, torch.tensor([0.1, 3.0])), small(x))
    blind = build("conv-dae", settings)  # and back again
    save_weights(tmp_path / "b.safetensors", large, Card("b", "conv-dae", "image", 3, blind=False), {}, torch.float32)
    load_tensors(tmp_path / "b.safetensors", blind, grown=True)
    torch.testing.assert_close(blind(x), small(x))


def test_a_grown_network_begins_as_the_smaller_one_was(tmp_path: Path) -> None:
    settings = {"widths": [4, 6, 8], "blocks": 1, "hidden": 8, "squeeze": 2, "memory": 8}
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
        load_tensors(path, large, grown=True)
        settled = slice(8_000 if lookahead else 0, None)  # the frames that it waits for come to its memories first
        expected = small(x, sample_rate=16_000)[..., settled]
        torch.testing.assert_close(large(x, sample_rate=16_000)[..., settled], expected, atol=1e-3, rtol=0)
    with pytest.raises(WeightsError, match="do not fit"):
        load_tensors(path, large)
    with pytest.raises(WeightsError, match="do not fit"):
        load_tensors(path, build("dpcrn", {**settings, "hidden": 9}), grown=True)


def test_what_a_grown_network_no_longer_has_is_left_out(tmp_path: Path) -> None:
    vae = {"architecture": "vae", "shape": [1, 8, 8], "latent": 4}
    path = tmp_path / "normal.safetensors"
    normal = build("latent-prior", {"codec": vae, "prior": {"architecture": "flow", "kind": "normal", "shape": [4]}})
    save_weights(path, normal, Card("normal", "latent-prior", "image", 1, kind="prior"), {}, torch.float32)
    maf = {"architecture": "flow", "kind": "maf", "shape": [4], "hidden": [8]}
    other = build("latent-prior", {"codec": vae, "prior": maf})
    load_tensors(path, other, grown=True)
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(other.codec.encode(x), normal.codec.encode(x))
    with pytest.raises(WeightsError, match="in common"):
        load_tensors(path, build("dpcrn", {}), grown=True)
