"""Objectives of codecs and priors, and their data: the lecture's autoencoder of digits, and each objective briefly."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from denoise.config import parse
from denoise.errors import ConfigError
from denoise.noise import generator_for
from denoise.protocols import SamplingOptions
from denoise.registry import build, load
from denoise.training.example_recipe import Examples
from denoise.training.examples import LabelledExamples
from denoise.training.loop import train
from denoise.training.objectives import make_objective
from denoise.training.recipe import Recipe

SCHEDULE = {"steps": 30, "batch": 32, "learning_rate": 3e-3, "warmup": 5, "log_every": 10, "ema": 0.9}
DIGITS = {"files": ["digits.npz"], "signals": "images", "labels": "labels", "hold_out_every": 5}
UNLABELLED = {key: value for key, value in DIGITS.items() if key != "labels"}
DENSE = {"kind": "dense", "widths": [32], "activation": "elu"}
NORMAL = {"architecture": "flow", "kind": "normal"}
# the lecture's: 64 pixels, 32 hidden units, 8 latents
LECTURE = {
    "codec": {"architecture": "vae", "shape": [1, 8, 8], "latent": 8, "likelihood": "bernoulli", "body": DENSE},
    "prior": {**NORMAL, "shape": [8]},
}
NET = {"kind": "mlp", "widths": [64], "blocks": 2, "embedding": 32}
UNET = {"kind": "unet", "widths": [8, 16], "blocks": 1, "embedding": 32}
PRIORS: dict[str, dict[str, Any]] = {
    "elbo": {"architecture": "latent-prior", "model": LECTURE},
    "adversarial": {
        "architecture": "latent-prior",
        "model": {
            "codec": {"architecture": "aae", "shape": [1, 8, 8], "latent": 4, "body": DENSE},
            "prior": {**NORMAL, "shape": [4]},
        },
    },
    "diffusion": {
        "architecture": "diffusion",
        "model": {"shape": [1, 8, 8], "net": UNET, "mean": 0.3, "sigma_data": 0.37, "classes": 10},
    },
    "ddpm": {
        "architecture": "ddpm",
        "model": {"shape": [1, 8, 8], "net": UNET, "mean": 0.3, "sigma_data": 0.37, "classes": 10},
    },
    "flow-matching": {
        "architecture": "flow-matching",
        "model": {"shape": [1, 8, 8], "net": NET, "mean": 0.3, "sigma_data": 0.37, "classes": 10, "text": True}
        | {"coupling": "optimal-transport"},
    },
    "likelihood": {
        "architecture": "multiscale-flow",
        "model": {"shape": [1, 8, 8], "steps": 2, "width": 8, "blocks": 1, "classes": 10},
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    np.savez(root / "digits.npz", images=images, labels=digits.target, names=names)
    t = np.arange(64) / 8000
    tones = np.stack([np.sin(2 * np.pi * f * t) for f in np.linspace(200, 2000, 50)])
    np.savez(root / "tones.npz", signals=(tones * 20_000).astype(np.int16))
    return root


def recipe(objective: str, **changes: Any) -> Recipe:
    data = UNLABELLED if objective in ("elbo", "adversarial") else DIGITS  # their priors have no classes
    values = {"name": "tiny", "modality": "image", "objective": objective, "schedule": SCHEDULE, "examples": data}
    return parse(Recipe, values | PRIORS.get(objective, {}) | {"sources": ["made here"]} | changes, "test")


def examples(recipe: Recipe, data: Path, classes: int | None = None, text: bool = True) -> LabelledExamples:
    assert recipe.examples is not None
    return LabelledExamples(recipe.examples, data, classes, text)


def run(recipe: Recipe, data: Path, out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    train(recipe, data, out, device="cpu", precision="32-true", report=rows.append)
    return rows


def test_the_lectures_autoencoder_of_digits(data: Path, tmp_path: Path) -> None:
    schedule = SCHEDULE | {"steps": 400, "batch": 64, "learning_rate": 5e-3}
    rows = run(recipe("elbo", schedule=schedule), data, tmp_path)
    assert rows[-1]["r2"] > 0.5
    assert rows[-1]["nats"] < rows[0]["nats"] - 10
    model, card = load(tmp_path / "tiny.safetensors")
    assert (card.kind, card.shape, card.classes, card.architecture) == ("prior", (1, 8, 8), (), "latent-prior")
    held_out = torch.from_numpy(load_digits().images[::5] / 16).float()[:, None]  # not in the training data
    untrained = build("latent-prior", LECTURE)
    bounds = [
        m.log_prob_bound(held_out, 50, generator=torch.Generator().manual_seed(0)).mean() for m in (untrained, model)
    ]
    assert bounds[1] > bounds[0] + 10
    samples = model.sample(256, generator=torch.Generator().manual_seed(0))
    assert samples.shape == (256, 1, 8, 8)
    assert ((samples >= 0) & (samples <= 1)).all()
    assert (samples.mean(dim=0) - held_out.mean(dim=0)).abs().mean() < 0.1
    assert len([*(tmp_path / "samples").iterdir()]) == 1


@pytest.mark.parametrize("objective", [name for name in PRIORS if name != "elbo"])
def test_every_objective_trains_a_prior_that_loads_and_samples(objective: str, data: Path, tmp_path: Path) -> None:
    rows = run(recipe(objective), data, tmp_path)
    assert rows[-1]["loss"] < rows[0]["loss"]
    model, card = load(tmp_path / "tiny.safetensors")
    is_conditional = bool(PRIORS[objective]["model"].get("classes"))
    assert card.kind == "prior"
    assert len(card.classes) == (10 if is_conditional else 0)
    assert card.text == (objective == "flow-matching")
    for label in (None, 3, "a nine") if card.text else (None, 3) if is_conditional else (None,):
        x = model.sample(2, label=label, generator=torch.Generator().manual_seed(0))
        assert x.shape == (2, 1, 8, 8)
        assert torch.isfinite(x).all()


@pytest.mark.parametrize("objective", ["diffusion", "ddpm", "flow-matching", "likelihood"])
def test_labels_are_not_given_to_priors_without_classes(objective: str, data: Path, tmp_path: Path) -> None:
    model = PRIORS[objective]["model"] | {"classes": 0}
    with pytest.warns(UserWarning, match=r"recipe tiny: examples\.labels are not used.* set model\.classes"):
        run(recipe(objective, model=model | ({"text": False} if "text" in model else {})), data, tmp_path)
    prior, card = load(tmp_path / "tiny.safetensors")
    assert (prior.classes, card.classes) == (0, ())


def test_signals_of_levels_are_not_taken_for_those_of_a_density(data: Path) -> None:
    np.savez(data / "floats.npz", images=np.random.default_rng(0).random((40, 8, 8), np.float32))
    flow = {"architecture": "flow", "model": {"shape": [1, 8, 8], "kind": "maf", "hidden": [8]}}
    continuous = {"shape": [1, 8, 8], "dequantisation": "none", "steps": 1, "width": 8, "blocks": 1}
    floats = {"examples": {"files": ["floats.npz"], "signals": "images"}}

    def open_data(**changes: Any) -> None:
        objective = make_objective(recipe("likelihood", **({"examples": UNLABELLED} | changes)))
        objective.open_data(data, objective.build())

    with pytest.warns(UserWarning, match="recipe tiny: signals of 256 levels have no density"):
        open_data(**flow)
    with pytest.warns(UserWarning, match="signals of 256 levels have no density"):
        open_data(model=continuous)
    digits = np.load(data / "digits.npz")["images"]
    np.savez(data / "levels.npz", images=np.float32(digits / 255))
    with pytest.warns(UserWarning, match="signals of 256 levels have no density"):
        open_data(**flow, examples={"files": ["levels.npz"], "signals": "images"})
    open_data(**flow, **floats)  # warnings are errors in tests
    open_data(model=continuous | {"dither": 0.01})
    open_data(model=continuous | {"dequantisation": "variational"})
    open_data(architecture="pixelcnn", model={"shape": [1, 8, 8], "features": 4, "dilations": [1]})


def test_the_key_of_a_shape_that_does_not_fit_is_named(data: Path) -> None:
    objective = make_objective(recipe("elbo", model=LECTURE | {"codec": LECTURE["codec"] | {"shape": [1, 9, 9]}}))
    with pytest.raises(ConfigError, match=r"have shape \(1, 8, 8\), .* \(1, 9, 9\)\. Fix model\.codec\.shape\.$"):
        objective.open_data(data, objective.build())


def test_resumed_training_repeats_the_random_numbers_of_losses(data: Path, tmp_path: Path) -> None:
    class KilledError(Exception):
        """Raised in place of a kill."""

    def kill(row: dict[str, Any]) -> None:
        if row["step"] == 15:
            raise KilledError

    schedule = SCHEDULE | {"steps": 20, "log_every": 5, "checkpoint_every": 10}
    tiny = recipe("elbo", schedule=schedule)

    def run_into(name: str, report: Callable[[dict[str, Any]], None], resume: bool = False) -> None:
        train(tiny, data, tmp_path / name, device="cpu", precision="32-true", report=report, resume=resume)

    whole: list[dict[str, Any]] = []
    resumed: list[dict[str, Any]] = []
    run_into("whole", whole.append)
    with pytest.raises(KilledError):
        run_into("resumed", kill)
    run_into("resumed", resumed.append, resume=True)
    assert [row["loss"] for row in resumed] == [row["loss"] for row in whole[2:]]


def test_a_checkpoint_with_the_names_of_release_0_1_is_resumed(data: Path, tmp_path: Path) -> None:
    tiny = recipe("diffusion", schedule=SCHEDULE | {"steps": 4, "log_every": 1})
    run(tiny, data, tmp_path)
    checkpoint = tmp_path / "checkpoint.pt"
    state = torch.load(checkpoint, weights_only=True)
    for key in ("model", "ema"):
        renamed = {name.replace("net.stem.", "net.into."): value for name, value in state[key].items()}
        assert renamed.keys() != state[key].keys()
        state[key] = renamed
    torch.save(state, checkpoint)
    finished, _ = load(tmp_path / "tiny.safetensors")
    with pytest.warns(UserWarning, match="all 4 steps are done"):
        train(tiny, data, tmp_path, device="cpu", precision="32-true", resume=True)
    resumed, _ = load(tmp_path / "tiny.safetensors")
    weights = finished.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in resumed.state_dict().items())


def test_a_prior_is_trained_on_the_latents_of_a_codec(data: Path, tmp_path: Path) -> None:
    codec = {"shape": [1, 8, 8], "latent": 3, "body": {"kind": "conv", "widths": [8, 16], "spatial": True}}
    run(recipe("reconstruction", architecture="ae", model=codec), data, tmp_path / "codec")
    path = tmp_path / "codec/tiny.safetensors"
    codec_alone, card = load(path)
    assert (card.kind, card.channels, card.shape) == ("codec", 1, (1, 8, 8))
    prior = {"shape": [3, 4, 4], "net": UNET, "sigma_data": 1.0, "classes": 10}
    run(recipe("diffusion", architecture="diffusion", model=prior, codec=str(path)), data, tmp_path / "prior")
    model, card = load(tmp_path / "prior/tiny.safetensors")
    assert (card.kind, card.architecture, card.shape) == ("prior", "latent-prior", (1, 8, 8))
    for name, p in codec_alone.named_parameters():
        torch.testing.assert_close(model.codec.get_parameter(name), p, atol=1e-3, rtol=1e-3)  # it was not trained
    x = model.sample(2, label=1, options=SamplingOptions(steps=3), generator=torch.Generator().manual_seed(0))
    assert x.shape == (2, 1, 8, 8)
    with pytest.raises(ConfigError, match="codec's latents are"):
        run(
            recipe("diffusion", architecture="diffusion", model=prior | {"shape": [3, 8, 8]}, codec=str(path)),
            data,
            tmp_path / "x",
        )


def test_a_prior_is_trained_on_the_latents_of_the_codec_of_another(data: Path, tmp_path: Path) -> None:
    """The codec of spectra is trained with a normal prior, then another prior is trained on its latents."""
    tones = {"files": ["tones.npz"], "sample_rate": 8000}
    inner = {"architecture": "vae", "shape": [9, 16], "latent": 2}
    inner |= {"body": {"kind": "conv", "widths": [8, 8], "spatial": True}}
    codec = {"architecture": "spectral-codec", "time": 64, "n_fft": 16, "hop": 4, "iterations": 5, "codec": inner}
    model = {"codec": codec, "prior": {**NORMAL, "shape": [2, 8]}}
    run(recipe("elbo", modality="audio", examples=tones, model=model), data, tmp_path / "codec")
    path = tmp_path / "codec/tiny.safetensors"
    net = {"shape": [2, 8], "net": UNET}
    run(recipe("flow-matching", modality="audio", examples=tones, model=net, codec=str(path)), data, tmp_path / "prior")
    prior, card = load(tmp_path / "prior/tiny.safetensors")
    assert (card.kind, card.shape, card.sample_rate) == ("prior", (1, 64), 8000)
    options = SamplingOptions(steps=2)
    assert prior.sample(2, options=options, generator=torch.Generator().manual_seed(0)).shape == (2, 1, 64)
    run(recipe("flow-matching"), data, tmp_path / "none")
    with pytest.raises(ConfigError, match="without a codec"):
        run(recipe("flow-matching", codec=str(tmp_path / "none/tiny.safetensors")), data, tmp_path / "x")


def test_priors_are_trained_on_audio_examples(data: Path, tmp_path: Path) -> None:
    tones = {"files": ["tones.npz"], "sample_rate": 8000}
    net = {"shape": [1, 64], "net": UNET, "sigma_data": 0.4}
    run(recipe("flow-matching", modality="audio", examples=tones, model=net), data, tmp_path)
    _, card = load(tmp_path / "tiny.safetensors")
    assert (card.modality, card.sample_rate, card.shape) == ("audio", 8000, (1, 64))
    assert [path.suffix for path in (tmp_path / "samples").iterdir()] == [".wav"]
    with pytest.raises(ConfigError, match="sample_rate"):
        recipe("flow-matching", modality="audio", examples={"files": ["tones.npz"]}, model=net)


def test_labels_are_dropped_out_and_replaced_by_captions(data: Path) -> None:
    words = DIGITS | {"class_names": "names", "captions": ["a {}", "the digit {}"], "label_dropout": 0.25}
    batch = examples(recipe("flow-matching", examples=words), data).batch(4000, generator_for(0, 0))
    assert batch.labels is not None
    kinds = {kind: sum(isinstance(label, kind) for label in batch.labels) / 4000 for kind in (int, str, type(None))}
    assert kinds[type(None)] == pytest.approx(0.25, abs=0.03)
    assert kinds[int] == pytest.approx(kinds[str], abs=0.05)
    assert "the digit seven" in batch.labels
    held_out = load_digits().images[::5]
    trained_on = {x.numpy().round(3).tobytes() for x in batch.clean[:, 0] * 16}
    assert not trained_on & {np.float32(x).round(3).tobytes() for x in held_out[:50]}


def test_binarised_pixels_have_their_value_as_probability(data: Path) -> None:
    source = examples(recipe("elbo", examples=DIGITS | {"binarise": True}), data)
    grey = examples(recipe("elbo"), data)
    binary = torch.cat([source.batch(1000, generator_for(0, step)).clean for step in range(4)])
    assert set(binary.unique().tolist()) == {0.0, 1.0}
    expected = (grey.signals.float() / 255).mean(dim=0)
    torch.testing.assert_close(binary.mean(dim=0), expected, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"files": ["none.npz"]}, "cannot be read"),
        ({"files": ["digits.npz"]}, "no signals"),
        (DIGITS | {"labels": "classes"}, "no classes"),
        (DIGITS | {"files": ["digits.npz", "tones.npz"]}, "no images"),
    ],
)
def test_missing_archives_and_arrays_are_refused(settings: dict[str, Any], message: str, data: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        examples(recipe("elbo", examples=settings), data)


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(ConfigError, match="not a NumPy archive"):
        LabelledExamples(parse(Examples, {"files": ["a.npy"]}, "test"), tmp_path)


def test_labels_fit_the_network(data: Path) -> None:
    captioned = recipe(
        "flow-matching", examples=DIGITS | {"class_names": "names", "captions": ["a {}"], "label_dropout": 0.0}
    )
    labels = examples(captioned, data, classes=0, text=True).batch(200, generator_for(0, 0)).labels
    assert labels is not None
    assert all(isinstance(label, str) for label in labels)
    with pytest.raises(ConfigError, match="holds 10 classes, the network has 9"):
        examples(captioned, data, classes=9)
    with pytest.raises(ConfigError, match="captions are text"):
        examples(captioned, data, classes=10, text=False)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"signals": np.zeros((3, 4, 4), np.int64)}, "is of int64; expected uint8 or int16"),
        ({"signals": np.zeros((3, 4, 4), np.uint16)}, "is of uint16; expected uint8 or int16"),
        ({"labels": np.zeros(2, int)}, r"labels has shape \(2,\)"),
        ({"labels": np.eye(3, dtype=int)}, r"labels has shape \(3, 3\)"),
        ({"labels": np.array([0, -1, 1])}, "values from -1; expected 3 class indices from 0"),
    ],
)
def test_arrays_of_unknown_scale_and_labels_that_do_not_fit_are_refused(
    arrays: dict[str, Any], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", **({"signals": np.zeros((3, 4, 4), np.uint8), "labels": np.arange(3)} | arrays))
    settings = parse(Examples, {"files": ["a.npz"], "labels": "labels"}, "test")
    with pytest.raises(ConfigError, match=message):
        LabelledExamples(settings, tmp_path)


def test_speed_perturbation_and_time_shift(tmp_path: Path) -> None:
    t = np.arange(8000) / 8000
    tone = np.sin(2 * np.pi * 500 * t) * np.exp(-(((t - 0.5) / 0.1) ** 2))
    np.savez(tmp_path / "tone.npz", signals=np.round(tone * 20_000).astype(np.int16)[None])
    settings = {"files": ["tone.npz"], "sample_rate": 8000, "speed_perturbation": 0.2, "time_shift_s": 0.05}
    batch = LabelledExamples(parse(Examples, settings, "test"), tmp_path).batch(64, generator_for(0, 0)).clean[:, 0]
    assert batch.shape == (64, 8000)
    hz = torch.fft.rfft(batch, dim=1).abs().argmax(dim=1) * 1.0
    assert 400 <= hz.min() < 450
    assert 560 < hz.max() <= 625.5
    power = batch.square()
    middles = (power * torch.arange(8000)).sum(dim=1) / power.sum(dim=1) / 8000
    assert 0.449 <= middles.min() < 0.46
    assert 0.54 < middles.max() <= 0.551
    assert torch.corrcoef(torch.stack([hz, middles]))[0, 1].abs() < 0.4  # independent


@pytest.mark.parametrize(
    "wrong", [{"speed_perturbation": 0.1}, {"speed_perturbation": 0.6, "sample_rate": 8000}, {"time_shift_s": -1.0}]
)
def test_perturbations_out_of_range_or_of_images_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="speed_perturbation"):
        parse(Examples, {"files": ["a.npz"]} | wrong, "test")


@pytest.mark.parametrize(
    ("objective", "changes", "message"),
    [
        ("diffusion", {"examples": None}, r"no \[examples\], \[points\], \[image\] or \[audio\] section"),
        ("likelihood", {}, "needs a prior of type HasLogProb"),
        ("reconstruction", {}, "is no autoencoder"),
        ("elbo", {}, "variational codec and a flow"),
        ("adversarial", {}, 'codec "aae"'),
        ("sampling", {}, "expected one of denoising, reconstruction"),
    ],
)
def test_what_does_not_fit_an_objective_is_refused(objective: str, changes: dict[str, Any], message: str) -> None:
    def validate(diffusion_recipe: Recipe) -> None:
        refused = make_objective(diffusion_recipe)
        refused.validate(refused.build())

    with pytest.raises(ConfigError, match=message):
        validate(recipe(objective, **PRIORS["diffusion"] | changes))


@pytest.mark.parametrize(
    ("loss", "prior", "message"),
    [
        ({"estimator": "B"}, {}, None),
        ({"estimator": "B", "free_bits": 0.1}, {}, None),
        ({"estimator": "B"}, {"kind": "maf", "hidden": [8]}, 'estimator is "B", the divergence from a standard normal'),
        ({"estimator": "B"}, {"kind": "mixture"}, 'estimator is "B"'),
        ({"estimator": "B"}, {"scale": 2.0}, 'estimator is "B"'),
        ({"estimator": "B"}, {"mean": 1.0}, 'estimator is "B"'),
        ({"estimator": "A"}, {"kind": "maf", "hidden": [8]}, None),
        ({"free_bits": 0.1}, {}, 'free_bits is 0.1, which estimator "A" ignores'),
        ({"estimator": "importance", "free_bits": 0.1}, {}, 'which estimator "importance" ignores'),
        ({"estimator": "score", "free_bits": 0.1}, {}, 'which estimator "score" ignores'),
    ],
)
def test_estimators_of_the_bound_fit_prior_and_free_bits(
    loss: dict[str, Any], prior: dict[str, Any], message: str | None
) -> None:
    objective = make_objective(recipe("elbo", model=LECTURE | {"prior": {**LECTURE["prior"], **prior}}, loss=loss))
    with pytest.raises(ConfigError, match=message) if message else nullcontext():
        objective.validate(objective.build())


def test_a_ddpm_needs_an_interval_that_holds_its_signals() -> None:
    net = {"shape": [1, 64], "net": NET}
    latents: dict[str, Any] = {"architecture": "ddpm", "shape": [4], "net": NET}
    codec = {"architecture": "ae", "shape": [1, 8, 8], "latent": 4, "body": DENSE}
    tones = {"modality": "audio", "examples": {"files": ["tones.npz"], "sample_rate": 8000}}
    refused: list[tuple[dict[str, Any], str]] = [
        (tones | {"model": net}, "model.interval is 0 to 1, signals of audio have both signs"),
        (
            {"architecture": "latent-prior", "model": {"codec": codec, "prior": latents | {"prediction": "eps"}}},
            'prediction "eps" of latents, which have no interval',
        ),
    ]
    for changes, message in refused:
        objective = make_objective(recipe("ddpm", **changes))
        with pytest.raises(ConfigError, match=message):
            objective.validate(objective.build())
    for changes in (
        tones | {"model": net | {"interval": [-1.0, 1.0]}},
        {"architecture": "latent-prior", "model": {"codec": codec, "prior": latents}},
    ):
        objective = make_objective(recipe("ddpm", **changes))
        objective.validate(objective.build())
