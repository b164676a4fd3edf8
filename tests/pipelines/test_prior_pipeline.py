"""Pipelines of priors, through files: reproducible, of the shape of the prior, and refused where they must be."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageOps
from torch import Tensor

from denoise.cards import Card
from denoise.errors import ConfigError, InputError
from denoise.files.audio import read_audio, write_audio
from denoise.files.image import ImageReader, read_image, write_image
from denoise.metrics import bits_per_dim
from denoise.pipelines.latent_space import attribute_direction, interpolate_grid, interpolate_path, principal_map
from denoise.pipelines.prior import PriorPipeline
from denoise.pipelines.prior_files import as_images, make_grid, read_mask, read_signal, write_signals
from denoise.registry import build
from denoise.signals import Audio, AudioFormat, Image, ImageFormat
from denoise.weights import save_weights

NET = {"kind": "mlp", "widths": [16], "blocks": 1, "embedding": 8}
NORMAL = {"architecture": "flow", "kind": "normal", "shape": [3]}
VAE = {"architecture": "vae", "shape": [1, 8, 6], "latent": 3, "likelihood": "bernoulli"}
SETTINGS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "flow-matching": (
        "flow-matching",
        {"shape": [1, 8, 6], "net": NET, "classes": 2, "text": True, "mean": 0.5, "sigma_data": 0.3},
        {"modality": "image", "classes": ("rose", "daisy"), "text": True},
    ),
    "vae": ("latent-prior", {"codec": VAE, "prior": NORMAL}, {"modality": "image"}),
    "mixture": ("flow", {"shape": [1, 8, 6], "kind": "mixture", "components": 2}, {"modality": "image"}),
    "rotated": (
        "latent-prior",
        {
            "codec": {"architecture": "mdct", "time": 96, "bins": 8},
            "prior": {"architecture": "diffusion", "shape": [1, 8, 12], "net": NET, "sigma_data": 0.1},
        },
        {"modality": "audio", "sample_rate": 8000},
    ),
    "pixels": (
        "pixelcnn",
        {"shape": [1, 8, 6], "likelihood": "bernoulli", "features": 4, "dilations": [1]},
        {"modality": "image"},
    ),
    "sound": ("flow", {"shape": [1, 400], "kind": "normal", "scale": 0.1}, {"modality": "audio", "sample_rate": 8000}),
}


@pytest.fixture(scope="module")
def priors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PriorPipeline]:
    root = tmp_path_factory.mktemp("priors")
    pipelines = {}
    for name, (architecture, settings, facts) in SETTINGS.items():
        torch.manual_seed(0)
        module = build(architecture, settings)
        with torch.no_grad():
            for p in module.parameters():
                p.add_(0.1 * torch.randn(p.shape))
        shape = tuple(module.event_shape)
        card = Card(name, architecture, channels=shape[0], kind="prior", shape=shape, **facts)
        save_weights(root / f"{name}.safetensors", module, card, {}, torch.float32)
        pipelines[name] = PriorPipeline(root / f"{name}.safetensors", device="cpu")
    return pipelines


def test_samples_of_several_batches_follow_the_seed(priors: dict[str, PriorPipeline]) -> None:
    progress: list[float] = []
    a = priors["vae"].sample(130, seed=3, progress=progress.append)
    assert a.shape == (130, 1, 8, 6)
    assert progress[-1] == 1.0
    assert torch.equal(a, priors["vae"].sample(130, seed=3))
    assert not torch.equal(a, priors["vae"].sample(130, seed=4))


def test_labels_are_classes_or_texts(priors: dict[str, PriorPipeline]) -> None:
    prior = priors["flow-matching"]
    assert prior.label() is None
    assert prior.label("daisy") == prior.label("1") == 1
    assert prior.label(text="a daisy") == "a daisy"
    for wrong in ({"name": "tulip"}, {"name": "2"}, {"name": "1" * 5000}, {"name": "rose", "text": "rose"}):
        with pytest.raises(ConfigError, match=r"rose, daisy|at most one"):
            prior.label(**wrong)
    with pytest.raises(ConfigError, match="takes no text"):
        priors["vae"].label(text="a rose")


@pytest.mark.parametrize(
    ("name", "call", "reason"),
    [
        ("vae", lambda p: p.sample(0), "at least 1"),
        ("vae", lambda p: p.sample(1, steps=5), "takes no steps"),
        ("mixture", lambda p: p.decode(torch.zeros(1, 1, 8, 6)), "cannot decode noise"),
        ("flow-matching", lambda p: p.decodings(torch.zeros(1, 1, 8, 6), 2), "no codec"),
        ("vae", lambda p: p.decodings(torch.zeros(1, 1, 8, 6), 0), "at least 1"),
        ("vae", lambda p: p.complete(torch.zeros(1, 1, 8, 6), torch.ones(1, 1, 8, 8), 1), "mask is of shape"),
        ("mixture", lambda p: p.complete(torch.zeros(1, 1, 8, 6), torch.ones(1, 1, 8, 6), 1), "cannot complete"),
    ],
)
def test_what_a_prior_cannot_do_is_refused(priors: dict[str, PriorPipeline], name: str, call: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        call(priors[name])


def test_noise_is_decoded_and_encoded(priors: dict[str, PriorPipeline]) -> None:
    prior = priors["sound"]
    x = prior.decode(prior.noise(5))
    torch.testing.assert_close(prior.encode(x), prior.noise(5))
    assert prior.noise(5).shape == (1, 1, 400)
    assert priors["vae"].noise(0).shape == (1, 3)
    assert priors["vae"].decode(priors["vae"].noise(0)).shape == (1, 1, 8, 6)
    assert priors["flow-matching"].decode(priors["flow-matching"].noise(0), label=1, steps=2).shape == (1, 1, 8, 6)


@pytest.mark.parametrize("name", ["flow-matching", "vae", "rotated"])
def test_completions_keep_the_observed_entries(priors: dict[str, PriorPipeline], name: str) -> None:
    x = priors[name].sample(1)
    mask = torch.ones_like(x)
    mask[..., 3:] = 0
    steps = None if name == "vae" else 5
    completions = priors[name].complete(x, mask, 3, steps=steps)
    torch.testing.assert_close(completions[..., :3], x[..., :3].expand_as(completions[..., :3]))
    assert not torch.equal(completions[0], completions[1])
    assert torch.equal(completions, priors[name].complete(x, mask, 3, steps=steps))


def test_the_temperature_of_completions(priors: dict[str, PriorPipeline]) -> None:
    x, mask = torch.zeros(1, 1, 8, 6), torch.ones(1, 1, 8, 6)
    mask[:, :, 2:] = 0
    most_probable = priors["pixels"].complete(x, mask, 8, temperature=0)
    assert torch.equal(most_probable, most_probable[:1].expand_as(most_probable))
    assert len(priors["pixels"].complete(x, mask, 8, temperature=1).unique(dim=0)) > 4
    assert torch.equal(priors["pixels"].complete(x, mask, 8, temperature=1), priors["pixels"].complete(x, mask, 8))
    with pytest.raises(ConfigError, match="flow-matching takes no temperature"):
        priors["flow-matching"].complete(x, mask, 1, temperature=0.5)


@pytest.mark.parametrize("name", ["flow-matching", "vae"])
def test_many_completions_are_made_in_batches_with_progress(priors: dict[str, PriorPipeline], name: str) -> None:
    x = priors[name].sample(1)
    mask, fractions, sizes = torch.ones_like(x), [], []
    mask[..., 3:] = 0
    pipeline = copy.copy(priors[name])
    pipeline.model = copy.copy(pipeline.model)
    complete = pipeline.model.complete  # type: ignore[attr-defined]

    def counted(x: Tensor, mask: Tensor, **options: Any) -> Tensor:
        sizes.append(len(x))
        return complete(x, mask, **options)

    pipeline.model.complete = counted  # type: ignore[attr-defined]
    steps = None if name == "vae" else 3
    completions = pipeline.complete(x, mask, 70, steps=steps, progress=fractions.append)
    assert sizes == [64, 6]
    assert completions.shape == (70, *x.shape[1:])
    assert len(completions.flatten(1).unique(dim=0)) == 70
    assert len(fractions) > 6
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_decodings_differ_and_follow_the_seed(priors: dict[str, PriorPipeline]) -> None:
    x = priors["vae"].sample(1)
    decodings = priors["vae"].decodings(x, 5, seed=1)
    assert decodings.shape == (5, 1, 8, 6)
    assert torch.equal(decodings, priors["vae"].decodings(x, 5, seed=1))
    assert not torch.equal(decodings[0], decodings[1])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vae", "bound"),
        ("mixture", "exact"),
        ("sound", "exact"),
        ("flow-matching", "estimate"),
        ("rotated", "estimate"),
    ],
)
def test_likelihoods_state_their_kind(priors: dict[str, PriorPipeline], name: str, kind: str) -> None:
    x = priors[name].sample(3)
    nats, description = priors[name].log_prob(x)
    assert nats.shape == (3,)
    assert torch.isfinite(nats).all()
    assert kind in description
    repeated, _ = priors[name].log_prob(x)
    torch.testing.assert_close(repeated, nats)
    levels = 1 if name == "vae" else 256  # whose pixels are binary
    torch.testing.assert_close(priors[name].bits_per_dim(nats), bits_per_dim(nats, x[0].numel(), levels))


def test_bits_per_dim_depend_on_the_levels() -> None:
    assert float(bits_per_dim(torch.tensor(0.0), 4)) == pytest.approx(8.0)  # uniform over [0, 1]
    assert float(bits_per_dim(torch.tensor(4 * np.log(256.0)), 4)) == pytest.approx(0.0)  # a point mass on one level
    fair_coins = torch.tensor(4 * np.log(0.5))
    assert float(bits_per_dim(fair_coins, 4, levels=1)) == pytest.approx(1.0)


def test_bounds_of_audio_and_of_diffusion_depend_on_the_class(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inner = {"architecture": "vae", "shape": [129, 8], "latent": 2, "body": {"kind": "conv", "widths": [4, 4]}}
    codec = {"architecture": "spectral-codec", "time": 512, "codec": inner}
    settings = {
        "flow": {"architecture": "flow", "kind": "maf", "hidden": [8], "shape": [2], "classes": 2},
        "diffusion": {"architecture": "diffusion", "net": NET, "shape": [2], "classes": 2},
    }
    for name, prior in settings.items():
        module = build("latent-prior", {"codec": codec, "prior": prior})
        with torch.no_grad():
            for p in module.parameters():
                p.add_(0.1 * torch.randn(p.shape))
        card = Card(name, "latent-prior", "audio", 1, "prior", sample_rate=8000, shape=(1, 512), classes=("a", "b"))
        save_weights(tmp_path / f"{name}.safetensors", module, card, {}, torch.float32)
        pipeline = PriorPipeline(tmp_path / f"{name}.safetensors", device="cpu")
        x = 0.1 * torch.randn(2, 1, 512, generator=torch.Generator().manual_seed(0))
        nats, kind = pipeline.log_prob(x, label=1)
        assert "of compressed spectra" in kind
        assert torch.equal(nats, pipeline.log_prob(x, label=1)[0])
        assert not torch.equal(nats, pipeline.log_prob(x, label=0)[0])
        torch.testing.assert_close(pipeline.bits_per_dim(nats), bits_per_dim(nats, 129 * 8))


def test_paths_start_and_end_at_the_ends_and_preserve_the_norm() -> None:
    generator = torch.Generator().manual_seed(0)
    ends = torch.randn(2, 3, 4, generator=generator)
    for spherical in (True, False):
        points = interpolate_path(ends, 7, spherical=spherical)
        torch.testing.assert_close(points[[0, -1]], ends)
    unit = ends / ends.flatten(1).norm(dim=1)[:, None, None]
    lengths = interpolate_path(unit, 9).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(9))
    assert interpolate_path(unit, 9, spherical=False).flatten(1).norm(dim=1)[4] < 0.95
    steps = interpolate_path(unit, 9).flatten(1)
    angles = torch.nn.functional.cosine_similarity(steps[1:], steps[:-1])
    torch.testing.assert_close(angles, angles[:1].expand(8))  # equal steps
    torch.testing.assert_close(interpolate_path(unit[[0, 0]], 5), unit[:1].expand(5, -1, -1))
    for factor in (-1.0, -1.0000001, 2.0):  # opposite directions, and equal ones
        ends[1] = factor * ends[0]
        torch.testing.assert_close(interpolate_path(ends, 5)[[0, -1]], ends)
    with pytest.raises(ConfigError, match="n is 1; expected at least 2 points, the ends"):
        interpolate_path(ends, 1)


def test_attributes_of_a_linear_codec_are_differences_of_signals(priors: dict[str, PriorPipeline]) -> None:
    prior = priors["rotated"]  # its codec is an orthonormal transform
    generator = torch.Generator().manual_seed(0)
    x, examples, others = (torch.randn(n, 1, 96, generator=generator) for n in (3, 5, 4))
    direction = prior.attribute(examples, others)
    expected = x + 1.5 * (examples.mean(dim=0) - others.mean(dim=0))
    torch.testing.assert_close(prior.edit(x, direction, 1.5), expected)
    torch.testing.assert_close(prior.edit(prior.edit(x, direction), direction, -1), x)


def test_attributes_of_a_nonlinear_codec(priors: dict[str, PriorPipeline]) -> None:
    prior = priors["vae"]
    x, examples, others = (prior.sample(n, seed=n) for n in (3, 5, 4))
    direction = prior.attribute(examples, others)
    assert direction.shape == (1, 3)
    assert torch.equal(prior.edit(x, direction, 0.0), prior.reconstruct(x))
    towards = prior.decode_latents(prior.latents(examples).mean(dim=0, keepdim=True))
    distances = [(prior.edit(x, direction, s) - towards).flatten(1).norm(dim=1).mean() for s in (-0.5, 0.0, 0.5)]
    assert distances[0] > distances[1] > distances[2]
    torch.testing.assert_close(prior.attribute(others, examples), -direction)
    assert not prior.attribute(examples, examples).any()
    torch.testing.assert_close(prior.decode_latents(prior.latents(x)), prior.reconstruct(x))
    with pytest.raises(ConfigError, match="0 examples and 3 others"):
        attribute_direction(examples[:0], x)
    with pytest.raises(ConfigError, match="no codec"):
        priors["mixture"].attribute(x, x)


def test_a_grid_includes_its_corners() -> None:
    corners = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    points = interpolate_grid(corners, 5, spherical=False).reshape(5, 5, 2)
    torch.testing.assert_close(torch.stack([points[0, 0], points[0, -1], points[-1, 0], points[-1, -1]]), corners)
    torch.testing.assert_close(points[2, 2], corners.mean(dim=0))


def test_the_map_shows_the_principal_components() -> None:
    z = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 5.0, 0.2, 3.0, 0.1, 0.1])
    coordinates = principal_map(z)
    assert coordinates.min() == 0
    assert coordinates.max() == 1
    assert abs(np.corrcoef(coordinates[:, 0], z[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(coordinates[:, 1], z[:, 3])[0, 1]) > 0.99
    assert principal_map(z[:, :1]).shape == (500, 2)


class TestFiles:
    def test_one_image_of_all(self, priors: dict[str, PriorPipeline], tmp_path: Path) -> None:
        card, x = priors["vae"].card, priors["vae"].sample(5)
        (path,) = write_signals(tmp_path / "a.png", x, card)
        pixels = read_image(path).pixels
        assert pixels.shape == (2 * 8 + 2, 3 * 6 + 4, 1)
        np.testing.assert_allclose(pixels[10:, 8:14, 0], x[4, 0] * 255, atol=0.51)
        with pytest.raises(InputError, match="exists"):
            write_signals(path, x, card)
        assert read_image(write_signals(tmp_path / "b.png", x[:1], card)[0]).pixels.shape == (8, 6, 1)
        assert make_grid(x, columns=5).shape == (1, 8, 5 * 6 + 8)

    def test_a_folder_has_one_file_for_each_signal(self, priors: dict[str, PriorPipeline], tmp_path: Path) -> None:
        x = priors["vae"].sample(11)
        paths = write_signals(tmp_path / "all", x, priors["vae"].card)
        assert [path.name for path in paths] == [f"{i:02d}.png" for i in range(11)]
        np.testing.assert_allclose(read_image(paths[7]).pixels[..., 0], x[7, 0] * 255, atol=0.51)

    def test_an_animation(self, priors: dict[str, PriorPipeline], tmp_path: Path) -> None:
        (path,) = write_signals(tmp_path / "a.gif", priors["vae"].sample(4), priors["vae"].card)
        with ImageReader(path) as reader:
            assert reader.n_frames == 4
            assert reader.size == (6, 8)

    def test_audio_with_pauses(self, priors: dict[str, PriorPipeline], tmp_path: Path) -> None:
        card, x = priors["sound"].card, 0.5 * torch.ones(3, 1, 400)
        (path,) = write_signals(tmp_path / "a.wav", x, card)
        audio = read_audio(path)
        assert audio.format.sample_rate == 8000
        assert audio.samples.shape == (1, 3 * 400 + 2 * 2000)
        assert abs(audio.samples[0, 0]) < 1e-3  # no click
        assert not audio.samples[0, 400:2400].any()
        assert audio.samples[0, 200] == pytest.approx(0.5, abs=1e-3)
        with pytest.raises(ConfigError, match=r"expected \.wav"):
            write_signals(tmp_path / "a.gif", x, card)
        assert len(write_signals(tmp_path / "sounds", x, card)) == 3

    @pytest.mark.parametrize("size", [(8, 6), (16, 12), (5, 3), (40, 100), (100, 40), (1, 1)])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_images_of_any_size_are_resized(
        self, priors: dict[str, PriorPipeline], tmp_path: Path, size: tuple[int, int], channels: int
    ) -> None:
        pixels = np.full((*size, channels), 200, np.uint8)
        write_image(tmp_path / "a.png", [Image(pixels)], ImageFormat(mode="L" if channels == 1 else "RGB"))
        losses: list[str] = []
        x = read_signal(tmp_path / "a.png", priors["vae"].card, report=losses.append)
        torch.testing.assert_close(x, torch.full((1, 1, 8, 6), 200 / 255), atol=2e-3, rtol=0)
        name = priors["vae"].card.name
        assert losses == [f"images are resized to 6 x 8 pixels, as {name} takes them."] * (size != (8, 6))

    def test_images_are_cropped_at_the_centre(self, priors: dict[str, PriorPipeline], tmp_path: Path) -> None:
        pixels = np.zeros((8, 30, 1), np.uint8)
        pixels[:, 12:18] = 255
        write_image(tmp_path / "a.png", [Image(pixels)], ImageFormat(mode="L"))
        assert read_signal(tmp_path / "a.png", priors["vae"].card).min() == 1

    @pytest.mark.parametrize("seconds", [0.01, 0.05, 0.5])
    def test_audio_of_any_length_is_truncated_or_padded(
        self, priors: dict[str, PriorPipeline], tmp_path: Path, seconds: float
    ) -> None:
        n = round(seconds * 16_000)
        x = np.full((2, n), 0.25, np.float32)
        write_audio(tmp_path / "a.wav", Audio(x, AudioFormat(16_000, 2, "WAV", "FLOAT")))
        losses: list[str] = []
        y: Tensor = read_signal(tmp_path / "a.wav", priors["sound"].card, report=losses.append)
        assert len(losses) == (n // 2 > 400)
        assert y.shape == (1, 1, 400)
        kept = min(400, n // 2)
        torch.testing.assert_close(y[0, 0, kept // 2], torch.tensor(0.25), atol=0.05, rtol=0)
        assert not y[0, 0, kept:].any()


def test_audio_is_shown_as_spectrograms(priors: dict[str, PriorPipeline], tmp_path: Path) -> None:
    time = torch.arange(2048) / 8000
    tones = torch.stack([(2 * torch.pi * hertz * time).sin() for hertz in (1000, 3000)])[:, None]
    card = priors["sound"].card
    images = as_images(0.01 * tones, card)
    assert images.shape == (2, 1, 129, 33)  # n_fft is 256 (32 ms at 8 kHz), hop 64
    assert [128 - int(row) for row in images[:, 0, :, 16].argmax(dim=1)] == [32, 96]  # 31.25 Hz for each row, upwards
    assert images.amax() == 1
    assert images[0, 0, 128 - 96, 16] == 0
    assert as_images(torch.zeros(1, 1, 300), card).max() == 0
    write_signals(tmp_path / "sounds.png", tones, card)
    assert read_image(tmp_path / "sounds.png").pixels.shape == (129, 33 * 2 + 2, 1)


def test_sampling_options_change_the_samples(priors: dict[str, PriorPipeline]) -> None:
    matching = priors["flow-matching"]
    default = matching.sample(2, label=1, seed=1)
    options: list[dict[str, Any]] = [{"steps": 3}, {"guidance": 2.0}, {"temperature": 0.5}]
    for option in options:
        assert not torch.equal(matching.sample(2, label=1, seed=1, **option), default)
    with pytest.raises(ConfigError, match="takes no solver"):
        matching.sample(2, solver="heun")
    with pytest.raises(ConfigError, match="takes no guidance"):
        priors["vae"].sample(2, guidance=2.0)


def test_a_label_is_a_name_or_an_integer_of_any_type(priors: dict[str, PriorPipeline]) -> None:
    flow = priors["flow-matching"]
    samples = flow.sample(2, label=1)
    for label in (np.int64(1), torch.tensor(1)):
        assert torch.equal(flow.sample(2, label=label), samples)
    assert not torch.equal(flow.sample(2, label="a daisy"), samples)  # a text, which it takes, too
    for name, label in (("flow-matching", 2), ("flow-matching", -1), ("flow-matching", 1.5), ("vae", 0), ("vae", "x")):
        with pytest.raises(ConfigError):
            priors[name].sample(2, label=label)
        with pytest.raises(ConfigError):
            priors[name].log_prob(samples, label=label)
    with pytest.raises(ConfigError, match="takes no steps"):
        priors["vae"].complete(samples[:1], torch.ones_like(samples[:1]), 2, steps=3)
    invalid: list[dict[str, Any]] = [{"steps": 0}, {"guidance": -1.0}, {"temperature": float("nan")}]
    for option in invalid:
        with pytest.raises(ConfigError, match="expected"):
            flow.sample(2, **option)


def test_grey_pixels_are_binarised_at_random(priors: dict[str, PriorPipeline]) -> None:
    x = torch.full((2, 1, 8, 6), 0.5)
    nats, kind = priors["vae"].log_prob(x, seed=1)
    assert "stochastically binarised" in kind
    assert nats[0] != nats[1]  # two samples of the same grey
    torch.testing.assert_close(nats, priors["vae"].log_prob(x, seed=1)[0])


def test_binary_pixels_are_not_binarised(priors: dict[str, PriorPipeline]) -> None:
    nats, kind = priors["vae"].log_prob((priors["vae"].sample(2) > 0.5).float(), seed=1)
    assert "binarised" not in kind
    assert torch.isfinite(nats).all()


def test_transparent_images_are_composited_on_black(priors: dict[str, PriorPipeline], tmp_path: Path) -> None:
    alpha = np.full((8, 6), 255, np.uint8)
    alpha[:4] = 0
    image = Image(np.full((8, 6, 3), 255, np.uint8), alpha)
    write_image(tmp_path / "a.png", [image], ImageFormat(mode="RGBA"))
    x = read_signal(tmp_path / "a.png", priors["vae"].card)
    assert x[..., :4, :].max() == 0
    assert x[..., 4:, :].min() == 1


def test_colours_become_their_luma(priors: dict[str, PriorPipeline], tmp_path: Path) -> None:
    green = np.zeros((8, 6, 3), np.uint8)
    green[..., 1] = 255
    write_image(tmp_path / "a.png", [Image(green)], ImageFormat())
    x = read_signal(tmp_path / "a.png", priors["vae"].card)
    torch.testing.assert_close(x, torch.full((1, 1, 8, 6), 0.587), atol=1e-3, rtol=0)


def test_cmyk_is_refused(priors: dict[str, PriorPipeline], tmp_path: Path) -> None:
    Pillow.new("CMYK", (6, 8), (255, 0, 0, 0)).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="CMYK"):
        read_signal(tmp_path / "a.jpg", priors["vae"].card)


def test_a_pixel_is_missing_where_resizing_shows_what_is_masked(
    priors: dict[str, PriorPipeline], tmp_path: Path
) -> None:
    mask = np.zeros((32, 24, 1), np.uint8)
    mask[21, 13] = 255
    for name, pixels in (("mask.png", mask), ("image.png", 128 - mask // 2), ("grey.png", mask * 0 + 128)):
        write_image(tmp_path / name, [Image(pixels)], ImageFormat(mode="L"))
    observed = read_mask(tmp_path / "mask.png", tmp_path / "image.png", priors["vae"].card)
    expected = torch.ones(1, 1, 8, 6)
    expected[..., 4:7, 2:5] = 0
    assert torch.equal(observed, expected)
    marked, grey = (read_signal(tmp_path / name, priors["vae"].card) for name in ("image.png", "grey.png"))
    assert (marked - grey).abs().max() > 0.01
    assert (observed * (marked - grey)).abs().max() < 0.01


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("is_mask_turned", [False, True])
def test_images_and_masks_are_turned_upright(
    priors: dict[str, PriorPipeline], orientation: int, is_mask_turned: bool, tmp_path: Path
) -> None:
    """Pillow is the oracle: what it shows, saved without EXIF, is the same image."""
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (32, 24), np.uint8)
    mask = np.zeros((32, 24), np.uint8)
    mask[3:9, 2:20] = 255
    for name, x in (("image", pixels), ("mask", mask)):
        Pillow.fromarray(x).save(tmp_path / f"{name}.png", exif=exif)
        with Pillow.open(tmp_path / f"{name}.png") as picture:
            ImageOps.exif_transpose(picture).save(tmp_path / f"{name}-upright.png")
    card = priors["vae"].card
    image, upright = tmp_path / "image.png", tmp_path / "image-upright.png"
    assert torch.equal(read_signal(image, card), read_signal(upright, card))
    masks = [tmp_path / f"mask{suffix}.png" for suffix in ("" if is_mask_turned else "-upright", "-upright")]
    observed, expected = read_mask(masks[0], image, card), read_mask(masks[1], upright, card)
    assert torch.equal(observed, expected)


def test_existing_files_are_refused_before_sampling(priors: dict[str, PriorPipeline], tmp_path: Path) -> None:
    priors["vae"].write(tmp_path / "samples/2.png", priors["vae"].sample(1))
    with pytest.raises(InputError, match=r"2\.png: exists already"):
        priors["vae"].output_paths(tmp_path / "samples", 4)
    with pytest.raises(InputError, match="exists already"):
        priors["vae"].write(tmp_path / "samples", priors["vae"].sample(4))
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["2.png"]
    assert len(priors["vae"].output_paths(tmp_path / "samples", 4, overwrite=True)) == 4
