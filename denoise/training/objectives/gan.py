"""Generative adversarial training: a generator, its discriminator, and a classifier that measures mode coverage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from denoise.errors import ConfigError
from denoise.metrics import class_entropy, modes_reached
from denoise.nn.bodies import build_encoder
from denoise.nn.winograd import Conv3x3
from denoise.priors.gan import GAN, Discriminator
from denoise.training.data import Batch
from denoise.training.losses import adversarial
from denoise.training.objectives.base import Metrics, StepResult
from denoise.training.objectives.signals import SignalObjective, conditions
from denoise.training.recipe import Adversary, Schedule
from denoise.training.trainer import Trainer

COVERAGE_SAMPLES = 500
CONFIDENT = 0.9  # probability of the class of a sample that counts as recognised
CLASSIFIER_RATE = 1e-3


class Adversaries(nn.Module):
    """A generator and the networks that only its training needs.

    Args:
        prior: generator.
        adversary: settings of discriminator and classifier.
    """

    def __init__(self, prior: GAN, adversary: Adversary) -> None:
        super().__init__()
        shape, coverage = prior.config.shape, adversary.coverage
        self.prior = prior
        self.discriminator = Discriminator(adversary.discriminator, shape, prior.classes)
        self.classifier = build_encoder(coverage.body, shape, coverage.classes) if coverage else None

    def generate(self, labels: Any, n: int) -> Tensor:
        """Return generated signals, differentiably, (n, *event)."""
        noise = torch.randn(n, *self.prior.noise_shape, device=next(self.parameters()).device)
        return self.prior(noise, labels)


class GANObjective(SignalObjective):
    """Train a GAN: each step is one of the discriminator, and the last of every k is followed by one of the generator.

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
        prior = super().build()
        if not isinstance(prior, GAN):
            raise ConfigError(
                f'recipe {self.recipe.name}: objective "gan" needs architecture "gan" without a codec, the recipe '
                f"builds a {type(prior).__name__}. Fix objective or architecture."
            )
        return Adversaries(prior, self.adversary)

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
        a, x, labels = self.adversary, batch.clean, conditions(module.prior, batch)
        with torch.no_grad():
            fake = module.generate(labels, len(x))
        if a.r1:
            x = x.detach().requires_grad_()
        real_logits, fake_logits = module.discriminator(x, labels), module.discriminator(fake, labels)
        loss = adversarial.discriminator_loss(real_logits, fake_logits, a.loss)
        if a.r1:
            loss = loss + 0.5 * a.r1 * adversarial.r1_penalty(real_logits, x)
        return loss, adversarial.accuracy(real_logits.detach(), fake_logits.detach())

    def generator_loss(self, module: Any, batch: Batch) -> Tensor:
        """Return the loss of the generator, a scalar.

        Args:
            module: module of `build`.
            batch: as many generated signals have its labels.
        """
        labels = conditions(module.prior, batch)
        fake = module.generate(labels, len(batch.clean))
        return adversarial.generator_loss(adversarial.frozen(module.discriminator)(fake, labels), self.adversary.loss)

    def metrics(self, module: Any, batch: Batch, accuracy: Tensor) -> Metrics:
        """Return the numbers of a row of the log.

        Args:
            module: module of `build`.
            batch: real signals and their labels.
            accuracy: accuracy of the discriminator.
        """

        @torch.no_grad()
        def measure() -> dict[str, Tensor]:
            values = {"discriminator": accuracy, "generator": self.generator_loss(module, batch)}
            return values | (mode_coverage(module) if module.classifier else {})

        return measure


def classification_loss(module: Any, batch: Batch) -> Tensor:
    """Return the cross-entropy of the classifier on the real examples of a batch that have a label, a scalar."""
    rows = [i for i, label in enumerate(batch.labels or ()) if label is not None]
    targets = torch.tensor([batch.labels[i] for i in rows], device=batch.clean.device, dtype=torch.long)  # type: ignore[index]
    return F.cross_entropy(module.classifier(batch.clean[rows]), targets, reduction="sum") / len(batch.clean)


def mode_coverage(module: Any) -> dict[str, Tensor]:
    """Return how many classes samples reach, the entropy of their classes in bits, and the recognised fraction.

    Args:
        module: generator and classifier; a generator with classes is asked for all of them equally often.

    Reference:
        Improved Techniques for Training GANs, 2016, arXiv:1606.03498 (class entropy); VEEGAN, 2017, arXiv:1705.07761
        (modes and high-quality samples).
    """
    is_conditional = module.prior.classes > 0
    requested = torch.arange(COVERAGE_SAMPLES) % max(1, module.prior.classes)
    fake = module.generate(requested.tolist() if is_conditional else None, COVERAGE_SAMPLES)
    confidence, predicted = module.classifier(fake).float().softmax(dim=1).max(dim=1)
    classes = module.classifier[-1].out_features
    recognised = predicted == requested.to(predicted) if is_conditional else confidence > CONFIDENT
    return {
        "modes": modes_reached(predicted, classes),
        "entropy_bits": class_entropy(predicted),
        "recognised": recognised.float().mean(),
    }
