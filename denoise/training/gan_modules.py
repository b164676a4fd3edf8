"""Generators with their discriminators, as one module that is trained, and what each discriminator compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from denoise.nn.bodies import build_encoder
from denoise.nn.discriminator import Discriminator, DiscriminatorConfig
from denoise.priors.ddgan import DDGAN
from denoise.priors.generator import GeneratorNetwork
from denoise.protocols import Label
from denoise.training.gan_recipe import Adversary

Labels = Sequence[Label] | None


class GANModule(nn.Module):
    """A generator and the networks that only its training needs: here the discriminator compares whole signals.

    Args:
        prior: generator.
        adversary: settings of discriminator and classifier.
    """

    def __init__(self, prior: GeneratorNetwork, adversary: Adversary) -> None:
        super().__init__()
        coverage = adversary.coverage
        self.prior = prior
        self.discriminator = self.build_discriminator(adversary.discriminator)
        self.classifier = build_encoder(coverage.body, prior.event_shape, coverage.classes) if coverage else None

    def build_discriminator(self, config: DiscriminatorConfig) -> Discriminator:
        """Return the discriminator of what `real_inputs` and `fake_inputs` return."""
        return Discriminator(config, self.prior.event_shape, self.prior.classes)

    def generate(self, labels: Labels, n: int) -> Tensor:
        """Return generated signals, differentiably, (n, *event)."""
        noise = torch.randn(n, *self.prior.noise_shape, device=next(self.parameters()).device)
        return self.prior(noise, labels)

    def real_inputs(self, x: Tensor, labels: Labels) -> tuple[Tensor, Any]:
        """Return what is real for the discriminator, (B, *event), and its condition.

        Args:
            x: training examples, (B, *event).
            labels: B labels, or None.
        """
        return x, labels

    def fake_inputs(self, condition: Any, n: int) -> Tensor:
        """Return what is generated under the condition of `real_inputs`, differentiably, (n, *event)."""
        return self.generate(condition, n)

    def logits(self, discriminator: Callable[..., Tensor], x: Tensor, condition: Any) -> Tensor:
        """Return the logits of a discriminator, (B,), for what `real_inputs` or `fake_inputs` returned."""
        return discriminator(x, condition)


class DDGANModule(GANModule):
    """A denoising diffusion GAN and its adversary, which compares single steps of denoising, at random timesteps.

    Real is a noisy example one timestep before; generated is what the generator makes of the same example at the
    timestep. Both have the variance-preserving form, in which a penalty of the gradient means the same at all levels.
    """

    prior: DDGAN

    def build_discriminator(self, config: DiscriminatorConfig) -> Discriminator:
        """Return a discriminator of pairs, joined along the channels."""
        channels, *space = self.prior.event_shape
        return Discriminator(config, (2 * channels, *space), self.prior.classes, self.prior.config.timesteps)

    def real_inputs(self, x: Tensor, labels: Labels) -> tuple[Tensor, Any]:
        """Return the earlier signals of training pairs, and the noisier ones with their timesteps and labels."""
        timestep = torch.randint(1, self.prior.config.timesteps + 1, (len(x),), device=x.device)
        x_previous, x = self.prior.training_pair(x, timestep)
        return self.prior.standardise(x_previous, timestep - 1), (x, timestep, labels)

    def fake_inputs(self, condition: Any, n: int) -> Tensor:
        """Return what the generator makes of the noisier signals."""
        x, timestep, labels = condition
        z = torch.randn(n, self.prior.config.latent, device=x.device)
        x_previous = self.prior.sample_previous(x, timestep, z, torch.randn_like(x), labels)
        return self.prior.standardise(x_previous, timestep - 1)

    def logits(self, discriminator: Callable[..., Tensor], x: Tensor, condition: Any) -> Tensor:
        """Return the logits of pairs."""
        noisier, timestep, labels = condition
        pair = torch.cat([x, self.prior.standardise(noisier, timestep)], dim=1)
        return discriminator(pair, labels, timestep - 1)


GAN_MODULES: dict[Any, type[GANModule]] = {DDGAN: DDGANModule, GeneratorNetwork: GANModule}
"""Modules of generators, subclasses first."""
