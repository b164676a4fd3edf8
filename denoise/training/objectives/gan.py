"""Generative adversarial training: a generator, its discriminator, and a classifier that measures mode coverage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from denoise.errors import ConfigError
from denoise.nn.winograd import Conv3x3
from denoise.training.data import Batch, Source
from denoise.training.examples import LabelledExamples
from denoise.training.gan_modules import GAN_MODULES
from denoise.training.gan_recipe import Adversary
from denoise.training.losses import adversarial
from denoise.training.mode_coverage import classification_loss, mode_coverage
from denoise.training.objectives.base import Metrics, StepResult
from denoise.training.objectives.signals import SignalObjective, conditions
from denoise.training.recipe import Schedule
from denoise.training.trainer import Trainer

CLASSIFIER_RATE = 1e-3


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
        module = next((each for kind, each in GAN_MODULES.items() if isinstance(prior, kind)), None)
        if module is None:
            raise ConfigError(
                f'recipe {self.recipe.name}: objective "gan" needs architecture "gan" or "ddgan" without a codec, the '
                f"recipe builds a {type(prior).__name__}. Fix objective or architecture."
            )
        return module(prior, self.adversary)

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
        real, condition = module.real_inputs(batch.clean, conditions(module.prior, batch))
        with torch.no_grad():
            fake = module.fake_inputs(condition, len(real))
        if a.r1:
            real = real.detach().requires_grad_()
        real_logits, fake_logits = (module.logits(module.discriminator, x, condition) for x in (real, fake))
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
        real, condition = module.real_inputs(batch.clean, conditions(module.prior, batch))
        fake = module.fake_inputs(condition, len(real))
        logits = module.logits(adversarial.frozen(module.discriminator), fake, condition)
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
