"""Codecs: audio and images from the same code, posteriors, likelihoods, declared capabilities."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from denoise.errors import ConfigError
from denoise.models.autoencoder import AAE, AE, VAE, AAEConfig, AEConfig, VAEConfig
from denoise.nn.bodies import BodyConfig
from denoise.nn.distributions import DiscretizedLogistic
from denoise.protocols import Codec, LikelihoodCodec, OrthonormalCodec, StochasticCodec, VariationalCodec
from denoise.registry import build

DENSE, CONV = BodyConfig("dense", (16, 8)), BodyConfig("conv", (4, 6, 8))
SPATIAL = BodyConfig("conv", (4, 6, 8), spatial=True)
CODECS: dict[str, Any] = {
    "ae-dense-2d": lambda: AE(AEConfig((1, 8, 8), 5, DENSE)),
    "ae-conv-1d": lambda: AE(AEConfig((2, 24), 5, CONV)),
    "ae-spatial-2d": lambda: AE(AEConfig((3, 8, 12), 5, SPATIAL)),
    "vae-dense-1d": lambda: VAE(VAEConfig((1, 20), 5, DENSE, "bernoulli")),
    "vae-conv-2d": lambda: VAE(VAEConfig((3, 8, 8), 5, CONV, "logistic")),
    "vae-spatial-1d": lambda: VAE(VAEConfig((2, 16), 5, SPATIAL)),
    "aae-deterministic": lambda: AAE(AAEConfig((1, 8, 8), 5, DENSE, posterior="deterministic")),
    "aae-gaussian": lambda: AAE(AAEConfig((1, 8, 8), 5, CONV, posterior="gaussian")),
    "aae-universal": lambda: AAE(AAEConfig((1, 8, 8), 5, DENSE, posterior="universal")),
}


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return CODECS[request.param]()


def random_signals(codec: Any, n: int = 3) -> Tensor:
    return torch.rand(n, *codec.event_shape, generator=torch.Generator().manual_seed(0))


def test_signals_are_encoded_and_decoded(codec: Any) -> None:
    assert isinstance(codec, Codec)
    x = random_signals(codec)
    z = codec.encode(x)
    assert z.shape == (3, *codec.latent_shape)
    y = codec.decode(z)
    assert y.shape == x.shape
    torch.testing.assert_close(codec(x), y)
    torch.testing.assert_close(codec.encode(x[1:2]), z[1:2], rtol=1e-4, atol=1e-5)  # independent of the batch
    log_prob = codec.likelihood(z).log_prob(x)
    assert log_prob.shape == (3,)
    assert torch.isfinite(log_prob).all()


def test_capabilities_are_those_of_the_architecture(codec: Any) -> None:
    assert isinstance(codec, LikelihoodCodec)
    assert isinstance(codec, StochasticCodec) == isinstance(codec, VAE | AAE)
    assert isinstance(codec, VariationalCodec) == isinstance(codec, VAE)
    assert not isinstance(codec, OrthonormalCodec)
    values = {"gaussian": "continuous", "bernoulli": "binary", "logistic": "discrete"}
    assert (codec.support.shape, codec.support.values) == (codec.event_shape, values[codec.config.likelihood])


def test_every_weight_has_a_gradient(codec: Any) -> None:
    x = random_signals(codec)
    z = codec.sample_posterior(x) if isinstance(codec, StochasticCodec) else codec.encode(x)
    loss = codec.likelihood(z).log_prob(x).sum()
    if isinstance(codec, AAE):
        loss = loss + codec.critic(z).sum()
    loss.backward()
    untrained = [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.any()]
    assert not untrained


@torch.no_grad()
def test_posterior_samples_have_the_moments_of_the_posterior() -> None:
    torch.manual_seed(0)
    codec = CODECS["vae-conv-2d"]()
    x = random_signals(codec, 1).expand(4000, -1, -1, -1)
    samples = codec.sample_posterior(x, torch.Generator().manual_seed(0))
    q = codec.posterior(x[:1])
    torch.testing.assert_close(samples.mean(dim=0), q.loc[0], atol=4 * float(q.scale.max()) / 4000**0.5, rtol=0)
    torch.testing.assert_close(samples.std(dim=0), q.scale[0], rtol=0.06, atol=0)


@pytest.mark.parametrize(("posterior", "random"), [("deterministic", False), ("gaussian", True), ("universal", True)])
def test_only_some_posteriors_are_random(posterior: str, random: bool) -> None:
    torch.manual_seed(0)
    codec = AAE(AAEConfig((1, 8, 8), 5, DENSE, posterior=posterior))  # type: ignore[arg-type]
    x = random_signals(codec)
    a, b, repeated = (codec.sample_posterior(x, torch.Generator().manual_seed(seed)) for seed in (0, 1, 0))
    assert torch.equal(a, b) != random
    assert torch.equal(a, repeated)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "logistic"])
def test_likelihoods_of_diverged_weights_are_nan(likelihood: Any) -> None:
    """An exception would end a training, which skips steps whose gradient is not finite."""
    codec = AE(AEConfig((1, 4, 4), 5, DENSE, likelihood))
    assert codec.likelihood(torch.full((2, 5), torch.nan)).log_prob(torch.rand(2, 1, 4, 4)).isnan().all()


def test_a_spatial_codec_accepts_any_multiple() -> None:
    codec = CODECS["vae-spatial-1d"]()
    x = torch.rand(2, 2, 36)
    assert codec.encode(x).shape == (2, 5, 9)
    assert codec(x).shape == x.shape


@pytest.mark.parametrize("loc", [-0.2, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("log_scale", [-6.0, -3.0, 0.0])
def test_probabilities_of_the_levels_sum_to_1(loc: float, log_scale: float) -> None:
    d = DiscretizedLogistic(torch.tensor(loc, dtype=torch.float64), torch.tensor(log_scale, dtype=torch.float64))
    levels = torch.arange(256, dtype=torch.float64) / 255
    p = d.log_prob(levels).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-6)
    torch.manual_seed(0)
    samples = d.sample((20_000,))
    assert samples.mean().item() == pytest.approx((p * levels).sum().item(), abs=0.01)


@pytest.mark.parametrize("log_scale", [-500.0, 90.0, 500.0])
def test_extreme_scales_have_finite_probabilities_and_gradients(log_scale: float) -> None:
    scale = torch.full((3,), log_scale, requires_grad=True)
    log_p = DiscretizedLogistic(torch.full((3,), 0.5), scale).log_prob(torch.tensor([0.0, 0.5, 1.0]))
    (gradient,) = torch.autograd.grad(log_p.sum(), scale)
    assert log_p.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("log_scale", [-6.0, -3.0])
@pytest.mark.parametrize("level", [1, 60, 128, 200, 254])
def test_levels_far_from_the_mean_have_exact_probabilities_and_gradients(log_scale: float, level: int) -> None:
    loc = torch.tensor([0.05, 0.5, 0.95], requires_grad=True)
    log_p = DiscretizedLogistic(loc, torch.full((3,), log_scale)).log_prob(torch.tensor(level / 255))
    log_p.sum().backward()
    low, high = ((level + offset) / 255 for offset in (-0.5, 0.5))
    for i, mean in enumerate(loc.tolist()):
        reference = stats.logistic(mean, math.exp(log_scale))
        # differences in the nearer tail, which float64 resolves
        p = reference.cdf(high) - reference.cdf(low) if low < mean else reference.sf(low) - reference.sf(high)
        assert log_p[i].item() == pytest.approx(math.log(p), rel=1e-4, abs=1e-4)
        slope = (1 - reference.cdf(high) - reference.cdf(low)) / math.exp(log_scale)  # of log p by a shift of the level
        assert loc.grad is not None
        assert loc.grad[i].item() == pytest.approx(-slope, rel=1e-3, abs=0.05)


@pytest.mark.parametrize(
    "build_invalid",
    [
        lambda: BodyConfig("dense", spatial=True),
        lambda: AE(AEConfig((1, 10, 10), 5, CONV)),
        lambda: AE(AEConfig((10,), 5, CONV)),
        lambda: AEConfig((1, 8, 8), 0),
        lambda: AAEConfig((1, 8, 8), 5, SPATIAL),
    ],
)
def test_invalid_configurations_are_refused(build_invalid: Any) -> None:
    with pytest.raises(ConfigError):
        build_invalid()


SPECTRAL = {
    "time": 2048,
    "n_fft": 128,
    "hop": 32,
    "codec": {"architecture": "vae", "shape": [65, 64], "latent": 4}
    | {"body": {"kind": "conv", "widths": [16, 24], "spatial": True}},
}


@pytest.fixture(scope="module")
def spectral() -> Any:
    torch.manual_seed(0)
    return build("spectral-codec", SPECTRAL)


def vowels(n: int) -> Tensor:
    """Harmonics with a gliding pitch, (n, 1, 2048)."""
    t = torch.arange(2048) / 8000
    pitch = torch.linspace(100, 220, n)[:, None] * (1 + 0.5 * t)
    phase = 2 * torch.pi * torch.cumsum(pitch / 8000, dim=1)
    return (0.1 * sum(torch.sin(k * phase) / k for k in range(1, 8)))[:, None]  # type: ignore[misc]


def test_phases_are_reconstructed_from_spectra(spectral: Any) -> None:
    x = vowels(3)
    spectrum = spectral.to_spectrum(x)
    assert spectrum.shape == (3, 65, 64)
    y = spectral.to_signal(spectrum)
    assert y.shape == x.shape
    error = (spectral.to_spectrum(y) - spectrum).square().mean() / spectrum.square().mean()
    assert 10 * torch.log10(error) < -17
    assert torch.equal(y, spectral.to_signal(spectrum))
    torch.testing.assert_close(spectral.to_signal(spectrum[1:]), y[1:], atol=1e-3, rtol=0)  # the batch does not matter
    assert not spectral.to_signal(torch.zeros_like(spectrum)).any()


def test_a_spectral_codec_encodes_spectra(spectral: Any) -> None:
    x = vowels(3)
    z = spectral.encode(x)
    assert z.shape == (3, *spectral.latent_shape) == (3, 4, 32)
    assert spectral.decode(z).shape == x.shape
    likelihood = spectral.likelihood(z)
    expected = spectral.codec.likelihood(z).log_prob(spectral.to_spectrum(x))
    torch.testing.assert_close(likelihood.log_prob(x), expected)
    torch.testing.assert_close(likelihood.mean, spectral.decode(z))
    assert likelihood.batch_shape + likelihood.event_shape == x.shape
    assert spectral.posterior(x).loc.shape == z.shape
    assert spectral.sample_posterior(x, torch.Generator().manual_seed(0)).shape == z.shape
    with pytest.raises(ConfigError, match="bins and frames"):
        build("spectral-codec", SPECTRAL | {"hop": 64})


@pytest.mark.parametrize(
    ("architecture", "is_stochastic", "is_variational"),
    [("ae", False, False), ("aae", True, False), ("vae", True, True)],
)
def test_a_spectral_codec_has_the_capabilities_of_its_inner_codec(
    architecture: str, is_stochastic: bool, is_variational: bool
) -> None:
    inner = {"architecture": architecture, "shape": [65, 64], "latent": 4, "likelihood": "logistic"}
    codec = build("spectral-codec", SPECTRAL | {"codec": inner})
    assert isinstance(codec, LikelihoodCodec)
    assert isinstance(codec, StochasticCodec) == is_stochastic
    assert isinstance(codec, VariationalCodec) == is_variational
    assert not isinstance(codec, OrthonormalCodec)
    assert codec.support.description == "compressed spectra"
    assert (codec.support.shape, codec.support.values) == ((65, 64), "discrete")
