"""Generative adversarial training: a generator, its discriminator, and a classifier that measures mode coverage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from denoise.errors import ConfigError
from denoise.metrics import class_entropy, modes_reached
from denoise.nn.bodies import build_encoder
from denoise.nn.winograd import Conv3x3
from denoise.priors.ddgan import DDGAN
from denoise.priors.gan import GAN, Discriminator, DiscriminatorConfig, GeneratorNetwork
from denoise.protocols import Label
from denoise.training.data import Batch, Source
from denoise.training.examples import LabelledExamples
from denoise.training.losses import adversarial
from denoise.training.objectives.base import Metrics, StepResult
from denoise.training.objectives.signals import SignalObjective, conditions
from denoise.training.recipe import Adversary, Schedule
from denoise.training.trainer import Trainer

COVERAGE_SAMPLES = 500
RECOGNISED_PROBABILITY = 0.9  # probability of the class of a sample that counts as recognised
CLASSIFIER_RATE = 1e-3
Labels = Sequence[Label] | None


class Adversaries(nn.Module):
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
        """Return the discriminator of what `real` and `fake` return."""
        return Discriminator(config, self.prior.event_shape, self.prior.classes)

    def generate(self, labels: Labels, n: int) -> Tensor:
        """Return generated signals, differentiably, (n, *event)."""
        noise = torch.randn(n, *self.prior.noise_shape, device=next(self.parameters()).device)
        return self.prior(noise, labels)

    def real(self, x: Tensor, labels: Labels) -> tuple[Tensor, Any]:
        """Return what is real for the discriminator, (B, *event), and the condition that it is judged under.

        Args:
            x: training examples, (B, *event).
            labels: B labels, or None.
        """
        return x, labels

    def fake(self, condition: Any, n: int) -> Tensor:
        """Return what is generated under the condition of `real`, differentiably, (n, *event)."""
        return self.generate(condition, n)

    def judge(self, discriminator: Callable[..., Tensor], x: Tensor, condition: Any) -> Tensor:
        """Return the logits of a discriminator, (B,), for what `real` or `fake` returned."""
        return discriminator(x, condition)


class DiffusionAdversaries(Adversaries):
    """A denoising diffusion GAN and its adversary, which compares single steps of denoising, at random timesteps.

    Real is a noisy example one timestep before; generated is what the generator makes of the same example at the
    timestep. Both have the variance-preserving form, in which a penalty of the gradient means the same at all levels.
    """

    prior: DDGAN

    def build_discriminator(self, config: DiscriminatorConfig) -> Discriminator:
        """Return a discriminator of pairs, joined along the channels."""
        channels, *space = self.prior.event_shape
        return Discriminator(config, (2 * channels, *space), self.prior.classes, self.prior.config.timesteps)

    def real(self, x: Tensor, labels: Labels) -> tuple[Tensor, Any]:
        """Return the earlier signals of training pairs, and the noisier ones with their timesteps and labels."""
        timestep = torch.randint(1, self.prior.config.timesteps + 1, (len(x),), device=x.device)
        x_previous, x = self.prior.training_pair(x, timestep)
        return self.prior.standardise(x_previous, timestep - 1), (x, timestep, labels)

    def fake(self, condition: Any, n: int) -> Tensor:
        """Return what the generator makes of the noisier signals."""
        x, timestep, labels = condition
        z = torch.randn(n, self.prior.config.latent, device=x.device)
        x_previous = self.prior.denoise(x, timestep, z, torch.randn_like(x), labels)
        return self.prior.standardise(x_previous, timestep - 1)

    def judge(self, discriminator: Callable[..., Tensor], x: Tensor, condition: Any) -> Tensor:
        """Return the logits of pairs."""
        noisier, timestep, labels = condition
        pair = torch.cat([x, self.prior.standardise(noisier, timestep)], dim=1)
        return discriminator(pair, labels, timestep - 1)


ADVERSARIES: dict[type, type[Adversaries]] = {GAN: Adversaries, DDGAN: DiffusionAdversaries}


class GANObjective(SignalObjective):
    """Train a GAN or a denoising diffusion GAN.

    Each step is one of the discriminator, and the last of every k is followed by one of the generator.

    The metrics are the accuracy of the discriminator, the loss of the generator and, with ``[adversary.coverage]``, of
    500 samples: the number of classes that they reach (with a tenth of their share or more), the entropy of the
    classes, and the fraction that is recognised, as the requested class or, without classes, as any with a probability
    of 0.9. The classifier is trained beside the GAN on the same real examples.
    """

    partial_backward = True

    def __init__(self, recipe: Any) -> None:
        super().__init__(recipe)
        self.require(recipe.adversary is not None, 'objective "gan" needs an [adversary] section; add it.')
        self.adversary: Adversary = recipe.adversary

    def build(self) -> nn.Module:
        """Build generator, discriminator and classifier.

        Raises:
            ConfigError: the architecture is no GAN, or its configuration is wrong.
        """
        prior: Any = super().build()
        if type(prior) not in ADVERSARIES:
            raise ConfigError(
                f'recipe {self.recipe.name}: objective "gan" needs architecture "gan" or "ddgan" without a codec, the '
                f"recipe builds a {type(prior).__name__}. Fix objective or architecture."
            )
        return ADVERSARIES[type(prior)](prior, self.adversary)

    def shipped(self, module: Any) -> Any:
        """Return the generator: discriminator and classifier are neither averaged nor exported.

        Args:
            module: module of `build`.
        """
        return module.prior

    def validate(self, module: Any) -> None:
        """Check that settings and data fit the generator.

        Args:
            module: module of `build`.

        Raises:
            ConfigError: they do not fit.
        """
        a = self.adversary
        self.require(
            self.recipe.schedule.optimizer == "adamw",
            "schedule.optimizer is muon; a GAN is trained by adamw with adversary.betas.",
        )
        self.require(
            not (a.r1 and any(isinstance(layer, Conv3x3) for layer in module.discriminator.modules())),
            "adversary.r1 differentiates twice, which residual blocks cannot; set adversary.discriminator.body.blocks "
            "= 0, or r1 = 0 with spectral_norm.",
        )
        has_labels = self.recipe.examples is not None and self.recipe.examples.labels is not None
        self.require(
            has_labels or not (a.coverage or module.prior.classes),
            "classes and [adversary.coverage] need examples.labels; add them or leave both out.",
        )
        self.require(
            not (a.coverage and module.prior.classes) or a.coverage.classes == module.prior.classes,
            f"adversary.coverage.classes and model.classes differ ({module.prior.classes}); make them equal.",
        )
        super().validate(module)

    def open_data(self, root: Path, module: Any) -> Source:
        """Load examples; see `SignalObjective.open_data`.

        Args:
            root: folder that the paths of the recipe are relative to.
            module: module of `build`.

        Raises:
            ConfigError: there are none, or the labels fit neither the generator nor the classifier.
        """
        source, coverage = super().open_data(root, module), self.adversary.coverage
        if coverage and isinstance(source, LabelledExamples):
            found = max(source.labels or [0]) + 1
            self.require(
                found <= coverage.classes,
                f"the examples have {found} classes, adversary.coverage.classes is {coverage.classes}. Raise it.",
            )
        return source

    def configure_optimizers(self, module: Any, schedule: Schedule) -> list[Optimizer]:
        """Return the optimizers of generator, discriminator and classifier.

        Args:
            module: module of `build`.
            schedule: schedule of the recipe.
        """
        a = self.adversary
        rates = ((module.prior, schedule.learning_rate), (module.discriminator, a.rate_ratio * schedule.learning_rate))
        optimizers: list[Optimizer] = [
            AdamW(part.parameters(), lr=rate, betas=a.betas, weight_decay=schedule.weight_decay) for part, rate in rates
        ]
        if module.classifier:
            optimizers.append(AdamW(module.classifier.parameters(), lr=CLASSIFIER_RATE))
        return optimizers

    def step(self, trainer: Trainer, batch: Batch) -> StepResult:
        """Update the discriminator, after every k steps the generator, and the classifier.

        Args:
            trainer: the networks and their optimizers.
            batch: real signals and their labels.
        """
        loss, accuracy = trainer.forward(lambda module: self.discriminator_loss(module, batch))
        norm = trainer.minimise(loss, optimizer=1)
        if (trainer.step + 1) % self.adversary.steps == 0:
            trainer.minimise(trainer.forward(lambda module: self.generator_loss(module, batch)), optimizer=0)
        if trainer.module.classifier:
            trainer.minimise(trainer.forward(lambda module: classification_loss(module, batch)), optimizer=2)
        return StepResult(loss, norm, self.metrics(trainer.module, batch, accuracy))

    def discriminator_loss(self, module: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss of the discriminator with its penalty, and its accuracy, scalars.

        Args:
            module: module of `build`.
            batch: real signals; generated ones have the same labels.
        """
        a = self.adversary
        real, condition = module.real(batch.clean, conditions(module.prior, batch))
        with torch.no_grad():
            fake = module.fake(condition, len(real))
        if a.r1:
            real = real.detach().requires_grad_()
        real_logits, fake_logits = (module.judge(module.discriminator, x, condition) for x in (real, fake))
        loss = adversarial.discriminator_loss(real_logits, fake_logits, a.loss)
        if a.r1:
            loss = loss + 0.5 * a.r1 * adversarial.r1_penalty(real_logits, real)
        return loss, adversarial.accuracy(real_logits.detach(), fake_logits.detach())

    def generator_loss(self, module: Any, batch: Batch) -> Tensor:
        """Return the loss of the generator, a scalar.

        Args:
            module: module of `build`.
            batch: as many generated signals have its labels.
        """
        real, condition = module.real(batch.clean, conditions(module.prior, batch))
        fake = module.fake(condition, len(real))
        logits = module.judge(adversarial.frozen(module.discriminator), fake, condition)
        return adversarial.generator_loss(logits, self.adversary.loss)

    def metrics(self, module: Any, batch: Batch, accuracy: Tensor) -> Metrics:
        """Return the numbers of a row of the log.

        Args:
            module: module of `build`.
            batch: real signals and their labels.
            accuracy: accuracy of the discriminator.
        """

        @torch.no_grad()
        def measure() -> dict[str, Tensor]:
            module.eval()  # so that the power iterations of spectral norms do not depend on what is logged
            values = {"discriminator_accuracy": accuracy, "generator_loss": self.generator_loss(module, batch)}
            if coverage := self.adversary.coverage:
                values |= mode_coverage(module, coverage.classes)
            module.train()
            return values

        return measure


def classification_loss(module: Any, batch: Batch) -> Tensor:
    """Return the cross-entropy of the classifier on the real examples of a batch that have a label, a scalar."""
    rows = [i for i, label in enumerate(batch.labels or ()) if label is not None]
    targets = torch.tensor([batch.labels[i] for i in rows], device=batch.clean.device, dtype=torch.long)  # type: ignore[index]
    return F.cross_entropy(module.classifier(batch.clean[rows]), targets, reduction="sum") / len(batch.clean)


def mode_coverage(module: Any, classes: int) -> dict[str, Tensor]:
    """Return how many classes samples reach, the entropy of their classes in bits, and the recognised fraction.

    Args:
        module: generator and classifier; a generator with classes is asked for all of them equally often.
        classes: number of classes of the classifier.

    Reference:
        Improved Techniques for Training GANs, 2016, arXiv:1606.03498 (class entropy); VEEGAN, 2017, arXiv:1705.07761
        (modes and high-quality samples).
    """
    is_conditional = module.prior.classes > 0
    requested = torch.arange(COVERAGE_SAMPLES) % max(1, module.prior.classes)
    fake = module.generate(requested.tolist() if is_conditional else None, COVERAGE_SAMPLES)
    confidence, predicted = module.classifier(fake).float().softmax(dim=1).max(dim=1)
    recognised = predicted == requested.to(predicted) if is_conditional else confidence > RECOGNISED_PROBABILITY
    return {
        "modes": modes_reached(predicted, classes),
        "entropy_bits": class_entropy(predicted),
        "recognised": recognised.float().mean(),
    }
