"""Latent priors: bounds of estimated densities, and completion of latents."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from denoise.models.autoencoder import AE, VAE, AEConfig, VAEConfig
from denoise.nn.bodies import BodyConfig
from denoise.nn.unet import BackboneConfig
from denoise.priors import latent_completion
from denoise.priors.diffusion import Diffusion, DiffusionConfig
from denoise.priors.flows import Flow, FlowConfig
from denoise.priors.latent import build_latent_prior
from denoise.protocols import DEFAULT_OPTIONS, Label, SamplingOptions, Support

NORMAL = Flow(FlowConfig((2,), "normal"))


class NoisyNormal(nn.Module):
    """A standard normal prior whose log-density is estimated with errors of 5 nats."""

    event_shape, classes, text, sampling_options = torch.Size([2]), 0, False, frozenset[str]()
    support, estimate_kind = Support((2,)), "estimate"

    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        return NORMAL.sample(n, generator=generator)

    def estimate_log_prob(self, x: Tensor, labels: Any = None, *, generator: Generator | None = None) -> Tensor:
        return NORMAL.log_prob(x) + 5 * torch.randn(len(x), generator=generator)


def test_errors_of_an_estimated_density_do_not_raise_the_bound() -> None:
    torch.manual_seed(0)
    codec = VAE(VAEConfig((4,), 2, BodyConfig("dense", (8,))))
    exact: Any = build_latent_prior(codec, NORMAL)
    estimated: Any = build_latent_prior(codec, NoisyNormal())
    x, generator = exact.sample(64), Generator().manual_seed(0)
    evidence_lower_bound = exact.log_weights(x, 500, generator=generator).mean().item()
    value = estimated.log_prob_bound(x, 100, generator=generator).mean().item()
    assert value == pytest.approx(evidence_lower_bound, abs=0.5)
    assert (exact.bound_kind, estimated.bound_kind) == ("importance-weighted bound", "estimated bound")


def test_latents_are_observed_where_all_colours_are(monkeypatch: pytest.MonkeyPatch) -> None:
    net = BackboneConfig("unet", widths=(8,), blocks=1, embedding=8)
    codec = AE(AEConfig((3, 8, 8), 2, BodyConfig("conv", widths=(4, 6), spatial=True)))
    prior: Any = build_latent_prior(codec, Diffusion(DiffusionConfig((2, 4, 4), net)))
    masks: list[Tensor] = []

    def inpaint(prior: Any, z: Tensor, mask: Tensor, **options: Any) -> Tensor:
        masks.append(mask)
        return z

    monkeypatch.setattr(latent_completion, "inpaint_with_prior", inpaint)
    mask = torch.ones(1, 3, 8, 8)
    mask[0, 2, 5, 2] = 0  # blue alone is missing
    prior.complete(torch.rand(1, 3, 8, 8), mask)
    expected = torch.ones(1, 2, 4, 4)
    expected[:, :, 2, 1] = 0
    assert torch.equal(masks[0], expected)
