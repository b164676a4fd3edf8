"""Laws of all image and audio containers, and how one is added."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.audio import AudioReader, read_audio, write_audio
from denoise.files.audio import registry as audio_registry
from denoise.files.audio.container import AudioContainer, AudioDecoder, AudioEncoder
from denoise.files.audio.media import MEDIA_CONTAINERS
from denoise.files.audio.pcm import PcmDecoder, PcmEncoder
from denoise.files.image import ImageReader, read_image, write_image
from denoise.files.image import registry as image_registry
from denoise.files.image.container import NATURAL_MODES, FrameInfo, ImageContainer, frame_info
from denoise.signals import Audio, AudioFormat, Image, ImageFormat

# whose codecs keep neither rate nor length of any recording: see tests/files/audio/test_media.py
MEDIA_EXTENSIONS = frozenset(extension for container in MEDIA_CONTAINERS for extension in container.extensions)


def random_image(mode: str, dtype: Any = np.uint8) -> Image:
    channels, has_alpha = next(key for key, name in NATURAL_MODES.items() if name == mode)
    x = np.random.default_rng(0).uniform(0, 1 if dtype == np.float32 else np.iinfo(dtype).max, (7, 9, channels + 1))
    alpha = np.where(x[..., 0] > x[..., 0].mean(), np.float64(Image(x[:1, :1, 1:2].astype(dtype)).full_scale), 0)
    return Image(x[..., 1:].astype(dtype), alpha.astype(dtype) if has_alpha else None)


@pytest.mark.parametrize("container", image_registry.CONTAINERS, ids=lambda container: container.name)
class TestImageContainers:
    def test_files_match_only_their_container(self, container: type[ImageContainer]) -> None:
        file = io.BytesIO()
        write_image(file, [random_image("RGB")], ImageFormat(container.name))
        head = file.getvalue()[: image_registry.HEAD_BYTES]
        assert [other for other in image_registry.CONTAINERS if other.matches(head)] == [container]
        assert not container.matches(b"")

    def test_a_missing_extension_may_mean_a_folder(self, container: type[ImageContainer], tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"clean: has no extension; .*, or a / at the end for a folder\.$"):
            write_image(tmp_path / "clean", [random_image("RGB")], ImageFormat(container.name))

    def test_extensions_belong_to_one_container(self, container: type[ImageContainer]) -> None:
        for extension in container.extensions:
            assert extension == extension.lower()
            assert extension in image_registry.IMAGE_EXTENSIONS
            assert [c for c in image_registry.CONTAINERS if extension in c.extensions] == [container]
            assert image_registry.container_of_extension(extension.upper()) is container

    @pytest.mark.parametrize("mode", NATURAL_MODES.values())
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_modes_and_depths_are_held_or_refused(self, container: type[ImageContainer], mode: str, dtype: Any) -> None:
        file, image = io.BytesIO(), random_image(mode, dtype)
        if dtype not in container.dtypes or mode not in container.modes:
            with pytest.raises(InputError, match="cannot hold"):
                write_image(file, [image], ImageFormat(container.name))
            assert file.getvalue() == b""
            return
        write_image(file, [image], ImageFormat(container.name))
        file.seek(0)
        result = read_image(file)
        assert result.pixels.dtype == dtype
        assert (result.alpha is None) == (image.alpha is None)

    @pytest.mark.parametrize("count", [1, 2])
    def test_several_frames_are_held_or_refused(self, container: type[ImageContainer], count: int) -> None:
        file = io.BytesIO()
        images = [random_image("RGB"), Image(255 - random_image("RGB").pixels)][:count]
        if count > 1 and not container.can_animate and not container.has_pages:
            with pytest.raises(InputError, match="holds one image"):
                write_image(file, images, ImageFormat(container.name))
            return
        write_image(file, images, ImageFormat(container.name))
        file.seek(0)
        with ImageReader(file) as reader:
            assert reader.n_frames == len(list(reader)) == count


class Pgm(ImageContainer):
    """Portable grey map (P5) with a header of one line, as an example of a new container."""

    name = "PGM"
    extensions = (".pgm",)
    modes: ClassVar[dict[str, str]] = {"L": "L"}

    @classmethod
    def matches(cls, head: bytes) -> bool:
        return head.startswith(b"P5 ")

    def read_header(self) -> None:
        self.file.seek(0)
        _, width, height, _ = self.file.readline().split()
        self.size, self.n_frames = (int(width), int(height)), 1
        self.limit.check(*self.size)
        self.mode, self.bits, self.info = "L", 8, {}

    def read_frames(self) -> Iterator[tuple[Image, FrameInfo]]:
        self.file.seek(0)
        self.file.readline()
        width, height = self.size
        yield Image(np.frombuffer(self.file.read(width * height), np.uint8).reshape(height, width, 1)), {"mode": "L"}

    @classmethod
    def write(cls, file: IO[bytes], frames: Iterator[Image], source: ImageFormat, name: str) -> None:
        frame = next(frames)
        cls.stored_mode(frame, frame_info(source, 0), name)
        height, width, _ = frame.pixels.shape
        file.write(b"P5 %d %d 255\n" % (width, height) + frame.pixels.tobytes())


def test_new_image_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_registry, "CONTAINERS", (*image_registry.CONTAINERS, Pgm))
    image = random_image("L")
    write_image(tmp_path / "a.pgm", [image], ImageFormat())
    with ImageReader(tmp_path / "a.pgm") as reader:
        assert reader.format.container == "PGM"
        np.testing.assert_array_equal(next(iter(reader)).pixels, image.pixels)
        write_image(tmp_path / "a.png", reader, reader.format)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, image.pixels)
    with pytest.raises(InputError, match="PGM cannot hold 16 bits"):
        write_image(tmp_path / "b.pgm", [random_image("L", np.uint16)], ImageFormat())
    (tmp_path / "short.pgm").write_bytes((tmp_path / "a.pgm").read_bytes()[:-1])
    with pytest.raises(InputError, match=r"short\.pgm: the image is cut off"):
        read_image(tmp_path / "short.pgm")


def ramp(channels: int = 1) -> NDArray[np.float32]:
    return np.linspace(-0.9, 0.9, 4000 * channels, dtype=np.float32).reshape(channels, 4000)


@pytest.mark.parametrize("extension", sorted(audio_registry.AUDIO_EXTENSIONS - MEDIA_EXTENSIONS))
def test_audio_extensions_belong_to_one_container(extension: str, tmp_path: Path) -> None:
    assert extension == extension.lower()
    (container,) = (c for c in audio_registry.CONTAINERS if extension in c.extensions)
    assert audio_registry.container_of_extension(extension.upper()) is container
    write_audio(tmp_path / f"a{extension}", Audio(ramp(), AudioFormat(16_000, 1, "WAV", "PCM_16")))
    result = read_audio(tmp_path / f"a{extension}")
    assert result.format.format == container.name
    assert result.samples.shape == (1, 4000)


class Beep(AudioContainer):
    """A header of ``BEEP`` and 16-bit samples at 8 kHz, as an example of a new container."""

    def matches(self, head: bytes) -> bool:
        return head.startswith(b"BEEP")

    def open(self, source: BinaryIO) -> AudioDecoder:
        assert source.read(4) == b"BEEP"
        return PcmDecoder(source, AudioFormat(8000, 1, self.name, "PCM_16"))

    def open_pipe(self, source: BinaryIO) -> AudioDecoder:
        return self.open(source)

    def create(self, target: str | bytes | BinaryIO, format: AudioFormat, frames: int | None) -> AudioEncoder:
        raise InputError("BEEP is written into pipes only. Choose another extension with -o.")

    def create_in_pipe(self, target: BinaryIO, format: AudioFormat, frames: int | None) -> AudioEncoder | None:
        target.write(b"BEEP")
        return PcmEncoder(target, format.subtype)


def test_new_audio_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_registry, "CONTAINERS", (*audio_registry.CONTAINERS, Beep("BEEP", (".beep",))))
    samples = np.arange(-500, 500, dtype="<i2")
    (tmp_path / "a.beep").write_bytes(b"BEEP" + samples.tobytes())
    with AudioReader(tmp_path / "a.beep") as reader:
        assert reader.format.format == "BEEP"
        assert (reader.read(2000)[0] * 2**15).astype("<i2").tolist() == samples.tolist()

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with AudioReader(Pipe(b"BEEP" + samples.tobytes())) as reader:
        assert reader.is_live
        assert (reader.read(2000)[0] * 2**15).astype("<i2").tolist() == samples.tolist()
    pipe = Pipe()
    write_audio(pipe, read_audio(tmp_path / "a.beep"))
    assert pipe.getvalue() == (tmp_path / "a.beep").read_bytes()
    with pytest.raises(InputError, match=r"b\.beep: BEEP is written into pipes only"):
        write_audio(tmp_path / "b.beep", read_audio(tmp_path / "a.beep"))
    assert not (tmp_path / "b.beep").exists()
