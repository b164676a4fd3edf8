"""Laws of priors: what each of the declared capabilities of `denoise.protocols` promises."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from denoise.cards import Card
from denoise.errors import ConfigError
from denoise.models.autoencoder import AAE, AE, VAE, AAEConfig, AEConfig, VAEConfig
from denoise.models.mdct import MDCT, MDCTConfig
from denoise.nn.bodies import BodyConfig
from denoise.nn.unet import BackboneConfig
from denoise.priors.autoregressive_flow import AutoregressiveFlow, AutoregressiveFlowConfig
from denoise.priors.consistency_model import ConsistencyModel, ConsistencyModelConfig
from denoise.priors.ddgan import DDGAN, DDGANConfig
from denoise.priors.ddpm import DDPM, DDPMConfig
from denoise.priors.diffusion import Diffusion, DiffusionConfig
from denoise.priors.flow_matching import FlowMatching, FlowMatchingConfig
from denoise.priors.flows import RAD, Flow, FlowConfig, Kind, Mixture, build_flow
from denoise.priors.gan import GAN, GANConfig
from denoise.priors.guided import GuidedPrior
from denoise.priors.latent import LatentPrior, build_latent_prior
from denoise.priors.multiscale_flow import (
    CouplingKind,
    DiscreteMultiscaleFlow,
    EstimatedMultiscaleFlow,
    ExactMultiscaleFlow,
    LatentDiscreteMultiscaleFlow,
    LatentExactMultiscaleFlow,
    MultiscaleFlowConfig,
    build_multiscale_flow,
)
from denoise.priors.patch_flow import PatchFlow, PatchFlowConfig
from denoise.priors.pixelcnn import PixelCNN, PixelCNNConfig
from denoise.priors.pixelrnn import PixelRNN, PixelRNNConfig
from denoise.protocols import (
    Completer,
    DenoisingPrior,
    HasEstimatedLogProb,
    HasLogProb,
    HasLogProbBound,
    HasTrajectory,
    LatentEncoder,
    LatentVariablePrior,
    NoiseDecoder,
    NoiseEncoder,
    PatchPrior,
    Prior,
    SamplingOptions,
)
from denoise.registry import PRIORS, bundled, load
from denoise.weights import save_weights

NET = BackboneConfig("mlp", widths=(16,), blocks=1, embedding=8)
SET = BackboneConfig("set", widths=(16,), blocks=2, embedding=8, inducing=4)
UNET = BackboneConfig("unet", widths=(8, 16), blocks=1, embedding=8)
KINDS = get_args(Kind)
UNCONDITIONAL = ("normal", "residual")
NOT_INVERTIBLE = ("mixture", "rad")
BODY = BodyConfig("conv", widths=(4, 6))


def flow(kind: str, shape: tuple[int, ...] = (2,), classes: int = 0) -> Any:
    return build_flow(FlowConfig(shape, kind, transforms=2, hidden=(16,), mean=0.5, scale=1.5, classes=classes))  # type: ignore[arg-type]


def multiscale(kind: str, shape: tuple[int, ...] = (1, 4, 4), **settings: Any) -> Any:
    settings = {"dequantisation": "none", "levels": 2, "steps": 3, "width": 8, "blocks": 1, "bins": 4} | settings
    return build_multiscale_flow(MultiscaleFlowConfig(shape, kind=kind, **settings))  # type: ignore[arg-type]


def consistency_model(denoiser: GuidedPrior) -> ConsistencyModel:
    settings = {"architecture": ARCHITECTURES[type(denoiser)], **asdict(denoiser.config)}  # type: ignore[call-overload]
    return ConsistencyModel(ConsistencyModelConfig(settings, sigmas=(5.0, 0.5)), denoiser)


def autoregressive_flow(shape: tuple[int, ...], classes: int = 0) -> AutoregressiveFlow:
    network = PixelCNN(PixelCNNConfig(shape, classes=classes, features=6, dilations=(1, 2)))
    return AutoregressiveFlow(AutoregressiveFlowConfig({"architecture": "pixelcnn", **asdict(network.config)}), network)


BUILDERS: dict[str, Any] = {kind: lambda kind=kind: flow(kind) for kind in KINDS}
BUILDERS |= {f"{kind}-classes": lambda kind=kind: flow(kind, classes=3) for kind in KINDS if kind not in UNCONDITIONAL}
BUILDERS |= {
    f"multiscale-{kind}": lambda kind=kind: multiscale(kind, masks="checkerboard") for kind in get_args(CouplingKind)
}
BUILDERS |= {
    "multiscale-discrete": lambda: multiscale("affine", dequantisation="uniform", classes=3),
    "multiscale-flow++": lambda: multiscale("mixture-logistic", (3, 8, 4), dequantisation="variational"),
    "multiscale-audio": lambda: multiscale("rational-quadratic", (1, 16), mixing=False, margin=0.0, scale=0.5),
    "multiscale-residual-levels": lambda: multiscale("residual", dequantisation="uniform"),
    "autoregressive-flow": lambda: autoregressive_flow((3, 3, 4), classes=3),
    "autoregressive-flow-audio": lambda: autoregressive_flow((1, 12)),
    "diffusion-mlp": lambda: Diffusion(DiffusionConfig((3,), NET, mean=0.5, sigma_data=0.5)),
    "diffusion-unet": lambda: Diffusion(DiffusionConfig((2, 7, 6), UNET, classes=3, text=True)),
    "diffusion-audio": lambda: Diffusion(DiffusionConfig((1, 21), UNET, classes=2)),
    "diffusion-patches": lambda: Diffusion(DiffusionConfig((1, 9, 7), replace(UNET, patch=2), classes=2)),
    "diffusion-profile": lambda: Diffusion(DiffusionConfig((1, 6, 4), UNET, sigma_data=0.5, profile=(2.0, 1.0, 0.1))),
    "diffusion-points": lambda: Diffusion(DiffusionConfig((3, 20), SET, sigma_data=0.25, classes=2)),
    "matching-points": lambda: FlowMatching(FlowMatchingConfig((3, 20), SET, sigma_data=0.25)),
    "matching-mlp": lambda: FlowMatching(FlowMatchingConfig((3,), NET, mean=0.5, sigma_data=0.5)),
    "matching-unet": lambda: FlowMatching(FlowMatchingConfig((1, 8, 8), UNET, classes=3, text=True)),
    "ddpm-mlp": lambda: DDPM(DDPMConfig((3,), NET, mean=0.5, sigma_data=0.5, timesteps=50, prediction="eps")),
    "ddpm-unet": lambda: DDPM(DDPMConfig((1, 8, 8), UNET, mean=0.5, sigma_data=0.5, classes=3, schedule="linear")),
    "ddpm-x0": lambda: DDPM(DDPMConfig((1, 21), UNET, prediction="x0", interval=(-1.0, 1.0))),
    "consistency-mlp": lambda: consistency_model(Diffusion(DiffusionConfig((3,), NET, mean=0.5, sigma_data=0.5))),
    "consistency-unet": lambda: consistency_model(DDPM(DDPMConfig((1, 8, 8), UNET, classes=3, text=True))),
    "latent-ddpm": lambda: build_latent_prior(
        AE(AEConfig((3, 8, 8), 2, BodyConfig("conv", widths=(4, 6), spatial=True))),
        DDPM(DDPMConfig((2, 4, 4), UNET, classes=2)),
    ),
    "ddgan-mlp": lambda: DDGAN(DDGANConfig((3,), NET, 2, 3, mean=0.5, sigma_data=0.5, output="linear")),
    "ddgan-unet": lambda: DDGAN(DDGANConfig((1, 8, 8), UNET, 4, 3, schedule="cosine", classes=3)),
    "gan": lambda: GAN(GANConfig((2,), latent=3, output="linear")),
    "gan-classes": lambda: GAN(GANConfig((1, 8, 8), 4, BODY, classes=3)),
    "gan-audio": lambda: GAN(GANConfig((1, 12), 4, BODY, output="tanh")),
    "patch-flow": lambda: PatchFlow(PatchFlowConfig(4, 3, 2, hidden=(8,))),
    "patch-normal": lambda: PatchFlow(PatchFlowConfig(3, 1, 0)),
    "pixelcnn": lambda: PixelCNN(PixelCNNConfig((1, 6, 5), "bernoulli", features=8, dilations=(1, 2))),
    "pixelcnn-colour": lambda: PixelCNN(PixelCNNConfig((3, 4, 4), classes=3, features=6, dilations=(1, 1))),
    "pixelcnn-audio": lambda: PixelCNN(PixelCNNConfig((1, 24), "mu-law", features=8, dilations=(1, 2, 4))),
    "pixelrnn-diagonal": lambda: PixelRNN(PixelRNNConfig((1, 6, 5), "bernoulli", 3, features=8, hidden=4, layers=2)),
    "pixelrnn-row": lambda: PixelRNN(
        PixelRNNConfig((3, 4, 4), "bernoulli", features=6, kind="row", hidden=3, layers=2)
    ),
    "latent-flow": lambda: build_latent_prior(VAE(VAEConfig((1, 8, 8), 2, BODY)), flow("nsf", classes=3)),
    "latent-mdct": lambda: build_latent_prior(
        MDCT(MDCTConfig(64, 8)), Diffusion(DiffusionConfig((1, 8, 8), UNET, classes=2))
    ),
    "latent-mdct-flow": lambda: build_latent_prior(MDCT(MDCTConfig(64, 8)), flow("normal", (1, 8, 8))),
    "latent-mdct-glow": lambda: build_latent_prior(
        MDCT(MDCTConfig(64, 8, "channels")), multiscale("affine", (8, 8), classes=2, dither=0.1)
    ),
    "latent-mixture": lambda: build_latent_prior(VAE(VAEConfig((1, 8, 8), 2, BODY)), flow("mixture")),
    "latent-plain": lambda: build_latent_prior(AE(AEConfig((4,), 2)), flow("maf")),
    "latent-normal": lambda: build_latent_prior(AAE(AAEConfig((4,), 2)), flow("normal")),
    "latent-diffusion": lambda: build_latent_prior(
        AE(AEConfig((3, 8, 8), 2, BodyConfig("conv", widths=(4, 6), spatial=True))),
        Diffusion(DiffusionConfig((2, 4, 4), UNET, text=True)),
    ),
}


@pytest.fixture(scope="module", params=BUILDERS)
def prior(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    module = BUILDERS[request.param]()
    with torch.no_grad():  # output layers are initialised with zeros
        generator = torch.Generator().manual_seed(0)
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return module.eval()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def few_steps(prior: Prior, temperature: float | None = None) -> SamplingOptions:
    """Options for a quick sample, of a prior with or without a solver."""
    return SamplingOptions(steps=3 if "steps" in prior.sampling_options else None, temperature=temperature)


def test_samples_have_the_event_shape_and_follow_the_seed(prior: Prior) -> None:
    assert isinstance(prior, Prior)
    options = few_steps(prior)
    a, b, c = (prior.sample(4, generator=seeded(seed), options=options) for seed in (0, 0, 1))
    assert a.shape == (4, *prior.event_shape)
    assert torch.isfinite(a).all()
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert not a.requires_grad
    assert prior.sample(1, generator=seeded(), options=options).shape == (1, *prior.event_shape)


def test_samples_depend_on_the_label(prior: Prior) -> None:
    def sample(label: Any) -> Tensor:
        return prior.sample(3, label=label, generator=seeded(), options=few_steps(prior))

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


def test_a_label_that_a_prior_lacks_is_refused_not_ignored(prior: Prior) -> None:
    x, options = torch.rand(2, *prior.event_shape, generator=seeded()), few_steps(prior)
    calls: list[Any] = [lambda label: prior.sample(2, label=label, options=options, generator=seeded())]
    if isinstance(prior, HasLogProb):
        calls.append(lambda label: prior.log_prob(x, [label, label]))
    if isinstance(prior, NoiseDecoder):
        noise = torch.zeros(2, *prior.noise_shape)
        calls.append(lambda label: prior.decode_noise(noise, label=label, options=options))
    if isinstance(prior, NoiseEncoder):
        calls.append(lambda label: prior.encode_noise(x, label=label))
    for call in calls:
        with pytest.raises(ValueError, match="class"):
            call(prior.classes)
        if prior.classes:
            with pytest.raises(TypeError):
                call(0.5)


def test_an_integer_of_any_library_is_a_class(prior: Prior) -> None:
    if not prior.classes:
        return
    plain, *others = (
        prior.sample(2, label=label, options=few_steps(prior), generator=seeded())
        for label in (1, np.int64(1), torch.tensor(1))  # type: ignore[arg-type]
    )
    for other in others:
        assert torch.equal(other, plain)


def test_a_low_temperature_reduces_the_variance(prior: Prior) -> None:
    if isinstance(prior, LatentPrior) or "temperature" not in prior.sampling_options:
        return
    cold, warm = (prior.sample(64, generator=seeded(), options=few_steps(prior, t)) for t in (0.1, 1.0))
    assert cold.std(dim=0).mean() < warm.std(dim=0).mean()


def test_options_that_are_not_declared_are_refused(prior: Prior) -> None:
    options = {"steps": 3, "guidance": 2.0, "temperature": 0.5, "solver": "euler"}
    assert prior.sampling_options <= set(options)
    for name, value in options.items():
        if name not in prior.sampling_options:
            with pytest.raises(ConfigError, match=f"takes no {name}"):
                prior.sample(1, options=SamplingOptions(**{name: value}))
        if isinstance(prior, Completer) and name not in prior.completion_options:
            x = torch.zeros(1, *prior.event_shape)
            with pytest.raises(ConfigError, match=f"takes no {name}"):
                prior.complete(x, torch.ones_like(x), options=SamplingOptions(**{name: value}))


def test_every_prior_samples_without_options(prior: Prior) -> None:
    assert prior.sample(2, generator=seeded()).isfinite().all()


def test_noise_alone_determines_what_is_decoded(prior: Prior) -> None:
    if not isinstance(prior, NoiseDecoder):
        return
    for options in (SamplingOptions(temperature=0.5), SamplingOptions(solver="ancestral")):
        with pytest.raises(ConfigError, match=r"takes no (temperature|solver)|which adds noise of its own"):
            prior.decode_noise(torch.zeros(1, *prior.noise_shape), options=options)


def test_noise_has_the_declared_shape(prior: Prior) -> None:
    if not isinstance(prior, NoiseDecoder):
        return
    noise = torch.randn(2, *prior.noise_shape, generator=seeded())
    x = prior.decode_noise(noise, options=few_steps(prior))
    assert x.shape == (2, *prior.event_shape)
    assert torch.equal(x, prior.decode_noise(noise, options=few_steps(prior)))
    if isinstance(prior, NoiseEncoder):
        assert prior.encode_noise(x).shape == noise.shape


def test_latents_are_decoded_differentiably(prior: Prior) -> None:
    if not isinstance(prior, LatentVariablePrior):
        return
    labels = [0, 1] if prior.classes else None
    z = prior.sample_latents(2, seeded()).requires_grad_()
    assert z.shape == (2, *prior.latent_shape)
    x, nats = prior.decode_latents(z, labels), prior.latent_log_prob(z, labels)
    assert x.shape == (2, *prior.event_shape)
    assert nats.shape == (2,)
    for value in (x.sum(), nats.sum()):
        (gradient,) = torch.autograd.grad(value, z)
        assert gradient.abs().sum() > 0
    assert prior.residual_std > 0
    if isinstance(prior, LatentEncoder):
        assert prior.encode_latents(x.detach()).shape == z.shape


def test_which_priors_have_latents() -> None:
    has_latents = {name: isinstance(build(), LatentVariablePrior) for name, build in BUILDERS.items()}
    assert all(
        has_latents[name] for name in ("gan", "gan-classes", "latent-flow", "latent-normal", "multiscale-affine")
    )
    without = "diffusion-unet", "ddgan-unet", "pixelcnn", "latent-diffusion", "multiscale-flow++", "multiscale-residual"
    assert not any(has_latents[name] for name in without)


def test_likelihoods_are_one_number_for_each_signal(prior: Prior) -> None:
    x = prior.sample(2, generator=seeded(), options=few_steps(prior))
    labels = [0, 0] if prior.classes else None
    if isinstance(prior, HasLogProb):
        nats = prior.log_prob(x, labels)
    elif isinstance(prior, HasEstimatedLogProb):
        nats = prior.estimate_log_prob(x, labels, generator=seeded())
    elif isinstance(prior, HasLogProbBound):
        if isinstance(prior, DDPM):  # whose samples are not on the levels of its likelihood
            x = x.clamp(*prior.config.interval)
        nats = prior.log_prob_bound(x, 2, label=labels and labels[0], generator=seeded())
    else:
        return
    assert nats.shape == (2,)
    assert torch.isfinite(nats).all()
    assert prior.support.values in ("continuous", "discrete", "binary")


def test_scores_are_those_of_the_denoiser(prior: Prior) -> None:
    if not isinstance(prior, DenoisingPrior):
        return
    x, sigma = torch.randn(2, *prior.event_shape, generator=seeded()), torch.tensor([0.3, 2.0])
    expected = (prior(x, sigma) - x) / sigma.reshape(-1, *[1] * (x.ndim - 1)) ** 2
    torch.testing.assert_close(prior.score(x, sigma), expected, rtol=1e-3, atol=1e-3)


def test_completions_keep_the_observed_entries(prior: Prior) -> None:
    if not isinstance(prior, Completer):
        return
    x = prior.sample(2, generator=seeded(), options=few_steps(prior))
    mask = torch.ones_like(x)
    mask.flatten(1)[:, -1] = 0
    options = SamplingOptions(steps=3 if "steps" in prior.completion_options else None)
    fractions: list[float] = []
    completed = prior.complete(x, mask, options=options, generator=seeded(), progress=fractions.append)
    torch.testing.assert_close(completed[mask > 0], x[mask > 0])
    assert len(fractions) > 1
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < 0.6 <= fractions[-1] <= 1
    assert torch.equal(completed, prior.complete(x, mask, options=options, generator=seeded()))


def test_completions_do_not_depend_on_missing_entries(prior: Prior) -> None:
    if not isinstance(prior, Completer):
        return
    x = prior.sample(2, generator=seeded(), options=few_steps(prior))
    mask = torch.ones_like(x)
    mask.flatten(1)[:, -1] = 0
    options = SamplingOptions(steps=3 if "steps" in prior.completion_options else None)
    completed, other = (
        prior.complete(torch.where(mask > 0, x, missing), mask, options=options, generator=seeded())
        for missing in (0.0, torch.nan)
    )
    torch.testing.assert_close(completed, other)


def test_trajectories_lead_from_samples_to_noise_and_back(prior: Prior) -> None:
    if not isinstance(prior, HasTrajectory):
        return
    options, label = few_steps(prior), 0 if prior.classes else None
    points = prior.trajectory(2, label=label, options=options, generator=seeded())
    for frames, shown in ((3, [0, 3, 6]), (4, [0, 3, 6]), (5, [0, 2, 3, 4, 6]), (6, [0, 2, 3, 4, 6])):
        few = prior.trajectory(2, frames=frames, label=label, options=options, generator=seeded())
        torch.testing.assert_close(few, points[shown])  # at most as many as asked for, and symmetric
    with pytest.raises(ConfigError, match="number of frames is 2"):
        prior.trajectory(2, frames=2, options=options)
    assert points.shape == (7, 2, *prior.event_shape)
    sample = prior.sample(2, label=label, options=options, generator=seeded())
    torch.testing.assert_close(points[0], sample)
    torch.testing.assert_close(points[-1], sample)
    if not isinstance(prior, LatentPrior):  # the middle is the noise of the samples, scaled as signals are
        assert isinstance(prior, DenoisingPrior | DDGAN)
        noise = torch.randn(2, *prior.noise_shape, generator=seeded()).flatten(1)  # the first noise of a DDGAN
        noise = noise[:, : prior.event_shape.numel()].unflatten(1, prior.event_shape)
        torch.testing.assert_close(points[3], prior.data_mean + prior.data_std * noise)


@pytest.mark.parametrize("name", [name for name in BUILDERS if name.endswith("points")])
def test_a_sampler_of_point_sets_is_equivariant_to_permutations(name: str) -> None:
    torch.manual_seed(0)
    prior = BUILDERS[name]()
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    noise, order = torch.randn(2, *prior.noise_shape), torch.randperm(20)
    options = SamplingOptions(steps=6)
    samples = prior.decode_noise(noise, options=options)
    permuted = prior.decode_noise(noise[:, :, order], options=options)
    torch.testing.assert_close(permuted, samples[:, :, order], atol=1e-3, rtol=1e-3)
    encoded = prior.encode_noise(samples)
    torch.testing.assert_close(prior.encode_noise(permuted), encoded[:, :, order], atol=1e-2, rtol=1e-2)


FLOWS = [name for name in BUILDERS if name.removesuffix("-classes") in KINDS]
SOLVED = {NoiseEncoder, HasEstimatedLogProb, HasTrajectory, DenoisingPrior, Completer}
DISCRETE = {NoiseEncoder, HasLogProbBound, HasTrajectory, DenoisingPrior, Completer}
CAPABILITIES: dict[str, set[Any]] = {
    name: {HasLogProb} if name.removesuffix("-classes") in NOT_INVERTIBLE else {NoiseEncoder, HasLogProb}
    for name in FLOWS
}
CAPABILITIES |= {f"multiscale-{kind}": {NoiseEncoder, HasLogProb} for kind in get_args(CouplingKind)}
CAPABILITIES |= {
    "autoregressive-flow": {NoiseEncoder, HasLogProb},
    "autoregressive-flow-audio": {NoiseEncoder, HasLogProb},
    "diffusion-mlp": SOLVED,
    "diffusion-unet": SOLVED,
    "diffusion-audio": SOLVED,
    "diffusion-patches": SOLVED,
    "diffusion-profile": SOLVED,
    "diffusion-points": SOLVED,
    "matching-points": SOLVED,
    "matching-mlp": SOLVED,
    "matching-unet": SOLVED,
    "ddpm-mlp": DISCRETE,
    "ddpm-unet": DISCRETE,
    "ddpm-x0": DISCRETE,
    "consistency-mlp": {NoiseDecoder},
    "consistency-unet": {NoiseDecoder},
    "gan": {NoiseEncoder, Completer},
    "gan-classes": {NoiseEncoder, Completer},
    "gan-audio": {NoiseEncoder, Completer},
    "patch-flow": {NoiseEncoder, HasLogProb, DenoisingPrior, PatchPrior},
    "patch-normal": {NoiseEncoder, HasLogProb, DenoisingPrior, PatchPrior},
    "pixelcnn": {HasLogProb, Completer},
    "pixelcnn-colour": {HasLogProb, Completer},
    "pixelcnn-audio": {HasLogProb, Completer},
    "pixelrnn-diagonal": {HasLogProb, Completer},
    "pixelrnn-row": {HasLogProb, Completer},
    "ddgan-mlp": {NoiseDecoder, HasTrajectory},
    "ddgan-unet": {NoiseDecoder, HasTrajectory},
    "multiscale-residual": {NoiseEncoder, HasEstimatedLogProb},
    "multiscale-residual-levels": {NoiseEncoder, HasLogProbBound},
    "multiscale-discrete": {NoiseEncoder, HasLogProbBound},
    "multiscale-flow++": {NoiseEncoder, HasLogProbBound},
    "multiscale-audio": {NoiseEncoder, HasLogProb},
    "latent-ddpm": {NoiseEncoder, HasTrajectory, Completer},
    "latent-flow": {NoiseEncoder, HasLogProbBound, Completer},
    "latent-mdct": SOLVED,
    "latent-mdct-flow": {NoiseEncoder, HasLogProb},
    "latent-mdct-glow": {NoiseEncoder, HasLogProb},
    "latent-mixture": {HasLogProbBound, Completer},
    "latent-normal": {NoiseEncoder, Completer},
    "latent-plain": {NoiseEncoder, Completer},
    "latent-diffusion": {NoiseEncoder, HasTrajectory, Completer},
}


def test_the_capabilities_of_every_prior_are_stated() -> None:
    assert set(CAPABILITIES) == set(BUILDERS)


@pytest.mark.parametrize("name", CAPABILITIES)
def test_capabilities_are_declared_truthfully(name: str) -> None:
    prior, expected = BUILDERS[name](), CAPABILITIES[name]
    expected = expected | {NoiseDecoder} if NoiseEncoder in expected else expected
    probabilities = {HasLogProb, HasEstimatedLogProb, HasLogProbBound}
    capabilities = {NoiseDecoder, NoiseEncoder, HasTrajectory, DenoisingPrior, PatchPrior, Completer} | probabilities
    assert {capability for capability in capabilities if isinstance(prior, capability)} == expected


ARCHITECTURES: dict[type, str] = {
    AutoregressiveFlow: "autoregressive-flow",
    Flow: "flow",
    Mixture: "flow",
    RAD: "flow",
    ExactMultiscaleFlow: "multiscale-flow",
    EstimatedMultiscaleFlow: "multiscale-flow",
    DiscreteMultiscaleFlow: "multiscale-flow",
    LatentExactMultiscaleFlow: "multiscale-flow",
    LatentDiscreteMultiscaleFlow: "multiscale-flow",
    ConsistencyModel: "consistency-model",
    DDGAN: "ddgan",
    DDPM: "ddpm",
    Diffusion: "diffusion",
    FlowMatching: "flow-matching",
    GAN: "gan",
    LatentPrior: "latent-prior",
    PatchFlow: "patch-flow",
    PixelCNN: "pixelcnn",
    PixelRNN: "pixelrnn",
}


def test_every_architecture_is_tested() -> None:
    assert set(ARCHITECTURES.values()) == set(PRIORS)


def test_weights_that_are_saved_and_loaded_give_the_same_samples(prior: Any, tmp_path: Path) -> None:
    if isinstance(prior, LatentPrior):  # built by the registry, in tests/training/objectives/test_codec_and_prior.py
        return
    shape = tuple(prior.event_shape)
    card = Card("tiny", ARCHITECTURES[type(prior)], "image", shape[0], kind="prior", shape=shape)
    save_weights(tmp_path / "tiny.safetensors", prior, card, {}, torch.float32)
    loaded, _ = load(tmp_path / "tiny.safetensors")
    prior.to(memory_format=torch.channels_last)  # as `load` does: another layout rounds sums differently
    a, b = (p.sample(3, generator=seeded(), options=few_steps(p)) for p in (prior, loaded))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [0, 3])
def test_a_density_integrates_to_one(kind: str, classes: int) -> None:
    if kind in UNCONDITIONAL and classes:
        return
    torch.manual_seed(0)
    net = flow(kind, classes=classes).eval()
    side = torch.linspace(-14, 15, 146)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        total = net.log_prob(grid, [1] * len(grid) if classes else None).double().exp().sum() * 0.2**2
    assert float(total) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NOT_INVERTIBLE])
def test_a_flow_is_invertible_and_its_density_includes_the_determinant(kind: str) -> None:
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


def test_additive_couplings_preserve_volumes() -> None:
    torch.manual_seed(0)
    net = flow("additive", shape=(3,), classes=2).double().eval()
    noise = torch.randn(4, 3, generator=seeded(), dtype=torch.float64)
    x = net.decode_noise(noise, label=1)
    assert (x - (0.5 + 1.5 * noise)).abs().max() > 0.01
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(dim=1) - 3 * math.log(1.5)
    torch.testing.assert_close(net.log_prob(x, [1] * 4), normal)
    for row in noise:
        jacobian = torch.autograd.functional.jacobian(lambda z: net.distribution([1]).transform.inv(z[None])[0], row)
        assert float(torch.linalg.det(jacobian)) == pytest.approx(1.0)


def test_samples_of_a_mixture_have_the_moments_of_its_density() -> None:
    torch.manual_seed(0)
    net = flow("mixture")
    samples = net.sample(20_000, generator=seeded())
    reference = net.config.mean + net.config.scale * net.distribution([None]).sample((20_000,)).reshape(-1, 2)
    torch.testing.assert_close(samples.mean(dim=0), reference.mean(dim=0), atol=0.05, rtol=0)
    torch.testing.assert_close(samples.T.cov(), reference.T.cov(), atol=0.1, rtol=0.05)


class GaussianDiffusion(Diffusion):
    """A diffusion prior with the optimal denoiser for signals from N(0.7, 0.3^2)."""

    def forward(self, x: Tensor, sigma: Tensor, labels: Any = None, guidance: float = 1.0) -> Tensor:
        gain = (0.09 / (0.09 + sigma**2)).reshape(-1, 1)
        return 0.7 + gain * (x - 0.7)


def test_diffusion_with_the_optimal_denoiser_samples_its_distribution() -> None:
    net = GaussianDiffusion(DiffusionConfig((3,), NET, mean=0.7, sigma_data=0.3))
    x = torch.randn(4, 3, generator=seeded())
    sigma = torch.tensor([0.1, 0.5, 1.0, 10.0])
    torch.testing.assert_close(net.score(x, sigma), -(x - 0.7) / (0.09 + sigma**2)[:, None])
    samples = net.sample(5000, options=SamplingOptions(steps=40), generator=seeded())
    torch.testing.assert_close(samples.mean(dim=0), torch.full((3,), 0.7), atol=0.02, rtol=0)
    torch.testing.assert_close(samples.std(dim=0), torch.full((3,), 0.3), atol=0.02, rtol=0)


class GaussianFlowMatching(FlowMatching):
    """The velocity for signals from N(0.7, 0.3^2), which are standard normal in units of 0.3 around 0.7."""

    def velocity(self, z: Tensor, t: Tensor, labels: Any = None, guidance: float = 1.0) -> Tensor:
        t = t.reshape(-1, 1)
        return (2 * t - 1) / ((1 - t) ** 2 + t**2) * z


def test_flow_matching_with_the_exact_velocity_samples_its_distribution() -> None:
    net = GaussianFlowMatching(FlowMatchingConfig((3,), NET, mean=0.7, sigma_data=0.3))
    x = torch.randn(4, 3, generator=seeded())
    sigma = torch.tensor([0.1, 0.5, 1.0, 10.0])
    torch.testing.assert_close(net.score(x, sigma), -(x - 0.7) / (0.09 + sigma**2)[:, None], rtol=1e-4, atol=1e-4)
    samples = net.sample(5000, options=SamplingOptions(steps=40), generator=seeded())
    torch.testing.assert_close(samples.mean(dim=0), torch.full((3,), 0.7), atol=0.02, rtol=0)
    torch.testing.assert_close(samples.std(dim=0), torch.full((3,), 0.3), atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", ["diffusion", "flow-matching"])
def test_encoding_inverts_decoding_of_noise(kind: str) -> None:
    if kind == "diffusion":
        net: Any = GaussianDiffusion(DiffusionConfig((3,), NET, mean=0.7, sigma_data=0.3, sigma_max=20.0))
    else:
        net = GaussianFlowMatching(FlowMatchingConfig((3,), NET, mean=0.7, sigma_data=0.3))
    noise = torch.randn(16, 3, generator=seeded())
    x = net.decode_noise(noise, options=SamplingOptions(steps=200))
    torch.testing.assert_close(net.encode_noise(x, steps=200), noise, atol=0.01, rtol=0)


@pytest.mark.parametrize("probes", [None, 1])
def test_the_estimated_density_is_that_of_known_signals(probes: int | None) -> None:
    x = 0.7 + 0.3 * torch.randn(16, 3, generator=seeded())
    expected = torch.distributions.Normal(0.7, 0.3).log_prob(x).sum(dim=1)
    matching = GaussianFlowMatching(FlowMatchingConfig((3,), NET, mean=0.7, sigma_data=0.3))
    diffusion = GaussianDiffusion(DiffusionConfig((3,), NET, mean=0.7, sigma_data=0.3))
    for net in (matching, diffusion):  # the Jacobian is a multiple of the identity: one probe is exact
        estimate = net.estimate_log_prob(x, steps=300, probes=probes, generator=seeded())
        torch.testing.assert_close(estimate, expected, atol=0.02, rtol=0)


def test_guidance_extrapolates_from_unconditional_to_conditional() -> None:
    torch.manual_seed(0)
    net = FlowMatching(FlowMatchingConfig((3,), NET, classes=2))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    z, t = torch.randn(4, 3), torch.rand(4)
    unconditional, conditional = net.velocity(z, t), net.velocity(z, t, [1] * 4)
    torch.testing.assert_close(net.velocity(z, t, [1] * 4, 0.0), unconditional)
    expected = unconditional + 3 * (conditional - unconditional)
    torch.testing.assert_close(net.velocity(z, t, [1] * 4, 3.0), expected)


@pytest.mark.parametrize("name", bundled(kind="prior"))
def test_a_bundled_prior_agrees_with_its_card(name: str) -> None:
    prior, card = load(name)
    assert card.shape == tuple(prior.event_shape)
    assert len(card.classes) == prior.classes
    assert card.text == prior.text
    assert (card.sample_rate is not None) == (card.modality == "audio")
    a, b = (prior.sample(2, generator=seeded(1)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.shape == (2, *card.shape)
    assert 0.02 < float((a - a.mean()).square().mean().sqrt()) < 0.5  # neither constant nor noise of full scale
    if card.modality != "points" and not isinstance(prior, PatchPrior):  # whose coordinates and densities have no range
        low = 0.0 if card.modality == "image" else -1.0
        assert float(((a < low - 0.1) | (a > 1.1)).float().mean()) < 0.01
    few = SamplingOptions(steps=2 if "steps" in prior.sampling_options else None)
    unlabelled, *labelled = (
        prior.sample(2, generator=seeded(1), label=label, options=few) for label in (None, *range(prior.classes))
    )
    assert not any(torch.equal(samples, unlabelled) for samples in labelled)


def test_the_default_guidance_of_samples_is_that_of_the_configuration() -> None:
    torch.manual_seed(0)
    prior = Diffusion(DiffusionConfig((3,), NET, classes=2, guidance=3.0))
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.1 * torch.randn(p.shape))

    def sample(label: int | None, guidance: float | None) -> Tensor:
        return prior.sample(2, label=label, options=SamplingOptions(guidance=guidance), generator=seeded())

    assert torch.equal(sample(1, None), sample(1, 3.0))
    assert not torch.equal(sample(1, None), sample(1, 1.0))
    assert torch.equal(sample(None, None), sample(None, 1.0))
