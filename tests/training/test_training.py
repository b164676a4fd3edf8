"""The training loop: losses decrease, outputs are written, and a resumed training equals an uninterrupted one."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import denoise
from denoise.cards import read_header
from denoise.config import override, parse
from denoise.errors import ConfigError
from denoise.files.audio import write_audio
from denoise.files.image import write_image
from denoise.noise import generator_for
from denoise.registry import build, load, locate
from denoise.signals import Audio, AudioFormat, Image, ImageFormat
from denoise.training.batches import prefetch
from denoise.training.data import Batch, ImagePatches, adjust_saturation
from denoise.training.degrade import jpeg
from denoise.training.initial import load_initial_weights
from denoise.training.loop import make_fabric, make_state, train, train_steps
from denoise.training.mixes import AudioMixes
from denoise.training.objectives import make_objective
from denoise.training.objectives.denoising import Denoising
from denoise.training.recipe import Recipe, Schedule

MODEL = {"ndim": 2, "channels": 3, "widths": [8, 12], "kernels": [3, 2], "strides": [1, 2], "blocks": [1, 1]}
SCHEDULE = {"steps": 60, "batch": 4, "learning_rate": 3e-3, "warmup": 5, "log_every": 5, "checkpoint_every": 5}
IMAGE = {
    "name": "tiny-image",
    "architecture": "conv-dae",
    "modality": "image",
    "model": MODEL | {"residual": True},
    "schedule": SCHEDULE,
    "image": {"folders": ["."], "patch": 24, "sigma": [0.1, 0.1]},
    "sources": ["made here"],
}
MAPS = IMAGE | {
    "model": MODEL
    | {"residual": True, "bias": False, "activation": "relu", "blind": False}
    | {"sigma_maps": 6, "max_change": 5.0},
    "image": {"folders": ["."], "patch": 24, "further_patches": [16], "sigma": [0.02, 0.2], "exposure": 0.2}
    | {"degrade": {"camera": 0.2, "uneven": 0.2, "clean": 0.1, "jpeg": {"camera": 0.5}, "resized": {"white": 0.1}}},
    "loss": {"name": "log-mse"},
}
AUDIO = {
    "name": "tiny-audio",
    "architecture": "spectral-dae",
    "modality": "audio",
    "model": {
        "n_fft": 64,
        "hop": 16,
        "net": {"ndim": 1, "channels": 99, "out_channels": 66, "widths": [32], "kernels": [3], "strides": [1]}
        | {"blocks": [1]},
    },
    "schedule": SCHEDULE,
    "audio": {"speech": ["speech"], "noise": ["noise"], "rir": ["rir"], "seconds": 0.3, "snr_db": [0, 0]}
    | {"sample_rates": [8000], "level_db": [-20, -20], "clean": 0.0, "band_limit": 0.0, "synthetic": 0.3},
    "sources": ["made here"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth images; tones as speech, white noise, a unit impulse as the impulse response of a room."""
    root = tmp_path_factory.mktemp("data")
    y, x = np.mgrid[:64, :80] / 64
    for i in range(3):
        image = np.stack([0.5 + 0.4 * np.sin(3 * x + i), 0.5 + 0.4 * np.cos(2 * y - i), x * 0.7], axis=2)
        write_image(root / f"{i}.png", [Image((image * 255).clip(0, 255).astype(np.uint8))], ImageFormat())
    t = np.arange(8000) / 8000
    rng = np.random.default_rng(0)
    signals = {
        "speech/a": np.sin(2 * np.pi * 300 * t),
        "speech/b": np.sin(2 * np.pi * 500 * t),
        "noise/a": rng.standard_normal(8000) * 0.2,
        "rir/a": np.eye(1, 400)[0],
    }
    for name, samples in signals.items():
        (root / name).parent.mkdir(exist_ok=True)
        audio = Audio((0.5 * samples[None]).astype(np.float32), AudioFormat(8000, 1, "WAV", "PCM_16"))
        write_audio(root / f"{name}.wav", audio)
    return root


def recipe(values: dict, *settings: str) -> Recipe:
    return parse(Recipe, override(values, settings), "test")


def open_data(recipe: Recipe, data: Path) -> ImagePatches | AudioMixes:
    if recipe.image:
        return ImagePatches(recipe.image, data)
    assert recipe.audio is not None
    return AudioMixes(recipe.audio, data)


def run(
    values: dict,
    data: Path,
    out: Path,
    *settings: str,
    report: Callable[[dict], None] | None = None,
    resume: bool = False,
    minutes: float | None = None,
) -> list[dict]:
    rows: list[dict] = []
    options: dict[str, Any] = {"device": "cpu", "precision": "32-true", "resume": resume, "minutes": minutes}
    train(recipe(values, *settings), data, out, report=report or rows.append, **options)
    return rows


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("values", [IMAGE, AUDIO], ids=["image", "audio"])
def test_training_decreases_the_loss_and_writes_metrics_weights_and_samples(
    values: dict, optimizer: str, data: Path, tmp_path: Path
) -> None:
    rows = run(values, data, tmp_path / "run", f'schedule.optimizer="{optimizer}"')
    assert np.mean([r["loss"] for r in rows[-3:]]) < np.mean([r["loss"] for r in rows[:2]])
    assert [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()] == rows
    assert {"mse", "r2", "lr", "seconds"} <= set(rows[0])
    assert rows[-1]["step"] == 60
    assert rows[-1]["lr"] < rows[3]["lr"] / 10
    module, card = load(tmp_path / f"run/{values['name']}.safetensors")
    assert (card.data, card.modality) == (("made here",), values["modality"])
    assert len([*(tmp_path / "run/samples").iterdir()]) == 1
    assert not [*tmp_path.rglob("*.partial")]
    noisy, clean, *_ = open_data(recipe(values), data).batch(8, generator_for(7, 7))
    with torch.inference_mode():
        assert (module(noisy) - clean).square().mean() < (noisy - clean).square().mean()


def test_sigma_is_passed_to_conditioned_networks(data: Path, tmp_path: Path) -> None:
    settings = ("model.blind=false", "model.bias=false", 'model.activation="relu"', "image.sigma=[0.0, 0.3]")
    run(IMAGE, data, tmp_path, *settings, "schedule.steps=200")
    module, card = load(tmp_path / "tiny-image.safetensors")
    assert not card.blind
    noisy, clean, _, sigma, *_ = open_data(recipe(IMAGE, "image.sigma=[0.1, 0.1]"), data).batch(8, generator_for(7, 7))
    assert sigma is not None
    errors = [(module(noisy, factor * sigma) - clean).square().mean() for factor in (0.3, 1.0, 3.0)]
    assert errors[1] < min(errors[0], errors[2])
    assert errors[1] < 0.3 * sigma.square().mean()


def test_maps_of_sigma_are_passed_to_networks_that_take_them(data: Path, tmp_path: Path) -> None:
    run(MAPS, data, tmp_path, "schedule.steps=150", "image.degrade.clean=0.0")
    module, card = load(tmp_path / "tiny-image.safetensors")
    assert (card.blind, card.sigma, module.config.sigma_maps) == (False, (0.02, 0.2), 6)
    exact = recipe(MAPS, "image.sigma=[0.1, 0.1]", "image.degrade={}", "image.conditioning.max_error=0.0").image
    assert exact is not None
    noisy, clean, _, sigma, *_ = ImagePatches(exact, data, has_sigma_maps=True).batch(8, generator_for(7, 7))
    assert sigma is not None
    assert sigma.shape == (len(noisy), 6, *noisy.shape[2:])
    errors = [(module(noisy, factor * sigma) - clean).square().mean() for factor in (0.2, 1.0, 3.0)]
    assert errors[1] < min(errors[0], errors[2])
    assert errors[1] < 0.7 * 0.1**2
    assert torch.equal(module(noisy, 0 * sigma), noisy)


def test_maps_are_equal_in_the_channels_of_grey_patches(data: Path) -> None:
    settings = recipe(MAPS, "image.grey=1.0").image
    assert settings is not None
    sigma = ImagePatches(settings, data, has_sigma_maps=True).batch(8, generator_for(1, 1)).sigma
    assert sigma is not None
    torch.testing.assert_close(sigma, sigma[:, [0, 0, 0, 3, 3, 3]])
    grey = ImagePatches(settings, data, 1, has_sigma_maps=True).batch(8, generator_for(1, 1)).sigma
    assert grey is not None
    assert grey.shape[1] == 2


def test_batches_with_maps_depend_on_the_generator_alone(data: Path) -> None:
    settings = recipe(MAPS).image
    assert settings is not None
    first, repeated = (ImagePatches(settings, data, 3, True).batch(6, generator_for(0, 4)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first[:2], repeated[:2], strict=True))
    assert first.sigma is not None
    assert repeated.sigma is not None
    assert torch.equal(first.sigma, repeated.sigma)


def test_a_batch_of_larger_patches_has_as_many_pixels(data: Path) -> None:
    settings = recipe(IMAGE, "image.patch=24", "image.further_patches=[12, 12, 48]").image
    assert settings is not None
    source = ImagePatches(settings, data)
    shapes = [tuple(source.batch(8, generator_for(0, step)).clean.shape) for step in range(200)]
    assert set(shapes) == {(8, 3, 24, 24), (32, 3, 12, 12), (2, 3, 48, 48)}
    assert 0.4 < shapes.count((32, 3, 12, 12)) / 200 < 0.6


def test_textures_have_their_fraction_of_the_patches(data: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").symlink_to(data)
    (tmp_path / "textures").mkdir()
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = np.arange(32) * 7
    write_image(tmp_path / "textures/red.png", [Image(red)], ImageFormat())
    settings = (
        'image.folders=["photos"]',
        'image.textures=["textures"]',
        "image.texture_fraction=0.3",
        "image.grey=0.0",
    )
    source = open_data(recipe(IMAGE, *settings), tmp_path)
    clean = source.batch(1000, generator_for(0, 0)).clean
    is_texture = (clean[:, 1:] == 0).flatten(1).all(dim=1)
    assert 0.25 < float(is_texture.float().mean()) < 0.35
    upright = clean[is_texture][:, 0].diff(dim=2).amin(dim=(1, 2)) > 0  # brighter to the right
    assert 0.5 < float(upright.float().mean()) < 0.8  # a half, and a quarter of the orientations


def test_exposure_and_order_of_channels(data: Path) -> None:
    plain, dark, mixed = (
        open_data(recipe(IMAGE, "image.grey=0.0", *extra), data).batch(300, generator_for(0, 0)).clean
        for extra in ((), ("image.exposure=1.0",), ("image.channel_order=1.0",))
    )
    assert 0.4 < float(dark.mean() / plain.mean()) < 0.75  # 0.15 to 1
    means = [x.mean(dim=(0, 2, 3)) for x in (plain, mixed)]
    assert float(means[1].max() - means[1].min()) < 0.5 * float(means[0].max() - means[0].min())


def test_sigma_has_the_ranges_of_its_mixture(data: Path) -> None:
    values = override(IMAGE, ["image.sigma=[0.3, 0.4]"])
    values["image"] |= {
        "sigma_mixture": [
            {"fraction": 0.3, "sigma": [0.01, 0.1], "logarithmic": True},
            {"fraction": 0.2, "sigma": [0.5, 0.7]},
        ]
    }
    sigma = open_data(recipe(values), data).batch(4000, generator_for(7, 7)).sigma
    assert sigma is not None
    low, high = sigma[sigma < 0.2], sigma[sigma > 0.45]
    assert len(low) / 4000 == pytest.approx(0.3, abs=0.03)
    assert len(high) / 4000 == pytest.approx(0.2, abs=0.03)
    assert float(low.log().mean()) == pytest.approx(np.log(0.01 * 0.1) / 2, abs=0.06)
    assert float(high.mean()) == pytest.approx(0.6, abs=0.01)


def test_networks_of_one_channel_are_trained_on_luma(data: Path, tmp_path: Path) -> None:
    rows = run(IMAGE, data, tmp_path, "model.channels=1")
    assert np.mean([r["loss"] for r in rows[-3:]]) < np.mean([r["loss"] for r in rows[:2]])
    module, card = load(tmp_path / "tiny-image.safetensors")
    assert card.channels == 1
    settings = recipe(IMAGE).image
    assert settings is not None
    noisy, clean, *_ = ImagePatches(settings, data, 1).batch(8, generator_for(7, 7))
    assert noisy.shape == clean.shape == (8, 1, 24, 24)
    assert (noisy - clean).std().item() == pytest.approx(0.1, rel=0.05)
    assert (module(noisy) - clean).square().mean() < (noisy - clean).square().mean()
    with pytest.raises(ConfigError, match="2 channels"):
        ImagePatches(settings, data, 2)


def test_photographs_of_16_bits_are_read(tmp_path: Path) -> None:
    ramp = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32, 1) * 64
    write_image(tmp_path / "deep-grey.png", [Image(ramp)], ImageFormat(mode="I;16", bits=16))
    settings = recipe(IMAGE).image
    assert settings is not None
    (image,) = ImagePatches(settings, tmp_path).images
    assert image.shape == (3, 32, 32)
    np.testing.assert_array_equal(image[1], np.rint(ramp[..., 0] / 257))


class KilledError(Exception):
    """Raised in place of a kill."""


def test_resumed_training_exports_the_weights_of_an_uninterrupted_one(data: Path, tmp_path: Path) -> None:
    def kill(row: dict) -> None:
        if row["step"] == 15:  # after the checkpoint of step 10, before that of 15
            raise KilledError

    settings = ("schedule.steps=20",)
    run(IMAGE, data, tmp_path / "whole", *settings)
    with pytest.raises(KilledError):
        run(IMAGE, data, tmp_path / "resumed", *settings, report=kill)
    rows = run(IMAGE, data, tmp_path / "resumed", *settings, resume=True)
    assert rows[0]["step"] == 15
    models = {name: load(tmp_path / name / "tiny-image.safetensors") for name in ("whole", "resumed")}
    assert models["resumed"][1].training_minutes == pytest.approx(rows[-1]["seconds"] / 60, abs=0.01)
    whole, resumed = (models[name][0].state_dict() for name in ("whole", "resumed"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_init_loads_weights(data: Path, tmp_path: Path) -> None:
    run(IMAGE, data, tmp_path / "first")
    first = tmp_path / "first/tiny-image.safetensors"
    rows = run(IMAGE, data, tmp_path / "second", "schedule.steps=5", f'init="{first}"')
    scratch = run(IMAGE, data, tmp_path / "scratch", "schedule.steps=5")
    assert rows[0]["mse"] < 0.5 * scratch[0]["mse"]
    header = read_header(tmp_path / "second/tiny-image.safetensors")
    assert header["recipe"]["init"] == "tiny-image"  # the path is not stored


def test_init_spreads_sigma_over_maps_and_drops_them_again(data: Path, tmp_path: Path) -> None:
    settings = ("schedule.steps=3", "model.blind=false", "model.bias=false", 'model.activation="relu"')
    run(IMAGE, data, tmp_path / "one", *settings)
    one = load(tmp_path / "one/tiny-image.safetensors")[0]
    six = build("conv-dae", MAPS["model"] | {"max_change": None}).eval()
    load_initial_weights(tmp_path / "one/tiny-image.safetensors", six)
    x, sigma = torch.rand(2, 3, 16, 20), torch.tensor([0.05, 0.3])
    with torch.no_grad():
        torch.testing.assert_close(six(x, sigma), one(x, sigma))
        maps = sigma[:, None, None, None] * torch.tensor([0.5, 1, 1.5, 0.8, 1, 1.2])[:, None, None]  # of the same mean
        torch.testing.assert_close(six(x, maps.expand(-1, -1, 16, 20)), one(x, sigma))
    run(MAPS, data, tmp_path / "six", "schedule.steps=3", f'init="{tmp_path / "one/tiny-image.safetensors"}"')
    stored = load(tmp_path / "six/tiny-image.safetensors")[0]
    again, blind = build("conv-dae", MAPS["model"]).eval(), build("conv-dae", MODEL | {"bias": False}).eval()
    for module in (again, blind):
        load_initial_weights(tmp_path / "six/tiny-image.safetensors", module)
    with torch.no_grad():
        maps = torch.rand(2, 6, 16, 20)
        torch.testing.assert_close(again(x, maps), stored(x, maps))
    assert torch.equal(blind.encoder[0][0].weight, stored.encoder[0][0].weight[:, :3])


@pytest.mark.parametrize("name", ["speech", "speech-best"])
def test_the_path_of_a_speech_flow_begins_without_effect(name: str) -> None:
    settings = {"blocks": 2, "widths": [16, 32, 64], "bands": 32, "linear_hz": 5000.0, "hidden": 64, "squeeze": 8}
    flow = build("speech-flow", settings | {"full_hidden": 256})
    load_initial_weights(locate(name), flow)
    initial = load(name)[0].state_dict()["stem.weight"]
    assert torch.equal(flow.state_dict()["stem.weight"][:, :3], initial[:, :3])
    assert not flow.state_dict()["stem.weight"][:, 3:].any()


def test_output_folder_is_not_overwritten_and_resuming_needs_a_checkpoint(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to resume"):
        run(IMAGE, data, tmp_path, resume=True)
    run(IMAGE, data, tmp_path, "schedule.steps=5")
    with pytest.raises(ConfigError, match="--resume"):
        run(IMAGE, data, tmp_path, "schedule.steps=5")


@pytest.mark.parametrize("workers", [1, 3])
def test_prefetching_keeps_the_number_of_threads_and_the_order_of_batches(data: Path, workers: int) -> None:
    n_threads = torch.get_num_threads()
    tiny = recipe(IMAGE, f"schedule.workers={workers}")
    source, schedule = open_data(tiny, data), tiny.schedule
    with closing(prefetch(source, schedule, 0, 0)) as batches:
        prefetched = [next(batches) for _ in range(4)]
        assert torch.get_num_threads() == n_threads
    for step, batch in enumerate(prefetched):
        assert torch.equal(batch.noisy, source.batch(schedule.batch, generator_for(schedule.seed, step)).noisy)


def test_keep_every_exports_intermediate_weights(data: Path, tmp_path: Path) -> None:
    run(IMAGE, data, tmp_path, "schedule.steps=6", "schedule.keep_every=3", "schedule.workers=3")
    first, last, final = (load(tmp_path / f"tiny-image{end}.safetensors")[0] for end in ("-3", "-6", ""))
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(last(x), final(x))
    assert not torch.equal(first(x), final(x))


def test_minutes_anneal_the_learning_rate_by_the_clock(data: Path, tmp_path: Path) -> None:
    rows = run(IMAGE, data, tmp_path, "schedule.steps=1000000", "schedule.log_every=1", minutes=0.02)
    assert 1.0 <= rows[-1]["seconds"] < 20
    assert rows[-1]["lr"] < 0.2 * max(row["lr"] for row in rows)


@pytest.mark.parametrize("values", [IMAGE, AUDIO], ids=["image", "audio"])
def test_batches_depend_on_seed_step_and_rank_alone(values: dict, data: Path) -> None:
    source = open_data(recipe(values), data)
    first, repeated, other = (source.batch(3, generator_for(0, step)) for step in (4, 4, 5))
    assert torch.equal(first[0], repeated[0])
    assert torch.equal(first[1], repeated[1])
    assert not torch.equal(first[1], other[1])


def test_high_sigma_fraction(data: Path) -> None:
    settings = ("image.sigma=[0.0, 0.2]", "image.high_sigma_fraction=0.25", "image.max_sigma=3.2")
    sigma = open_data(recipe(IMAGE, *settings), data).batch(4000, generator_for(7, 7)).sigma
    assert sigma is not None
    high = sigma[sigma > 0.2]
    assert abs(len(high) / 4000 - 0.25) < 0.03
    assert high.max() <= 3.2
    assert abs((high < 0.8).float().mean() - 0.5) < 0.06  # half of them up to the geometric mean
    with pytest.raises(ConfigError, match="high_sigma_fraction"):
        recipe(IMAGE, "image.high_sigma_fraction=1.5")
    with pytest.raises(ConfigError, match="max_sigma"):
        recipe(IMAGE, "image.high_sigma_fraction=0.5", "image.max_sigma=0.05")


def test_noise_has_its_sigma_and_equal_channels_in_grey_patches(data: Path) -> None:
    noisy, clean, *_ = open_data(recipe(IMAGE, "image.grey=1.0"), data).batch(16, generator_for(0, 0))
    assert float((noisy - clean).std()) == pytest.approx(0.1, rel=0.03)
    torch.testing.assert_close(noisy[:, 0], noisy[:, 2])


def test_jpeg_preserves_luma_and_halves_the_resolution_of_chroma() -> None:
    grey = torch.zeros(3, 64, 64, dtype=torch.uint8)
    grey[:, :, ::2] = 200
    assert (jpeg(grey, 98).int() - grey.int()).abs().max() < 20
    colour = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    colour[0, :, ::2], colour[2, :, 1::2] = 130, 130  # red and blue lines of nearly one luma
    decoded = jpeg(colour, 98)[:, 8:-8, 8:-8].float()
    assert (decoded[0] - decoded[2]).std() < 0.1 * (colour[0].float() - colour[2].float()).std()


def test_jpeg_is_applied_with_its_probability(data: Path) -> None:
    never, always = (open_data(recipe(IMAGE, f"image.jpeg={p}"), data).batch(8, generator_for(0, 0)) for p in (0, 1))
    assert not torch.equal(never.clean, always.clean)
    with pytest.raises(ConfigError, match="jpeg_quality"):
        recipe(IMAGE, "image.jpeg_quality=[90, 80]")


def test_photographs_are_used_at_all_scales(data: Path) -> None:
    settings = recipe(IMAGE, "image.scales=[1.0, 0.5, 0.25]").image
    assert settings is not None
    source = ImagePatches(settings, data)
    assert sorted({tuple(image.shape) for image in source.images}) == [
        (3, 32, 40),
        (3, 64, 80),
    ]  # 16 x 20 is smaller than a patch
    whole, half = source.images[0].float(), source.images[1].float()
    torch.testing.assert_close(half, torch.nn.functional.avg_pool2d(whole, 2), atol=4, rtol=0)
    with pytest.raises(ConfigError, match="scales"):
        recipe(IMAGE, "image.scales=[2.0]")


@pytest.mark.parametrize("values", [IMAGE, AUDIO], ids=["image", "audio"])
def test_examples_are_not_rounded_to_bfloat16(
    values: dict, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 is for the arithmetic of networks: in quiet signals, its rounding errors would be noise."""
    loss, dtypes = Denoising.loss, []

    def checked_loss(self: Denoising, module: Any, batch: Batch) -> Any:
        dtypes.append((batch.noisy.dtype, batch.clean.dtype))
        assert not torch.equal(batch.noisy, batch.noisy.bfloat16().float())
        return loss(self, module, batch)

    monkeypatch.setattr(Denoising, "loss", checked_loss)
    train(recipe(values, "schedule.steps=2"), data, tmp_path, device="cpu", precision="bf16-mixed")
    assert dtypes == [(torch.float32, torch.float32)] * 2


def test_sigma_conditioning_refuses_other_noise(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes sigma"):
        run(IMAGE, data, tmp_path, "model.blind=false", "image.degrade.film=0.5")
    assert run(IMAGE, data, tmp_path, "image.degrade.film=0.5", "image.degrade.jpeg=0.5", "schedule.steps=2")


def test_missing_data_raise(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no files|no such folder"):
        open_data(recipe(IMAGE), tmp_path)


@pytest.mark.parametrize(("values", "optimizer"), [(AUDIO, "adamw"), (AUDIO, "muon"), (MAPS, "muon")])
def test_resumed_training_has_every_bit_of_an_uninterrupted_one(
    values: dict, optimizer: str, data: Path, tmp_path: Path
) -> None:
    """The weights, their average and the moments of the optimizer in float32, not the exported float16 alone."""

    def kill(row: dict) -> None:
        if row["step"] == 6:
            raise KilledError

    settings = ("schedule.steps=8", "schedule.checkpoint_every=4", "schedule.log_every=1")
    settings += (f'schedule.optimizer="{optimizer}"',)
    whole = run(values, data, tmp_path / "whole", *settings)
    with pytest.raises(KilledError):
        run(values, data, tmp_path / "resumed", *settings, report=kill)
    resumed = run(values, data, tmp_path / "resumed", *settings, resume=True)
    assert [(row["step"], row["loss"]) for row in resumed] == [(row["step"], row["loss"]) for row in whole[4:]]
    lines = (tmp_path / "resumed/metrics.jsonl").read_text().splitlines()  # without the rows of the lost steps 5 and 6
    assert [json.loads(line)["step"] for line in lines] == [*range(1, 9)]
    a, b = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "resumed"))

    def bits(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: bits(inner) for key, inner in value.items()}
        return value.tolist() if isinstance(value, torch.Tensor) else value

    assert a["step"] == b["step"] == 8
    for key in ("model", "ema", "optimizer"):
        assert bits(a[key]) == bits(b[key])


def test_ranks_and_seeds_have_different_batches(data: Path) -> None:
    source = open_data(recipe(IMAGE), data)
    batches = [source.batch(2, generator_for(*key))[0] for key in ((0, 4, 0), (0, 4, 1), (1, 4, 0))]
    assert len({float(noisy.sum()) for noisy in batches}) == 3


def test_resuming_with_another_recipe_warns_and_continues(data: Path, tmp_path: Path) -> None:
    run(IMAGE, data, tmp_path, "schedule.steps=2")
    with pytest.warns(UserWarning, match=r"schedule\.steps = 3, before 2\.$"):
        rows = run(IMAGE, data, tmp_path, "schedule.steps=3", resume=True)
    assert [row["step"] for row in rows] == [3]
    with pytest.warns(UserWarning, match="all 3 steps are done"):  # and no other warning
        assert run(IMAGE, data, tmp_path, "schedule.steps=3", resume=True) == []


def test_resuming_a_finished_training_changes_nothing(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny-image.safetensors"
    run(IMAGE, data, tmp_path, "schedule.steps=5")
    finished = load(path)[0].state_dict()
    with pytest.warns(UserWarning, match=r"all 5 steps are done.*give --set schedule\.steps=N with more\.$"):
        assert run(IMAGE, data, tmp_path, "schedule.steps=5", resume=True) == []
    assert len(run(IMAGE, data, tmp_path / "clock", minutes=1e-6)) == 1
    with pytest.warns(UserWarning, match=r"all 1e-06 minutes are done.*give a larger --minutes\.$"):
        assert run(IMAGE, data, tmp_path / "clock", resume=True, minutes=1e-6) == []
    resumed = load(path)[0].state_dict()
    assert all(torch.equal(finished[key], resumed[key]) for key in finished)


def test_mixtures_have_the_level_and_snr_of_the_recipe(data: Path) -> None:
    values = override(AUDIO, ["audio.synthetic=1.0", "audio.reverb=0.0", "audio.snr_db=[7, 7]"])
    noisy, clean, *_ = open_data(recipe(values), data).batch(8, generator_for(0, 0))
    level = 10 * clean.square().mean(dim=-1).log10()
    snr = level - 10 * (noisy - clean).square().mean(dim=-1).log10()
    np.testing.assert_allclose(level.numpy(), -20, atol=0.01)
    np.testing.assert_allclose(snr.numpy(), 7, atol=0.01)


@pytest.mark.parametrize("setting", ["steps=0", "log_every=0", "checkpoint_every=0"])
def test_schedule_intervals_of_zero_are_refused(data: Path, tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError):
        run(IMAGE, data, tmp_path, "schedule.steps=1", f"schedule.{setting}")


def launch(data: Path, folder: Path, *words: str) -> None:
    """Train `IMAGE` in two processes of `fabric run` (gloo); write into the folder ``out``."""
    values = recipe(IMAGE).asdict()
    lines = [f"{key} = {json.dumps(values[key])}" for key in ("name", "architecture", "modality", "sources")]
    for section in ("model", "schedule", "image"):
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in IMAGE[section].items())]
    (folder / "recipe.toml").write_text("\n".join(lines))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    launcher = [sys.executable, "-m", "lightning.fabric.cli", "--devices=2", "--accelerator=cpu"]
    main = str(Path(denoise.__file__).with_name("__main__.py"))
    command = [*launcher, "--main-port", port, "--", main, "train", str(folder / "recipe.toml")]
    command += ["--data", str(data), "-o", str(folder / "out"), "--precision", "32-true", *words]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1:] == [str(folder / "out/tiny-image.safetensors")]


SIX_STEPS = ["--set", "schedule.steps=6", "--set", "schedule.log_every=1"]
SIX_STEPS += ["--set", "schedule.grad_clip=0.05"]  # of the mean gradient


def of_patches(objective: str, model: dict[str, Any], **image: Any) -> Recipe:
    """A recipe of a prior whose signals are patches of photographs."""
    values = {
        "name": "patches",
        "architecture": "flow-matching" if objective == "flow-matching" else "latent-prior",
        "modality": "image",
        "objective": objective,
        "model": model,
        "schedule": SCHEDULE,
        "image": {"folders": ["."], "patch": 32, "sigma": [0.0, 0.0]} | image,
        "sources": ["made here"],
    }
    return recipe(values)


PATCH_FLOW = {"shape": [3, 32, 32], "mean": 0.5, "sigma_data": 0.3}
PATCH_FLOW |= {"net": {"patch": 2, "widths": [16], "blocks": 1, "embedding": 16, "attention": False}}


def test_priors_and_codecs_are_trained_on_patches_of_photographs(data: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    matching = of_patches("flow-matching", PATCH_FLOW)
    matching = replace(matching, schedule=replace(matching.schedule, steps=120, learning_rate=1e-2))
    train(matching, data, tmp_path / "a", device="cpu", precision="32-true", report=rows.append)
    prior, card = load(tmp_path / "a/patches.safetensors")
    assert (card.kind, card.shape, card.sigma, card.sample_rate) == ("prior", (3, 32, 32), None, None)
    clean = ImagePatches(matching.image, data).batch(16, generator_for(1, 1)).clean  # type: ignore[arg-type]
    noisy = clean + 0.2 * torch.randn(clean.shape, generator=generator_for(1, 2))
    with torch.no_grad():
        denoised = prior(noisy, torch.full((16,), 0.2))
    # the mean of all pixels as the estimate would leave 0.69 of it
    assert (denoised - clean).square().mean() < 0.5 * (noisy - clean).square().mean()
    body = {"kind": "conv", "widths": [8, 8], "patch": 4}
    codec = {"architecture": "vae", "shape": [1, 32, 32], "latent": 4, "likelihood": "gaussian", "body": body}
    normal = {"architecture": "flow", "kind": "normal", "shape": [4]}
    grey = of_patches("elbo", {"codec": codec, "prior": normal})
    train(grey, data, tmp_path / "b", device="cpu", precision="32-true", report=rows.append)
    assert load(tmp_path / "b/patches.safetensors")[1].shape == (1, 32, 32)


@pytest.mark.parametrize("image", [{"patch": 16}, {"further_patches": [16]}])
def test_patches_of_another_size_than_the_signals_are_refused(image: dict[str, Any], data: Path) -> None:
    with pytest.raises(ConfigError, match=r"shape of the signals is \(3, 32, 32\), image\.patch.*16"):
        make_objective(of_patches("flow-matching", PATCH_FLOW, **image)).validate(build("flow-matching", PATCH_FLOW))


@pytest.fixture(scope="module")
def of_two_processes(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps of a training in two processes with a budget of time, in the folder ``out``; no test may change it."""
    folder = tmp_path_factory.mktemp("two")
    launch(data, folder, "--minutes", "0.5", *SIX_STEPS)
    return folder


def test_two_processes_resume_one_training(of_two_processes: Path, data: Path, tmp_path: Path) -> None:
    """Under `fabric run`: one metrics file, one weights file."""
    shutil.copytree(of_two_processes, tmp_path, dirs_exist_ok=True)
    launch(data, tmp_path, "--minutes", "0.5", *SIX_STEPS, "--set", "schedule.steps=12", "--resume")
    lines = (tmp_path / "out/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [*range(1, 13)]
    load(tmp_path / "out/tiny-image.safetensors")


class BothRanks:
    """Training data of one process that takes the batches of two, one after the other, as one batch."""

    def __init__(self, source: ImagePatches, schedule: Schedule) -> None:
        self.source, self.seed = source, schedule.seed
        self.steps = {generator_for(schedule.seed, step, 0).initial_seed(): step for step in range(schedule.steps)}

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        step = self.steps.get(generator.initial_seed())
        if step is None:  # for the samples
            return self.source.batch(size, generator)
        one, other = (self.source.batch(size, generator_for(self.seed, step, rank)) for rank in range(2))
        patches = torch.cat([one.clean, other.clean]).flatten(1)
        assert len(patches.unique(dim=0)) == 2 * size  # none is of both processes
        return Batch(torch.cat([one.noisy, other.noisy]), torch.cat([one.clean, other.clean]))


def test_two_processes_train_as_one_with_the_batches_of_both(
    of_two_processes: Path, data: Path, tmp_path: Path
) -> None:
    both = recipe(IMAGE, *SIX_STEPS[1::2])
    for name, source in (("one", BothRanks(open_data(both, data), both.schedule)), ("rank 0", open_data(both, data))):
        objective = make_objective(both)
        fabric = make_fabric(objective, "cpu", "32-true")
        fabric.seed_everything(both.schedule.seed, verbose=False)
        (tmp_path / name).mkdir()
        train_steps(objective, make_state(objective, fabric, None), source, tmp_path / name, lambda row: None)
    out = of_two_processes / "out"
    two, one, alone = (read_checkpoint(folder) for folder in (out, tmp_path / "one", tmp_path / "rank 0"))
    assert two.keys() == one.keys()
    for key, weights in two.items():
        torch.testing.assert_close(weights, one[key], rtol=0, atol=2e-5)
    assert max(float((one[key] - alone[key]).abs().max()) for key in one) > 2e-3
    files = sorted(path.name for path in out.iterdir())
    assert files == ["checkpoint.pt", "metrics.jsonl", "samples", "tiny-image.safetensors"]  # of one writer
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [*range(1, 7)]


def read_checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    """Return the trained weights and their average."""
    stored = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {f"{part} {key}": value for part in ("model", "ema") for key, value in stored[part].items()}


@pytest.mark.parametrize(
    "setting", ["learning_rate=-1", "learning_rate=0", "grad_clip=0", "ema=1", "weight_decay=-0.1"]
)
def test_schedule_out_of_range_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="learning_rate"):
        recipe(IMAGE, f"schedule.{setting}")


def test_missing_folder_raises(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="typo: no such folder"):
        run(IMAGE, data, tmp_path, 'image.folders=[".", "typo"]')


def test_saturation_changes_colour_and_preserves_luma() -> None:
    x = torch.randint(40, 200, (3, 8, 9), generator=generator_for(0, 0), dtype=torch.uint8)
    grey, half = adjust_saturation(x, 0.0).float(), adjust_saturation(x, 0.5).float()
    assert float((grey.amax(0) - grey.amin(0)).max()) == 0
    assert torch.allclose(half - grey, 0.5 * (x - grey), atol=1.01)
    assert torch.equal(adjust_saturation(x, 1.0), x)


def test_denormals_are_flushed_during_training_only(data: Path, tmp_path: Path) -> None:
    products: list[float] = []
    run(IMAGE, data, tmp_path / "run", "schedule.steps=2", report=lambda row: products.append(half(1e-40)))
    assert products
    assert not any(products)
    assert half(1e-40) > 0


def half(x: float) -> float:
    return float(torch.tensor(x) * 0.5)


def test_prior_is_trained_on_speech(data: Path, tmp_path: Path) -> None:
    """Trained on tones of 300 and 500 Hz, its samples have their power there, and it denoises such tones."""
    net = {"kind": "unet", "widths": [16, 32], "blocks": 1, "embedding": 16}
    values = {
        "name": "tones",
        "architecture": "latent-prior",
        "modality": "audio",
        "objective": "diffusion",
        "model": {
            "codec": {"architecture": "mdct", "time": 512, "bins": 16},
            "prior": {"architecture": "diffusion", "shape": [1, 16, 32], "sigma_data": 0.1, "sigma_max": 2.0}
            | {"log_sigma": [-2.5, 1.2], "net": net},
        },
        "schedule": SCHEDULE | {"steps": 120, "batch": 8, "learning_rate": 3e-3},
        "audio": {key: value for key, value in AUDIO["audio"].items() if key not in ("noise", "rir")}
        | {"seconds": 0.064},
        "stored_dtype": "int8",
        "sources": ["made here"],
    }
    run(values, data, tmp_path)
    prior, card = load(tmp_path / "tones.safetensors")
    assert (card.kind, card.sample_rate, card.shape, card.snr_db) == ("prior", 8000, (1, 512), None)
    samples = prior.sample(8, generator=torch.Generator().manual_seed(0))[:, 0]
    power = torch.fft.rfft(samples * torch.hann_window(512)).abs().square().mean(dim=0)
    assert power[:48].sum() > 0.7 * power.sum()  # below 750 Hz
    tiny = recipe(values)
    clean = make_objective(tiny).open_data(data, prior).batch(8, generator_for(1, 0)).clean
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        denoised = prior(noisy, torch.full((8,), 0.1))
    assert (denoised - clean).square().mean() < 0.3 * (noisy - clean).square().mean()
    for setting, message in (
        ("audio.seconds=0.1", r"makes \(1, 800\)"),
        ("audio.sample_rates=[8000, 16000]", "one sample rate"),
        ("objective='denoising'", "is no denoiser"),
        ("objective='likelihood'", "needs a prior of type HasLogProb"),
        ("objective='unknown'", "expected one of denoising, "),
    ):
        with pytest.raises(ConfigError, match=message):
            run(values, data, tmp_path / "wrong", setting)
