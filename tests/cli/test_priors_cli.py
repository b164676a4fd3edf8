"""The commands of priors: outputs of every kind, reproducible by seed, one line per error."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from denoise.cards import Card, TypicalStatistics
from denoise.errors import ConfigError
from denoise.files.image import ImageReader, read_image, write_image
from denoise.pipelines.prior import PriorPipeline
from denoise.pipelines.typicality import complexity
from denoise.registry import build
from denoise.signals import Image, ImageFormat
from denoise.weights import record_typical, save_weights
from tests.cli.conftest import Command

VAE = {"architecture": "vae", "shape": [1, 8, 8], "latent": 4, "likelihood": "bernoulli"}
FLOW = {"architecture": "flow", "kind": "maf", "shape": [4], "hidden": [8], "classes": 2}


@pytest.fixture
def prior(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    module = build("latent-prior", {"codec": VAE, "prior": FLOW})
    card = Card(
        "tiny",
        "latent-prior",
        "image",
        1,
        kind="prior",
        shape=(1, 8, 8),
        classes=("rose", "daisy"),
        data=("made here",),
    )
    save_weights(tmp_path / "tiny.safetensors", module, card, {}, torch.float32)
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for kind in ("a", "b"):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 128, (8, 8, 1)) + 127 * (kind == "b")
            image = Image(pixels.astype(np.uint8))
            write_image(tmp_path / "images" / kind / f"{i}.png", [image], ImageFormat(mode="L"))
    return tmp_path / "images"


def test_sampling_is_reproducible_by_seed(command: Command, prior: Path, tmp_path: Path) -> None:
    done = command("sample", prior, "-n", 6, "-o", "grid.png", "--seed", 5, "--class", "daisy", "--json")
    assert done.code == 0
    (row,) = done.rows
    assert (row["n"], row["seed"], row["files"]) == (6, 5, ["grid.png"])
    first = read_image(tmp_path / "grid.png").pixels
    assert first.shape == (18, 28, 1)
    command("sample", prior, "-n", 6, "-o", "repeated.png", "--seed", 5, "--class", 1)
    assert np.array_equal(first, read_image(tmp_path / "repeated.png").pixels)
    done = command("sample", prior, "-n", 3, "-o", "folder")
    assert done.out.decode().strip() == "folder (3 files)"
    assert len([*(tmp_path / "folder").iterdir()]) == 3


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["-n", 0], "n is 0; expected at least 1"),
        (["--temperature", "nan"], "temperature is nan; expected 0 to 100"),
        (["--guidance", -1], "guidance is -1.0; expected 0 to 100"),
        (["--class", "tulip"], "its classes are rose, daisy"),
        (["--text", "a rose"], "takes no text"),
        (["--steps", 3], "takes no steps"),
        (["-o", "a.wav"], "expected .png or .gif, or a folder"),
    ],
)
def test_invalid_sampling_is_one_line(command: Command, prior: Path, words: list[Any], reason: str) -> None:
    done = command("sample", prior, "-o", "a.png", *words)
    assert done.code == 2
    assert reason in done.err
    assert done.err.count("\n") == 1


def test_models_of_the_wrong_kind(command: Command, prior: Path, images: Path, models: dict[str, Path]) -> None:
    assert "expected a prior" in command("sample", models["keep-image"], "-o", "a.png").err
    assert "has no posterior mean" in command("image", images / "a/0.png", "--model", prior).err
    assert "kind: prior" in command("info", prior).out.decode()


def test_interpolation_between_files_and_seeds(command: Command, prior: Path, images: Path, tmp_path: Path) -> None:
    a, b = images / "a/0.png", images / "b/0.png"
    assert command("interpolate", a, b, "--prior", prior, "-n", 5, "-o", "strip.png").code == 0
    strip = read_image(tmp_path / "strip.png").pixels
    assert strip.shape == (8, 5 * 8 + 4 * 2, 1)
    assert command("interpolate", 1, 2, "--prior", prior, "-n", 4, "-o", "morph.gif", "--linear").code == 0
    with ImageReader(tmp_path / "morph.gif") as reader:
        assert reader.n_frames == 4
    assert command("interpolate", a, b, 1, 2, "--prior", prior, "-n", 3, "-o", "square.png").code == 0
    assert read_image(tmp_path / "square.png").pixels.shape == (28, 28, 1)
    words = ["--away", images / "a", "--towards", images / "b", "--weight", 1.5]
    assert command("interpolate", a, "--prior", prior, "-n", 4, "-o", "more.png", *words).code == 0
    shifted = read_image(tmp_path / "more.png").pixels
    np.testing.assert_allclose(shifted[:, :8], strip[:, :8], atol=1)  # both begin at a


def test_an_attribute_is_added_in_the_latents(command: Command, prior: Path, images: Path, tmp_path: Path) -> None:
    words = ["--prior", prior, "--latents", "--away", images / "a", "--towards", images / "b"]
    assert command("interpolate", images / "a/0.png", *words, "-n", 3, "-o", "strip.png", "--weight", 2).code == 0
    strip = read_image(tmp_path / "strip.png").pixels
    pipeline = PriorPipeline(prior, device="cpu")
    a, b = (pipeline.read(*sorted((images / kind).iterdir())) for kind in ("a", "b"))
    direction = pipeline.latents(b).mean(dim=0) - pipeline.latents(a).mean(dim=0)
    for strength in (0, 1, 2):
        expected = pipeline.decode_latents(pipeline.latents(a[:1]) + strength * direction)[0, 0]
        column = strip[:, 10 * strength : 10 * strength + 8, 0] / 255
        np.testing.assert_allclose(column, expected, atol=0.003)
    assert not np.array_equal(strip[:, :8], strip[:, 20:])
    assert command("interpolate", 1, images / "a/0.png", *words[:3], "-n", 3, "-o", "two.png").code == 0
    second = read_image(tmp_path / "two.png").pixels
    np.testing.assert_allclose(second[:, -8:], strip[:, :8], atol=1)


def test_r2_compares_files_with_the_ends_of_the_path(
    command: Command, prior: Path, images: Path, tmp_path: Path
) -> None:
    a, b, c = images / "a/0.png", images / "b/0.png", images / "b/1.png"

    def compare(decoded: list[Any], files: list[Path]) -> float:
        x, y = np.stack(decoded) / 255, np.stack([read_image(file).pixels for file in files]) / 255
        return float(1 - np.square(x - y).sum() / np.square(y - y.mean()).sum())

    words = ["--prior", prior, "-n", 3, "-o", "out.png", "--overwrite"]
    for ends, corners in (([a, b], [(0, 0), (0, 20)]), ([1, b, c, 2], [(0, 20), (20, 0)])):
        done = command("interpolate", *ends, *words, "--json")
        sheet = read_image(tmp_path / "out.png").pixels
        decoded = [sheet[top : top + 8, left : left + 8] for top, left in corners]
        expected = compare(decoded, [end for end in ends if isinstance(end, Path)])
        assert (done.rows[0]["r2"], done.rows[0]["compared"]) == (pytest.approx(expected, abs=0.01), "signals")
        assert (
            f"R^2 of the reconstructions: {done.rows[0]['r2']:.4f}"
            in command("interpolate", *ends, *words).out.decode()
        )
    assert "r2" not in command("interpolate", 1, 2, *words, "--json").rows[0]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["1"], "expected two ends or four corners"),
        (["1", "2", "--latents", "--class", "rose"], "without --class, --steps and --guidance"),
        (["1", "2", "3"], "expected two ends"),
        (["1", "2", "-n", "1"], "expected at least 2"),
        (["1", "--away", "x"], "belong together"),
        (["1", "none.png"], "no such file"),
        (["1", "9" * 25], "the seed of 25 digits is too large"),
        (["1", "9" * 5000], "the seed of 5000 digits is too large"),
    ],
)
def test_invalid_interpolations(command: Command, prior: Path, words: list[str], reason: str) -> None:
    done = command("interpolate", *words, "--prior", prior, "-o", "a.png")
    assert done.code == 2
    assert reason in done.err


def test_what_files_lose_is_one_warning(command: Command, prior: Path, images: Path, tmp_path: Path) -> None:
    for i in range(2):
        pixels = np.zeros((16, 8, 3), np.uint8)
        pixels[..., i] = 100
        write_image(tmp_path / f"{i}.png", [Image(pixels)], ImageFormat())
    expected = "denoise: warning: colours are left out and images are resized to 8 x 8 pixels, as tiny takes them.\n"
    assert command("score", "0.png", "1.png", "--prior", prior).err == expected
    assert command("interpolate", "0.png", "1.png", "--prior", prior, "-o", "path.png").err == expected
    assert command("complete", "0.png", "--mask", "half", "--prior", prior, "-o", "c.png").err == expected
    assert command("score", images, "--prior", prior).err == ""


def test_decodings_of_one_file(command: Command, prior: Path, images: Path, tmp_path: Path) -> None:
    assert command("decode", images / "a/0.png", "--codec", prior, "-n", 4, "-o", "decodings.png").code == 0
    assert read_image(tmp_path / "decodings.png").pixels.shape == (18, 18, 1)


CODECS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("ae", {"shape": [1, 8, 8], "latent": 3}),
    "convolutional": ("ae", {"shape": [1, 8, 8], "latent": 2, "body": {"kind": "conv", "spatial": True}}),
    "variational": ("vae", {"shape": [1, 8, 8], "latent": 4, "likelihood": "bernoulli"}),
    "adversarial": ("aae", {"shape": [1, 8, 8], "latent": 4}),
    "dense": ("dense-ae", {"shape": [1, 8, 8], "widths": [5]}),
}


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_opens_without_a_prior(command: Command, images: Path, tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    (architecture, settings), path = CODECS[name], tmp_path / "alone.safetensors"
    module, is_denoiser = build(architecture, settings), architecture == "dense-ae"
    kind: Any = {"kind": "denoiser"} if is_denoiser else {"kind": "codec", "shape": (1, 8, 8)}
    save_weights(path, module, Card("alone", architecture, "image", 1, **kind), {}, torch.float32)
    a, b = images / "a/0.png", images / "b/0.png"
    done = command("embed", images, "--codec", path, "-o", "map.png", "--json")
    assert (done.code, done.rows[0]["n"], done.rows[0]["compared"]) == (0, 6, "signals")
    x = torch.stack([torch.from_numpy(read_image(file).pixels).permute(2, 0, 1) / 255 for file in (a, b)])
    with torch.no_grad():
        expected = (255 * module.decode(module.encode(x)).clamp(0, 1)).round().byte()
    assert command("interpolate", a, b, "--prior", path, "-n", 3, "-o", "strip.png").code == 0
    strip = torch.from_numpy(read_image(tmp_path / "strip.png").pixels).permute(2, 0, 1)
    for end, column in zip(expected, (strip[..., :8], strip[..., -8:]), strict=True):
        assert (end.int() - column.int()).abs().max() <= 1
    assert command("sample", path, "-n", 4, "-o", "samples.png").code == 0
    assert read_image(tmp_path / "samples.png").pixels.shape == (18, 18, 1)
    assert command("decode", a, "--codec", path, "-o", "decoded").code == 0
    decoded = [read_image(file).pixels for file in sorted((tmp_path / "decoded").iterdir())]
    if name in ("variational", "adversarial"):
        assert len({x.tobytes() for x in decoded}) == 8
        return
    assert len(decoded) == 1
    assert np.abs(decoded[0].astype(int) - expected[0].permute(1, 2, 0).int().numpy()).max() <= 1
    done = command("decode", a, "--codec", path, "-n", 3, "-o", "three.png")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "expected 1" in done.err


def test_a_denoiser_without_latents_is_no_codec(command: Command, images: Path, models: dict[str, Path]) -> None:
    for words in (["embed", images, "--codec"], ["decode", images / "a/0.png", "--codec"], ["sample"]):
        done = command(*words, models["keep-image"], "-o", "a.png")
        assert done.code == 2
        assert "is a denoiser for image; expected a prior or a codec" in done.err


def test_completion_keeps_the_observed_pixels(command: Command, prior: Path, images: Path, tmp_path: Path) -> None:
    file = images / "a/0.png"
    assert command("complete", file, "--mask", "half", "--prior", prior, "-n", 4, "-o", "completions").code == 0
    observed = read_image(file).pixels
    completions = [read_image(path).pixels for path in sorted((tmp_path / "completions").iterdir())]
    assert len(completions) == 4
    for completion in completions:
        np.testing.assert_allclose(completion[:4], observed[:4], atol=1)
    assert not np.array_equal(completions[0], completions[1])
    holes = np.zeros((8, 8, 1), np.uint8)
    holes[2:4] = 255
    write_image(tmp_path / "holes.png", [Image(holes)], ImageFormat(mode="L"))
    assert command("complete", file, "--mask", "holes.png", "--prior", prior, "-n", 1, "-o", "one.png").code == 0
    completion = read_image(tmp_path / "one.png").pixels
    np.testing.assert_allclose(completion[4:], observed[4:], atol=1)
    assert not np.array_equal(completion[2:4], observed[2:4])
    assert "no such file" in command("complete", file, "--mask", "x.png", "--prior", prior, "-o", "two.png").err
    write_image(tmp_path / "wide.png", [Image(np.zeros((8, 9, 1), np.uint8))], ImageFormat(mode="L"))
    assert "is 9 x 8 pixels" in command("complete", file, "--mask", "wide.png", "--prior", prior, "-o", "two.png").err


def test_map_of_latents(command: Command, prior: Path, images: Path, tmp_path: Path) -> None:
    done = command("embed", images, "--codec", prior, "-o", "map.png", "--size", 200, "--json")
    assert done.rows[0]["n"] == 6
    assert done.rows[0]["r2"] < 1
    sheet = read_image(tmp_path / "map.png").pixels
    assert sheet.shape == (200, 200, 3)
    assert (sheet < 250).any(axis=2).sum() >= 8 * 8
    assert "R^2" in command("embed", images, "--codec", prior, "-o", "again.png").out.decode()
    assert "expected a .png" in command("embed", images, "--codec", prior, "-o", "map.jpg").err
    assert command("embed", "none", "--codec", prior, "-o", "b.png").err.startswith("denoise: none: no such folder.")


def test_scores_rank_the_lowest_likelihood_first(command: Command, prior: Path, images: Path) -> None:
    done = command("score", images, "--prior", prior, "--json")
    nats = [row["nats"] for row in done.rows]
    assert len(nats) == 6
    assert nats == sorted(nats)
    assert "bound" in done.rows[0]["kind"]
    for row in done.rows:
        assert row["bits_per_dim"] == pytest.approx(-row["nats"] / 64 / np.log(2))  # the pixels are binary
    assert done.out.decode() == command("score", images, "--prior", prior, "--json").out.decode()
    text = command("score", images / "a/0.png", "--prior", prior).out.decode()
    assert "bound, 500 samples" in text
    headings, values = (re.split(r"  +", line.strip()) for line in text.splitlines()[:2])
    (row,) = command("score", images / "a/0.png", "--prior", prior, "--json").rows
    assert dict(zip(headings, values, strict=True))["log p, nats"] == f"{row['nats']:.2f}"
    assert json.loads(done.out.decode().splitlines()[0])["file"].endswith(".png")


def test_scores_with_typical_examples_rank_a_blank_image_first(command: Command, prior: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "typical").mkdir()
    for i in range(12):
        pixels = np.where(generator.random((8, 8, 1)) < 0.5, 255, generator.integers(0, 40)).astype(np.uint8)
        write_image(tmp_path / f"typical/{i:02d}.png", [Image(pixels)], ImageFormat(mode="L"))
    write_image(tmp_path / "blank.png", [Image(np.zeros((8, 8, 1), np.uint8))], ImageFormat(mode="L"))
    words = ["score", "typical/00.png", "blank.png", "typical/01.png", "--prior", prior]
    done = command(*words, "--typical", "typical", "--json")
    assert (done.code, done.rows[0]["file"]) == (0, "blank.png")
    scores = [row["anomaly"] for row in done.rows]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 3 > scores[1]
    text = command(*words, "--typical", "typical").out.decode()
    assert "anomaly" in text
    assert "most anomalous first" in text
    assert "no anomaly score: see --typical" in command(*words).out.decode()
    done = command(*words, "--typical", tmp_path / "none")
    assert (done.code, done.err.count("\n")) == (2, 1)
    (tmp_path / "few").mkdir()
    (tmp_path / "blank.png").rename(tmp_path / "few/blank.png")
    assert "expected at least 10" in command("score", "few/blank.png", "--prior", prior, "--typical", "few").err
    (tmp_path / "typical/bad.png").write_bytes(b"not an image")
    with_bad = command(*words[:1], "typical/00.png", "--prior", prior, "--typical", "typical", "--json")
    assert (with_bad.code, len(with_bad.rows), with_bad.err.count("bad.png")) == (1, 1, 1)


def test_statistics_in_the_weights_give_anomaly_scores(command: Command, prior: Path, images: Path) -> None:
    record_typical(prior, TypicalStatistics((-45.0, 70.0), ((9.0, 0.0), (0.0, 4.0)), "some digits"))
    text = command("info", prior).out.decode()
    assert "typical (some digits):" in text
    assert "log p -45 +- 3 nats, complexity 70 +- 2 bytes" in text
    (row,) = command("score", images / "a/0.png", "--prior", prior, "--json").rows
    size = float(complexity(PriorPipeline(prior, device="cpu").read(images / "a/0.png")))
    assert row["anomaly"] == pytest.approx(np.hypot((row["nats"] + 45) / 3, (size - 70) / 2), rel=1e-5)


def test_statistics_of_another_label_give_no_anomaly_scores(command: Command, prior: Path, images: Path) -> None:
    record_typical(prior, TypicalStatistics((-45.0, 70.0), ((9.0, 0.0), (0.0, 4.0))))
    words = ["score", images, "--prior", prior, "--class", "daisy"]
    done = command(*words, "--json")
    assert (done.code, len(done.rows)) == (0, 6)
    assert "anomaly" not in done.rows[0]
    assert "no anomaly score: see --typical" in command(*words).out.decode()
    pipeline = PriorPipeline(prior, device="cpu")
    x = (torch.rand(12, 1, 8, 8) < torch.linspace(0.05, 0.5, 12)[:, None, None, None]).float()
    nats, _ = pipeline.log_prob(x, label="daisy")
    with pytest.raises(ConfigError, match="of 'daisy', those of the typical examples unconditional"):
        pipeline.anomaly_scores(x, nats, label="daisy")
    statistics = pipeline.typical_statistics(x, label=1)
    assert statistics.label == "daisy"
    assert pipeline.anomaly_scores(x, nats, statistics, label="daisy").isfinite().all()
    with pytest.raises(ConfigError, match="unconditional, those of the typical examples of 'daisy'"):
        pipeline.anomaly_scores(x, nats, statistics)


def test_scores_that_are_no_finite_numbers(
    command: Command, prior: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_typical(prior, TypicalStatistics((-45.0, 70.0), ((9.0, 0.0), (0.0, 4.0))))

    def log_prob(*_: Any, **__: Any) -> tuple[torch.Tensor, str]:
        return torch.tensor([-50.0, torch.nan, -torch.inf]), "exact"

    monkeypatch.setattr(PriorPipeline, "log_prob", log_prob)
    done = command("score", images / "a", "--prior", prior, "--json")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "1.png: the log-likelihood is nan" in done.err
    impossible, finite = done.rows
    assert (impossible["anomaly"], impossible["nats"], finite["nats"]) == (None, None, -50)
    assert "Infinity" not in done.out.decode()
    assert "inf" in command("score", images / "a", "--prior", prior).out.decode().splitlines()[1]


def test_densities_have_no_bits_per_pixel(command: Command, images: Path, tmp_path: Path) -> None:
    module = build("flow", {"shape": [1, 8, 8], "kind": "normal"})
    card = Card("normal", "flow", "image", 1, kind="prior", shape=(1, 8, 8))
    save_weights(tmp_path / "normal.safetensors", module, card, {}, torch.float32)
    done = command("score", images, "--prior", tmp_path / "normal.safetensors", "--json")
    assert {key for row in done.rows for key in row} == {"file", "nats", "kind"}


def test_a_file_that_fails_does_not_stop_the_others(command: Command, prior: Path, images: Path) -> None:
    (images / "a/bad.png").write_bytes(b"not an image")
    done = command("score", images, "--prior", prior, "--json")
    assert done.code == 1
    assert len(done.rows) == 6
    assert done.err.count("bad.png") == 1
    done = command("embed", images, "--codec", prior, "-o", "map.png", "--json")
    assert (done.code, done.rows[0]["n"]) == (1, 6)
    assert command("score", images / "a/bad.png", "--prior", prior).code == 1


@pytest.fixture
def gan(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    module = build("gan", {"shape": [1, 8, 8], "latent": 4, "classes": 2})
    card = Card("tiny-gan", "gan", "image", 1, kind="prior", shape=(1, 8, 8), classes=("rose", "daisy"))
    save_weights(tmp_path / "gan.safetensors", module, card, {}, torch.float32)
    return tmp_path / "gan.safetensors"


def test_a_gan_interpolates_and_completes_files(command: Command, gan: Path, images: Path, tmp_path: Path) -> None:
    a, b = images / "a/0.png", images / "b/0.png"
    strip = command("interpolate", a, b, "--prior", gan, "-n", 4, "--class", "daisy", "-o", "strip.png")
    assert strip.code == 0
    assert read_image(tmp_path / "strip.png").pixels.shape == (8, 4 * 8 + 3 * 2, 1)
    completed = command("complete", a, "--mask", "half", "--prior", gan, "-n", 2, "--steps", 5, "-o", "completions")
    assert completed.code == 0
    observed = read_image(a).pixels
    for path in sorted((tmp_path / "completions").iterdir()):
        np.testing.assert_allclose(read_image(path).pixels[:4], observed[:4], atol=1)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["score", "FILE", "--prior", "GAN"], "cannot compute likelihoods"),
        (["embed", "FOLDER", "--codec", "GAN", "-o", "map.png"], "has no codec"),
        (["decode", "FILE", "--codec", "GAN", "-o", "a.png"], "no codec"),
        (["interpolate", "FILE", "FILE", "--prior", "GAN", "--latents", "-o", "a.png"], "has no codec"),
        (["sample", "GAN", "-o", "a.png", "--class", "tulip"], "its classes are rose, daisy"),
        (["sample", "GAN", "-o", "a.png", "--steps", 3], "takes no steps"),
        (["sample", "GAN", "-o", "a.png", "--guidance", 2], "takes no guidance"),
    ],
)
def test_what_a_gan_lacks_is_one_line(command: Command, gan: Path, images: Path, words: list[Any], reason: str) -> None:
    given = {"GAN": gan, "FILE": images / "a/0.png", "FOLDER": images / "a"}
    done = command(*(given.get(word, word) for word in words))
    assert done.code == 2
    assert reason in done.err
    assert done.err.count("\n") == 1


@pytest.fixture
def ddpm(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = {"kind": "unet", "widths": [8, 16], "blocks": 1, "embedding": 8}
    module = build("ddpm", {"shape": [1, 8, 8], "net": net, "mean": 0.5, "sigma_data": 0.3, "timesteps": 20})
    card = Card("tiny-ddpm", "ddpm", "image", 1, kind="prior", shape=(1, 8, 8))
    save_weights(tmp_path / "ddpm.safetensors", module, card, {}, torch.float32)
    return tmp_path / "ddpm.safetensors"


def test_a_trajectory_is_a_strip_or_an_animation(command: Command, ddpm: Path, tmp_path: Path) -> None:
    words = ["sample", ddpm, "-n", 2, "--steps", 3, "--seed", 4]
    done = command(*words, "--trajectory", "-o", "strip.png", "--json")
    assert (done.code, done.rows[0]["files"]) == (0, ["strip.png"])
    strip = read_image(tmp_path / "strip.png").pixels
    assert strip.shape == (18, 7 * 10 - 2, 1)  # a row for each sample: sample, noise after three steps, and back
    command(*words, "-o", "samples.png")
    samples = read_image(tmp_path / "samples.png").pixels
    assert np.array_equal(strip[:8, :8], samples[:, :8])
    assert np.array_equal(strip[10:, -8:], samples[:, 10:])
    assert not np.array_equal(strip[:8, 30:38], samples[:, :8])
    assert command(*words, "--trajectory", "-o", "loop.gif").code == 0
    with ImageReader(tmp_path / "loop.gif") as reader:
        assert reader.n_frames == 7
        assert all(frame.pixels.shape[:2] == (8, 18) for frame in reader)
    assert command("sample", ddpm, "-n", 1, "--steps", 20, "--trajectory", "-o", "long.png").code == 0
    assert read_image(tmp_path / "long.png").pixels.shape == (8, 17 * 10 - 2, 1)  # 17 of the 41 points


@pytest.mark.parametrize("out", ["a.wav", "folder", "a.jpg"])
def test_a_trajectory_has_no_other_format(command: Command, ddpm: Path, out: str) -> None:
    done = command("sample", ddpm, "--trajectory", "-o", out)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "expected .png or .gif" in done.err


def test_priors_without_steps_have_no_trajectory(command: Command, prior: Path) -> None:
    done = command("sample", prior, "--trajectory", "-o", "a.png")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "prior tiny (latent-prior) cannot show a trajectory" in done.err


def test_the_solver_is_chosen_by_name(command: Command, ddpm: Path, prior: Path, tmp_path: Path) -> None:
    images = []
    for solver in ("euler", "ancestral"):
        assert command("sample", ddpm, "-n", 1, "--solver", solver, "--steps", 20, "-o", f"{solver}.png").code == 0
        images.append(read_image(tmp_path / f"{solver}.png").pixels)
    assert not np.array_equal(*images)
    assert "solver is 'rk4'; expected one of euler" in command("sample", ddpm, "--solver", "rk4", "-o", "a.png").err
    assert "takes no solver" in command("sample", prior, "--solver", "euler", "-o", "a.png").err
    assert "steps is 21; expected at most 20" in command("sample", ddpm, "--steps", 21, "-o", "a.png").err


def test_scores_of_a_ddpm_are_variational_bounds(command: Command, ddpm: Path, images: Path) -> None:
    done = command("score", images / "a", "--prior", ddpm, "--json")
    for row in done.rows:
        assert row["kind"] == "variational bound, 100 samples"
        assert row["bits_per_dim"] == pytest.approx(-row["nats"] / 64 / np.log(2))  # of 256 levels
