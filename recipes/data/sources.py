"""Lists of recorded sounds and music in clones of their originals, with licences and test recordings."""

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from clones import Clone


class Source(NamedTuple):
    """Files of a commit of a repository, by default the newest, with their licence.

    The files that `held_out` matches are for tests; if it is None, a tenth is, by a hash of the name without numbers.
    """

    repository: str
    files: str
    licence: str
    credit: str
    held_out: str | None = None
    commit: str | None = None
    highest_floor: float = -20.0  # dB: noise floor of a sound of more than 2 s

    def find(self, clones: Path) -> Iterator[tuple[str, str, np.ndarray, int]]:
        """Yield split, path, mono samples and sampling rate of the files that can be read."""
        folder = clones / self.repository.replace("/", "+")
        if not folder.is_dir():
            return
        with closing(Clone(folder, self.commit)) as clone:
            for path in sorted(clone.files):
                if re.fullmatch(self.files, path):
                    try:
                        stereo, rate = soundfile.read(io.BytesIO(clone.read(path) or b""), always_2d=True)
                    except soundfile.LibsndfileError:  # absent from the clone, or damaged
                        continue
                    yield self.choose_split(path), path, stereo.mean(axis=1), rate

    def choose_split(self, path: str) -> str:
        """Return "train" or "test"; takes of one thing (bell1, bell_2a) are on the same side."""
        if self.held_out is not None:
            return "test" if re.fullmatch(self.held_out, path) else "train"
        group = re.sub(r"[-_0-9!]+[a-z]?$", "", Path(path).stem.lower())
        return "test" if zlib.crc32(group.encode()) % 10 == 0 else "train"


TRACKS = [
    Source(
        "redeclipse/sounds", r"music/track_\d\d\.ogg", "CC BY-SA 4.0", "Derek Stegall", r".*track_(03|07|11).*",
    ),
    Source("OpenHV/OpenHV", r"mods/hv/bits/audio/timbeek/.*\.ogg", "CC BY 4.0", "Tim Beek", ".*"),
    # The other loops and textures are noise or have some.
    Source(
        "sonic-pi-net/sonic-pi",
        r"etc/samples/(ambi|loop|guit)_(?!sauna|soft_buzz|dark_woosh|swoosh|weirdo).*\.flac",
        "CC0 1.0", "etc/samples/README.md", ".*",
    ),
]  # fmt: skip
SOUNDS = [
    # Some of the OLPC sound library serve as noise in tests elsewhere, and its voices are among the instruments.
    Source(
        "Tonejs/audio",
        r"berklee/(?!(?i:ambiance|birdsinapark|can_crumple|crinkle|draggingmetal|dryer|electric_s|fan_rattle|glass_noise"
        r"|gravelcrunch|keys|mixing_cards|motor|rain|runningEcho|shopping_cart|waterfall|malevoice|femalevoice))[^/]*\.mp3",
        "CC BY 3.0", "Berklee College of Music, One Laptop per Child",
    ),
    # The recordings left the newest commit for another repository. Two clips have other licences; fold 5 is for tests.
    Source(
        "karolpiczak/ESC-10", r"00\d - (Dog bark|Rooster)/(?!1-40730-A|1-96460-A).*\.ogg",
        "CC BY 3.0 or CC0, per clip in README.md", "authors in README.md", ".*/5-.*", "553c8f1", -45.0,
    ),
]  # fmt: skip
