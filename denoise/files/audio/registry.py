"""The table of audio containers."""

from __future__ import annotations

from denoise.errors import InputError
from denoise.files.audio.au import Au
from denoise.files.audio.chunked import Aiff, BigEndianWav, Caf, Wave64
from denoise.files.audio.container import AudioContainer
from denoise.files.audio.flac import Flac
from denoise.files.audio.media import MEDIA_CONTAINERS
from denoise.files.audio.mp3 import Mp3, Undetected
from denoise.files.audio.ogg import Ogg, Opus
from denoise.files.audio.soundfile_container import SoundfileContainer
from denoise.files.audio.wav import Wav
from denoise.files.names import OR_FOLDER

CONTAINERS: tuple[AudioContainer, ...] = (
    Wav("WAV", (".wav", ".wave")),
    Wav("WAVEX"),
    Wav("RF64", (".rf64",)),
    Wav("BW64", (".bw64",)),
    BigEndianWav("RIFX"),
    Wave64("W64", (".w64",)),
    Flac("FLAC", (".flac",)),
    Ogg("OGG", (".ogg", ".oga")),
    Opus("OGG", (".opus",)),
    Mp3("MP3", (".mp3",)),
    Aiff("AIFF", (".aif", ".aiff", ".aifc")),
    Caf("CAF", (".caf",)),
    Au("AU"),
    *MEDIA_CONTAINERS,
)
"""All containers; a file is of the first one that matches, or else of one that libsndfile detects."""

AUDIO_EXTENSIONS = frozenset(extension for container in CONTAINERS for extension in container.extensions)
"""Extensions of audio files, lower case with the dot."""

HEAD_BYTES = 12  # that `AudioContainer.matches` looks at


def detect_container(head: bytes) -> AudioContainer:
    """Return the container of a file by its content.

    Args:
        head: the first `HEAD_BYTES` of the file, fewer if it is shorter.
    """
    return next((container for container in CONTAINERS if container.matches(head)), Undetected())


def container_of_extension(extension: str) -> AudioContainer:
    """Return the container of files with an extension.

    Args:
        extension: with the dot, in any case.

    Raises:
        InputError: the extension is unknown.
    """
    for container in CONTAINERS:
        if extension.lower() in container.extensions:
            return container
    expected = ", ".join(sorted(AUDIO_EXTENSIONS))
    if not extension:
        raise InputError(f"without an extension, it is no audio format; expected {expected}{OR_FOLDER}.")
    raise InputError(f"extension {extension!r} is no audio format; expected {expected}.")


def container_named(name: str) -> AudioContainer:
    """Return a container by its name.

    Args:
        name: as in `AudioFormat.format`; any of libsndfile's names.
    """
    return next((container for container in CONTAINERS if container.name == name), SoundfileContainer(name))
