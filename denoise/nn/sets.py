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
BLOCK = 1 << 17  # pairs of points at a time, whose weights fit into a processor's cache


class SetTransformer(nn.Module):
    """Induced set attention over points with local statistics, conditioned on a noise level and a label.

    Every point is one token. A few learned queries summarise the whole set, and the points attend to these summaries:
    attention takes time in proportion to the number of points, which may vary. `local_statistics`, which locate the
    surface, compare all pairs of points: their time is quadratic in the number, their memory is not.

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

    The departures from the paper are those of later transformers: normalisation stands before each layer, not behind
    it, which trains without tuning; the summary has no residual of the queries and no layers of its own, since it is
    read by linear layers at once and the points pass through an MLP afterwards.

    Reference:
        Set Transformer, 2018, arXiv:1810.00825, eq. 9 and 10.
    """

    def __init__(self, width: int, inducing: int, embedding: int, head_width: int = 32) -> None:
        super().__init__()
        self.heads = next(n for n in range(max(1, width // head_width), 0, -1) if not width % n)
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
        # a few queries or keys: the weights are a small matrix, and products are faster than a fused kernel
        weights = (q / k.shape[3] ** 0.5 @ k.transpose(2, 3)).softmax(dim=3)
        return (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)


def local_statistics(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return density, mean and covariance of the surroundings of each point of a set, under Gaussian windows.

    The directions are ``o``, ``C o`` and ``C^2 o``, of the vector ``o`` from the point to the local mean and the local
    covariance ``C``. Combinations of them project the point onto the local plane or line, whatever its orientation.

    Args:
        points: points of one set, (n, channels).

    Returns:
        Features of each point, (n, bandwidths * (1 + channels + channels^2)), and directions, (n, 3 * bandwidths,
        channels).
    """
    n, channels = points.shape
    rows = points.split(max(1, BLOCK // n))
    # for gradients, the weights of a block are computed again: those of all pairs would not fit in memory
    moments = [
        checkpoint(_moments, x, points, use_reentrant=False) if points.requires_grad else _moments(x, points)
        for x in rows
    ]
    bandwidths = points.new_tensor(BANDWIDTHS)[:, None, None]
    total, mean, second = torch.cat(moments, dim=2).transpose(1, 2).split([1, channels, channels**2], dim=2)
    mean, second = mean / total, (second / total).unflatten(2, (channels, channels))
    covariance = (second - mean[..., None] * mean[..., None, :]) / bandwidths[..., None] ** 2
    offset = (mean - points) / bandwidths
    once = (covariance @ offset[..., None])[..., 0]
    features = torch.cat([(total / n).log(), offset, covariance.flatten(2)], dim=2)
    directions = torch.stack([offset, once, (covariance @ once[..., None])[..., 0]], dim=2)
    return features.transpose(0, 1).flatten(1), directions.transpose(0, 1).flatten(1, 2)


def _moments(centres: Tensor, points: Tensor) -> Tensor:
    """Return sums of 1, x and x x^T over points, weighted by the windows around some of them.

    Args:
        centres: centres of the windows, (m, channels).
        points: points, (n, channels).

    Returns:
        (bandwidths, 1 + channels + channels^2, m).
    """
    x = points.T
    powers = torch.cat([torch.ones_like(x[:1]), x, (x[:, None] * x).flatten(0, 1)])
    squares = points.square().sum(dim=1)[:, None] + centres.square().sum(dim=1)
    distances = torch.addmm(squares, points, centres.T, alpha=-2).clamp_min(0)
    weights = torch.exp(distances / (-2 * BANDWIDTHS[0] ** 2))
    sums = [powers @ weights]
    for _ in BANDWIDTHS[1:]:
        # half the bandwidth; smaller weights would become denormal numbers, which are slow
        weights = F.threshold(weights, MIN_WEIGHT, 0.0).square().square()
        sums.append(powers @ weights)
    return torch.stack(sums)


def _stack_statistics(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return `local_statistics` of each set of a batch, (batch, n, channels)."""
    with torch.autocast(points.device.type, enabled=False):  # in bfloat16, covariances would be lost to rounding
        features, directions = zip(*map(local_statistics, points.float()), strict=True)
    return torch.stack(features).to(points.dtype), torch.stack(directions).to(points.dtype)
