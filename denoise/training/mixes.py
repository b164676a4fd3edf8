"""Mixtures of speech or music and noise: data of audio denoisers, and of priors over speech."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import cache, cached_property
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
from denoise.training.audio_recipe import AudioData
from denoise.training.chance import happens, uniform
from denoise.training.data import Batch
from denoise.training.voice_effects import random_voice

WIDE_BAND = 16_000  # Hz; at higher sample rates, speech of a narrower band is left out
MIN_BANDWIDTH = 0.6  # of half the sample rate
IMPACT_DB = (15.0, 45.0)  # range of the peak level of impacts above that of the speech
ADDITIONAL_NOISE = 0.3  # probability of another noise beside the ones before
MAX_LAYERS = 8
LAYER_DB = (-15.0, 0.0)  # range of the level of another clean signal, relative to the ones before
CRACKLE_DB = (0.0, 30.0)  # range of the peak level of crackle above that of the clean signal
DC_OFFSET = (-0.5, 0.5)  # range of a constant offset, relative to the largest sample
DRIVE_DB = (-10.0, 15.0)  # range of the RMS of music at the input of an amplifier that saturates at 0
PROFILE_ERROR_DB = 1.5  # standard deviation of the level of a noise profile


class Clips:
    """Recordings in memory as mono int16, at their own sample rates.

    Args:
        root: folder that the folders are relative to.
        folders: folders of recordings. Files that cannot be decoded, or last less than 20 ms, are left out.
        sample_rate: highest sample rate, Hz; recordings of higher rates are resampled.
    """

    def __init__(self, root: Path, folders: Sequence[str], sample_rate: int) -> None:
        self.recordings: list[tuple[Tensor, int]] = []
        for path in find_files(root, folders, AUDIO_EXTENSIONS):
            recording = read_mono(path, sample_rate)
            if recording is not None and len(recording[0]) >= recording[1] // 50:
                self.recordings.append(recording)
        self.weights = torch.tensor([len(x) / rate for x, rate in self.recordings], dtype=torch.float64)

    @cached_property
    def bandwidths(self) -> Tensor:
        """Bandwidths of the recordings in Hz, (n,)."""
        return torch.tensor([bandwidth(*recording) for recording in self.recordings], dtype=torch.float64)

    def weights_at(self, sample_rate: int) -> Tensor:
        """Return the weights of random choice, (n,): the durations, 0 for recordings of too narrow a band.

        Args:
            sample_rate: sample rate of the segments, Hz.
        """
        if sample_rate <= WIDE_BAND:
            return self.weights
        return self.weights * (self.bandwidths >= MIN_BANDWIDTH * sample_rate / 2)

    def crop(self, time: int, sample_rate: int, weights: Tensor, generator: Generator) -> Tensor:
        """Return a random segment, (time,), joined of several recordings if they are short.

        Args:
            time: samples of the segment.
            sample_rate: its sample rate, Hz.
            weights: weights of the recordings, (n,).
            generator: source of randomness.
        """
        segments: list[Tensor] = []
        missing = time
        while missing > 0:
            recording, rate = self.recordings[int(torch.multinomial(weights, 1, generator=generator))]
            needed = math.ceil(missing * rate / sample_rate)
            start = int(torch.randint(max(1, len(recording) - needed + 1), (), generator=generator))
            segment = recording[start : start + needed].float() / 32768
            if rate != sample_rate:
                segment = torch.from_numpy(soxr.resample(segment.numpy(), rate, sample_rate))
            segments.append(segment[:missing])
            missing -= len(segments[-1])
        return torch.cat(segments)


@cache
def read_mono(path: Path, sample_rate: int) -> tuple[Tensor, int] | None:
    """Read a recording as mono int16, once for all its uses in a training; None if it cannot be decoded.

    Args:
        path: file.
        sample_rate: highest sample rate, Hz; higher ones are resampled to it.

    Returns:
        Samples, (time,), and their sample rate.
    """
    try:
        audio = read_audio(path)
    except InputError:
        return None  # a corpus of thousands has a few damaged files
    mono, rate = audio.samples.mean(axis=0), audio.format.sample_rate
    if rate > sample_rate:
        mono, rate = soxr.resample(mono, rate, sample_rate), sample_rate
    return torch.from_numpy(np.clip(mono * 32768, -32768, 32767).astype(np.int16)), rate


def bandwidth(recording: Tensor, sample_rate: int) -> float:
    """Return the frequency in Hz above which the mean spectrum stays 75 dB below its peak.

    Args:
        recording: samples, (time,).
        sample_rate: its sample rate, Hz.
    """
    n = 1024
    frames = torch.nn.functional.pad(recording.float(), (0, max(0, n - len(recording)))).unfold(0, n, n)[:400]
    power = torch.fft.rfft(frames * torch.hann_window(n)).abs().square().mean(dim=0)
    occupied = (power > power.max().clamp_min(1e-9) * 10**-7.5).nonzero()
    return float(occupied.max()) / n * sample_rate if len(occupied) else 0.0


class AudioMixes:
    """Segments of clean speech and music, mixed with recorded and synthetic noise and damaged as recordings are.

    The clean signals are what a good microphone would record in the same room: with the reverberation, level and
    bandwidth of the noisy ones, without noise, clipping and coding. Signals are float32, full scale 1.0, not clipped.

    Args:
        settings: ``[audio]`` section of the recipe.
        root: folder that the paths of the recipe are relative to.

    Raises:
        ConfigError: a folder is missing, or no speech has the bandwidth of a sample rate.
    """

    def __init__(self, settings: AudioData, root: Path) -> None:
        self.settings = s = settings
        highest_rate = max(s.sample_rates)
        self.speech = Clips(root, s.speech, highest_rate)
        self.music = Clips(root, s.music, highest_rate) if s.music else None
        self.noise = Clips(root, s.noise, highest_rate) if s.noise else None
        if self.noise:
            self.noise.weights = self.noise.weights.sqrt()  # favours many noises over many minutes of one
        self.rooms: dict[int, list[Tensor]] = {rate: [] for rate in s.sample_rates}
        recorded = Clips(root, s.rir, highest_rate).recordings if s.rir else []
        simulated = simulate_rooms(s.simulated_rooms, min(highest_rate, 48_000))
        for rate, rooms in self.rooms.items():
            for response, response_rate in [*recorded, *simulated]:
                rooms.append(torch.from_numpy(soxr.resample(response.float().numpy() / 32768, response_rate, rate)))
        for rate in s.sample_rates:
            if not self.speech.weights_at(rate).any():
                raise ConfigError(
                    f"{root}: no speech of at least {MIN_BANDWIDTH * rate / 2:g} Hz bandwidth; leave {rate} Hz out."
                )

    def batch(self, size: int, generator: Generator) -> Batch:
        """Return noisy and clean segments of one of the sample rates, (size, channels, time).

        Args:
            size: number of segments.
            generator: source of randomness.
        """
        s = self.settings
        rate = s.sample_rates[int(torch.randint(len(s.sample_rates), (), generator=generator))]
        mixtures = [self.mixture(rate, generator) for _ in range(size)]
        noisy, clean, added = (torch.stack(x) for x in zip(*mixtures, strict=True))
        if not s.profile:
            return Batch(noisy, clean, rate)
        is_known = torch.rand(size, 1, 1, generator=generator) < s.profile
        error_db = PROFILE_ERROR_DB * torch.randn(size, 1, 1, generator=generator)
        return Batch(noisy, clean, rate, noise=added * is_known * 10 ** (error_db / 20))

    def mixture(self, rate: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return a noisy and a clean segment, and the noise before clipping and coding, (channels, time) each.

        Args:
            rate: sample rate, Hz.
            generator: source of randomness.
        """
        s, time = self.settings, round(self.settings.seconds * rate)
        clean = self._clean_segment(time, rate, generator)
        if happens(s.clean, generator):
            return clean, clean, torch.zeros_like(clean)
        added = torch.stack([self.random_noise(time, rate, generator) for _ in range(s.channels)])
        added = noise.scale_to_snr(clean, added, uniform(*s.snr_db, generator))
        if s.silence and happens(s.silence, generator):
            clean = torch.zeros_like(clean)
        if s.crackle and happens(s.crackle, generator):
            crackle = noise.clicks(time, rate, generator)
            peak = noise.rms(clean).mean() * 10 ** (uniform(*CRACKLE_DB, generator) / 20)
            added = added + peak * crackle / crackle.abs().max().clamp_min(1e-9)
        if happens(s.impacts, generator):
            peak = noise.rms(clean).mean() * 10 ** (uniform(*IMPACT_DB, generator) / 20)
            added = added + peak * noise.impacts(time, rate, generator)
        if happens(s.band_limit, generator):
            cutoff = uniform(3000.0, min(7500.0, 0.47 * rate), generator)
            clean, added = (noise.band_limit(x, rate, cutoff) for x in (clean, added))
        noisy = clean + added
        if s.dc_offset and happens(s.dc_offset, generator):
            noisy = noisy + uniform(*DC_OFFSET, generator) * noisy.abs().max()
        if happens(s.clipping, generator):
            noisy = noise.clip(noisy, 10 ** uniform(-4.0, -1.7, generator))
        if happens(s.coding, generator):
            noisy = noise.mu_law(noisy) if happens(0.3, generator) else opus(noisy, rate)
        return noisy, clean, added

    def random_noise(self, time: int, rate: int, generator: Generator) -> Tensor:
        """Return a noise, or several at once, (time,).

        Args:
            time: number of samples.
            rate: sample rate, Hz.
            generator: source of randomness.
        """
        mixed = self._single_noise(time, rate, generator)
        while happens(ADDITIONAL_NOISE, generator):
            second = self._single_noise(time, rate, generator)
            mixed = mixed + noise.scale_to_snr(mixed, second, uniform(-6.0, 6.0, generator))
        return mixed

    def _clean_segment(self, time: int, rate: int, generator: Generator) -> Tensor:
        """Return speech or music in a room, at a random level, (channels, time)."""
        s = self.settings
        clean = self._clean_source(time, rate, generator)
        for _ in range(MAX_LAYERS):
            if not s.layers or not happens(s.layers, generator):
                break
            second = self._clean_source(time, rate, generator)
            clean = clean + noise.scale_to_snr(clean, second, -uniform(*LAYER_DB, generator))
        if s.drive and happens(s.drive, generator):
            gain = 10 ** (uniform(*DRIVE_DB, generator) / 20)
            clean = torch.tanh(gain * clean / noise.rms(clean).clamp_min(1e-6))
        if self.rooms[rate] and happens(s.reverb, generator):
            rooms = self.rooms[rate]
            clean = noise.reverberate(clean, rooms[int(torch.randint(len(rooms), (), generator=generator))])
        clean = noise.set_level(clean, uniform(*s.level_db, generator))
        if s.channels == 1:
            return clean[None]
        return clean * noise.uniform(0.3, 1.0, s.channels, generator)[:, None]  # panned at random

    def _clean_source(self, time: int, rate: int, generator: Generator) -> Tensor:
        """Return a segment of one recording of speech or music, (time,)."""
        if self.music is not None and happens(self.settings.music_fraction, generator):
            return self.music.crop(time, rate, self.music.weights, generator)
        voice = self.speech.crop(time, rate, self.speech.weights_at(rate), generator)
        if self.settings.voice_effects and happens(self.settings.voice_effects, generator):
            return random_voice(voice, rate, generator)
        return voice

    def _single_noise(self, time: int, rate: int, generator: Generator) -> Tensor:
        s = self.settings
        u = float(torch.rand((), generator=generator))
        if u < s.synthetic:
            white = torch.randn(time, generator=generator)
            return noise.colour(white, uniform(0.0, 2.0, generator), rate)
        u -= s.synthetic
        if u < s.babble:  # of so many voices that none is intelligible
            voices = [
                self.speech.crop(time, rate, self.speech.weights, generator)
                for _ in range(int(torch.randint(4, 9, (), generator=generator)))
            ]
            return torch.stack([noise.set_level(voice, -20.0) for voice in voices]).sum(dim=0)
        u -= s.babble
        if u < s.disturbance:
            make = (noise.hum, noise.clicks, noise.wind)[int(torch.randint(3, (), generator=generator))]
            return make(time, rate, generator)
        u -= s.disturbance
        for fraction, make in ((s.tones, noise.tones), (s.beeps, noise.beeps), (s.broadband, noise.broadband)):
            if u < fraction:
                return make(time, rate, generator)
            u -= fraction
        assert self.noise is not None  # validated by the objective
        return self.noise.crop(time, rate, self.noise.weights, generator)


def opus(x: Tensor, sample_rate: int) -> Tensor:
    """Encode audio with Opus and decode it; time and length are preserved.

    Args:
        x: audio, (channels, time).
        sample_rate: its sample rate, Hz.

    Returns:
        Decoded audio, as `x`.
    """
    file = io.BytesIO()
    peak = x.abs().max().clamp_min(1.0)  # the encoder clips
    write_audio(file, Audio((x / peak).numpy(), AudioFormat(sample_rate, x.shape[0], "OGG", "OPUS")))
    file.seek(0)
    return torch.from_numpy(read_audio(file).samples).float()[:, : x.shape[1]] * peak


def simulate_rooms(n: int, sample_rate: int) -> list[tuple[Tensor, int]]:
    """Return impulse responses of shoebox rooms of random sizes, materials and positions, equal in every call.

    Args:
        n: number of rooms.
        sample_rate: sample rate of the responses, Hz.

    Returns:
        Responses, int16, (taps,), each with its sample rate.

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
