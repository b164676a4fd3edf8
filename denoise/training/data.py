"""Training batches, each a pure function of (seed, step, rank): a resumed run sees what it would have seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from denoise import noise
from denoise.errors import ConfigError, InputError
from denoise.files.audio import AUDIO_EXTENSIONS, read_audio
from denoise.files.find import find_files
from denoise.files.image import IMAGE_EXTENSIONS, read_image
from denoise.training.recipe import AudioData, ImageData, Recipe

Batch = tuple[Tensor, Tensor]  # noisy, clean


class ImagePatches:
    """Random patches of clean photographs, turned and mirrored, with Gaussian noise added.

    Shape:
        noisy, clean: (batch, 3, patch, patch), float32, full scale 1.0, unclipped.
    """

    def __init__(self, settings: ImageData, root: Path) -> None:
        self.settings = settings
        self.images = []
        for path in find_files(root, settings.folders, IMAGE_EXTENSIONS):
            pixels = read_image(path).pixels
            if pixels.shape[2] == 3 and pixels.dtype == np.uint8 and min(pixels.shape[:2]) >= settings.patch:
                self.images.append(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())
        if not self.images:
            raise ConfigError(f"{root}: no 8-bit RGB image of at least {settings.patch} pixels a side.")
        # The square root keeps the few largest photographs from being most of what is seen.
        self.shares = torch.tensor([image[0].numel() for image in self.images], dtype=torch.float64).sqrt()

    def batch(self, size: int, generator: Generator) -> Batch:
        s = self.settings
        clean = torch.empty(size, 3, s.patch, s.patch)
        for row, index in enumerate(torch.multinomial(self.shares, size, replacement=True, generator=generator)):
            image = self.images[int(index)]
            top, left = (int(torch.randint(n - s.patch + 1, (), generator=generator)) for n in image.shape[1:])
            patch = image[:, top : top + s.patch, left : left + s.patch]
            turn = int(torch.randint(8, (), generator=generator))
            patch = torch.rot90(patch, turn % 4, (1, 2))
            clean[row] = (patch.flip(2) if turn >= 4 else patch) / 255
        sigma = noise.uniform(*s.sigma, size, generator)[:, None, None, None]
        added = noise.gaussian(torch.zeros_like(clean), sigma, generator)
        grey = torch.rand(size, generator=generator) < s.grey
        clean[grey] = luma(clean[grey])
        added[grey] = added[grey, :1].expand(-1, 3, -1, -1)
        return clean + added, clean


def luma(x: Tensor) -> Tensor:
    """ITU-R BT.601 luma in all three channels. Shape: (..., 3, height, width)."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype)[:, None, None]
    return (x * weights).sum(dim=-3, keepdim=True).expand_as(x)


class AudioMixes:
    """Segments of clean speech, some reverberant or band-limited, with recorded or synthetic noise.

    Shape:
        noisy, clean: (batch, channels, seconds * sample_rate), float32, full scale 1.0, unclipped.
    """

    def __init__(self, settings: AudioData, root: Path) -> None:
        self.settings = s = settings
        self.samples = round(s.seconds * s.sample_rate)
        self.speech = load_clips(root, s.speech, s.sample_rate)
        self.noise = load_clips(root, s.noise, s.sample_rate)
        self.rirs = [clip.float() / 32768 for clip in load_clips(root, s.rir, s.sample_rate)] if s.rir else []
        self.speech_shares = torch.tensor([len(clip) for clip in self.speech], dtype=torch.float64)
        self.noise_shares = torch.tensor([len(clip) for clip in self.noise], dtype=torch.float64).sqrt()

    def batch(self, size: int, generator: Generator) -> Batch:
        pairs = [self.pair(generator) for _ in range(size)]
        return torch.stack([noisy for noisy, _ in pairs]), torch.stack([clean for _, clean in pairs])

    def pair(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """One noisy and clean segment. Shape: (channels, time) each."""
        s = self.settings

        def chance(p: float) -> bool:
            return float(torch.rand((), generator=generator)) < p

        clean = self.crop(self.speech, self.speech_shares, generator)
        if self.rirs and chance(s.reverb):
            room = self.rirs[int(torch.randint(len(self.rirs), (), generator=generator))]
            clean = noise.reverberate(clean, room)
        clean = noise.set_level(clean, float(noise.uniform(*s.level_db, 1, generator)))
        if s.channels > 1:  # a voice somewhere between the loudspeakers
            clean = clean * noise.uniform(0.3, 1.0, s.channels, generator)[:, None]
        else:
            clean = clean[None]
        if chance(s.clean):
            return clean, clean
        added = torch.stack([self.draw_noise(generator) for _ in range(s.channels)])
        added = noise.scale_to_snr(clean, added, float(noise.uniform(*s.snr_db, 1, generator)))
        if chance(s.band_limit):
            cutoff = float(noise.uniform(3000.0, 7500.0, 1, generator))
            clean, added = (noise.band_limit(x, s.sample_rate, cutoff) for x in (clean, added))
        return clean + added, clean

    def draw_noise(self, generator: Generator) -> Tensor:
        s = self.settings
        if float(torch.rand((), generator=generator)) < s.synthetic:
            white = torch.randn(self.samples, generator=generator)
            return noise.colour(white, float(noise.uniform(0.0, 2.0, 1, generator)), s.sample_rate)
        first = self.crop(self.noise, self.noise_shares, generator)
        if float(torch.rand((), generator=generator)) < 0.3:  # two noises at once
            second = self.crop(self.noise, self.noise_shares, generator)
            first = first + noise.scale_to_snr(first, second, float(noise.uniform(-6.0, 6.0, 1, generator)))
        return first

    def crop(self, clips: list[Tensor], shares: Tensor, generator: Generator) -> Tensor:
        """A segment of ``samples`` length, joined of as many clips as it takes. Shape: (time,)."""
        parts: list[Tensor] = []
        missing = self.samples
        while missing > 0:
            clip = clips[int(torch.multinomial(shares, 1, generator=generator))]
            start = int(torch.randint(max(1, len(clip) - missing + 1), (), generator=generator))
            parts.append(clip[start : start + missing])
            missing -= len(parts[-1])
        return torch.cat(parts).float() / 32768


def load_clips(root: Path, folders: Sequence[str], sample_rate: int) -> list[Tensor]:
    """Read all recordings as mono int16 at one rate: a whole corpus in memory at two bytes a sample."""
    import soxr

    clips = []
    for path in find_files(root, folders, AUDIO_EXTENSIONS):
        try:
            audio = read_audio(path)
        except InputError:
            continue  # a corpus of thousands has a few files that no decoder takes
        mono = soxr.resample(audio.samples.mean(axis=0), audio.format.sample_rate, sample_rate)
        if len(mono) >= sample_rate // 50:
            clips.append(torch.from_numpy(np.clip(mono * 32768, -32768, 32767).astype(np.int16)))
    return clips


SOURCES: dict[str, Callable[..., ImagePatches | AudioMixes]] = {"image": ImagePatches, "audio": AudioMixes}


def open_data(recipe: Recipe, root: Path) -> ImagePatches | AudioMixes:
    """Load the data of a recipe into memory."""
    return SOURCES[recipe.modality](getattr(recipe, recipe.modality), root)
