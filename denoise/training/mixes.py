"""Speech with noise, mixed anew for every batch."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Generator, Tensor

from denoise import noise
from denoise.errors import ConfigError, InputError
from denoise.files.audio import AUDIO_EXTENSIONS, read_audio, write_audio
from denoise.files.find import find_files
from denoise.signals import Audio, AudioFormat
from denoise.training.data import Batch
from denoise.training.recipe import AudioData

WIDE_BAND = 16_000  # above this rate a voice must reach a share of the band to teach what is up there
REACH = 0.6
IMPACT_DB = (15.0, 45.0)  # their peaks above the level of speech


class Clips:
    """Recordings as mono int16 at their own rates, at most ``sample_rate``: a corpus in two bytes a sample."""

    def __init__(self, root: Path, folders: Sequence[str], sample_rate: int) -> None:
        self.sounds: list[tuple[Tensor, int]] = []
        for path in find_files(root, folders, AUDIO_EXTENSIONS):
            try:
                audio = read_audio(path)
            except InputError:
                continue  # a corpus of thousands has a few files that no decoder takes
            mono, rate = audio.samples.mean(axis=0), audio.format.sample_rate
            if rate > sample_rate:
                mono, rate = soxr.resample(mono, rate, sample_rate), sample_rate
            if len(mono) >= rate // 50:
                self.sounds.append((torch.from_numpy(np.clip(mono * 32768, -32768, 32767).astype(np.int16)), rate))
        seconds = torch.tensor([len(sound) / rate for sound, rate in self.sounds], dtype=torch.float64)
        self.shares = seconds
        self.bandwidths = torch.tensor([bandwidth(*sound) for sound in self.sounds], dtype=torch.float64)

    def reaching(self, sample_rate: int) -> Tensor:
        """The chances of each, those of too narrow a band left out. Shape: (clips,)."""
        return self.shares * (self.bandwidths >= REACH * sample_rate / 2) if sample_rate > WIDE_BAND else self.shares

    def crop(self, time: int, sample_rate: int, shares: Tensor, generator: Generator) -> Tensor:
        """A segment at ``sample_rate``, joined of as many recordings as it takes. Shape: (time,)."""
        parts: list[Tensor] = []
        missing = time
        while missing > 0:
            sound, rate = self.sounds[int(torch.multinomial(shares, 1, generator=generator))]
            needed = math.ceil(missing * rate / sample_rate)
            start = int(torch.randint(max(1, len(sound) - needed + 1), (), generator=generator))
            part = sound[start : start + needed].float() / 32768
            if rate != sample_rate:
                part = torch.from_numpy(soxr.resample(part.numpy(), rate, sample_rate))
            parts.append(part[:missing])
            missing -= len(parts[-1])
        return torch.cat(parts)


def bandwidth(sound: Tensor, sample_rate: int) -> float:
    """The frequency in Hz above which the mean spectrum stays 75 dB below its peak. Shape: sound (time,)."""
    n = 1024
    frames = torch.nn.functional.pad(sound.float(), (0, max(0, n - len(sound)))).unfold(0, n, n)[:400]
    power = torch.fft.rfft(frames * torch.hann_window(n)).abs().square().mean(dim=0)
    strong = (power > power.max().clamp_min(1e-9) * 10**-7.5).nonzero()
    return float(strong.max()) / n * sample_rate if len(strong) else 0.0


class AudioMixes:
    """Segments of clean speech with recorded, synthetic and spoken noise, damaged as recordings are.

    The speech that comes back is what a good microphone would have heard in the same room: reverberant,
    at the same level and of the same band, but without noise, clipping and coding.

    Shape:
        noisy, clean: (batch, channels, seconds * sample_rate), float32, full scale 1.0, unclipped.
    """

    def __init__(self, settings: AudioData, root: Path) -> None:
        self.settings = s = settings
        top = max(s.sample_rates)
        self.speech, self.noise = Clips(root, s.speech, top), Clips(root, s.noise, top) if s.noise else None
        if self.noise:
            self.noise.shares = self.noise.shares.sqrt()  # many noises, not many minutes of one
        self.rooms: dict[int, list[Tensor]] = {rate: [] for rate in s.sample_rates}
        recorded = Clips(root, s.rir, top).sounds if s.rir else []
        simulated = simulate_rooms(s.rooms, min(top, 48_000))
        for rate, rooms in self.rooms.items():
            for sound, own in [*recorded, *simulated]:
                rooms.append(torch.from_numpy(soxr.resample(sound.float().numpy() / 32768, own, rate)))
        for rate in s.sample_rates:
            if not self.speech.reaching(rate).any():
                raise ConfigError(f"{root}: no speech that reaches {REACH * rate / 2:g} Hz; leave {rate} Hz out.")

    def batch(self, size: int, generator: Generator) -> Batch:
        s = self.settings
        rate = s.sample_rates[int(torch.randint(len(s.sample_rates), (), generator=generator))]
        pairs = [self.pair(rate, generator) for _ in range(size)]
        return Batch(torch.stack([noisy for noisy, _ in pairs]), torch.stack([clean for _, clean in pairs]), rate)

    def pair(self, rate: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """One noisy and clean segment. Shape: (channels, time) each."""
        s, time = self.settings, round(self.settings.seconds * rate)

        def chance(p: float) -> bool:
            return float(torch.rand((), generator=generator)) < p

        clean = self.speech.crop(time, rate, self.speech.reaching(rate), generator)
        if self.rooms[rate] and chance(s.reverb):
            rooms = self.rooms[rate]
            clean = noise.reverberate(clean, rooms[int(torch.randint(len(rooms), (), generator=generator))])
        clean = noise.set_level(clean, float(noise.uniform(*s.level_db, 1, generator)))
        if s.channels > 1:  # a voice somewhere between the loudspeakers
            clean = clean * noise.uniform(0.3, 1.0, s.channels, generator)[:, None]
        else:
            clean = clean[None]
        if chance(s.clean):
            return clean, clean
        added = torch.stack([self.draw_noise(time, rate, generator) for _ in range(s.channels)])
        added = noise.scale_to_snr(clean, added, float(noise.uniform(*s.snr_db, 1, generator)))
        if chance(s.impacts):  # after which quiet speech is to be heard as before
            peak = noise.rms(clean).mean() * 10 ** (float(noise.uniform(*IMPACT_DB, 1, generator)) / 20)
            added = added + peak * noise.impacts(time, rate, generator)
        if chance(s.band_limit):
            cutoff = float(noise.uniform(3000.0, min(7500.0, 0.47 * rate), 1, generator))
            clean, added = (noise.band_limit(x, rate, cutoff) for x in (clean, added))
        noisy = clean + added
        if chance(s.clipping):
            noisy = noise.clip(noisy, 10 ** float(noise.uniform(-4.0, -1.7, 1, generator)))
        if chance(s.coding):
            noisy = noise.mu_law(noisy) if chance(0.3) else coded(noisy, rate)
        return noisy, clean

    def draw_noise(self, time: int, rate: int, generator: Generator) -> Tensor:
        """One noise, or two or three at once. Shape: (time,)."""
        first = self.one_noise(time, rate, generator)
        while float(torch.rand((), generator=generator)) < 0.3:
            second = self.one_noise(time, rate, generator)
            first = first + noise.scale_to_snr(first, second, float(noise.uniform(-6.0, 6.0, 1, generator)))
        return first

    def one_noise(self, time: int, rate: int, generator: Generator) -> Tensor:
        s = self.settings
        kind = float(torch.rand((), generator=generator))
        if kind < s.synthetic:
            white = torch.randn(time, generator=generator)
            return noise.colour(white, float(noise.uniform(0.0, 2.0, 1, generator)), rate)
        kind -= s.synthetic
        if kind < s.babble:  # so many that none is understood
            voices = [
                self.speech.crop(time, rate, self.speech.shares, generator)
                for _ in range(int(torch.randint(4, 9, (), generator=generator)))
            ]
            return torch.stack([noise.set_level(voice, -20.0) for voice in voices]).sum(dim=0)
        kind -= s.babble
        if kind < s.disturbance:
            made = (noise.hum, noise.clicks, noise.wind)[int(torch.randint(3, (), generator=generator))]
            return made(time, rate, generator)
        assert self.noise is not None  # as recipes of denoisers are checked
        return self.noise.crop(time, rate, self.noise.shares, generator)


def coded(x: Tensor, sample_rate: int) -> Tensor:
    """What Opus makes of it, time and length kept. Shape: (channels, time)."""
    file = io.BytesIO()
    peak = x.abs().max().clamp_min(1.0)  # the encoder clips
    write_audio(file, Audio((x / peak).numpy(), AudioFormat(sample_rate, x.shape[0], "OGG", "OPUS")))
    file.seek(0)
    return torch.from_numpy(read_audio(file).samples).float()[:, : x.shape[1]] * peak


def simulate_rooms(n: int, sample_rate: int) -> list[tuple[Tensor, int]]:
    """Impulse responses of ``n`` shoebox rooms of drawn sizes, materials and places, always the same ones.

    Shape:
        returns: int16 (taps,), each with its sample rate.
    Reference:
        Pyroomacoustics, 2017, arXiv:1710.04196.
    """
    if not n:
        return []
    import pyroomacoustics

    rng, rooms = np.random.default_rng(0), []
    for _ in range(n):
        size = rng.uniform((2.5, 2.0, 2.2), (9.0, 7.0, 4.0))
        rt60 = rng.uniform(0.15, 0.7)
        absorption, order = pyroomacoustics.inverse_sabine(max(rt60, 0.025 * size.prod() ** (1 / 3) + 0.08), size)
        room = pyroomacoustics.ShoeBox(
            size, sample_rate, materials=pyroomacoustics.Material(absorption), max_order=min(order, 20)
        )
        room.add_source(rng.uniform(0.4, size - 0.4))
        room.add_microphone(rng.uniform(0.4, size - 0.4))
        room.compute_rir()
        response = room.rir[0][0]
        scaled = np.rint(response / np.abs(response).max() * 30_000).astype(np.int16)
        rooms.append((torch.from_numpy(scaled), sample_rate))
    return rooms
