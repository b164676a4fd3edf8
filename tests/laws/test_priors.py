"""What every prior must be, by its abilities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from denoise.models.autoencoder import AAE, AE, VAE, AAEConfig, AEConfig, VAEConfig
from denoise.models.mdct import MDCT, MDCTConfig
from denoise.nn.bodies import BodyConfig
from denoise.nn.unet import BackboneConfig
from denoise.priors.diffusion import Diffusion, DiffusionConfig
from denoise.priors.flow_matching import FlowMatching, FlowMatchingConfig
from denoise.priors.flows import Flow, FlowConfig
from denoise.priors.latent import LatentPrior
from denoise.registry import PRIORS, bundled, load
from denoise.weights import Card, save_weights

NET = BackboneConfig("mlp", widths=(16,), blocks=1, embedding=8)
UNET = BackboneConfig("unet", widths=(8, 16), blocks=1, embedding=8)
KINDS = ("normal", "mixture", "realnvp", "nice", "maf", "nsf", "nsf-coupling", "sospf", "naf", "unaf", "cnf")
BODY = BodyConfig("conv", widths=(4, 6))


def flow(kind: str, shape: tuple[int, ...] = (2,), classes: int = 0) -> Flow:
    return Flow(FlowConfig(shape, kind, transforms=2, hidden=(16,), mean=0.5, scale=1.5, classes=classes))  # type: ignore[arg-type]


MAKERS: dict[str, Any] = {kind: lambda kind=kind: flow(kind) for kind in KINDS}
MAKERS |= {f"{kind}-classes": lambda kind=kind: flow(kind, classes=3) for kind in KINDS if kind != "normal"}
MAKERS |= {
    "diffusion-mlp": lambda: Diffusion(DiffusionConfig((3,), NET, mean=0.5, sigma_data=0.5)),
    "diffusion-unet": lambda: Diffusion(DiffusionConfig((2, 7, 6), UNET, classes=3, text=True)),
    "diffusion-sound": lambda: Diffusion(DiffusionConfig((1, 21), UNET, classes=2)),
    "diffusion-patches": lambda: Diffusion(DiffusionConfig((1, 9, 7), replace(UNET, patch=2), classes=2)),
    "diffusion-profile": lambda: Diffusion(DiffusionConfig((1, 6, 4), UNET, sigma_data=0.5, profile=(2.0, 1.0, 0.1))),
    "matching-mlp": lambda: FlowMatching(FlowMatchingConfig((3,), NET, mean=0.5, sigma_data=0.5)),
    "matching-unet": lambda: FlowMatching(FlowMatchingConfig((1, 8, 8), UNET, classes=3, text=True)),
    "latent-flow": lambda: LatentPrior(VAE(VAEConfig((1, 8, 8), 2, BODY)), flow("nsf", classes=3)),
    "latent-mdct": lambda: LatentPrior(MDCT(MDCTConfig(64, 8)), Diffusion(DiffusionConfig((1, 8, 8), UNET, classes=2))),
    "latent-normal": lambda: LatentPrior(AAE(AAEConfig((4,), 2)), flow("normal")),
    "latent-diffusion": lambda: LatentPrior(
        AE(AEConfig((3, 8, 8), 2, BodyConfig("conv", widths=(4, 6), spatial=True))),
        Diffusion(DiffusionConfig((2, 4, 4), UNET, text=True)),
    ),
}


@pytest.fixture(scope="module", params=MAKERS)
def prior(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    made = MAKERS[request.param]()
    with torch.no_grad():  # past the zeros of the start
        generator = torch.Generator().manual_seed(0)
        for p in made.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return made.eval()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_samples_have_its_shape_and_follow_the_seed(prior: Any) -> None:
    steps = {"steps": 3} if not isinstance(getattr(prior, "prior", prior), Flow) else {}
    a, b, c = (prior.sample(4, generator=seeded(seed), **steps) for seed in (0, 0, 1))
    assert a.shape == (4, *prior.event_shape)
    assert torch.isfinite(a).all()
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert not a.requires_grad
    assert prior.sample(1, generator=seeded(), **steps).shape == (1, *prior.event_shape)


def test_what_is_asked_for_matters(prior: Any) -> None:
    steps = {"steps": 3} if not isinstance(getattr(prior, "prior", prior), Flow) else {}

    def sample(label: Any) -> Tensor:
        return prior.sample(3, label=label, generator=seeded(), **steps)

    if prior.classes:
        assert not torch.equal(sample(0), sample(1))
        assert not torch.equal(sample(0), sample(None))
        with pytest.raises(ValueError, match="class"):
            sample(prior.classes)
    if prior.text:
        assert not torch.equal(sample("a red rose"), sample("a daisy"))
        assert torch.equal(sample(" A red rose"), sample("a red rose"))
    if not prior.text and prior.classes:
        with pytest.raises(ValueError, match="text"):
            sample("a rose")


def test_a_low_temperature_is_tame(prior: Any) -> None:
    if isinstance(prior, LatentPrior):
        return
    steps = {} if isinstance(prior, Flow) else {"steps": 3}
    cold, warm = (prior.sample(64, temperature=t, generator=seeded(), **steps) for t in (0.1, 1.0))
    assert cold.std(dim=0).mean() < warm.std(dim=0).mean()


ARCHITECTURES = {Flow: "flow", Diffusion: "diffusion", FlowMatching: "flow-matching", LatentPrior: "latent-prior"}


def test_every_prior_is_here() -> None:
    assert set(ARCHITECTURES.values()) == set(PRIORS)


def test_saved_and_loaded_it_makes_the_same(prior: Any, tmp_path: Path) -> None:
    if isinstance(prior, LatentPrior):  # made by the registry, in tests/training/test_examples.py
        return
    steps = {"steps": 3} if not isinstance(prior, Flow) else {}
    shape = tuple(prior.event_shape)
    card = Card("tiny", ARCHITECTURES[type(prior)], "image", shape[0], kind="prior", shape=shape)
    save_weights(tmp_path / "tiny.safetensors", prior, card, {}, torch.float32)
    again, _ = load(tmp_path / "tiny.safetensors")
    prior.to(memory_format=torch.channels_last)  # as `load` lays it out: another order of sums rounds otherwise
    a, b = (p.sample(3, generator=seeded(), **steps) for p in (prior, again))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [0, 3])
def test_a_density_integrates_to_one(kind: str, classes: int) -> None:
    if kind == "normal" and classes:
        return
    torch.manual_seed(0)
    net = flow(kind, classes=classes).eval()
    side = torch.linspace(-14, 15, 146)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        total = net.log_prob(grid, [1] * len(grid) if classes else None).double().exp().sum() * 0.2**2
    assert float(total) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mixture"])
def test_a_flow_is_invertible_and_its_density_has_the_determinant(kind: str) -> None:
    torch.manual_seed(0)
    net = flow(kind, shape=(3,)).double().eval()
    noise = torch.randn(5, 3, generator=seeded(), dtype=torch.float64)
    x = net.decode_noise(noise)
    atol = 1e-3 if kind == "cnf" else 1e-5
    torch.testing.assert_close(net.encode_noise(x), noise, atol=atol, rtol=0)
    for row in range(2):
        to_noise = torch.autograd.functional.jacobian(
            lambda y: net.distribution([None]).transform(y[None])[0] if kind != "normal" else y,
            (x[row] - 0.5) / 1.5,
        )
        log_det = torch.linalg.slogdet(to_noise / 1.5)[1]
        expected = -0.5 * noise[row].square().sum() - 1.5 * torch.log(torch.tensor(2 * torch.pi)) + log_det
        torch.testing.assert_close(net.log_prob(x[row : row + 1])[0], expected.to(x), atol=1e-3, rtol=1e-4)


def test_draws_of_a_mixture_are_of_its_density() -> None:
    torch.manual_seed(0)
    net = flow("mixture")
    drawn = net.sample(20_000, generator=seeded())
    reference = net.config.mean + net.config.scale * net.distribution([None]).sample((20_000,)).reshape(-1, 2)
    torch.testing.assert_close(drawn.mean(dim=0), reference.mean(dim=0), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), reference.T.cov(), atol=0.1, rtol=0.05)


class Known(Diffusion):
    """A diffusion prior whose denoiser is the best there is for N(0.7, 0.3^2)."""

    def forward(self, x: Tensor, sigma: Tensor, labels: Any = None, guidance: float = 1.0) -> Tensor:
        gain = (0.09 / (0.09 + sigma**2)).reshape(-1, 1)
        return 0.7 + gain * (x - 0.7)


def test_diffusion_of_known_signals() -> None:
    net = Known(DiffusionConfig((3,), NET, mean=0.7, sigma_data=0.3))
    x = torch.randn(4, 3, generator=seeded())
    sigma = torch.tensor([0.1, 0.5, 1.0, 10.0])
    torch.testing.assert_close(net.score(x, sigma), -(x - 0.7) / (0.09 + sigma**2)[:, None])
    drawn = net.sample(5000, steps=40, generator=seeded())
    torch.testing.assert_close(drawn.mean(dim=0), torch.full((3,), 0.7), atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.std(dim=0), torch.full((3,), 0.3), atol=0.02, rtol=0)


class KnownVelocity(FlowMatching):
    """The velocity of signals of N(0.7, 0.3^2), in units of 0.3 around 0.7: of standard normal ones."""

    def velocity(self, z: Tensor, t: Tensor, labels: Any = None, guidance: float = 1.0) -> Tensor:
        t = t.reshape(-1, 1)
        return (2 * t - 1) / ((1 - t) ** 2 + t**2) * z


def test_matching_of_known_signals() -> None:
    net = KnownVelocity(FlowMatchingConfig((3,), NET, mean=0.7, sigma_data=0.3))
    x = torch.randn(4, 3, generator=seeded())
    sigma = torch.tensor([0.1, 0.5, 1.0, 10.0])
    torch.testing.assert_close(net.score(x, sigma), -(x - 0.7) / (0.09 + sigma**2)[:, None], rtol=1e-4, atol=1e-4)
    drawn = net.sample(5000, steps=40, generator=seeded())
    torch.testing.assert_close(drawn.mean(dim=0), torch.full((3,), 0.7), atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.std(dim=0), torch.full((3,), 0.3), atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", ["diffusion", "flow-matching"])
def test_noise_becomes_signals_and_noise_again(kind: str) -> None:
    if kind == "diffusion":
        net: Any = Known(DiffusionConfig((3,), NET, mean=0.7, sigma_data=0.3, sigma_max=20.0))
    else:
        net = KnownVelocity(FlowMatchingConfig((3,), NET, mean=0.7, sigma_data=0.3))
    noise = torch.randn(16, 3, generator=seeded())
    x = net.decode_noise(noise, steps=200)
    torch.testing.assert_close(net.encode_noise(x, steps=200), noise, atol=0.01, rtol=0)


@pytest.mark.parametrize("probes", [None, 1])
def test_the_density_along_the_way_is_that_of_known_signals(probes: int | None) -> None:
    x = 0.7 + 0.3 * torch.randn(16, 3, generator=seeded())
    expected = torch.distributions.Normal(0.7, 0.3).log_prob(x).sum(dim=1)
    matching = KnownVelocity(FlowMatchingConfig((3,), NET, mean=0.7, sigma_data=0.3))
    diffusion = Known(DiffusionConfig((3,), NET, mean=0.7, sigma_data=0.3))
    for net in (matching, diffusion):  # the slopes are the same in all directions: one probe tells all
        found = net.log_prob(x, steps=300, probes=probes, generator=seeded())
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_guidance_of_one_is_the_label_and_of_none_nothing() -> None:
    torch.manual_seed(0)
    net = FlowMatching(FlowMatchingConfig((3,), NET, classes=2))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    z, t = torch.randn(4, 3), torch.rand(4)
    nothing, asked = net.velocity(z, t), net.velocity(z, t, [1] * 4)
    torch.testing.assert_close(net.velocity(z, t, [1] * 4, 0.0), nothing)
    torch.testing.assert_close(net.velocity(z, t, [1] * 4, 3.0), nothing + 3 * (asked - nothing))


@pytest.mark.parametrize("name", bundled(kind="prior"))
def test_a_bundled_prior_is_what_its_card_says(name: str) -> None:
    made, card = load(name)
    assert card.shape == tuple(made.event_shape)
    assert len(card.classes) == made.classes
    assert card.text == made.text
    assert (card.sample_rate is not None) == (card.modality == "audio")
    a, b = (made.sample(2, generator=seeded(1)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.shape == (2, *card.shape)
    assert 0.02 < float((a - a.mean()).square().mean().sqrt()) < 0.5  # neither empty nor noise of full scale
    low = 0.0 if card.modality == "image" else -1.0
    assert float(((a < low - 0.1) | (a > 1.1)).float().mean()) < 0.01
    for label in range(made.classes):
        assert not torch.equal(made.sample(2, generator=seeded(1), label=label), a)


def test_samples_are_guided_as_the_configuration_says() -> None:
    torch.manual_seed(0)
    made = Diffusion(DiffusionConfig((3,), NET, classes=2, guidance=3.0))
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    plain = made.sample(2, label=1, generator=seeded())
    assert torch.equal(plain, made.sample(2, label=1, guidance=3.0, generator=seeded()))
    assert not torch.equal(plain, made.sample(2, label=1, guidance=1.0, generator=seeded()))
    nothing = made.sample(2, generator=seeded())
    assert torch.equal(nothing, made.sample(2, guidance=1.0, generator=seeded()))
