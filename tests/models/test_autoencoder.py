"""Codecs: any dimension from the same code, and likelihoods that are distributions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from denoise.errors import ConfigError
from denoise.models.autoencoder import AAE, AE, VAE, AAEConfig, AEConfig, VAEConfig
from denoise.nn.bodies import BodyConfig
from denoise.nn.distributions import DiscretizedLogistic
from denoise.protocols import Codec

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


def signals(codec: Any, n: int = 3) -> Tensor:
    return torch.rand(n, *codec.event_shape, generator=torch.Generator().manual_seed(0))


def test_signals_become_latents_and_signals_again(codec: Any) -> None:
    assert isinstance(codec, Codec)
    x = signals(codec)
    z = codec.encode(x)
    assert z.shape == (3, *codec.latent_shape)
    y = codec.decode(z)
    assert y.shape == x.shape
    torch.testing.assert_close(codec(x), y)
    torch.testing.assert_close(codec.encode(x[1:2]), z[1:2], rtol=1e-4, atol=1e-5)  # each for itself
    log_prob = codec.likelihood(z).log_prob(x)
    assert log_prob.shape == (3,)
    assert torch.isfinite(log_prob).all()


def test_every_weight_learns(codec: Any) -> None:
    x = signals(codec)
    z = codec.draw(x) if hasattr(codec, "draw") else codec.encode(x)
    loss = codec.likelihood(z).log_prob(x).sum()
    if isinstance(codec, AAE):
        loss = loss + codec.critic(z).sum()
    loss.backward()
    still = [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@torch.no_grad()
def test_draws_are_of_the_posterior() -> None:
    torch.manual_seed(0)
    codec = CODECS["vae-conv-2d"]()
    x = signals(codec, 1).expand(4000, -1, -1, -1)
    drawn = codec.draw(x, torch.Generator().manual_seed(0))
    q = codec.posterior(x[:1])
    torch.testing.assert_close(drawn.mean(dim=0), q.loc[0], atol=4 * float(q.scale.max()) / 4000**0.5, rtol=0)
    torch.testing.assert_close(drawn.std(dim=0), q.scale[0], rtol=0.06, atol=0)


@pytest.mark.parametrize(("posterior", "random"), [("deterministic", False), ("gaussian", True), ("universal", True)])
def test_only_some_posteriors_draw(posterior: str, random: bool) -> None:
    torch.manual_seed(0)
    codec = AAE(AAEConfig((1, 8, 8), 5, DENSE, posterior=posterior))  # type: ignore[arg-type]
    x = signals(codec)
    a, b, again = (codec.draw(x, torch.Generator().manual_seed(seed)) for seed in (0, 1, 0))
    assert torch.equal(a, b) != random
    assert torch.equal(a, again)


def test_a_spatial_codec_takes_any_multiple() -> None:
    codec = CODECS["vae-spatial-1d"]()
    x = torch.rand(2, 2, 36)
    assert codec.encode(x).shape == (2, 5, 9)
    assert codec(x).shape == x.shape


@pytest.mark.parametrize("loc", [-0.2, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("log_scale", [-6.0, -3.0, 0.0])
def test_levels_share_all_probability(loc: float, log_scale: float) -> None:
    d = DiscretizedLogistic(torch.tensor(loc, dtype=torch.float64), torch.tensor(log_scale, dtype=torch.float64))
    levels = torch.arange(256, dtype=torch.float64) / 255
    p = d.log_prob(levels).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-6)
    torch.manual_seed(0)
    drawn = d.sample((20_000,))
    assert drawn.mean().item() == pytest.approx((p * levels).sum().item(), abs=0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: BodyConfig("dense", spatial=True),
        lambda: AE(AEConfig((1, 10, 10), 5, CONV)),
        lambda: AE(AEConfig((10,), 5, CONV)),
        lambda: AEConfig((1, 8, 8), 0),
        lambda: AAEConfig((1, 8, 8), 5, SPATIAL),
    ],
)
def test_what_does_not_fit_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        wrong()
