"""Read and write audio files block by block; streams as their bytes arrive."""

from denoise.files.audio.pcm import RawFormat
from denoise.files.audio.reader import AudioReader, read_audio
from denoise.files.audio.writer import CONTAINERS, AudioWriter, write_audio

__all__ = ["AUDIO_EXTENSIONS", "AudioReader", "AudioWriter", "RawFormat", "read_audio", "write_audio"]

AUDIO_EXTENSIONS = frozenset(CONTAINERS)
