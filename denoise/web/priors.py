"""Jobs of priors: samples, a path between two of them, and completions with their uncertainty."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from denoise.config import config
from denoise.errors import ConfigError, InputError
from denoise.files.image import read_displayed, write_image
from denoise.pipelines.latent_space import interpolate_path
from denoise.pipelines.prior import PriorPipeline
from denoise.pipelines.prior_files import read_mask
from denoise.protocols import Progress
from denoise.registry import bundled
from denoise.signals import Image, ImageFormat
from denoise.web.files import require_bundled
from denoise.web.jobs import OUT, Outcome, Work

MAX_SIGNALS = 64  # of one job


@config
class SampleRequest:
    """Query of samples; the options are those of `denoise.PriorPipeline.sample`.

    Args:
        prior: name of a bundled prior.
        n: number of samples, 1 to `MAX_SIGNALS`.
        label: class by its name or number.
        text: description in words.
        seed: seed of the noise.
        steps: steps of the solver.
        guidance: scale of classifier-free guidance.
        temperature: randomness.
    """

    prior: str
    n: int = 16
    label: str | None = None
    text: str | None = None
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    temperature: float | None = None


@config
class PathRequest:
    """Query of a path through the noise of a prior.

    Args:
        prior: name of a bundled prior.
        n: number of points, ends included, 2 to `MAX_SIGNALS`.
        seed: seed of the first end.
        seed_end: seed of the last one.
        label: class by its name or number.
        text: description in words.
    """

    prior: str
    n: int = 17
    seed: int = 0
    seed_end: int = 1
    label: str | None = None
    text: str | None = None


@config
class CompletionRequest:
    """Query of completions of an image whose transparent pixels are missing.

    Args:
        prior: name of a bundled prior of images.
        n: number of completions, 2 to `MAX_SIGNALS`.
        label: class by its name or number.
        text: description in words.
        seed: seed of the noise.
        steps: steps of the solver.
    """

    prior: str
    n: int = 8
    label: str | None = None
    text: str | None = None
    seed: int = 0
    steps: int | None = None


def plan_samples(folder: Path, request: SampleRequest) -> Work:
    """Return the work of drawing samples, after a check of the request.

    Args:
        folder: folder of the job.
        request: query of the job.

    Raises:
        ConfigError: there is no such bundled prior, or too many samples are requested.
    """
    _check(request.prior, request.n, 1, request.seed)
    return partial(_sample, folder, request)


def plan_path(folder: Path, request: PathRequest) -> Work:
    """Return the work of decoding a path, as `plan_samples`."""
    _check(request.prior, request.n, 2, request.seed, request.seed_end)
    return partial(_interpolate, folder, request)


def plan_completions(source: Path, request: CompletionRequest) -> Work:
    """Return the work of completing an image, as `plan_samples`.

    Args:
        source: path of the image, alone in its folder.
        request: query of the job.
    """
    _check(request.prior, request.n, 2, request.seed)
    if request.prior not in bundled("prior", "image"):
        names = ", ".join(bundled("prior", "image"))
        raise ConfigError(f"prior {request.prior} is not of images; expected one of {names}.")
    return partial(_complete, source, request)


def _check(prior: str, n: int, least: int, *seeds: int) -> None:
    require_bundled(prior, bundled("prior"))
    if not least <= n <= MAX_SIGNALS:
        raise ConfigError(f"n is {n}; expected {least} to {MAX_SIGNALS}.")
    for seed in seeds:
        if not 0 <= seed < 1 << 62:
            raise ConfigError(f"seed is {seed}; expected 0 to {(1 << 62) - 1}.")


def _sample(folder: Path, request: SampleRequest, progress: Progress) -> Outcome:
    pipeline = load_prior(request.prior)
    samples = pipeline.sample(
        request.n,
        label=pipeline.label(request.label, request.text),
        seed=request.seed,
        steps=request.steps,
        guidance=request.guidance,
        temperature=request.temperature,
        progress=progress,
    )
    return Outcome(_write(pipeline, folder, "samples", samples), {"n": request.n})


def _interpolate(folder: Path, request: PathRequest, progress: Progress) -> Outcome:
    pipeline = load_prior(request.prior)
    ends = torch.cat([pipeline.noise(seed) for seed in (request.seed, request.seed_end)])
    label = pipeline.label(request.label, request.text)
    signals = pipeline.decode(interpolate_path(ends, request.n), label=label, progress=progress)
    return Outcome(_write(pipeline, folder, "path", signals, columns=request.n), {"n": request.n})


def _complete(source: Path, request: CompletionRequest, progress: Progress) -> Outcome:
    pipeline = load_prior(request.prior)
    completions = pipeline.complete(
        pipeline.read(source),
        read_mask(_write_mask(source), source, pipeline.card),
        request.n,
        label=pipeline.label(request.label, request.text),
        seed=request.seed,
        steps=request.steps,
        progress=progress,
    )
    std = completions.std(dim=0, keepdim=True).square().mean(dim=1, keepdim=True).sqrt()  # over the colours
    brightest = float(std.max())
    files = _write(pipeline, source.parent, "samples", completions)
    files |= {
        word: path
        for name, signal in (
            ("mean", completions.mean(dim=0, keepdim=True)),
            ("std", (std / max(brightest, 1e-6)).expand_as(completions[:1])),
        )
        for word, path in _write(pipeline, source.parent, name, signal).items()
    }
    return Outcome(files, {"n": request.n, "std_of_white": round(brightest, 4)})


def _write_mask(source: Path) -> Path:
    """Write an image that is white where pixels of another are transparent, even in part."""
    image = read_displayed(source)
    if image.opacity is None or (image.opacity == image.full_scale).all():
        raise InputError(f"{source}: no pixel is transparent; expected transparent pixels where some are missing.")
    missing = np.where(image.opacity < image.full_scale, 255, 0).astype(np.uint8)
    mask = source.parent / OUT / "mask.png"
    write_image(mask, [Image(missing[..., None])], ImageFormat("PNG", "L"))
    return mask


def _write(
    pipeline: PriorPipeline, folder: Path, word: str, signals: Tensor, columns: int | None = None
) -> dict[str, Path]:
    """Write signals as a picture, and as sound too if they are audio."""
    suffixes = (".png", ".wav") if pipeline.card.modality == "audio" else (".png",)
    paths = {f"{word}{suffix}": folder / OUT / f"{pipeline.card.name}.{word}{suffix}" for suffix in suffixes}
    for path in paths.values():
        pipeline.write(path, signals, columns=columns)
    return paths


@lru_cache(maxsize=4)
def load_prior(prior: str) -> PriorPipeline:
    """Return the pipeline of a prior, loaded once. Only the worker calls this."""
    return PriorPipeline(prior)
