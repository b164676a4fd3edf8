"""Read and write audio files block by block, and pipes as their bytes arrive.

Each container has one class for what differs: how it is detected, read and written. To add a container, write its class
and append it to `denoise.files.audio.registry.CONTAINERS`.
"""

from denoise.files.audio.media_file import open_media_file
from denoise.files.audio.media_track import EncodedTrack, MediaTrack
from denoise.files.audio.metadata.positions import LFE, channel_names
from denoise.files.audio.pcm import FLOATS, RawFormat
from denoise.files.audio.reader import AudioReader, AudioSource, read_audio
from denoise.files.audio.registry import AUDIO_EXTENSIONS
from denoise.files.audio.writer import AudioWriter, write_audio

__all__ = [
    "AUDIO_EXTENSIONS",
    "FLOATS",
    "LFE",
    "AudioReader",
    "AudioSource",
    "AudioWriter",
    "EncodedTrack",
    "MediaTrack",
    "RawFormat",
    "channel_names",
    "open_media_file",
    "read_audio",
    "write_audio",
]
