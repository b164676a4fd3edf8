"""Training: it learns, it writes what it says, and a killed run goes on exactly where it was."""

import json
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import denoise
from denoise.config import override, parse
from denoise.errors import ConfigError
from denoise.files.audio import write_audio
from denoise.files.image import write_image
from denoise.noise import generator_for
from denoise.registry import load
from denoise.signals import Audio, AudioFormat, Image, ImageFormat
from denoise.training.data import Batch, saturate
from denoise.training.degrade import jpeg
from denoise.training.loop import batches_ahead, open_data, train
from denoise.training.objectives import OBJECTIVES
from denoise.training.recipe import Recipe, load_recipe
from denoise.weights import read_header

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
    """Smooth pictures; tones as speech, hiss as noise, a click as a room."""
    root = tmp_path_factory.mktemp("data")
    y, x = np.mgrid[:64, :80] / 64
    for i in range(3):
        picture = np.stack([0.5 + 0.4 * np.sin(3 * x + i), 0.5 + 0.4 * np.cos(2 * y - i), x * 0.7], axis=2)
        write_image(root / f"{i}.png", [Image((picture * 255).clip(0, 255).astype(np.uint8))], ImageFormat())
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


def run(values: dict, data: Path, out: Path, *settings: str, **options) -> list[dict]:
    rows: list[dict] = []
    report = options.pop("report", rows.append)
    train(recipe(values, *settings), data, out, device="cpu", precision="32-true", report=report, **options)
    return rows


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("values", [IMAGE, AUDIO], ids=["image", "audio"])
def test_it_learns_and_writes_what_it_says(values: dict, optimizer: str, data: Path, tmp_path: Path) -> None:
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


def test_a_network_that_needs_sigma_is_told_it(data: Path, tmp_path: Path) -> None:
    settings = ("model.blind=false", "model.bias=false", 'model.activation="relu"', "image.sigma=[0.0, 0.3]")
    run(IMAGE, data, tmp_path, *settings, "schedule.steps=200")
    module, card = load(tmp_path / "tiny-image.safetensors")
    assert not card.blind
    noisy, clean, _, sigma, _ = open_data(recipe(IMAGE, "image.sigma=[0.1, 0.1]"), data).batch(8, generator_for(7, 7))
    assert sigma is not None
    errors = [(module(noisy, factor * sigma) - clean).square().mean() for factor in (0.3, 1.0, 3.0)]
    assert errors[1] < min(errors[0], errors[2])
    assert errors[1] < 0.3 * sigma.square().mean()


def test_a_network_of_one_channel_sees_luma(data: Path, tmp_path: Path) -> None:
    rows = run(IMAGE, data, tmp_path, "model.channels=1")
    assert np.mean([r["loss"] for r in rows[-3:]]) < np.mean([r["loss"] for r in rows[:2]])
    module, card = load(tmp_path / "tiny-image.safetensors")
    assert card.channels == 1
    noisy, clean, *_ = open_data(recipe(IMAGE), data, 1).batch(8, generator_for(7, 7))
    assert noisy.shape == clean.shape == (8, 1, 24, 24)
    assert (noisy - clean).std().item() == pytest.approx(0.1, rel=0.05)
    assert (module(noisy) - clean).square().mean() < (noisy - clean).square().mean()
    with pytest.raises(ConfigError, match="2 channels"):
        open_data(recipe(IMAGE), data, 2)


def test_photographs_of_any_depth_are_seen(tmp_path: Path) -> None:
    ramp = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32, 1) * 64
    write_image(tmp_path / "deep-grey.png", [Image(ramp)], ImageFormat(mode="I;16", bits=16))
    (image,) = open_data(recipe(IMAGE), tmp_path).images
    assert image.shape == (3, 32, 32)
    np.testing.assert_array_equal(image[1], np.rint(ramp[..., 0] / 257))


class KilledError(Exception):
    pass


def test_a_killed_run_goes_on_exactly(data: Path, tmp_path: Path) -> None:
    def kill(row: dict) -> None:
        if row["step"] == 15:  # after the checkpoint of step 10, before that of 15
            raise KilledError

    settings = ("schedule.steps=20",)
    run(IMAGE, data, tmp_path / "whole", *settings)
    with pytest.raises(KilledError):
        run(IMAGE, data, tmp_path / "cut", *settings, report=kill)
    rows = run(IMAGE, data, tmp_path / "cut", *settings, resume=True)
    assert rows[0]["step"] == 15
    whole, cut = (load(tmp_path / name / "tiny-image.safetensors")[0].state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_a_training_can_start_from_weights(data: Path, tmp_path: Path) -> None:
    run(IMAGE, data, tmp_path / "first")
    first = tmp_path / "first/tiny-image.safetensors"
    rows = run(IMAGE, data, tmp_path / "second", "schedule.steps=5", f'init="{first}"')
    scratch = run(IMAGE, data, tmp_path / "scratch", "schedule.steps=5")
    assert rows[0]["mse"] < 0.5 * scratch[0]["mse"]
    header = read_header(tmp_path / "second/tiny-image.safetensors")
    assert header["recipe"]["init"] == "tiny-image"  # a file that travels tells no place


def test_a_run_is_neither_replaced_nor_invented(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to resume"):
        run(IMAGE, data, tmp_path, resume=True)
    run(IMAGE, data, tmp_path, "schedule.steps=5")
    with pytest.raises(ConfigError, match="--resume"):
        run(IMAGE, data, tmp_path, "schedule.steps=5")


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_that_make_batches_leave_those_of_the_network(data: Path, workers: int) -> None:
    before = torch.get_num_threads()
    found = recipe(IMAGE, f"schedule.workers={workers}")
    source, schedule = open_data(found, data), found.schedule
    with closing(batches_ahead(source, schedule, 0, 0)) as batches:
        first = [next(batches) for _ in range(4)]
        assert torch.get_num_threads() == before
    for step, batch in enumerate(first):
        assert torch.equal(batch.noisy, source.batch(schedule.batch, generator_for(schedule.seed, step)).noisy)


def test_weights_of_the_way_are_kept(data: Path, tmp_path: Path) -> None:
    run(IMAGE, data, tmp_path, "schedule.steps=6", "schedule.keep_every=3", "schedule.workers=3")
    first, last, final = (load(tmp_path / f"tiny-image{end}.safetensors")[0] for end in ("-3", "-6", ""))
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(last(x), final(x))
    assert not torch.equal(first(x), final(x))


def test_a_budget_of_time_ends_annealed(data: Path, tmp_path: Path) -> None:
    rows = run(IMAGE, data, tmp_path, "schedule.steps=1000000", "schedule.log_every=1", minutes=0.02)
    assert 1.0 <= rows[-1]["seconds"] < 20
    assert rows[-1]["lr"] < 0.2 * max(row["lr"] for row in rows)


@pytest.mark.parametrize("values", [IMAGE, AUDIO], ids=["image", "audio"])
def test_a_batch_depends_on_seed_step_and_rank_alone(values: dict, data: Path) -> None:
    source = open_data(recipe(values), data)
    first, again, other = (source.batch(3, generator_for(0, step)) for step in (4, 4, 5))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_a_share_of_the_noise_is_strong(data: Path) -> None:
    settings = ("image.sigma=[0.0, 0.2]", "image.strong=0.25", "image.strongest=3.2")
    sigma = open_data(recipe(IMAGE, *settings), data).batch(4000, generator_for(7, 7)).sigma
    assert sigma is not None
    strong = sigma[sigma > 0.2]
    assert abs(len(strong) / 4000 - 0.25) < 0.03
    assert strong.max() <= 3.2
    assert abs((strong < 0.8).float().mean() - 0.5) < 0.06  # half of them up to the geometric mean
    with pytest.raises(ConfigError, match="strong"):
        recipe(IMAGE, "image.strong=1.5")


def test_image_noise_has_its_sigma_and_grey_its_equal_channels(data: Path) -> None:
    noisy, clean, *_ = open_data(recipe(IMAGE, "image.grey=1.0"), data).batch(16, generator_for(0, 0))
    assert float((noisy - clean).std()) == pytest.approx(0.1, rel=0.03)
    torch.testing.assert_close(noisy[:, 0], noisy[:, 2])


def test_a_stored_photograph_keeps_its_light_and_half_its_colour() -> None:
    light = torch.zeros(3, 64, 64, dtype=torch.uint8)
    light[:, :, ::2] = 200
    assert (jpeg(light, 98).int() - light.int()).abs().max() < 20
    colour = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    colour[0, :, ::2], colour[2, :, 1::2] = 130, 130  # red and blue lines of nearly one luma
    blurred = jpeg(colour, 98)[:, 8:-8, 8:-8].float()
    assert (blurred[0] - blurred[2]).std() < 0.1 * (colour[0].float() - colour[2].float()).std()


def test_the_share_of_stored_photographs_is_drawn(data: Path) -> None:
    never, always = (open_data(recipe(IMAGE, f"image.jpeg={p}"), data).batch(8, generator_for(0, 0)) for p in (0, 1))
    assert not torch.equal(never.clean, always.clean)
    with pytest.raises(ConfigError, match="jpeg_quality"):
        recipe(IMAGE, "image.jpeg_quality=[90, 80]")


def test_photographs_are_seen_at_all_scales(data: Path) -> None:
    source = open_data(recipe(IMAGE, "image.scales=[1.0, 0.5, 0.25]"), data)
    assert sorted({tuple(image.shape) for image in source.images}) == [(3, 32, 40), (3, 64, 80)]  # 16 x 20: no patch
    whole, half = source.images[0].float(), source.images[1].float()
    torch.testing.assert_close(half, torch.nn.functional.avg_pool2d(whole, 2), atol=4, rtol=0)
    with pytest.raises(ConfigError, match="scales"):
        recipe(IMAGE, "image.scales=[2.0]")


@pytest.mark.parametrize("values", [IMAGE, AUDIO], ids=["image", "audio"])
def test_no_example_is_rounded_on_its_way(
    values: dict, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 is for the arithmetic of networks: its eight bits would be noise in signals 50 dB below the loudest."""
    objective, seen = OBJECTIVES[values["modality"]], []

    def watch(module: Any, batch: Batch, settings: Any) -> Any:
        seen.append((batch.noisy.dtype, batch.clean.dtype))
        assert not torch.equal(batch.noisy, batch.noisy.bfloat16().float())
        return objective(module, batch, settings)

    monkeypatch.setitem(OBJECTIVES, values["modality"], watch)
    train(recipe(values, "schedule.steps=2"), data, tmp_path, device="cpu", precision="bf16-mixed")
    assert seen == [(torch.float32, torch.float32)] * 2


def test_a_network_that_is_told_sigma_needs_noise_that_has_one(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="told sigma"):
        run(IMAGE, data, tmp_path, "model.blind=false", "image.degrade.film=0.5")
    assert run(IMAGE, data, tmp_path, "image.degrade.film=0.5", "image.degrade.jpeg=0.5", "schedule.steps=2")


def test_missing_data_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no files|no such folder"):
        open_data(recipe(IMAGE), tmp_path)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_has_every_bit_of_the_whole_one(optimizer: str, data: Path, tmp_path: Path) -> None:
    """The raw weights, their average and the optimiser's moments in float32, not the exported float16 alone."""

    def kill(row: dict) -> None:
        if row["step"] == 6:
            raise KilledError

    settings = ("schedule.steps=8", "schedule.checkpoint_every=4", "schedule.log_every=1")
    settings += (f'schedule.optimizer="{optimizer}"',)
    whole = run(AUDIO, data, tmp_path / "whole", *settings)
    with pytest.raises(KilledError):
        run(AUDIO, data, tmp_path / "cut", *settings, report=kill)
    resumed = run(AUDIO, data, tmp_path / "cut", *settings, resume=True)
    assert [(row["step"], row["loss"]) for row in resumed] == [(row["step"], row["loss"]) for row in whole[4:]]
    written = (tmp_path / "cut/metrics.jsonl").read_text().splitlines()  # the rows of the lost steps 5 and 6 are gone
    assert [json.loads(line)["step"] for line in written] == [*range(1, 9)]
    a, b = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "cut"))

    def bits(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: bits(inner) for key, inner in value.items()}
        return value.tolist() if isinstance(value, torch.Tensor) else value

    assert a["step"] == b["step"] == 8
    for part in ("model", "ema", "optimizer"):
        assert bits(a[part]) == bits(b[part])


def test_ranks_and_seeds_see_other_batches(data: Path) -> None:
    source = open_data(recipe(IMAGE), data)
    drawn = [source.batch(2, generator_for(*place))[0] for place in ((0, 4, 0), (0, 4, 1), (1, 4, 0))]
    assert len({float(noisy.sum()) for noisy in drawn}) == 3


def test_a_finished_run_is_not_trained_on(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny-image.safetensors"
    run(IMAGE, data, tmp_path, "schedule.steps=5")
    before = load(path)[0].state_dict()
    assert run(IMAGE, data, tmp_path, "schedule.steps=5", resume=True) == []
    after = load(path)[0].state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_mix_has_its_level_and_its_snr(data: Path) -> None:
    values = override(AUDIO, ["audio.synthetic=1.0", "audio.reverb=0.0", "audio.snr_db=[7, 7]"])
    noisy, clean, *_ = open_data(recipe(values), data).batch(8, generator_for(0, 0))
    level = 10 * clean.square().mean(dim=-1).log10()
    snr = level - 10 * (noisy - clean).square().mean(dim=-1).log10()
    np.testing.assert_allclose(level.numpy(), -20, atol=0.01)
    np.testing.assert_allclose(snr.numpy(), 7, atol=0.01)


@pytest.mark.parametrize("setting", ["steps=0", "log_every=0", "checkpoint_every=0"])
def test_a_schedule_of_nothing_is_refused(data: Path, tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError):
        run(IMAGE, data, tmp_path, "schedule.steps=1", f"schedule.{setting}")


def test_two_processes_of_the_launcher_train_one_model(data: Path, tmp_path: Path) -> None:
    """Under `fabric run`, with the clock and then a resumption: one metrics file, one answer, no disagreement."""
    values = recipe(IMAGE).asdict()
    lines = [f"{key} = {json.dumps(values[key])}" for key in ("name", "architecture", "modality", "sources")]
    for section in ("model", "schedule", "image"):
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in IMAGE[section].items())]
    (tmp_path / "recipe.toml").write_text("\n".join(lines))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = [sys.executable, "-m", "lightning.fabric.cli", "--devices=2", "--accelerator=cpu"]
    main = str(Path(denoise.__file__).with_name("__main__.py"))
    command = [*launch, "--main-port", port, "--", main, "train", str(tmp_path / "recipe.toml")]
    command += ["--data", str(data), "-o", str(tmp_path / "out"), "--precision", "32-true", "--minutes", "0.5"]
    for steps, more in (("6", []), ("12", ["--resume"])):
        every = ["--set", f"schedule.steps={steps}", "--set", "schedule.log_every=1"]
        done = subprocess.run([*command, *every, *more], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1:] == [str(tmp_path / "out/tiny-image.safetensors")]
    written = (tmp_path / "out/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in written] == [*range(1, 13)]
    load(tmp_path / "out/tiny-image.safetensors")


@pytest.mark.parametrize(
    "setting", ["learning_rate=-1", "learning_rate=0", "grad_clip=0", "ema=1", "weight_decay=-0.1"]
)
def test_a_schedule_out_of_range_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="learning_rate"):
        recipe(IMAGE, f"schedule.{setting}")


def test_a_folder_that_is_not_there_is_told(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="typo: no such folder"):
        run(IMAGE, data, tmp_path, 'image.folders=[".", "typo"]')


def test_the_card_does_not_name_data_that_were_not_used() -> None:
    path = Path(__file__).parents[2] / "recipes/gaussian/recipe.toml"
    own = load_recipe(path, ['image.folders=["my/photos"]']).sources
    assert own == ("""not the recipe's: image.folders=["my/photos"]""",)
    assert load_recipe(path, ["image.patch=64"]).sources == load_recipe(path).sources != own
    assert load_recipe(path, ['image.folders=["mine"]', 'sources=["mine: CC0"]']).sources == ("mine: CC0",)


def test_colours_fade_and_light_stays() -> None:
    x = torch.randint(40, 200, (3, 8, 9), generator=generator_for(0, 0), dtype=torch.uint8)
    grey, half = saturate(x, 0.0).float(), saturate(x, 0.5).float()
    assert float((grey.amax(0) - grey.amin(0)).max()) == 0
    assert torch.allclose(half - grey, 0.5 * (x - grey), atol=1.01)
    assert torch.equal(saturate(x, 1.0), x)


def test_a_recipe_says_what_differs_from_another(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    base = Path(__file__).parents[2] / "recipes/gaussian/recipe.toml"
    (tmp_path / "a/recipe.toml").write_text(base.read_text())
    (tmp_path / "b/recipe.toml").write_text(
        'extends = "../a/recipe.toml"\nname = "b"\n[image]\npatch = 64\n[image.degrade]\nfilm = 0.5\n'
    )
    a, b = (load_recipe(tmp_path / name / "recipe.toml", ["schedule.seed=3"]) for name in "ab")
    assert (b.name, b.image.patch, b.image.degrade.film) == ("b", 64, 0.5)  # type: ignore[union-attr]
    assert b.image.folders == a.image.folders  # type: ignore[union-attr]
    assert (b.schedule, b.model, b.sources) == (a.schedule, a.model, a.sources)
    (tmp_path / "a/recipe.toml").write_text('extends = "../b/recipe.toml"\n')
    with pytest.raises(ConfigError, match="extends itself"):
        load_recipe(tmp_path / "b/recipe.toml")


def test_tiny_numbers_are_zero_while_it_trains_and_not_after(data: Path, tmp_path: Path) -> None:
    seen: list[float] = []
    run(IMAGE, data, tmp_path / "run", "schedule.steps=2", report=lambda row: seen.append(halved(1e-40)))
    assert seen
    assert not any(seen)
    assert halved(1e-40) > 0


def halved(x: float) -> float:
    return float(torch.tensor(x) * 0.5)


def test_a_prior_learns_recordings(data: Path, tmp_path: Path) -> None:
    """Of tones of 300 and 500 Hz, it makes what has its power there, and takes noise off them."""
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
        "stored": "int8",
        "sources": ["made here"],
    }
    run(values, data, tmp_path)
    prior, card = load(tmp_path / "tones.safetensors")
    assert (card.kind, card.sample_rate, card.shape, card.snr_db) == ("prior", 8000, (1, 512), None)
    made = prior.sample(8, generator=torch.Generator().manual_seed(0))[:, 0]
    power = torch.fft.rfft(made * torch.hann_window(512)).abs().square().mean(dim=0)
    assert power[:48].sum() > 0.7 * power.sum()  # below 750 Hz
    clean = open_data(recipe(values), data).batch(8, generator_for(1, 0)).clean
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answer = prior(noisy, torch.full((8,), 0.1))
    assert (answer - clean).square().mean() < 0.3 * (noisy - clean).square().mean()
    for wrong, told in (
        ("audio.seconds=0.1", r"makes \(1, 800\)"),
        ("audio.sample_rates=[8000, 16000]", "one sample rate"),
        ("objective='denoising'", "audio.noise names no folder"),
    ):
        with pytest.raises(ConfigError, match=told):
            run(values, data, tmp_path / "wrong", wrong)
