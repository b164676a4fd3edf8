"""Priors of other families work in the pipeline by the capabilities that they declare, and by nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Size, Tensor, nn

from denoise.cards import Card
from denoise.errors import ConfigError, InputError
from denoise.files.image import read_image
from denoise.models.autoencoder import VAE, VAEConfig
from denoise.nn.bodies import BodyConfig
from denoise.pipelines import prior_base
from denoise.pipelines.latent_space import interpolate_path
from denoise.pipelines.prior import PriorPipeline
from denoise.priors.latent import build_latent_prior
from denoise.protocols import (
    DEFAULT_OPTIONS,
    HasLogProb,
    HasLogProbBound,
    Label,
    NoiseDecoder,
    NoiseEncoder,
    Prior,
    SamplingOptions,
    Support,
)

SHAPE = Size([1, 4, 6])


class ToyGAN(nn.Module):
    """A generator as of a GAN: noise of another shape than the events; neither density nor score nor encoder."""

    event_shape, noise_shape, classes, text = SHAPE, Size([5]), 0, False
    sampling_options = frozenset({"temperature"})

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Linear(5, 24)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        temperature = 1.0 if options.temperature is None else options.temperature
        return self.decode_noise(temperature * torch.randn(n, 5, generator=generator))

    @torch.no_grad()
    def decode_noise(self, noise: Tensor, *, label: Label = None, options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        return self.generator(noise).sigmoid().unflatten(1, SHAPE)


class ToyPixelCNN(nn.Module):
    """An autoregressive model of binary pixels: exact probabilities, but no noise."""

    event_shape, classes, text = SHAPE, 0, False
    sampling_options: frozenset[str] = frozenset()
    support = Support(tuple(SHAPE), "binary")

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def logits(self, flat: Tensor) -> Tensor:
        previous = torch.cat([torch.full_like(flat[:, :1], 0.5), flat[:, :-1]], dim=1)
        return self.weight * (previous - 0.5)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        flat = torch.zeros(n, SHAPE.numel())
        for i in range(flat.shape[1]):
            p = self.logits(flat)[:, i].sigmoid()
            flat[:, i] = (torch.rand(n, generator=generator) < p).float()
        return flat.reshape(n, *SHAPE)

    def log_prob(self, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        flat = x.flatten(1)
        return torch.distributions.Bernoulli(logits=self.logits(flat)).log_prob(flat).sum(dim=1)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], PriorPipeline]:
    """Make a pipeline of a module as if it had been loaded from a file."""

    def pipeline(module: Any) -> PriorPipeline:
        card = Card("toy", "toy", "image", SHAPE[0], kind="prior", shape=tuple(SHAPE))
        monkeypatch.setattr(prior_base, "load", lambda name, kind: (module.eval().requires_grad_(False), card))
        return PriorPipeline("toy", device="cpu")

    return pipeline


REFUSED: dict[str, tuple[Callable[[PriorPipeline], Any], str]] = {
    "noise": (lambda p: p.noise(0), "cannot decode noise"),
    "encode": (lambda p: p.encode(torch.zeros(1, *SHAPE)), "cannot encode"),
    "decode": (lambda p: p.decode(torch.zeros(1, 5)), "cannot decode noise"),
    "decodings": (lambda p: p.decodings(torch.zeros(1, *SHAPE), 2), "no codec"),
    "complete": (lambda p: p.complete(torch.zeros(1, *SHAPE), torch.ones(1, *SHAPE), 1), "cannot complete"),
    "latents": (lambda p: p.latents(torch.zeros(1, *SHAPE)), "no codec"),
    "reconstruct": (lambda p: p.reconstruct(torch.zeros(1, *SHAPE)), "no codec"),
    "log_prob": (lambda p: p.log_prob(torch.zeros(1, *SHAPE)), "cannot compute likelihoods"),
    "bits_per_dim": (lambda p: p.bits_per_dim(torch.zeros(1)), "cannot compute likelihoods"),
    "steps": (lambda p: p.sample(1, steps=5), "takes no steps"),
    "label": (lambda p: p.sample(1, label=0), "has no class"),
    "text": (lambda p: p.label(text="a rose"), "takes no text"),
}


def check_refused(pipeline: PriorPipeline, supported: set[str]) -> None:
    for name, (call, reason) in REFUSED.items():
        if name not in supported:
            with pytest.raises(ConfigError, match=reason) as error:
                call(pipeline)
            assert "\n" not in str(error.value)


def test_a_gan_samples_and_interpolates(load: Callable[[Any], PriorPipeline]) -> None:
    torch.manual_seed(0)
    gan = ToyGAN()
    assert isinstance(gan, Prior)
    assert isinstance(gan, NoiseDecoder)
    assert not isinstance(gan, NoiseEncoder | HasLogProb)
    pipeline = load(gan)
    samples = pipeline.sample(70, seed=1)
    assert samples.shape == (70, *SHAPE)
    assert pipeline.sample(70, seed=1, temperature=0.1).std() < samples.std()
    path = interpolate_path(torch.cat([pipeline.noise(0), pipeline.noise(1)]), 4)
    assert pipeline.decode(path).shape == (4, *SHAPE)
    torch.testing.assert_close(pipeline.decode(path)[:1], pipeline.decode(pipeline.noise(0)))
    check_refused(pipeline, supported={"noise", "decode"})


def test_an_autoregressive_model_samples_and_scores(load: Callable[[Any], PriorPipeline]) -> None:
    model = ToyPixelCNN()
    assert isinstance(model, Prior)
    assert isinstance(model, HasLogProb)
    assert not isinstance(model, NoiseDecoder)
    pipeline = load(model)
    samples = pipeline.sample(2000, seed=1)
    nats, kind = pipeline.log_prob(samples)
    assert kind == "exact"
    bits = pipeline.bits_per_dim(nats)
    # the first pixel costs one bit; the others the entropy of p = sigmoid(1)
    p = torch.tensor(1.0).sigmoid()
    entropy = torch.distributions.Bernoulli(p).entropy() / torch.tensor(2.0).log()
    expected = (1 + (SHAPE.numel() - 1) * entropy) / SHAPE.numel()
    assert float(bits.mean()) == pytest.approx(float(expected), abs=0.02)
    check_refused(pipeline, supported={"log_prob", "bits_per_dim"})


def test_an_exact_binary_likelihood_of_grey_pixels_is_that_of_one_draw(load: Callable[[Any], PriorPipeline]) -> None:
    pipeline = load(ToyPixelCNN())
    grey = torch.full((2, *SHAPE), 0.5)
    nats, kind = pipeline.log_prob(grey, seed=3)
    assert kind == "exact, of stochastically binarised pixels"
    drawn = (torch.rand(grey.shape, generator=Generator().manual_seed(3)) < 0.5).float()
    torch.testing.assert_close(nats, pipeline.log_prob(drawn)[0])


class ToyLatentGAN(ToyGAN):
    """A GAN over latents of 24 numbers."""

    event_shape = Size([24])

    @torch.no_grad()
    def decode_noise(self, noise: Tensor, *, label: Label = None, options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        return self.generator(noise)


def test_a_gan_over_latents_has_its_noise_and_the_reconstructions_of_the_codec(
    load: Callable[[Any], PriorPipeline],
) -> None:
    torch.manual_seed(0)
    codec = VAE(VAEConfig(tuple(SHAPE), 24, BodyConfig("dense", widths=(8,)), "bernoulli"))
    model = build_latent_prior(codec, ToyLatentGAN())
    assert isinstance(model, NoiseDecoder)
    assert not isinstance(model, NoiseEncoder | HasLogProbBound)
    pipeline = load(model)
    assert pipeline.noise(0).shape == (1, 5)
    assert pipeline.decode(pipeline.noise(0)).shape == (1, *SHAPE)
    x = pipeline.sample(2)
    assert pipeline.latents(x).shape == (2, 24)
    mask = torch.ones(1, *SHAPE)
    mask[..., :2] = 0
    assert pipeline.complete(x[:1], mask, 3).shape == (3, *SHAPE)
    supported = {"noise", "decode", "decodings", "complete", "latents", "reconstruct"}
    check_refused(pipeline, supported)


def test_signals_of_another_shape_or_type_are_refused() -> None:
    prior: Any = PriorPipeline("mnist-matching")
    vae: Any = PriorPipeline("mnist-vae")
    x, z = torch.zeros(1, 1, 28, 28), torch.zeros(2, 5)
    calls: list[Callable[[Any], object]] = [
        prior.encode, prior.log_prob, prior.decode, lambda x: prior.complete(x, x, 1),
        lambda x: prior.write("x.png", x), lambda x: prior.write_trajectory("x.png", x),
        vae.latents, vae.decode_latents, vae.reconstruct, lambda x: vae.decodings(x, 2), vae.reconstruction_r2,
    ]  # fmt: skip
    for call in calls:
        for wrong in (torch.zeros(1, 3, 28, 28), torch.zeros(2, 7), x[:0], x * 1j, None, "x", [[1], [2, 3]]):
            with pytest.raises(InputError, match=r"expected (\((n|.*, n), |a tensor or an array of real numbers)"):
                call(wrong)
    for bad in (float("nan"), float("inf"), 1e300):  # which float32 does not hold
        for call in (vae.log_prob, vae.decode_latents, prior.encode, lambda x: prior.complete(x, x, 1)):
            shape = (1, 32) if call == vae.decode_latents else x.shape
            with pytest.raises(InputError, match="hold NaN or infinite values; expected finite ones"):
                call(torch.full(shape, bad, dtype=torch.float64))
    with pytest.raises(InputError, match="2 signals; expected one to complete"):
        prior.complete(x.repeat(2, 1, 1, 1), x.repeat(2, 1, 1, 1), 3)
    with pytest.raises(InputError, match=r"noise have shape \(2, 5\)"):
        prior.decode(z)


def test_arrays_are_taken_as_tensors_are(tmp_path: Path) -> None:
    prior: Any = PriorPipeline("mnist-matching")
    noise = prior.noise(1)
    assert torch.equal(prior.decode(noise.double().numpy(), steps=1), prior.decode(noise, steps=1))
    x, mask = torch.zeros(1, 1, 28, 28), torch.ones(1, 1, 28, 28)
    mask[..., 14:] = 0
    expected = prior.complete(x, mask, 1, steps=1)
    assert torch.equal(prior.complete(x.numpy(), mask.numpy() > 0, 1, steps=1), expected)
    for name, signals in (("a.png", expected), ("b.png", expected.numpy())):
        prior.write(tmp_path / name, signals)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [
        (1.5, {}, "n is 1.5; expected a whole number"),
        ("1", {}, "n is '1'; expected a whole number"),
        (1, {"seed": 1.0}, "seed is 1.0; expected a whole number"),
        (1, {"seed": "a"}, "seed is 'a'; expected a whole number"),
        (1, {"seed": 1 << 64}, "seed is 18446744073709551616; expected a number of 64 bits"),
        (1, {"steps": "a"}, "steps is 'a'; expected a whole number from 1 to 10000"),
        (1, {"steps": 2.5}, "steps is 2.5; expected a whole number from 1 to 10000"),
        (1, {"temperature": "a"}, "temperature is 'a'; expected 0 to 100"),
        (1, {"solver": 3}, "solver is 3; expected a name"),
    ],
)
def test_options_of_samples_of_another_type_are_refused(n: Any, options: dict[str, Any], message: str) -> None:
    prior: Any = PriorPipeline("mnist-matching")
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        prior.sample(n, **options)


@pytest.mark.parametrize("values", ["binary", "discrete", "continuous"])
def test_integers_have_the_full_scale_of_their_type(values: Any, load: Callable[[Any], PriorPipeline]) -> None:
    model = ToyPixelCNN()
    model.support = Support(tuple(SHAPE), values)
    pipeline: Any = load(model)
    levels = np.random.default_rng(0).integers(0, 256, (12, *SHAPE))
    levels[0, 0, 0, :2] = 0, 255
    for i in range(12):
        levels[i, 0, 1:].flat[:i] = 0  # of several complexities
    floats = (levels / 255).astype(np.float32)
    expected, typical = pipeline.log_prob(floats)[0], pipeline.typical_statistics(floats)
    scores = pipeline.anomaly_scores(torch.from_numpy(floats), expected, typical)
    for x in (levels.astype(np.uint8), torch.from_numpy(levels).byte(), (257 * levels).astype(np.uint16)):
        nats, _ = pipeline.log_prob(x)
        torch.testing.assert_close(nats, expected)
        assert pipeline.typical_statistics(x) == typical
        torch.testing.assert_close(pipeline.anomaly_scores(x, nats, typical), scores)
    with pytest.raises(InputError, match="signals are int64; expected uint8 or uint16 of their full scale, or floats"):
        pipeline.log_prob(levels)


@pytest.mark.parametrize("values", ["binary", "discrete"])
def test_values_far_outside_of_levels_have_no_likelihood(values: Any, load: Callable[[Any], PriorPipeline]) -> None:
    model = ToyPixelCNN()
    model.support = Support(tuple(SHAPE), values)
    pipeline = load(model)
    x = torch.rand(3, *SHAPE, generator=Generator().manual_seed(0))
    x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    for wrong, shown in ((255 * x, "0 to 255"), (2 * x - 1, "-1 to 1"), (3 * x, "0 to 3")):
        with pytest.raises(InputError, match=rf"signals are {shown}; expected 0 to 1, of {values} values") as error:
            pipeline.log_prob(wrong)
        assert "\n" not in str(error.value)
    assert torch.isfinite(pipeline.log_prob(1.4 * x - 0.2)[0]).all()  # as samples of other priors are
    model.support = Support(tuple(SHAPE))
    assert torch.isfinite(load(model).log_prob(255 * x)[0]).all()


def test_integers_are_completed_and_written_as_floats_are_and_masks_are_not_scaled(tmp_path: Path) -> None:
    prior: Any = PriorPipeline("mnist-matching")
    levels = np.random.default_rng(0).integers(0, 256, (1, 1, 28, 28)).astype(np.uint8)
    mask = np.ones((1, 1, 28, 28), np.uint8)
    mask[..., 14:] = 0
    floats = (levels / 255).astype(np.float32)
    completed = prior.complete(levels, mask, 1, steps=1)
    assert torch.equal(completed, prior.complete(floats, mask.astype(np.float32), 1, steps=1))
    for name, signals in (("a.png", levels), ("b.png", floats)):
        prior.write(tmp_path / name, signals)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert len(np.unique(read_image(tmp_path / "a.png").pixels)) > 100


def test_integers_of_audio_have_the_full_scale_of_their_type() -> None:
    prior: Any = PriorPipeline("digits-audio")
    samples = np.random.default_rng(0).integers(-(1 << 15), 1 << 15, (2, 1, 6144)).astype(np.int16)
    expected = prior.latents((samples / 32768).astype(np.float32))
    torch.testing.assert_close(prior.latents(samples), expected)
    torch.testing.assert_close(prior.latents(samples.astype(np.int32) << 16), expected)
    with pytest.raises(InputError, match="signals are uint8; expected int16 or int32 of their full scale"):
        prior.latents(samples.astype(np.uint8))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_model_of_another_type_is_refused(dtype: torch.dtype, load: Callable[[Any], PriorPipeline]) -> None:
    gan, pixels = (load(model.to(dtype)) for model in (ToyGAN(), ToyPixelCNN()))
    calls = (
        lambda: gan.sample(1),
        lambda: gan.decode(torch.zeros(1, 5)),
        lambda: pixels.log_prob(torch.zeros(1, *SHAPE)),
    )
    for call in calls:
        with pytest.raises(
            ConfigError, match=rf"prior toy holds parameters of {dtype}; expected torch\.float32"
        ) as error:
            call()
        assert "\n" not in str(error.value)
