"""Measure a model on clean files: with known, repeatable noise, or beside noisy twins."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from denoise import metrics, noise
from denoise.dsp import resample
from denoise.errors import ConfigError
from denoise.files.audio import AUDIO_EXTENSIONS, read_audio
from denoise.files.find import find_files
from denoise.files.image import IMAGE_EXTENSIONS, read_image
from denoise.noise import generator_for
from denoise.pipelines import AudioPipeline, ImagePipeline, load
from denoise.pipelines.device import precision_of
from denoise.signals import Image

SIGMAS = (15.0, 25.0, 50.0)
SNRS_DB = (-5.0, 0.0, 5.0, 10.0, 15.0)
JUDGED_HZ = 16_000  # the rate of wide-band PESQ
SSIM_SIDE = 11  # pixels, of its window
Row = dict[str, float]
Scores = dict[float | None, list[Row]]  # of each file, by the level of its noise
Each = Callable[[Sequence[Any]], Iterable[Any]]


def evaluate(
    model: str | Path,
    data: Path,
    *,
    noisy: Path | None = None,
    levels: Sequence[float] | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    each: Each = lambda files: files,
) -> tuple[list[Row], str]:
    """Rows of means, one per noise level, and the protocol in words.

    ``data`` holds clean images, or clean speech and noise in ``speech/test`` and ``noise/test``; ``levels`` are
    sigma (0 to 255) for images and snr_db for audio. With ``noisy`` nothing is added: ``data`` holds clean files and
    ``noisy`` their noisy twins of the same names. ``each`` may draw a bar round the files.

    Raises:
        ConfigError: there are no files, a twin is missing, or a level is out of range.
    """
    pipeline = load(model, device=device)
    if not isinstance(pipeline, AudioPipeline | ImagePipeline):
        raise ConfigError(f"{model} is a prior, which denoises nothing; expected a denoiser.")
    is_audio = isinstance(pipeline, AudioPipeline)
    if noisy and levels:
        raise ConfigError("levels are of noise that is added; the files of --noisy have their own.")
    if levels and not is_audio and not all(0 < sigma <= 255 for sigma in levels):
        raise ConfigError(f"levels are {[*levels]}; sigma must be above 0 and at most 255.")
    if isinstance(pipeline, AudioPipeline):
        level, done = "snr_db", _audio(pipeline, data, noisy, levels or SNRS_DB, limit, seed, each)
    else:
        level, done = "sigma", _images(pipeline, data, noisy, levels or SIGMAS, limit, seed, each)
    scores, protocol = done
    rows = [({} if value is None else {level: value}) | _mean(found) for value, found in scores.items()]
    where = f"device {pipeline.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return rows, f"{protocol}, {where}, {platform.machine()}"


def _images(
    pipeline: ImagePipeline,
    data: Path,
    noisy: Path | None,
    levels: Sequence[float],
    limit: int | None,
    seed: int,
    each: Each,
) -> tuple[Scores, str]:
    files = find_files(data, (".",), IMAGE_EXTENSIONS)[:limit]
    twins = _twins(files, data, noisy, IMAGE_EXTENSIONS) if noisy else {}
    scores: Scores = {None: []} if noisy else {sigma: [] for sigma in levels}
    for index, path in enumerate(each(files)):
        clean = _pixels(path)
        if min(clean.shape[:2]) < SSIM_SIDE:
            size = f"{clean.shape[1]} x {clean.shape[0]} pixels"
            raise ConfigError(f"{path}: is of {size}; SSIM needs sides of {SSIM_SIDE}. Leave it out.")
        for sigma, found in scores.items():
            if sigma is None:
                before = _pixels(twins[path])
                if before.shape != clean.shape:
                    raise ConfigError(f"{twins[path]}: has another size or other channels than {path}.")
            else:
                before = noise.gaussian(clean, sigma / 255, generator_for(seed, index, round(sigma)))
            given = None if sigma is None or pipeline.card.blind else sigma / 255
            after = pipeline.frame(Image(before.numpy()), sigma=given).pixels.clip(0, 1)  # as every file clips it
            x, y, target = (z.permute(2, 0, 1)[None] for z in (before, torch.from_numpy(after), clean))
            row = {f"psnr{end}": float(metrics.psnr(z, target)) for end, z in (("_noisy", x), ("", y))}
            row |= {f"ssim{end}": float(metrics.ssim(z, target)) for end, z in (("_noisy", x), ("", y))}
            found.append(row)
    told = "blind" if pipeline.card.blind else "sigma estimated" if noisy else "true sigma given"
    added = "noisy twins of the same names" if noisy else "white Gaussian noise in float, unclipped"
    return scores, (
        f"{len(files)} images, {added}, output clipped to [0, 255], {told}, "
        f"mean over images of PSNR and SSIM (Gaussian window 11, sigma 1.5, mirrored borders), seed {seed}, "
        f"{precision_of(pipeline.device)}"
    )


def _audio(
    pipeline: AudioPipeline,
    data: Path,
    noisy: Path | None,
    levels: Sequence[float],
    limit: int | None,
    seed: int,
    each: Each,
) -> tuple[Scores, str]:
    def score(before: torch.Tensor, clean: torch.Tensor, rate: int) -> Row:
        after = torch.from_numpy(np.concatenate([*pipeline.stream([before[None].numpy()], rate)], axis=1)[0])
        x, y, target = (resample(z[None], rate, JUDGED_HZ)[0] for z in (before, after, clean))
        row: Row = {}
        for end, z in (("_noisy", x), ("", y)):
            row[f"si_sdr{end}"] = float(metrics.si_sdr(z, target))
            row[f"pesq{end}"] = metrics.pesq(z, target, JUDGED_HZ)
            row[f"stoi{end}"] = metrics.stoi(z, target, JUDGED_HZ)
        return row

    speech = find_files(data, (".",) if noisy else ("speech/test",), AUDIO_EXTENSIONS)
    if limit:  # spread over the whole list: it is sorted by speaker
        speech = [speech[i] for i in np.linspace(0, len(speech) - 1, min(limit, len(speech))).round().astype(int)]
    if noisy:
        twins, pairs = _twins(speech, data, noisy, AUDIO_EXTENSIONS), []
        for path in each(speech):
            clean, rate = _mono(path)
            before, other = _mono(twins[path])
            if other != rate or len(before) != len(clean):
                raise ConfigError(f"{twins[path]}: has another length or sample rate than {path}.")
            pairs.append(score(before, clean, rate))
        return {None: pairs}, (
            f"{len(speech)} utterances with noisy twins of the same names, denoised at their own rate, scored at "
            f"{JUDGED_HZ} Hz, means over utterances"
        )
    noises = [_mono(path, JUDGED_HZ)[0] for path in find_files(data, ("noise/test",), AUDIO_EXTENSIONS)]
    scores: Scores = {snr: [] for snr in levels}
    skipped = 0
    for index, path in enumerate(each(speech)):
        clean, rate = _mono(path, JUDGED_HZ)
        generator = generator_for(seed, index)
        clip = noises[int(torch.randint(len(noises), (), generator=generator))]
        clip = clip.repeat(-(-len(clean) // len(clip)))
        start = int(torch.randint(len(clip) - len(clean) + 1, (), generator=generator))
        added = clip[start : start + len(clean)]
        if noise.rms(added) < 1e-4:
            skipped += 1
            continue
        for snr in levels:
            scores[snr].append(score(clean + noise.scale_to_snr(clean, added, snr), clean, rate))
    return scores, (
        f"{len(speech) - skipped} utterances of speech/test ({skipped} with silent noise left out), each with one "
        f"random segment of noise/test, SNR over the whole utterance, unclipped, 16 kHz, means over utterances, "
        f"seed {seed}"
    )


def _twins(files: Sequence[Path], data: Path, noisy: Path, extensions: frozenset[str]) -> dict[Path, Path]:
    """The noisy file of the same name, whatever its format, for each clean one."""
    there = {path.relative_to(noisy).with_suffix(""): path for path in find_files(noisy, (".",), extensions)}
    missing = [path for path in files if path.relative_to(data).with_suffix("") not in there]
    if missing:
        raise ConfigError(
            f"{noisy}: {len(missing)} of {len(files)} files have no twin here; {missing[0]} is the first."
        )
    return {path: there[path.relative_to(data).with_suffix("")] for path in files}


def _pixels(path: Path) -> torch.Tensor:
    """Shape: (height, width, channels), full scale 1."""
    frame = read_image(path)
    return torch.from_numpy(frame.pixels.astype(np.float32) / frame.full_scale)


def _mono(path: Path, rate: int | None = None) -> tuple[torch.Tensor, int]:
    """All channels in one, and its rate. Shape: (time,)."""
    audio = read_audio(path)
    own = audio.format.sample_rate
    x = torch.from_numpy(audio.samples.mean(axis=0, keepdims=True).astype(np.float32))
    return resample(x, own, rate or own)[0], rate or own


def _mean(rows: Sequence[Row]) -> Row:
    return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
