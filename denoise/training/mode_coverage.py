"""A classifier that is trained beside a generator, and what it tells of its samples: the classes that they reach."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from denoise.metrics import class_entropy, modes_reached
from denoise.training.data import Batch

COVERAGE_SAMPLES = 500
RECOGNISED_PROBABILITY = 0.9  # probability of the class of a sample that counts as recognised


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
