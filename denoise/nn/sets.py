"""A backbone for sets of points: a permutation of the points permutes the output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from denoise.nn.blocks import zero_init
from denoise.nn.conditioning import FiLM
from denoise.nn.embeddings import SinusoidalEmbedding

BANDWIDTHS = (0.8, 0.4, 0.2, 0.1)  # of the local statistics, for points of unit variance; each half of the one before
DIRECTIONS = 3  # for each bandwidth
MIN_WEIGHT = 1e-7


class SetTransformer(nn.Module):
    """Induced set attention over points with local statistics, conditioned on a noise level and a label.

    Every point is one token. A few learned queries summarise the whole set, and the points attend to these summaries,
    so that the cost is linear in the number of points, which may vary. What lies near a point, which says where the
    surface is, comes from `local_statistics`.

    Args:
        width: features of a point.
        blocks: number of blocks.
        inducing: number of learned queries in each block.
        embedding: length of the embedding of noise level and label, even.
        channels: coordinates of a point.

    Reference:
        Set Transformer, 2018, arXiv:1810.00825 (induced attention); PointNet, 2016, arXiv:1612.00593 (points as a
        set); 3D Shape Generation and Completion through Point-Voxel Diffusion, 2021, arXiv:2104.03670.
    """

    def __init__(self, width: int, blocks: int, inducing: int, embedding: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.noise_embedding = nn.Sequential(
            SinusoidalEmbedding(embedding), nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.stem = nn.Linear(channels + len(BANDWIDTHS) * (1 + channels + channels**2), width)
        self.blocks = nn.ModuleList(InducedBlock(width, inducing, embedding) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.out = zero_init(nn.Linear(width, channels + len(BANDWIDTHS) * DIRECTIONS))

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor) -> Tensor:
        """Apply the network.

        Args:
            x: points, (batch, channels, n), of about unit variance.
            noise_level: c_noise of EDM, or time of a flow, (batch,).
            condition: embedding of the label, (batch, embedding).

        Returns:
            Output of the shape of ``x``.
        """
        embedding, points = self.noise_embedding(noise_level) + condition, x.transpose(1, 2)
        statistics, directions = _stack_statistics(points)
        tokens = self.stem(torch.cat([points, statistics], dim=2))
        for block in self.blocks:
            tokens = block(tokens, embedding)
        free, gains = self.out(self.norm(tokens)).split([self.channels, directions.shape[2]], dim=2)
        return (free + (gains[..., None] * directions).sum(dim=2)).transpose(1, 2)


class InducedBlock(nn.Module):
    """Attention of learned queries to the points and of the points to the result, then an MLP, with FiLM.

    Args:
        width: features of a point.
        inducing: number of learned queries.
        embedding: length of the embedding of noise level and label.
        head_width: features of each head of the attention.

    Reference:
        Set Transformer, 2018, arXiv:1810.00825, eq. 9 and 10.
    """

    def __init__(self, width: int, inducing: int, embedding: int, head_width: int = 32) -> None:
        super().__init__()
        self.heads = max(1, width // head_width)
        self.norm, self.film = nn.LayerNorm(width, elementwise_affine=False), FiLM(embedding, width)
        self.queries = nn.Parameter(torch.randn(inducing, width) / width**0.5)
        self.points_kv, self.points_q = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.summary_norm, self.summary_kv = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.attended = zero_init(nn.Linear(width, width))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), zero_init(nn.Linear(2 * width, width))
        )

    def forward(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        """Map tokens (batch, n, width), given (batch, embedding), to the same shape."""
        x = self.film(self.norm(tokens).transpose(1, 2), embedding).transpose(1, 2)
        summary = self._attend(self.queries.expand(len(x), -1, -1), self.points_kv(x))
        x = self._attend(self.points_q(x), self.summary_kv(self.summary_norm(summary)))
        tokens = tokens + self.attended(x)
        return tokens + self.mlp(tokens)

    def _attend(self, q: Tensor, kv: Tensor) -> Tensor:
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in (q, *kv.chunk(2, dim=2)))
        return F.scaled_dot_product_attention(q.to(k.dtype), k, v).transpose(1, 2).flatten(2)


def local_statistics(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return what lies near each point of a set: density, mean and covariance under Gaussian windows.

    The directions are ``o``, ``C o`` and ``C^2 o``, of the vector ``o`` from the point to the local mean and the local
    covariance ``C``. Combinations of them project the point onto the local plane or line, whatever its orientation.

    Args:
        points: points of one set, (n, channels).

    Returns:
        Features of each point, (n, bandwidths * (1 + channels + channels^2)), and directions, (n, 3 * bandwidths,
        channels).
    """
    n, channels = points.shape
    squares = points.square().sum(dim=1)
    distances = (squares[:, None] + squares - 2 * points @ points.T).clamp_min(0)
    moments = torch.cat([points.new_ones(n, 1), points, (points[:, :, None] * points[:, None]).flatten(1)], dim=1)
    weights = torch.exp(-distances / (2 * BANDWIDTHS[0] ** 2))
    features, directions = [], []
    for i, bandwidth in enumerate(BANDWIDTHS):
        if i:
            # half the bandwidth; smaller weights would become denormal numbers, which are slow
            weights = F.threshold(weights, MIN_WEIGHT, 0.0).square().square()
        total, mean, second = (weights @ moments).split([1, channels, channels**2], dim=1)
        mean, second = mean / total, (second / total).unflatten(1, (channels, channels))
        covariance = (second - mean[:, :, None] * mean[:, None]) / bandwidth**2
        offset = (mean - points)[..., None] / bandwidth
        features += [(total / n).log(), offset[..., 0], covariance.flatten(1)]
        directions += [offset, covariance @ offset, covariance @ (covariance @ offset)]
    return torch.cat(features, dim=1), torch.cat(directions, dim=2).transpose(1, 2)


def _stack_statistics(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return `local_statistics` of each set of a batch, (batch, n, channels).

    One set at a time, and again for gradients: the distances of all pairs of a batch would not fit in memory.
    """
    with torch.autocast(points.device.type, enabled=False):  # in bfloat16, covariances would be lost to rounding
        rows = [
            checkpoint(local_statistics, x, use_reentrant=False) if x.requires_grad else local_statistics(x)
            for x in points.float()
        ]
    features, directions = zip(*rows, strict=True)
    return torch.stack(features).to(points.dtype), torch.stack(directions).to(points.dtype)
