"""MP3."""

from __future__ import annotations

from dataclasses import dataclass

from denoise.files.audio.soundfile_container import SoundfileContainer
from denoise.signals import AudioFormat


@dataclass(frozen=True)
class Mp3(SoundfileContainer):
    """MP3."""

    def choose_format(self, format: AudioFormat, frames: int | None) -> tuple[str, str]:
        """Return libsndfile's names of the container and of the subtype to write."""
        return self.name, "MPEG_LAYER_III"
