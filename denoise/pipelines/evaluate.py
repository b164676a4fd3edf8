"""Measure a model on clean files with known, repeatable noise."""

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
from denoise.pipelines import AudioPipeline, load
from denoise.pipelines.device import precision_of
from denoise.signals import Image

SIGMAS = (15.0, 25.0, 50.0)
SNRS_DB = (-5.0, 0.0, 5.0, 10.0, 15.0)
Row = dict[str, float]
Each = Callable[[Sequence[Any]], Iterable[Any]]


def evaluate(
    model: str | Path,
    data: Path,
    *,
    levels: Sequence[float] | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    each: Each = lambda files: files,
) -> tuple[list[Row], str]:
    """Rows of means, one per noise level, and the protocol in words.

    ``levels`` are sigma (0 to 255) for images and snr_db for audio. ``each`` may draw a bar round the files.

    Raises:
        ConfigError: there are no files, or a level is out of range.
    """
    pipeline = load(model, device=device)
    if levels and not isinstance(pipeline, AudioPipeline) and not all(0 < sigma <= 255 for sigma in levels):
        raise ConfigError(f"levels are {[*levels]}; sigma must be above 0 and at most 255.")
    where = f"device {pipeline.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    where += f", {platform.machine()}"
    if isinstance(pipeline, AudioPipeline):
        return _audio(pipeline, data, levels or SNRS_DB, limit, seed, each, where)
    rows = []
    files = find_files(data, (".",), IMAGE_EXTENSIONS)[:limit]
    scores: dict[float, list[Row]] = {sigma: [] for sigma in levels or SIGMAS}
    for index, path in enumerate(each(files)):
        frame = read_image(path)
        clean = torch.from_numpy(frame.pixels.astype(np.float32) / frame.full_scale)
        reference = clean.permute(2, 0, 1)[None]
        for sigma, found in scores.items():
            noisy = noise.gaussian(clean, sigma / 255, generator_for(seed, index, round(sigma)))
            given = None if pipeline.card.blind else sigma / 255
            denoised = pipeline.frame(Image(noisy.numpy()), sigma=given)
            out = torch.from_numpy(denoised.pixels).permute(2, 0, 1)[None].clamp(0, 1)  # as every file clips it
            before = noisy.permute(2, 0, 1)[None]
            found.append(
                {
                    "psnr_noisy": float(metrics.psnr(before, reference)),
                    "psnr": float(metrics.psnr(out, reference)),
                    "ssim_noisy": float(metrics.ssim(before, reference)),
                    "ssim": float(metrics.ssim(out, reference)),
                }
            )
    rows = [{"sigma": sigma} | _mean(found) for sigma, found in scores.items()]
    protocol = (
        f"{len(files)} images, white Gaussian noise in float, unclipped, output clipped to [0, 255], "
        f"{'blind' if pipeline.card.blind else 'true sigma given'}, "
        f"mean over images of PSNR and SSIM (Gaussian window 11, sigma 1.5, mirrored borders), seed {seed}, "
        f"{precision_of(pipeline.device)}, {where}"
    )
    return rows, protocol


def _audio(
    pipeline: AudioPipeline,
    data: Path,
    levels: Sequence[float],
    limit: int | None,
    seed: int,
    each: Each,
    where: str,
) -> tuple[list[Row], str]:
    rate = 16_000  # that of wide-band PESQ; the pipeline takes care of the model's own
    speech = find_files(data, ("speech/test",), AUDIO_EXTENSIONS)
    noises = [_mono(path, rate) for path in find_files(data, ("noise/test",), AUDIO_EXTENSIONS)]
    if limit:  # spread over the whole list: it is sorted by speaker
        speech = [speech[i] for i in np.linspace(0, len(speech) - 1, min(limit, len(speech))).round().astype(int)]
    scores: dict[float, list[Row]] = {snr: [] for snr in levels}
    skipped = 0
    for index, path in enumerate(each(speech)):
        clean = _mono(path, rate)
        generator = generator_for(seed, index)
        clip = noises[int(torch.randint(len(noises), (), generator=generator))]
        clip = clip.repeat(-(-len(clean) // len(clip)))
        start = int(torch.randint(len(clip) - len(clean) + 1, (), generator=generator))
        added = clip[start : start + len(clean)]
        if noise.rms(added) < 1e-4:
            skipped += 1
            continue
        for snr, found in scores.items():
            noisy = clean + noise.scale_to_snr(clean, added, snr)
            noisy_array = noisy[None].numpy()
            out = torch.from_numpy(np.concatenate([*pipeline.stream([noisy_array], rate)], axis=1)[0])
            row: Row = {}
            for name, x in (("noisy", noisy), ("", out)):
                end = f"_{name}" if name else ""
                row[f"si_sdr{end}"] = float(metrics.si_sdr(x, clean))
                row[f"pesq{end}"] = metrics.pesq(x, clean, rate)
                row[f"stoi{end}"] = metrics.stoi(x, clean, rate)
            found.append(row)
    rows = [{"snr_db": snr} | _mean(found) for snr, found in scores.items()]
    protocol = (
        f"{len(speech) - skipped} utterances of speech/test ({skipped} with silent noise left out), each with one "
        f"random segment of noise/test, SNR over the whole utterance, unclipped, 16 kHz, means over utterances, "
        f"seed {seed}, {where}"
    )
    return rows, protocol


def _mono(path: Path, rate: int) -> torch.Tensor:
    audio = read_audio(path)
    x = torch.from_numpy(audio.samples.mean(axis=0, keepdims=True).astype(np.float32))
    return resample(x, audio.format.sample_rate, rate)[0]


def _mean(rows: Sequence[Row]) -> Row:
    return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
