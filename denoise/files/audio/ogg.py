"""OGG with Vorbis or Opus."""

from __future__ import annotations

from dataclasses import dataclass

from denoise.files.audio.soundfile_container import SoundfileContainer
from denoise.signals import AudioFormat


@dataclass(frozen=True)
class Ogg(SoundfileContainer):
    """OGG: Opus stays Opus, everything else becomes Vorbis."""

    def choose_format(self, format: AudioFormat, frames: int | None) -> tuple[str, str]:
        """Return libsndfile's names of the container and of the subtype to write."""
        return self.name, "OPUS" if format.subtype == "OPUS" else "VORBIS"


@dataclass(frozen=True)
class Opus(Ogg):
    """OGG with Opus, whatever the source has."""

    def choose_format(self, format: AudioFormat, frames: int | None) -> tuple[str, str]:
        """Return libsndfile's names of the container and of the subtype to write."""
        return self.name, "OPUS"
