"""Pipelines of priors: samples, interpolation and completion, beside what `prior_codec` and `prior_likelihood` do.

Signals are tensors (n, *shape), full scale 1.0; `denoise.pipelines.prior_files` reads and writes them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from denoise.errors import ConfigError, InputError
from denoise.pipelines.prior_base import as_batch, as_generator, check_count
from denoise.pipelines.prior_codec import CodecPipeline
from denoise.pipelines.prior_files import output_paths, read_signal, trajectory_path, write_signals, write_trajectory
from denoise.pipelines.prior_likelihood import LikelihoodPipeline
from denoise.probability_path import standard_normal
from denoise.protocols import (
    Completer,
    DenoisingPrior,
    HasTrajectory,
    Label,
    NoiseDecoder,
    NoiseEncoder,
    Progress,
    SamplingOptions,
)


class PriorPipeline(CodecPipeline, LikelihoodPipeline):
    """A loaded prior. Results are determined by ``seed``; what a prior cannot do is refused with a `ConfigError`.

    A codec without a prior gets a standard normal one over its latents.

    Args:
        prior: name of bundled weights, or path of the weights file of a prior or a codec.
        device: ``"auto"``, or a device of torch.

    Raises:
        ConfigError: there is no such prior.
        WeightsError: the file is damaged.
    """

    def output_paths(self, out: str | Path, n: int, *, overwrite: bool = False) -> list[Path]:
        """Return the paths that `write` will create, so that a problem is reported before the signals are computed.

        Args:
            out: file or folder.
            n: number of signals.
            overwrite: whether files may be replaced.

        Raises:
            ConfigError: the extension does not fit the signals.
            InputError: a file exists.
        """
        check_count(n)
        return output_paths(out, n, self.card, overwrite=overwrite)

    def read(self, *files: str | Path, report: Callable[[str], None] | None = None) -> Tensor:
        """Read files as signals of the shape of the prior; see `prior_files.read_signal`.

        Args:
            files: images, audio files or point clouds of any size.
            report: called with what a file loses: colours, pixels, or seconds at the end.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: no file is given.
            InputError: a file cannot be read.
        """
        if not files:
            raise ConfigError("no files to read; expected at least one.")
        point_std = self.model.data_std if isinstance(self.model, DenoisingPrior) else 1.0
        return torch.cat([read_signal(file, self.card, point_std, report=report) for file in files])

    def write(
        self, out: str | Path, signals: Tensor, *, columns: int | None = None, overwrite: bool = False
    ) -> list[Path]:
        """Write signals into one file or a folder; see `prior_files.write_signals`.

        Args:
            out: file or folder.
            signals: signals, (n, *shape).
            columns: columns of the grid of a .png; by default about as many as rows.
            overwrite: whether files may be replaced.

        Returns:
            Paths of the files.

        Raises:
            ConfigError: the extension does not fit the signals.
            InputError: the signals have another shape, or a file exists or cannot be written.
        """
        signals = self._as_signals(signals)
        return write_signals(out, signals, self.card, columns=columns, overwrite=overwrite)

    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        solver: str | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Sample signals.

        Args:
            n: number of signals.
            label: class by its name or number, or a text; None is unconditional.
            seed: seed of the noise.
            steps: steps of the solver.
            guidance: scale of classifier-free guidance.
            temperature: less or more randomness than 1, see `SamplingOptions`.
            solver: name in `denoise.sampling.solvers.SOLVERS`.
            progress: called with the fraction done.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: an option is out of range or not supported by the prior, or it has no such class.
        """
        check_count(n)
        options = self._options(SamplingOptions(steps, guidance, temperature, solver), self.model.sampling_options)
        label, generator = self._resolve(label), as_generator(seed)
        return self._in_batches(
            lambda size, _: self.model.sample(size, label=label, options=options, generator=generator), n, progress
        )

    def trajectory(
        self,
        n: int,
        *,
        frames: int = 17,
        label: Label = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        solver: str | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Sample signals as `sample` does, and show how noise is added to them and how it was removed.

        Args:
            n: number of signals.
            frames: largest number of points on the way to noise and back, at least 3; they are evenly spaced steps.
            label: class by its name or number, or a text; None is unconditional.
            seed: seed of the noise.
            steps: steps of the solver.
            guidance: scale of classifier-free guidance.
            temperature: less or more randomness than 1, see `SamplingOptions`.
            solver: name in `denoise.sampling.solvers.SOLVERS`.
            progress: called with the fraction done.

        Returns:
            Signals, (frames, n, *shape), an odd number of frames: samples first and last, noise in the middle.

        Raises:
            ConfigError: the prior does not remove noise step by step, there are too few frames, or as of `sample`.
        """
        check_count(n)
        model = self._with_trajectory()
        options = self._options(SamplingOptions(steps, guidance, temperature, solver), model.sampling_options)
        label, generator = self._resolve(label), as_generator(seed)
        return self._in_batches(
            lambda size, _: model.trajectory(size, frames=frames, label=label, options=options, generator=generator),
            n,
            progress,
            dim=1,
        )

    def trajectory_path(self, out: str | Path, *, overwrite: bool = False) -> Path:
        """Return the path of a trajectory, so that a problem is reported before it is computed.

        Args:
            out: file.
            overwrite: whether it may be replaced.

        Raises:
            ConfigError: the extension is not .png or .gif, or the prior does not remove noise step by step.
            InputError: the file exists.
        """
        self._with_trajectory()
        return trajectory_path(out, overwrite=overwrite)

    def write_trajectory(self, out: str | Path, trajectory: Tensor, *, overwrite: bool = False) -> Path:
        """Write a trajectory as a strip or an animation; see `prior_files.write_trajectory`.

        Args:
            out: file, .png or .gif.
            trajectory: signals of `trajectory`, (frames, n, *shape).
            overwrite: whether the file may be replaced.

        Returns:
            Path of the file.

        Raises:
            ConfigError: the extension is not .png or .gif.
            InputError: the signals have another shape, or the file exists or cannot be written.
        """
        shape = (*getattr(trajectory, "shape", ())[1:2], *self.model.event_shape)
        trajectory = as_batch(trajectory, shape, "signals of a trajectory")
        return write_trajectory(out, trajectory, self.card, overwrite=overwrite)

    def noise(self, seed: int) -> Tensor:
        """Return the noise of a seed, (1, *noise_shape), as `decode` takes it.

        Raises:
            ConfigError: the prior has no noise.
        """
        if not isinstance(self.model, NoiseDecoder):
            self._refuse("decode noise")
        return standard_normal((1, *self.model.noise_shape), as_generator(seed))

    def encode(self, x: Tensor, *, label: Label = None) -> Tensor:
        """Return the noise of signals, in float32 and without gradients.

        Args:
            x: signals, (n, *shape), integers of the full scale of their type, or floats of 1.0.
            label: class by its name or number, or a text.

        Returns:
            Noise, (n, *noise_shape).

        Raises:
            ConfigError: the prior cannot be inverted.
            InputError: the signals have another shape.
        """
        model = self.model
        if not isinstance(model, NoiseEncoder):
            self._refuse("encode signals as noise")
        label = self._resolve(label)
        return self._map(lambda batch: model.encode_noise(batch, label=label), self._as_signals(x))

    def decode(
        self,
        noise: Tensor,
        *,
        label: Label = None,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return the signals of noise.

        The default guidance is 1, which makes it the inverse of `encode`; that of `sample` is the prior's.

        Args:
            noise: noise, (n, *noise_shape).
            label: class by its name or number, or a text; None is unconditional.
            steps: steps of the solver.
            guidance: scale of classifier-free guidance.
            solver: name of a deterministic one in `denoise.sampling.solvers.SOLVERS`.
            progress: called with the fraction done.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the prior has no noise, or an option is out of range or not supported.
            InputError: the noise has another shape.
        """
        model = self.model
        if not isinstance(model, NoiseDecoder):
            self._refuse("decode noise")
        options = self._options(SamplingOptions(steps, guidance, solver=solver), model.sampling_options)
        label, noise = self._resolve(label), as_batch(noise, model.noise_shape, "noise")
        return self._map(lambda batch: model.decode_noise(batch, label=label, options=options), noise, progress)

    def complete(
        self,
        x: Tensor,
        mask: Tensor,
        n: int,
        *,
        label: Label = None,
        seed: int = 0,
        steps: int | None = None,
        temperature: float | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Fill in the missing entries of a signal in several ways.

        Args:
            x: signal, (1, *shape); missing entries have any finite value.
            mask: 1 where entries are observed, 0 where they are missing, (1, *shape).
            n: number of completions.
            label: class by its name or number, or a text; None is unconditional.
            seed: seed of the noise.
            steps: steps of the solver, 40 by default.
            temperature: as of `sample`, of autoregressive priors.
            progress: called with the fraction done.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the mask has another shape, or the prior cannot complete signals or takes no such options.
            InputError: the signal has another shape.
        """
        x = self._as_signals(x)
        if len(x) > 1:
            raise InputError(f"{len(x)} signals; expected one to complete.")
        if np.shape(mask) != x.shape:
            raise ConfigError(f"mask is of shape {tuple(np.shape(mask))}; expected {tuple(x.shape)}, as the signal.")
        mask = as_batch(mask, self.model.event_shape, "mask entries")
        check_count(n)
        model, label = self.model, self._resolve(label)
        if not isinstance(model, Completer):
            self._refuse("complete signals")
        options = self._options(SamplingOptions(steps, temperature=temperature), model.completion_options)
        x, mask, generator = x.to(self.device), mask.to(self.device), as_generator(seed)

        def complete_batch(size: int, progress: Progress | None) -> Tensor:
            copies, masks = (y.expand(size, *y.shape[1:]) for y in (x, mask))
            return model.complete(copies, masks, label=label, options=options, generator=generator, progress=progress)

        return self._in_batches(complete_batch, n, progress)

    def _with_trajectory(self) -> HasTrajectory:
        if not isinstance(self.model, HasTrajectory):
            self._refuse("show a trajectory, since it does not remove noise step by step")
        return self.model
