"""Pairs of inputs and outputs, and collisions that are refused before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from denoise.errors import ConfigError
from denoise.pipelines.batch import count_skipped, plan

WAV = [".wav", ".flac"]


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "a.wav",
        "b.flac",
        "other/a.wav",
        "album/1.wav",
        "album/2.FLAC",
        "album/cover.jpg",
        "album/old.denoised.wav",
        "album/.hidden.wav",
        "album/.git/3.wav",
        "album/live/1.wav",
        "album/live/deep/4.wav",
        "empty/readme.txt",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("done").mkdir()


def pairs(*inputs: str, out: str | None = None, overwrite: bool = False) -> dict[str, str]:
    return dict(plan(inputs, out, WAV, overwrite=overwrite))


ALBUM = ["album/1.wav", "album/2.FLAC", "album/live/1.wav", "album/live/deep/4.wav"]


class TestFiles:
    def test_beside_the_input(self) -> None:
        assert pairs("a.wav", "other/a.wav", "b.flac") == {
            "a.wav": "a.denoised.wav",
            "other/a.wav": "other/a.denoised.wav",
            "b.flac": "b.denoised.flac",
        }

    def test_single_file_is_written_to_out(self) -> None:
        assert pairs("a.wav", out="c.flac") == {"a.wav": "c.flac"}
        assert pairs("a.wav", out="new/c.flac") == {"a.wav": "new/c.flac"}

    @pytest.mark.parametrize("out", ["done", "done/"])
    def test_single_file_is_written_into_an_existing_folder(self, out: str) -> None:
        assert pairs("a.wav", out=out) == {"a.wav": "done/a.wav"}

    def test_trailing_slash_is_a_folder(self) -> None:
        assert pairs("a.wav", out="new/") == {"a.wav": "new/a.wav"}

    def test_several_files_are_written_into_a_folder(self) -> None:
        assert pairs("a.wav", "b.flac", out="new") == {"a.wav": "new/a.wav", "b.flac": "new/b.flac"}

    def test_outputs_of_camera_raw_files_are_tiff(self) -> None:
        for name in ("album/5.CR2", "album/live/6.dng"):
            Path(name).touch()
        assert pairs("album/5.CR2") == {"album/5.CR2": "album/5.denoised.tif"}
        assert pairs("album/5.CR2", out="new/") == {"album/5.CR2": "new/5.tif"}
        assert pairs("album/5.CR2", out="new.png") == {"album/5.CR2": "new.png"}
        assert dict(plan(["album"], "new", [".cr2", ".dng"])) == {
            "album/5.CR2": "new/5.tif",
            "album/live/6.dng": "new/live/6.tif",
        }

    def test_file_needs_no_supported_extension_and_may_be_missing(self) -> None:
        """The reader checks files, not the plan."""
        assert pairs("nowhere.xyz") == {"nowhere.xyz": "nowhere.denoised.xyz"}

    def test_output_of_an_earlier_run_can_be_an_input(self) -> None:
        assert pairs("album/old.denoised.wav") == {"album/old.denoised.wav": "album/old.denoised.denoised.wav"}


class TestFolders:
    def test_beside_the_inputs(self) -> None:
        assert pairs("album") == {
            "album/1.wav": "album/1.denoised.wav",
            "album/2.FLAC": "album/2.denoised.FLAC",
            "album/live/1.wav": "album/live/1.denoised.wav",
            "album/live/deep/4.wav": "album/live/deep/4.denoised.wav",
        }

    @pytest.mark.parametrize("out", ["done", "new/folder"])
    def test_tree_is_the_same_in_the_output(self, out: str) -> None:
        assert pairs("album", out=out) == {name: name.replace("album", out, 1) for name in ALBUM}

    def test_output_folder_inside_an_input_is_skipped(self) -> None:
        Path("album/out/live").mkdir(parents=True)
        Path("album/out/live/1.wav").touch()
        assert pairs("album", out="album/out") == {name: name.replace("album", "album/out", 1) for name in ALBUM}
        assert count_skipped(["album"], "album/out", [".wav"])["in the output folder"] == 1
        assert "album/out/live/1.wav" in pairs("album")

    def test_input_inside_the_output_folder_is_not_skipped(self) -> None:
        assert pairs("album/live", out="album/") == {
            "album/live/1.wav": "album/1.wav",
            "album/live/deep/4.wav": "album/deep/4.wav",
        }

    def test_folder_as_its_own_output_needs_overwrite(self) -> None:
        with pytest.raises(ConfigError, match="is an input itself"):
            pairs("album", out="album")
        assert pairs("album", out="album", overwrite=True) == {name: name for name in ALBUM}

    def test_files_and_folders_together(self) -> None:
        assert pairs("b.flac", "album/live", out="done") == {
            "b.flac": "done/b.flac",
            "album/live/1.wav": "done/1.wav",
            "album/live/deep/4.wav": "done/deep/4.wav",
        }

    def test_second_run_has_the_same_pairs(self) -> None:
        before = pairs("album")
        for target in before.values():
            Path(target).touch()
        assert pairs("album") == before

    def test_empty_folder_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"^empty: no file in it that can be denoised \(\.flac, \.wav\)"):
            pairs("empty")


class TestStreams:
    @pytest.mark.parametrize(("out", "target"), [(None, "-"), ("-", "-"), ("c.wav", "c.wav")])
    def test_standard_input(self, out: str | None, target: str) -> None:
        assert pairs("-", out=out) == {"-": target}

    def test_standard_output(self) -> None:
        assert pairs("a.wav", out="-") == {"a.wav": "-"}

    @pytest.mark.parametrize(
        ("inputs", "out"), [(["-"], "done"), (["-", "a.wav"], "done"), (["a.wav", "b.flac"], "-"), (["album"], "-")]
    )
    def test_streams_need_a_single_input_and_output(self, inputs: list[str], out: str) -> None:
        with pytest.raises(ConfigError, match=r"standard input needs one output|takes one input"):
            pairs(*inputs, out=out)


class TestCollisions:
    def test_two_inputs_with_one_output(self) -> None:
        with pytest.raises(ConfigError, match=r"a.wav and other/a.wav would both be written to done/a.wav"):
            pairs("a.wav", "other/a.wav", out="done")
        with pytest.raises(ConfigError, match="would both be written"):
            pairs("album", "album/live", out="done")

    @pytest.mark.parametrize("same", ["a.wav", "./a.wav", "other/../a.wav"])
    def test_one_input_twice(self, same: str) -> None:
        with pytest.raises(ConfigError, match="would both be written"):
            pairs("a.wav", same)

    def test_output_that_is_an_input(self) -> None:
        with pytest.raises(ConfigError, match=r"a.wav is an input itself"):
            pairs("a.wav", out="./a.wav")
        assert pairs("a.wav", out="a.wav", overwrite=True) == {"a.wav": "a.wav"}
        Path("a.denoised.wav").touch()
        for overwrite in (False, True):  # it could be read before or after it is replaced
            with pytest.raises(ConfigError, match=r"a\.denoised\.wav is an input itself"):
                pairs("a.wav", "a.denoised.wav", overwrite=overwrite)

    def test_links_are_followed(self) -> None:
        os.symlink("a.wav", "link.wav")
        with pytest.raises(ConfigError, match="is an input itself"):
            pairs("a.wav", out="link.wav")
