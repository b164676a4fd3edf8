"""Embeddings of noise levels, classes and short texts, on which a network is conditioned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index

import torch
from torch import Tensor, nn

from denoise.protocols import Label

MAX_BYTES = 96
"""Bytes of a text that `TextEncoder` reads; the rest is ignored."""


class SinusoidalEmbedding(nn.Module):
    """Sines and cosines of a number at frequencies from 1 to 1000.

    Args:
        dim: length of the embedding, even.

    Reference:
        Attention Is All You Need, 2017, arXiv:1706.03762, section 3.5.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Map numbers (batch,) to embeddings (batch, dim)."""
        exponents = torch.arange(self.dim // 2, device=x.device, dtype=torch.float32) / max(1, self.dim // 2 - 1)
        angles = x.float()[:, None] * 1000**exponents
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class TextEncoder(nn.Module):
    """Embedding of short texts: two convolutions over their bytes, then mean and maximum over the text.

    Args:
        dim: length of the embedding.

    Reference:
        Character-level Convolutional Networks for Text Classification, 2015, arXiv:1509.01626.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.byte_embedding = nn.Embedding(256, dim, padding_idx=0)
        self.convs = nn.Sequential(
            nn.Conv1d(dim, dim, 5, padding=2), nn.SiLU(), nn.Conv1d(dim, dim, 5, padding=2), nn.SiLU()
        )
        self.out = nn.Linear(2 * dim, dim)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Map n texts to embeddings (n, dim); case and surrounding space are ignored."""
        # bytes, not letters, so that every script is covered
        cleaned = [text.replace("\0", " ").strip().lower() for text in texts]  # 0 is the padding
        encoded = [text.encode()[:MAX_BYTES] or b" " for text in cleaned]
        longest = max(map(len, encoded))
        codes = torch.tensor([[*line, *[0] * (longest - len(line))] for line in encoded], device=self.out.weight.device)
        valid = (codes > 0)[:, None]
        features = self.byte_embedding(codes).transpose(1, 2)
        for layer in self.convs:
            features = layer(features) * valid  # zeros behind a text, whatever the length of the others
        mean = features.sum(dim=2) / valid.sum(dim=2)
        maximum = features.masked_fill(~valid, -math.inf).amax(dim=2)
        return self.out(torch.cat([mean, maximum], dim=1))


class Condition(nn.Module):
    """Embedding of labels: a class, a text, or the null label of unconditional samples.

    Args:
        dim: length of the embedding.
        classes: number of classes, 0 for none.
        text: whether texts are labels.

    Reference:
        Classifier-Free Diffusion Guidance, 2022, arXiv:2207.12598 (the null label).
    """

    def __init__(self, dim: int, classes: int = 0, text: bool = False) -> None:
        super().__init__()
        self.classes = classes
        self.null_embedding = nn.Parameter(torch.zeros(dim))
        self.embedding = nn.Embedding(classes, dim) if classes else None
        self.encoder = TextEncoder(dim) if text else None

    def forward(self, labels: Sequence[Label]) -> Tensor:
        """Map n labels to embeddings (n, dim).

        Args:
            labels: class indices, texts, or None.

        Raises:
            TypeError: a label is neither an integer, of any library, nor a text, nor None.
            ValueError: a class does not exist, or texts are no labels.
        """
        output = self.null_embedding.expand(len(labels), -1).clone()
        class_rows = [i for i, label in enumerate(labels) if not (label is None or isinstance(label, str))]
        if class_rows:
            classes = [index(labels[i]) for i in class_rows]  # type: ignore[arg-type]
            if self.embedding is None:
                raise ValueError("this prior has no classes; leave labels out.")
            if not all(0 <= label < self.classes for label in classes):
                raise ValueError(f"labels are {classes}; expected classes from 0 to {self.classes - 1}.")
            output[class_rows] = self.embedding(torch.tensor(classes, device=output.device)).to(output)
        text_rows = [i for i, label in enumerate(labels) if isinstance(label, str)]
        if text_rows:
            if self.encoder is None:
                raise ValueError("this prior is not conditioned on text; leave texts out.")
            output[text_rows] = self.encoder([str(labels[i]) for i in text_rows]).to(output)
        return output


def embed_labels(condition: Condition | None, labels: Sequence[Label]) -> Tensor | None:
    """Return the embedding of n labels, (n, dim), or None of a prior without conditions.

    Args:
        condition: embedding of the prior; None if it has neither classes nor texts.
        labels: class indices, texts, or None.

    Raises:
        TypeError: as of `Condition.forward`.
        ValueError: as of `Condition.forward`; without conditions, a label is given.
    """
    if condition is not None:
        return condition(labels)
    if any(label is not None for label in labels):
        raise ValueError("this prior has no classes; leave labels out.")
    return None
