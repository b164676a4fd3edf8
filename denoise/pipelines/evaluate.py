"""Measure a denoiser on clean files to which repeatable noise is added, or on pairs of clean and noisy files."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from denoise import metrics, noise
from denoise.dsp import resample
from denoise.errors import ConfigError
from denoise.files.audio import AUDIO_EXTENSIONS, read_audio
from denoise.files.find import find_files
from denoise.files.image import IMAGE_EXTENSIONS, read_displayed
from denoise.noise import generator_for
from denoise.pipelines import AudioPipeline, ImagePipeline, load
from denoise.pipelines.choice import AUTO
from denoise.signals import Image

SIGMAS = (15.0, 25.0, 50.0)
SNRS_DB = (-5.0, 0.0, 5.0, 10.0, 15.0)
SCORED_HZ = 16_000  # the sample rate of wide-band PESQ
SSIM_WINDOW = 11  # pixels
MIN_NOISE_RMS = 1e-4

Row = dict[str, float]
Scores = dict[float | None, list[Row]]
"""Metrics of each file, by noise level; None for pairs of clean and noisy files."""

Track = Callable[[Sequence[Any]], Iterable[Any]]
"""Yields the items of a sequence, perhaps with a progress bar."""


@dataclass(frozen=True)
class EvaluationFiles:
    """Files that a denoiser is measured on.

    Args:
        clean: folder of clean files, or of ``speech/test`` and ``noise/test``.
        noisy: folder of noisy files of the same names, or None.
        levels: levels of the added noise: sigma (0 to 255) for images, SNR in dB for audio.
        limit: maximum number of files, or None.
        seed: seed of the noise.
        estimates: whether the noise is estimated even if it is known.
        track: called with the files.
    """

    clean: Path
    noisy: Path | None
    levels: Sequence[float]
    limit: int | None
    seed: int
    estimates: bool
    track: Track


def evaluate(
    model: str | Path,
    data: Path,
    *,
    noisy: Path | None = None,
    levels: Sequence[float] | None = None,
    limit: int | None = None,
    seed: int = 0,
    estimates: bool = False,
    device: str = "auto",
    track: Track = iter,
) -> tuple[list[Row], str]:
    """Measure a denoiser.

    Args:
        model: name of a bundled model or path of a weights file; ``"auto"`` is that of `ImagePipeline`.
        data: folder of clean images, or of clean speech and noise in ``speech/test`` and ``noise/test``; with
            ``noisy``, folder of clean files.
        noisy: folder of noisy files with the names of the clean ones; no noise is added.
        levels: levels of the added noise: sigma (0 to 255) for images, SNR in dB for audio.
        limit: maximum number of files.
        seed: seed of the noise.
        estimates: whether models that take sigma estimate it from each noisy image, also where it is known.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        track: called with the files; yields them, perhaps with a progress bar.

    Returns:
        Mean metrics, one row per noise level; and the protocol of the measurement.

    Raises:
        ConfigError: the model is a prior, there are no files, a noisy file is missing, or a level is out of range.
    """
    pipeline = ImagePipeline(device=device) if model == AUTO else load(model, device=device)
    if not isinstance(pipeline, AudioPipeline | ImagePipeline):
        raise ConfigError(f"{model} is a prior; expected a denoiser.")
    is_audio = isinstance(pipeline, AudioPipeline)
    if estimates and is_audio:
        raise ConfigError("estimate is for models of images; leave it out.")
    if noisy and levels:
        raise ConfigError("levels are of noise that is added; leave them out for noisy files.")
    if levels and not is_audio and not all(0 < sigma <= 255 for sigma in levels):
        raise ConfigError(f"levels are {[*levels]}; sigma must be above 0 and at most 255.")
    files = EvaluationFiles(data, noisy, levels or (SNRS_DB if is_audio else SIGMAS), limit, seed, estimates, track)
    if isinstance(pipeline, AudioPipeline):
        level_name = "snr_db"
        scores, protocol = _evaluate_pairs(pipeline, files, noisy) if noisy else _evaluate_mixes(pipeline, files)
    else:
        level_name = "sigma"
        scores, protocol = _evaluate_images(pipeline, files)
    rows = [({} if level is None else {level_name: level}) | _mean(of_files) for level, of_files in scores.items()]
    environment = f"device {pipeline.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return rows, f"{protocol}, {environment}, {platform.machine()}"


def _evaluate_images(pipeline: ImagePipeline, files: EvaluationFiles) -> tuple[Scores, str]:
    paths = find_files(files.clean, (".",), IMAGE_EXTENSIONS)[: files.limit]
    noisy_paths = _pair(paths, files.clean, files.noisy, IMAGE_EXTENSIONS) if files.noisy else {}
    scores: Scores = {None: []} if files.noisy else {sigma: [] for sigma in files.levels}
    for index, path in enumerate(files.track(paths)):
        clean = _read_pixels(path)
        if min(clean.shape[:2]) < SSIM_WINDOW:
            size = f"{clean.shape[1]} x {clean.shape[0]} pixels"
            raise ConfigError(f"{path}: is of {size}; SSIM needs sides of {SSIM_WINDOW}. Leave it out.")
        for sigma, rows in scores.items():
            if sigma is None:
                noisy = _read_pixels(noisy_paths[path])
                if noisy.shape != clean.shape:
                    raise ConfigError(f"{noisy_paths[path]}: has another size or other channels than {path}.")
            else:
                noisy = noise.gaussian(clean, sigma / 255, generator_for(files.seed, index, round(sigma)))
            rows.append(_score_image(pipeline, noisy, clean, None if files.estimates else sigma))
    conditioning = (
        "blind" if pipeline.card.blind else "noise estimated" if files.noisy or files.estimates else "true sigma given"
    )
    added = "noisy files of the same names" if files.noisy else "white Gaussian noise in float, unclipped"
    return scores, (
        f"{len(paths)} images, {added}, output clipped to [0, 255], {conditioning}, "
        f"mean over images of PSNR and SSIM (Gaussian window 11, sigma 1.5, mirrored borders), seed {files.seed}, "
        f"{pipeline.network.precision}"
    )


def _score_image(pipeline: ImagePipeline, noisy: Tensor, clean: Tensor, sigma_255: float | None) -> Row:
    sigma = None if sigma_255 is None or pipeline.card.blind else sigma_255 / 255
    denoised = pipeline.frame(Image(noisy.numpy()), sigma=sigma).pixels.clip(0, 1)  # as files clip it
    x, y, target = (z.permute(2, 0, 1)[None] for z in (noisy, torch.from_numpy(denoised), clean))
    row = {f"psnr{suffix}": float(metrics.psnr(z, target)) for suffix, z in (("_noisy", x), ("", y))}
    return row | {f"ssim{suffix}": float(metrics.ssim(z, target)) for suffix, z in (("_noisy", x), ("", y))}


def _evaluate_pairs(pipeline: AudioPipeline, files: EvaluationFiles, noisy_folder: Path) -> tuple[Scores, str]:
    paths = _spread(find_files(files.clean, (".",), AUDIO_EXTENSIONS), files.limit)
    noisy_paths, rows = _pair(paths, files.clean, noisy_folder, AUDIO_EXTENSIONS), []
    for path in files.track(paths):
        clean, sample_rate = _read_mono(path)
        noisy, noisy_rate = _read_mono(noisy_paths[path])
        if noisy_rate != sample_rate or len(noisy) != len(clean):
            raise ConfigError(f"{noisy_paths[path]}: has another length or sample rate than {path}.")
        rows.append(_score_audio(pipeline, noisy, clean, sample_rate))
    return {None: rows}, (
        f"{len(paths)} utterances with noisy files of the same names, denoised at their own rate, scored at "
        f"{SCORED_HZ} Hz, means over utterances"
    )


def _evaluate_mixes(pipeline: AudioPipeline, files: EvaluationFiles) -> tuple[Scores, str]:
    paths = _spread(find_files(files.clean, ("speech/test",), AUDIO_EXTENSIONS), files.limit)
    noises = [_read_mono(path, SCORED_HZ)[0] for path in find_files(files.clean, ("noise/test",), AUDIO_EXTENSIONS)]
    scores: Scores = {snr_db: [] for snr_db in files.levels}
    n_skipped = 0
    for index, path in enumerate(files.track(paths)):
        clean, sample_rate = _read_mono(path, SCORED_HZ)
        generator = generator_for(files.seed, index)
        clip = noises[int(torch.randint(len(noises), (), generator=generator))]
        clip = clip.repeat(-(-len(clean) // len(clip)))
        start = int(torch.randint(len(clip) - len(clean) + 1, (), generator=generator))
        segment = clip[start : start + len(clean)]
        if noise.rms(segment) < MIN_NOISE_RMS:
            n_skipped += 1
            continue
        for snr_db in files.levels:
            noisy = clean + noise.scale_to_snr(clean, segment, snr_db)
            scores[snr_db].append(_score_audio(pipeline, noisy, clean, sample_rate))
    return scores, (
        f"{len(paths) - n_skipped} utterances of speech/test ({n_skipped} with silent noise left out), each with one "
        f"random segment of noise/test, SNR over the whole utterance, unclipped, 16 kHz, means over utterances, "
        f"seed {files.seed}"
    )


def _score_audio(pipeline: AudioPipeline, noisy: Tensor, clean: Tensor, sample_rate: int) -> Row:
    denoised = torch.from_numpy(
        np.concatenate([*pipeline.stream([noisy[None].numpy()], sample_rate, live=False)], axis=1)[0]
    )
    x, y, target = (resample(z[None], sample_rate, SCORED_HZ)[0] for z in (noisy, denoised, clean))
    row: Row = {}
    for suffix, z in (("_noisy", x), ("", y)):
        row[f"si_sdr{suffix}"] = float(metrics.si_sdr(z, target))
        row[f"pesq{suffix}"] = metrics.pesq(z, target, SCORED_HZ)
        row[f"stoi{suffix}"] = metrics.stoi(z, target, SCORED_HZ)
    return row


def _spread(paths: list[Path], limit: int | None) -> list[Path]:
    """At most ``limit`` paths, spread over a list that is sorted by speaker."""
    if not limit:
        return paths
    return [paths[i] for i in np.linspace(0, len(paths) - 1, min(limit, len(paths))).round().astype(int)]


def _pair(paths: Sequence[Path], clean: Path, noisy: Path, extensions: frozenset[str]) -> dict[Path, Path]:
    """The noisy file of the same name, whatever its format, for each clean one."""
    noisy_paths = {path.relative_to(noisy).with_suffix(""): path for path in find_files(noisy, (".",), extensions)}
    missing = [path for path in paths if path.relative_to(clean).with_suffix("") not in noisy_paths]
    if missing:
        raise ConfigError(
            f"{noisy}: {len(missing)} of {len(paths)} clean files have no noisy file here; the first is {missing[0]}."
        )
    return {path: noisy_paths[path.relative_to(clean).with_suffix("")] for path in paths}


def _read_pixels(path: Path) -> Tensor:
    """Pixels (height, width, channels), full scale 1.0."""
    frame = read_displayed(path)  # clean and noisy files may be stored in different orientations
    return torch.from_numpy(frame.pixels.astype(np.float32) / frame.full_scale)


def _read_mono(path: Path, sample_rate: int | None = None) -> tuple[Tensor, int]:
    """The mean of all channels, (time,), and its sample rate; resampled if one is given."""
    audio = read_audio(path)
    file_rate = audio.format.sample_rate
    x = torch.from_numpy(audio.samples.mean(axis=0, keepdims=True).astype(np.float32))
    return resample(x, file_rate, sample_rate or file_rate)[0], sample_rate or file_rate


def _mean(rows: Sequence[Row]) -> Row:
    return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
