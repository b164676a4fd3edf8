"""The pipeline of point clouds: file --> normalised sets of points --> denoiser at sigma --> file."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from denoise.backends.device import cpu_by_default, pick_device
from denoise.errors import ConfigError, InputError
from denoise.files.atomic import atomic_file
from denoise.files.names import OUTPUT, file_name
from denoise.files.points import read_points
from denoise.pipelines.point_clouds import normalise_points
from denoise.pipelines.result import POINT_UNITS, Diagnostics, Result
from denoise.protocols import DenoisingPrior, Device, Progress
from denoise.registry import POINT_MODEL, load
from denoise.sampling.stein import sigma_from_residual

MIN_POINTS = 16
MAX_SIGMA = 0.25  # of the diagonal
MAX_LEVEL = 0.9  # of the noise, in standard deviations of a noisy cloud: of more noise nothing would be left
SIGMA_RANGE = (0.005, 0.6)  # of the estimate, in units of the standard deviation of the coordinates
ROUNDS = 4  # divisions of a large cloud into subsets, over which the results are averaged
BATCH_SIZE = 4  # subsets at a time


class PointPipeline:
    """A loaded prior of point clouds as their denoiser.

    A cloud is denoised as a whole if it has no more points than those of the prior. A larger one is divided into random
    subsets of that size, which all show the whole surface, so that there are no seams; this is done several times, and
    the results of each point are averaged.

    Args:
        model: name of a bundled prior, or path of a weights file.
        device: ``"auto"``, or a device of torch.

    Raises:
        ConfigError: there is no such prior, or it is not for point clouds or cannot denoise.
        WeightsError: the file is damaged.
    """

    def __init__(self, model: str | Path = POINT_MODEL, *, device: Device = "auto") -> None:
        self.device = pick_device(device)
        module, self.card = load(model, kind="prior", modality="points")
        module = module.to(self.device)
        if not isinstance(module, DenoisingPrior):
            raise ConfigError(f"prior {self.card.name} ({self.card.architecture}) cannot denoise; use another.")
        self.prior = module
        self.subset = int(module.event_shape[-1])

    @cpu_by_default()
    def denoise(
        self, points: NDArray[np.float64], sigma: float | None = None, *, progress: Progress | None = None
    ) -> tuple[NDArray[np.float64], float]:
        """Denoise a point cloud.

        Args:
            points: coordinates in any unit, (n, 3).
            sigma: standard deviation of the noise of each coordinate, as a fraction of the diagonal of the bounding box
                of ``points``; None estimates it.
            progress: called with the fraction done.

        Returns:
            Denoised coordinates, (n, 3), and the sigma that was given or estimated.

        Raises:
            ConfigError: sigma is out of range.
            InputError: shape or values of the points do not fit.
        """
        if points.ndim and len(points) < MIN_POINTS:
            number = "1 point" if len(points) == 1 else f"{len(points)} points"
            raise InputError(f"{number}; expected at least {MIN_POINTS}, which show a surface. Give a larger cloud.")
        cloud = normalise_points(points)
        if sigma is not None and not 0 <= sigma <= MAX_SIGMA:
            raise ConfigError(f"sigma is {sigma:g}; expected 0 to {MAX_SIGMA:g}, a fraction of the diagonal.")
        if sigma == 0:
            return points.copy(), 0.0
        per_diagonal = math.sqrt(np.square(np.ptp(cloud.points, axis=0)).sum())
        if sigma is not None and sigma * per_diagonal > MAX_LEVEL:
            raise ConfigError(
                f"sigma is {sigma:g} of the diagonal, about the spread of the points; expected at most "
                f"{MAX_LEVEL / per_diagonal:.2g}."
            )
        z = torch.from_numpy(cloud.points.astype(np.float32)).T
        generator = Generator().manual_seed(0)
        level = SIGMA_RANGE[1] if sigma is None else sigma * per_diagonal
        if sigma is None:
            subset = z[:, torch.randperm(z.shape[1], generator=generator)[: self.subset]][None].to(self.device)
            level = sigma_from_residual(self._denoise, subset, *SIGMA_RANGE, generator=generator)
        total, count = torch.zeros_like(z), z.new_zeros(z.shape[1])
        batches = [*self._batches(z.shape[1], generator)]
        with torch.no_grad():
            for i, rows in enumerate(batches):
                subsets = z[:, rows].transpose(0, 1).to(self.device)
                denoised = self._denoise(subsets, subsets.new_full((len(rows),), level)).cpu()
                total.index_add_(1, rows.flatten(), denoised.transpose(0, 1).flatten(1))
                count.index_add_(0, rows.flatten(), z.new_ones(rows.numel()))
                if progress:
                    progress((i + 1) / len(batches))
        # the difference keeps the digits of large coordinates
        displacement = (total / count - z).T.numpy().astype(np.float64)
        return points + cloud.scale * displacement, level / per_diagonal

    def file(
        self,
        source: str | Path | BinaryIO,
        target: str | Path | BinaryIO,
        sigma: float | None = None,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
        name: str | None = None,
    ) -> Result:
        """Denoise a .ply or .xyz file. Everything but the coordinates keeps its bytes.

        Args:
            source: path or stream to read.
            target: path or stream to write, of the format of the source.
            sigma: as of `denoise`.
            overwrite: whether an existing file may be replaced.
            progress: called with the fraction done.
            name: name of the source in messages; None for its path.

        Returns:
            The result, with sigma in percent of the diagonal as the noise before.

        Raises:
            ConfigError: sigma is out of range.
            InputError: the file cannot be read, written or denoised.
        """
        started = time.perf_counter()
        file = read_points(source, name)
        if isinstance(target, str | Path):
            _check_extension(target, file.suffix, file.name)
        try:
            points, sigma_used = self.denoise(file.points, sigma, progress=progress)
        except InputError as error:
            raise InputError(f"{file.name}: {error}") from None
        data = file.replace(points)
        if isinstance(target, str | Path):
            with atomic_file(Path(target), overwrite=overwrite) as partial_file:
                partial_file.write_bytes(data)
        else:
            target.write(data)
        return Result.from_diagnostics(
            Diagnostics(noise_before=100 * sigma_used),
            POINT_UNITS,
            input=file.name,
            output=file_name(target, OUTPUT),
            amount=len(points),
            seconds=max(time.perf_counter() - started, 1e-9),
        )

    def _denoise(self, z: Tensor, sigma: Tensor) -> Tensor:
        """Return E[clean | z] of clouds whose coordinates have unit variance with the noise, (batch, 3, n)."""
        signal_std = (1 - sigma.square()).sqrt()
        scale = (signal_std / self.prior.data_std)[:, None, None]
        return scale * self.prior(z / scale, sigma * self.prior.data_std / signal_std)

    def _batches(self, n: int, generator: Generator) -> Iterator[Tensor]:
        """Yield the indices of subsets, (batch, points), in which every point occurs."""
        if n <= self.subset:
            yield torch.arange(n)[None]
            return
        for _ in range(ROUNDS):
            order = torch.randperm(n, generator=generator)
            order = torch.cat([order, order[: -n % self.subset]])  # fills the last subset
            yield from order.view(-1, self.subset).split(BATCH_SIZE)


def _check_extension(target: str | Path, suffix: str, source: str) -> None:
    if Path(target).suffix.lower() != suffix:
        raise InputError(f"{target}: {source} is {suffix[1:].upper()}; expected a name that ends in {suffix}.")
