"""The MDCT is orthonormal, has the coefficients of the textbook, and turns a denoiser of them into one of signals."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoise.errors import ConfigError
from denoise.nn.unet import BackboneConfig
from denoise.priors.diffusion import Diffusion, DiffusionConfig
from denoise.priors.latent import build_latent_prior
from denoise.protocols import DenoisingPrior, HasLogProb, OrthonormalCodec
from denoise.registry import build


@given(bins=st.integers(1, 40), frames=st.integers(1, 9))
def test_the_transform_is_orthonormal(bins: int, frames: int) -> None:
    time = bins * frames
    codec = build("mdct", {"time": time, "bins": bins})
    assert isinstance(codec, OrthonormalCodec)
    assert (codec.event_shape, codec.latent_shape) == ((1, time), (1, bins, frames))
    matrix = codec.encode(torch.eye(time)[:, None]).flatten(1)
    assert matrix.shape == (time, time)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(time), atol=1e-5, rtol=0)
    x = torch.randn(2, 1, time, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(codec(x), x, atol=1e-5, rtol=1e-5)


def test_coefficients_equal_the_textbook_formula() -> None:
    n, frame = 16, 3
    x = torch.randn(1, 1, 6 * n, generator=torch.Generator().manual_seed(0))
    coefficients = build("mdct", {"time": 6 * n, "bins": n}).encode(x)[0, 0, :, frame]
    block = x[0, 0, frame * n : (frame + 2) * n]
    for k in range(n):
        expected = sum(
            float(block[i])
            * math.sin(math.pi * (i + 0.5) / (2 * n))
            * math.cos(math.pi / n * (i + 0.5 + n / 2) * (k + 0.5))
            for i in range(2 * n)
        )
        assert float(coefficients[k]) == pytest.approx((2 / n) ** 0.5 * expected, abs=1e-4)


def test_frames_as_channels_are_the_same_coefficients() -> None:
    maps, channels = (build("mdct", {"time": 96, "bins": 8, "layout": layout}) for layout in ("map", "channels"))
    assert isinstance(channels, OrthonormalCodec)
    x = torch.randn(2, 1, 96, generator=torch.Generator().manual_seed(0))
    z = channels.encode(x)
    assert z.shape[1:] == channels.latent_shape == (8, 12)
    assert torch.equal(z, maps.encode(x)[:, 0])
    assert torch.equal(channels.decode(z), maps.decode(z[:, None]))


def test_autocast_does_not_round_the_transform() -> None:
    codec, x = build("mdct", {"time": 1024, "bins": 32}), torch.randn(2, 1, 1024)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(codec(x), x, atol=1e-5, rtol=1e-5)


def test_a_copy_has_its_own_weights() -> None:
    codec = build("mdct", {"time": 64, "bins": 8})
    prior = build_latent_prior(codec, Diffusion(DiffusionConfig((1, 8, 8))))
    copied, x = copy.deepcopy(prior), torch.randn(2, 1, 64)
    with torch.no_grad():
        for p in copied.parameters():
            p.add_(0.1)
        assert not torch.allclose(prior.score(x, torch.ones(2)), copied.score(x, torch.ones(2)))


def test_a_tone_is_in_the_bin_of_its_frequency() -> None:
    x = torch.sin(2 * math.pi * 1000 / 16_000 * torch.arange(16_384))[None, None]
    power = build("mdct", {"time": 16_384}).encode(x)[0, 0].square().mean(dim=1)
    assert power.argmax().item() in (31, 32)  # of bins of 31.25 Hz
    assert power[28:36].sum() > 0.99 * power.sum()


@pytest.mark.parametrize("settings", [{"time": 100, "bins": 64}, {"time": 0}, {"time": 4096, "bins": 2048}])
def test_invalid_sizes_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="time"):
        build("mdct", settings)


def test_a_prior_of_coefficients_denoises_signals() -> None:
    """Before training it is the Wiener filter for the powers of its profile."""
    profile, bins, time = (2.0, 0.02), 32, 2048
    codec = build("mdct", {"time": time, "bins": bins})
    prior = build_latent_prior(
        codec, Diffusion(DiffusionConfig((1, bins, time // bins), sigma_data=0.5, profile=profile))
    )
    power = (0.5 * torch.logspace(math.log10(2.0), math.log10(0.02), bins)) ** 2
    generator = torch.Generator().manual_seed(0)
    clean = codec.decode(
        power.sqrt()[None, None, :, None] * torch.randn(64, 1, bins, time // bins, generator=generator)
    )
    sigma = torch.tensor([0.1, 1.0]).repeat(32)
    noisy = clean + sigma[:, None, None] * torch.randn(clean.shape, generator=generator)
    with torch.no_grad():
        errors = (prior(noisy, sigma) - clean).square().mean(dim=(1, 2))
    for noise_level in (0.1, 1.0):
        expected = (power * noise_level**2 / (power + noise_level**2)).mean()
        assert float(errors[sigma == noise_level].mean()) == pytest.approx(float(expected), rel=0.05)
    inner = prior.prior.score(codec.encode(noisy), sigma)
    torch.testing.assert_close(prior.score(noisy, sigma), codec.decode(inner), atol=1e-4, rtol=1e-4)
    for other in (build("spectral-codec", SPECTRAL), codec):
        flow = build_latent_prior(other, build("flow", {"shape": list(other.latent_shape), "kind": "normal"}))
        assert not isinstance(flow, DenoisingPrior)
        assert isinstance(flow, HasLogProb) == (other is codec)
    denoising = build_latent_prior(
        build("spectral-codec", SPECTRAL), Diffusion(DiffusionConfig((4,), BackboneConfig("mlp")))
    )
    assert not isinstance(denoising, DenoisingPrior)  # this codec is not orthonormal


def test_an_orthonormal_codec_keeps_densities() -> None:
    codec = build("mdct", {"time": 64, "bins": 8})
    prior = build_latent_prior(codec, build("flow", {"shape": [1, 8, 8], "kind": "normal", "scale": 0.3}))
    x = torch.randn(4, 1, 64, generator=torch.Generator().manual_seed(0))
    expected = torch.distributions.Normal(0, 0.3).log_prob(x).sum(dim=(1, 2))  # an orthonormal map keeps white noise
    assert isinstance(prior, HasLogProb)
    torch.testing.assert_close(prior.log_prob(x), expected)


SPECTRAL = {"time": 2048, "n_fft": 64, "hop": 32, "codec": {"architecture": "ae", "shape": [33, 64], "latent": 4}}


@pytest.mark.parametrize("profile", [(1.0,), (1.0, 0.0)])
def test_invalid_profiles_are_refused(profile: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="profile"):
        DiffusionConfig((1, 8, 8), profile=profile)
