"""Settings of the audio that denoisers are trained on: sections ``[audio]`` and ``[classes.NAME]`` of a recipe."""

from __future__ import annotations

from denoise.config import config
from denoise.errors import ConfigError


@config
class AudioData:
    """Clean speech and music, noise and room impulse responses, and how they are mixed.

    Args:
        speech: folders of clean speech, relative to ``--data``; of a class, of its recordings.
        music: folders of other sounds to keep: music, animals, machines.
        noise: folders of noise; priors are trained without.
        rir: folders of room impulse responses.
        sample_rates: sample rates in Hz; each batch has one of them.
        channels: channels of a segment.
        seconds: length of a segment.
        snr_db: range of the signal-to-noise ratio.
        level_db: range of the RMS level of the speech, dB of full scale.
        simulated_rooms: number of simulated room impulse responses beside the recorded ones.
        reverb: probability of a room.
        band_limit: probability of a limited bandwidth.
        clean: probability of no noise at all.
        clipping: probability of clipping.
        coding: probability of lossy coding.
        impacts: probability of loud impulsive noise.
        synthetic: probability that a noise is coloured Gaussian noise.
        babble: probability that it is babble.
        disturbance: probability that it is hum, clicks or wind.
        tones: probability that it is a steady tone of 50 to 500 Hz with harmonics.
        beeps: probability that it is the beeps of a device.
        broadband: probability that it is hiss of a random smooth spectrum. Other noises are recorded.
        crackle: probability of clicks beside the noise.
        music_fraction: probability that the clean signal is of the folders of ``music``.
        layers: probability of another clean signal with the ones before.
        drive: probability of an overdriven amplifier, whose distortion belongs to the clean signal.
        voice_effects: probability of effects of films, games and radio, which belong to the clean voice.
        silence: probability of noise alone.
        dc_offset: probability of a constant offset of the noisy signal, as of cheap sound cards.
        profile: probability that networks that take a noise profile get one.
    """

    speech: tuple[str, ...]
    music: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()
    rir: tuple[str, ...] = ()
    sample_rates: tuple[int, ...] = (16_000,)
    channels: int = 1
    seconds: float = 3.0
    snr_db: tuple[float, float] = (-8.0, 25.0)
    level_db: tuple[float, float] = (-45.0, -12.0)
    simulated_rooms: int = 0
    reverb: float = 0.2
    band_limit: float = 0.1
    clean: float = 0.03
    clipping: float = 0.0
    coding: float = 0.0
    impacts: float = 0.0
    synthetic: float = 0.2
    babble: float = 0.0
    disturbance: float = 0.0
    tones: float = 0.0
    beeps: float = 0.0
    broadband: float = 0.0
    crackle: float = 0.0
    music_fraction: float = 0.0
    layers: float = 0.0
    drive: float = 0.0
    voice_effects: float = 0.0
    silence: float = 0.0
    dc_offset: float = 0.0
    profile: float = 0.0

    def __post_init__(self) -> None:
        if not self.sample_rates or min(self.sample_rates) < 8_000 or max(self.sample_rates) > 192_000:
            raise ConfigError(f"sample_rates are {list(self.sample_rates)}; expected 8000 to 192000 Hz.")
        if self.channels < 1 or not self.seconds > 0:
            raise ConfigError(f"channels is {self.channels}, seconds {self.seconds}; expected more than 0.")
        if self.music_fraction and not self.music:
            raise ConfigError("music_fraction is above 0; name the folders in audio.music, or leave it out.")
