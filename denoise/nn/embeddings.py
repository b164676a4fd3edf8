"""Numbers, classes and short texts as vectors that tell a network what is asked of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Label = int | str | None
"""A class by its index, a text, or nothing in particular."""

MAX_BYTES = 96  # of a text; what follows is not read


class Fourier(nn.Module):
    """Sines and cosines of a number at frequencies from 1 to 1000.

    Shape:
        x: (batch,); returns (batch, dim), dim even.
    Reference:
        Attention Is All You Need, 2017, arXiv:1706.03762, section 3.5.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.arange(self.dim // 2, device=x.device, dtype=torch.float32) / max(1, self.dim // 2 - 1)
        angles = x.float()[:, None] * 1000**steps
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class TextEncoder(nn.Module):
    """A vector for a short text: bytes, two convolutions, their mean and their maximum.

    Shape:
        texts: n strings; returns (n, dim).
    Reference:
        Character-level Convolutional Networks for Text Classification, 2015, arXiv:1509.01626.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(256, dim, padding_idx=0)
        self.convs = nn.Sequential(
            nn.Conv1d(dim, dim, 5, padding=2), nn.SiLU(), nn.Conv1d(dim, dim, 5, padding=2), nn.SiLU()
        )
        self.out = nn.Linear(2 * dim, dim)

    def forward(self, texts: Sequence[str]) -> Tensor:
        # bytes, not letters: every language is heard; case and surrounding space say nothing
        raw = [text.strip().lower().encode()[:MAX_BYTES] or b" " for text in texts]
        longest = max(map(len, raw))
        codes = torch.tensor([[*line, *[0] * (longest - len(line))] for line in raw], device=self.out.weight.device)
        there = (codes > 0)[:, None]
        heard = self.convs(self.letters(codes).transpose(1, 2))
        mean = (heard * there).sum(dim=2) / there.sum(dim=2)
        return self.out(torch.cat([mean, heard.masked_fill(~there, -math.inf).amax(dim=2)], dim=1))


class Condition(nn.Module):
    """One vector for each label: a class, a text, or nothing.

    Shape:
        labels: n of them; returns (n, dim).
    Reference:
        Classifier-Free Diffusion Guidance, 2022, arXiv:2207.12598 (nothing is a label, too).
    """

    def __init__(self, dim: int, classes: int = 0, text: bool = False) -> None:
        super().__init__()
        self.classes = classes
        self.nothing = nn.Parameter(torch.zeros(dim))
        self.embedding = nn.Embedding(classes, dim) if classes else None
        self.encoder = TextEncoder(dim) if text else None

    def forward(self, labels: Sequence[Label]) -> Tensor:
        out = self.nothing.expand(len(labels), -1).clone()
        numbers = [i for i, label in enumerate(labels) if isinstance(label, int)]
        if numbers:
            if self.embedding is None or not all(0 <= labels[i] < self.classes for i in numbers):  # type: ignore[operator]
                raise ValueError(f"a class of {self.classes} is asked for by {[labels[i] for i in numbers]}.")
            out[numbers] = self.embedding(torch.tensor([labels[i] for i in numbers], device=out.device)).to(out)
        texts = [i for i, label in enumerate(labels) if isinstance(label, str)]
        if texts:
            if self.encoder is None:
                raise ValueError("this prior knows no texts.")
            out[texts] = self.encoder([str(labels[i]) for i in texts]).to(out)
        return out
