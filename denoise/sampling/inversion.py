"""Inversion of priors with latents: the latents of a measurement by optimisation, and its signal from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil, cos, pi, prod

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise.errors import ConfigError
from denoise.protocols import Label, LatentEncoder, LatentVariablePrior, Progress
from denoise.sampling.operators import Operator

STEPS = 100
RATE = 0.1  # learning rate of Adam, in standard deviations of the latents
CANDIDATES, STARTS = 64, 4  # latents of which the best ones are the starts
MEAN_OF = 16  # candidates whose mean stands for what is not measured, when an encoder sees it
MAX_WINDOWS = 1024  # of one image: all are optimised at the same time


def minimise_energy(
    energy: Callable[[Tensor, Tensor], Tensor],
    candidates: Tensor,
    *,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the latents of least energy by Adam, the best of several local optima.

    It starts at the `STARTS` best candidates. The learning rate falls to 0 as a half cosine.

    Args:
        energy: differentiable function of latents, (n, k, *latent_shape), and of the indices of the candidates that
            they come from, (n, k), to nats, (n, k).
        candidates: latents of n problems, (n, candidates, *latent_shape).
        steps: steps of the optimiser.
        progress: called with the fraction of the steps that are done.

    Returns:
        Latents, (n, *latent_shape), and the indices of the candidates that they come from, (n,).

    Reference:
        Compressed Sensing using Generative Models, 2017, arXiv:1703.03208, eq. 3; Generative Visual Manipulation on the
        Natural Image Manifold, 2016, arXiv:1609.03552.
    """
    n, size = candidates.shape[:2]
    indices = torch.arange(size, device=candidates.device).expand(n, size)
    with torch.no_grad():
        energies = [energy(z, i) for z, i in zip(candidates.split(1, dim=1), indices.split(1, dim=1), strict=True)]
    starts = torch.cat(energies, dim=1).topk(min(STARTS, size), largest=False).indices
    z = candidates.take_along_dim(starts.reshape(*starts.shape, *[1] * (candidates.ndim - 2)), dim=1)
    z.requires_grad_()
    optimizer = torch.optim.Adam([z], lr=RATE)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * (0.5 + 0.5 * cos(pi * step / steps))
        with torch.enable_grad():  # the gradient of each row is its own
            total = energy(z, starts).sum()
        (z.grad,) = torch.autograd.grad(total, z)
        optimizer.step()
        if progress:
            progress((step + 1) / steps)
    z = z.detach()
    with torch.no_grad():
        best = energy(z, starts).argmin(dim=1)
    rows = torch.arange(n, device=z.device)
    return z[rows, best], starts[rows, best]


def restore_by_inversion(
    prior: LatentVariablePrior,
    y: Tensor,
    operator: Operator,
    sigma_y: float,
    shape: Sequence[int],
    *,
    steps: int = STEPS,
    generator: Generator | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Restore images by the most probable latents, given a measurement, and the mean of the image given both.

    With latents z, x = D(z) + white noise of the prior's ``residual_std`` s, and y = A x + white noise of sigma_y,
    Adam minimises ``-log p(z) + (y - A D(z))^T (s^2 A A^T + sigma_y^2)^-1 (y - A D(z)) / 2``; then
    ``x = D(z) + A^T (A A^T + sigma_y^2 / s^2)^-1 (y - A D(z))``. An image that is larger than the signals of the prior
    consists of overlapping windows, each with latents of its own, whose signals fade into each other: all windows are
    fitted to the measurement together, so that there are no seams.

    Args:
        prior: prior of images with a differentiable decoder.
        y: measurements, (n, *measurement).
        operator: measurement operator.
        sigma_y: standard deviation of the noise of the measurements, in signal units.
        shape: shape of an image, (channels, height, width).
        steps: steps of the optimiser.
        generator: source of the starts.
        progress: called with the fraction of the steps that are done.

    Returns:
        Images, (n, *shape).

    Raises:
        ConfigError: an image consists of too many windows.

    Reference:
        Solving Inverse Problems by Joint Posterior Maximization with Autoencoding Prior, 2021, arXiv:2103.01648
        (whose alternating minimisation over x is done here in closed form); Compressed Sensing using Generative Models,
        2017, arXiv:1703.03208; Invertible generative models for inverse problems, 2019, arXiv:1905.11672.
    """
    windows = Windows(tuple(prior.event_shape), tuple(shape))
    classes: Sequence[Label] = range(prior.classes) if prior.classes else [None]
    n, latent_shape, scale = len(y), prior.latent_shape, prior.residual_std
    damping = (sigma_y / scale) ** 2

    def decode(z: Tensor, index: Tensor) -> Tensor:
        """Images of latents (n, k, windows, *latent_shape), (n * k, *shape)."""
        return windows.join(prior.decode_latents(z.flatten(0, 2), labels(index)))

    def labels(index: Tensor) -> list[Label]:
        """Classes that the candidates try, which differ between the windows of one of them."""
        return [classes[(i + j) % len(classes)] for i in index.flatten().tolist() for j in range(windows.count)]

    def energy(z: Tensor, index: Tensor) -> Tensor:
        residual = y.repeat_interleave(z.shape[1], dim=0) - operator.forward(decode(z, index))
        weighted = operator.solve(residual.detach(), damping) / scale**2
        product = (residual * weighted).flatten(1).sum(dim=1)
        misfit = product - product.detach() / 2  # its gradient is that of half the quadratic form, its value, too
        log_prob = prior.latent_log_prob(z.flatten(0, 2), labels(index)).view(*z.shape[:2], windows.count)
        return misfit.view(z.shape[:2]) - log_prob.sum(dim=2)

    def condition(x: Tensor) -> Tensor:
        """Return the mean of images given decoded ones and the measurement."""
        return x + operator.adjoint(operator.solve(y - operator.forward(x), damping))

    with torch.no_grad():
        z = prior.sample_latents(n * CANDIDATES * windows.count, generator).to(y)
        candidates = z.view(n, CANDIDATES, windows.count, *latent_shape)
        if isinstance(prior, LatentEncoder):
            some = candidates[:, :MEAN_OF]
            mean = decode(some, torch.arange(MEAN_OF).expand(n, -1)).unflatten(0, (n, -1)).mean(dim=1)
            encoded = prior.encode_latents(windows.split(condition(mean)))
            candidates = torch.cat([encoded.view(n, 1, windows.count, *latent_shape), candidates], dim=1)
    z, index = minimise_energy(energy, candidates, steps=steps, progress=progress)
    with torch.no_grad():
        return condition(decode(z[:, None], index[:, None]))


class Windows:
    """Overlapping windows that cover an image, each of which fades into the next over half of its size.

    Args:
        window: shape of a window, (channels, height, width).
        shape: shape of the image, (channels, height, width).

    Raises:
        ConfigError: the channels differ, or there are too many windows.
    """

    def __init__(self, window: tuple[int, ...], shape: tuple[int, ...]) -> None:
        self.window, self.shape = window[1:], shape
        if window[0] != shape[0]:
            raise ConfigError(f"the prior is of {window[0]} channels, the image of {shape[0]}; expected as many.")
        self.hops = tuple(max(1, n // 2) for n in self.window)
        counts = [1 + max(0, ceil((n - w) / hop)) for n, w, hop in self._axes()]
        self.count = prod(counts)
        if self.count > MAX_WINDOWS:
            raise ConfigError(
                f"the image is of {shape[2]} x {shape[1]} pixels, {self.count} windows of the prior; expected at most "
                f"{MAX_WINDOWS}. Use a denoising prior, such as gaussian."
            )
        self.canvas = tuple(w + hop * (k - 1) for k, (_, w, hop) in zip(counts, self._axes(), strict=True))
        centres = [torch.arange(w, dtype=torch.float32) + 0.5 for w in self.window]
        rows, columns = (x.minimum(len(x) - x) for x in centres)
        self.weight = rows[:, None] * columns

    def _axes(self) -> Iterator[tuple[int, int, int]]:
        return zip(self.shape[1:], self.window, self.hops, strict=True)

    def split(self, x: Tensor) -> Tensor:
        """Return the windows of images, (n, *shape) to (n * count, channels, *window), with edges repeated."""
        padding = [side for n, m in zip(self.canvas[::-1], self.shape[:0:-1], strict=True) for side in (0, n - m)]
        blocks = F.unfold(F.pad(x, padding, mode="replicate"), self.window, stride=self.hops)
        return blocks.transpose(1, 2).reshape(-1, self.shape[0], *self.window)

    def join(self, x: Tensor) -> Tensor:
        """Return the images of windows, (n * count, channels, *window) to (n, *shape)."""
        weight = self.weight.to(x)

        def add(blocks: Tensor) -> Tensor:
            blocks = blocks.reshape(-1, self.count, blocks[0].numel()).transpose(1, 2)
            return F.fold(blocks, self.canvas, self.window, stride=self.hops)

        total = add(x * weight) / add(weight.expand(self.count, 1, *self.window))
        return total[..., : self.shape[1], : self.shape[2]]
