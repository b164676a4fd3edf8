"""Files of a batch: folders, patterns, manifests and URLs, with options, and names that lead out of the target."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from denoise.errors import ConfigError
from denoise.options import AudioRestoreOptions, DenoiseOptions, RestoreOptions
from denoise.pipelines.batch.file_options import AudioFileOptions, ImageFileOptions, named_files
from denoise.pipelines.batch.items import Item, find_items


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "in/a.wav",
        "in/b.PNG",
        "in/deep/raw.dng",
        "in/deep/a.wav",
        "in/notes.txt",
        "in/.hidden/c.wav",
        "in/.d.wav",
        "in/old.denoised.wav",
        "in/[1].wav",
        "one.flac",
        "one\\two.flac",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


def find(*sources: str, target: str = "out", modalities: Any = ("audio", "image"), **values: Any) -> dict[str, Item]:
    items, _ = find_items(sources, target, values, modalities)
    return {os.path.relpath(item.source): item for item in items}


def outputs(*sources: str, **kwargs: Any) -> dict[str, str]:
    return {source: item.target for source, item in find(*sources, **kwargs).items()}


FOLDER = {
    "in/[1].wav": "out/[1].wav",
    "in/a.wav": "out/a.wav",
    "in/b.PNG": "out/b.PNG",
    "in/deep/a.wav": "out/deep/a.wav",
    "in/deep/raw.dng": "out/deep/raw.tif",
}


class TestFolders:
    def test_keep_their_tree_and_go_by_type(self) -> None:
        items, skipped = find_items(["in"], "out", {})
        assert {os.path.relpath(item.source): item.target for item in items} == FOLDER
        assert [item.modality for item in items] == ["audio", "audio", "image", "audio", "image"]
        assert skipped == {".txt": 1, "hidden": 2, "outputs of earlier runs": 1}

    def test_say_what_is_skipped(self) -> None:
        os.mkfifo("in/fifo.wav")
        Path("in/.DS_Store").touch()
        Path("in/README").touch()
        Path("in/loop").symlink_to(".")
        _, skipped = find_items(["in"], "out", {}, ["audio"])
        words = {"hidden": 2, "outputs of earlier runs": 1, "pipes and devices": 1, "linked folders": 1}
        assert skipped == {".txt": 1, ".png": 1, ".dng": 1, "without extension": 1} | words
        Path("empty").mkdir()
        Path("empty/.a.wav").touch()
        with pytest.raises(ConfigError, match=r"^empty: no file in it that can be denoised; skipped: hidden 1\.$"):
            find("empty")

    def test_linked_folders_are_sources_if_they_are_given(self) -> None:
        Path("linked").symlink_to("in/deep")
        assert {item.target for item in find("linked").values()} == {"out/a.wav", "out/raw.tif"}

    def test_dangling_links_are_files_that_will_fail(self) -> None:
        Path("in/gone.wav").symlink_to("nowhere.wav")
        assert outputs("in") == FOLDER | {"in/gone.wav": "out/gone.wav"}
        assert "in/gone.wav" in outputs("in/*.wav")

    def test_of_one_kind(self) -> None:
        assert [*outputs("in", modalities=["image"])] == ["in/b.PNG", "in/deep/raw.dng"]

    def test_outputs_inside_the_input_are_skipped(self) -> None:
        Path("in/out").mkdir()
        Path("in/out/a.wav").touch()
        Path("in/out/notes.txt").touch()
        items, skipped = find_items(["in"], "in/out", {})
        assert "in/out/a.wav" not in [os.path.relpath(item.source) for item in items]
        assert skipped == {".txt": 2, "hidden": 2, "outputs of earlier runs": 1, "in the output folder": 1}

    @pytest.mark.parametrize(("pattern", "expected"), [
        ("in/*.wav", ["in/[1].wav", "in/a.wav"]),
        ("in/**/a.wav", ["in/a.wav", "in/deep/a.wav"]),
        ("in/[[]1].wav", ["in/[1].wav"]),
    ])  # fmt: skip
    def test_patterns_keep_the_tree_below_their_first_wildcard(self, pattern: str, expected: list[str]) -> None:
        assert outputs(pattern) == {name: FOLDER[name] for name in expected}

    def test_a_name_that_looks_like_a_pattern_is_a_name(self) -> None:
        assert outputs("in/[1].wav", "one.flac") == {"in/[1].wav": "out/[1].wav", "one.flac": "out/one.flac"}

    def test_pipes_in_folders_are_left_out(self) -> None:
        os.mkfifo("in/fifo.wav")
        assert outputs("in") == FOLDER

    @pytest.mark.skipif(os.name == "nt", reason="a backslash separates folders")
    def test_a_backslash_is_a_character(self) -> None:
        assert outputs("one\\two.flac") == {"one\\two.flac": "out/one\\two.flac"}

    def test_of_another_storage(self) -> None:
        storage = fsspec.filesystem("memory")
        storage.pipe({"/songs/a.wav": b"", "/songs/deep/b.wav": b"", "/songs/c.txt": b""})
        items, skipped = find_items(["memory://songs"], "memory://clean", {})
        assert {item.source: item.target for item in items} == {
            "memory:///songs/a.wav": "memory://clean/a.wav",
            "memory:///songs/deep/b.wav": "memory://clean/deep/b.wav",
        }
        assert skipped == {".txt": 1}


class TestRefusals:
    @pytest.mark.parametrize("sources", [["in"], ["in/a.wav", "in/deep/a.wav"], ["missing"], ["in/notes.txt"]])
    def test_nothing_or_two_for_one_output(self, sources: list[str]) -> None:
        if sources == ["in"]:
            Path("in/deep/raw.tif").touch()
        with pytest.raises(ConfigError, match=r"would both be written|no such file|no file in it"):
            find(*sources)

    def test_an_input_as_output(self) -> None:
        with pytest.raises(ConfigError, match="is an input itself"):
            find("in", target="in")

    def test_a_link_in_the_target_that_leads_out_of_it(self, tmp_path: Path) -> None:
        Path("out").mkdir()
        Path("elsewhere").mkdir()
        Path("out/deep").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ConfigError, match="leads out of out by a link"):
            find("in")

    @pytest.mark.parametrize("target", ["{}/in", "file://{}/in", "in/../in"])
    def test_an_input_as_output_whatever_its_spelling(self, tmp_path: Path, target: str) -> None:
        with pytest.raises(ConfigError, match="is an input itself"):
            find("in", target=target.format(tmp_path))

    def test_outputs_inside_another_storage_are_no_inputs(self) -> None:
        fsspec.filesystem("memory").pipe({"/nested/a.wav": b"", "/nested/clean/a.wav": b""})
        assert [item.source for item in find_items(["memory://nested"], "memory://nested/clean", {})[0]] == [
            "memory:///nested/a.wav"
        ]
        with pytest.raises(ConfigError, match="is an input itself"):
            find("memory://nested", target="memory:///nested")

    def test_an_unknown_storage(self) -> None:
        with pytest.raises(ConfigError, match="nowhere://a"):
            find("nowhere://a")


ROWS = [
    {"input": "in/a.wav", "strength": 0.5},
    {"input": "in/b.PNG", "output": "pictures/b.png", "sigma": 25, "model": "gaussian"},
    {"input": "one.flac", "output": None},
]


def write_manifest(path: Path, rows: list[dict[str, Any]]) -> str:
    columns = dict.fromkeys(key for row in rows for key in row)
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*columns])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in rows))
    else:
        parquet.write_table(pyarrow.Table.from_pylist([{key: row.get(key) for key in columns} for row in rows]), path)
    return str(path)


class TestManifests:
    @pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
    def test_have_a_row_per_file_with_options(self, suffix: str) -> None:
        items = find(write_manifest(Path(f"list{suffix}"), ROWS), strength=0.9)
        assert {item.target for item in items.values()} == {"out/a.wav", "out/pictures/b.png", "out/one.flac"}
        assert items["in/a.wav"].options == AudioFileOptions(strength=0.5)
        assert items["one.flac"].options == AudioFileOptions(strength=0.9)
        image = items["in/b.PNG"].options
        assert isinstance(image, ImageFileOptions)
        assert image.model == "gaussian"
        assert image.denoise_options().sigma == 25 / 255

    def test_are_relative_to_their_folder(self) -> None:
        name = write_manifest(Path("in/list.jsonl"), [{"input": "a.wav"}, {"input": str(Path("one.flac").resolve())}])
        assert outputs(name) == {"in/a.wav": "out/a.wav", "one.flac": "out/one.flac"}

    NAMING = (
        {"input": "b.PNG", "task": "inpaint", "mask": "m.png"},
        {"input": "deep/raw.dng", "task": "deblur", "kernel": "/kernels/k.png"},
        {"input": "a.wav", "task": "inpaint", "mask": "0-1,2-3"},
        {"input": "deep/a.wav", "output": "b.wav", "noise_profile": "s3://sounds/hiss.wav", "model": "general"},
        {"input": "[1].wav", "noise_profile": "../hiss.wav"},
    )

    def test_files_that_options_name_are_relative_to_it_too(self) -> None:
        items = find(write_manifest(Path("in/list.csv"), [*self.NAMING, {"input": "../one.flac", "model": "m.onnx"}]))
        options = {name: asdict(item.options) for name, item in items.items()}
        assert options["in/b.PNG"]["mask"] == "in/m.png"
        assert options["in/deep/raw.dng"]["kernel"] == "/kernels/k.png"
        assert options["in/a.wav"]["mask"] == "0-1,2-3"
        assert options["in/deep/a.wav"]["noise_profile"] == "s3://sounds/hiss.wav"
        assert options["in/deep/a.wav"]["model"] == "general"
        assert options["in/[1].wav"]["noise_profile"] == "hiss.wav"
        assert options["one.flac"]["model"] == "in/m.onnx"
        (shared,) = find("in/b.PNG", task="inpaint", mask="m.png").values()
        assert named_files(asdict(shared.options)) == {"mask": "m.png"}

    def test_files_that_options_of_one_at_a_url_name(self) -> None:
        def write(*rows: dict[str, Any]) -> str:
            fsspec.filesystem("memory").pipe("/listed/list.jsonl", "\n".join(map(json.dumps, rows)).encode())
            return "memory://listed/list.jsonl"

        items, _ = find_items([write(*self.NAMING)], "out", {})
        named = [named_files(asdict(item.options)) for item in items]
        assert named[:3] == [{"mask": "memory://listed/m.png"}, {"kernel": "/kernels/k.png"}, {}]
        assert named[3:] == [
            {"noise_profile": "s3://sounds/hiss.wav"},
            {"noise_profile": "memory://hiss.wav"},
        ]
        with pytest.raises(ConfigError, match=r"list.jsonl: row 1: memory://listed/m.onnx is no file of this machine"):
            find(write({"input": "a.wav", "model": "m.onnx"}))

    @pytest.mark.parametrize(("row", "problem"), [
        ({"input": "in/a.wav", "sigma": 3}, "sigma: no such setting"),
        ({"input": "in/a.wav", "strength": 3}, r"row 1: strength is 3; expected 0 .* 1 \(full denoising\)\.$"),
        ({"input": "in/a.wav", "strength": True}, "row 1: strength is true; expected a number"),
        ({"input": "in/b.PNG", "sigma": True}, "row 1: sigma is true; expected a number"),
        ({"input": "in/b.PNG", "task": "inpaint"}, "needs mask"),
        ({"input": "in/b.PNG", "mask": "m.png"}, "mask is not for the task denoise"),
        ({"input": "in/b.PNG", "model": "photo", "prior": "gaussian"}, "both model and prior"),
        ({"input": "in/b.PNG", "strength": 0.5, "prior": "gaussian"}, "strength is not for a prior"),
        ({"input": "in/a.wav", "mask": "0-1"}, "mask is not for the task denoise"),
        ({"input": "in/a.wav", "task": "extend"}, "the task extend needs a prior"),
        ({"input": "in/a.wav", "task": "declip", "strength": 0.5}, "strength is not for the task declip"),
        ({"input": "in/a.wav", "task": "declip", "band": 8000}, "band is for the task extend"),
        ({"input": "in/a.wav", "model": "speech", "prior": "speech-prior"}, "both model and prior"),
        ({"input": "in/b.PNG", "task": "declip", "limit": 2}, "expected 2.55 to 255"),
        ({"input": "in/b.PNG", "task": "dejpeg", "quality": 101}, "quality is 101"),
        ({"input": "in/notes.txt"}, "no file of audio or image"),
        ({"output": "a.wav"}, 'needs a column "input"'),
        ({"input": "in/a.wav", "output": 3}, '"output" is a path'),
        ({"input": "in/a.wav", "output": "../a.wav"}, "outside of out"),
        ({"input": "in/a.wav", "output": "/tmp/a.wav"}, "outside of out"),
        ({"input": "in/a.wav", "output": "a/../../b.wav"}, "outside of out"),
        ({"input": "in/a.wav", "output": "a.png"}, "a.png: no such audio files can be written.*such as .wav"),
        ({"input": "in/a.wav", "output": "a"}, "a: no such audio files"),
        ({"input": "in/a.wav", "output": "a.APE"}, "a.APE: no such audio files"),
        ({"input": "in/deep/raw.dng", "output": "raw.dng"}, "raw.dng: no such image files.*such as .tif"),
        ({"input": "in/a\0.wav"}, "is no path of a file"),
        ({"input": "/"}, "is no path of a file"),
        ({"input": "\ud800.wav"}, "is no path of a file"),
        ({"input": "in/a.wav", "output": ".denoise-partial/a.wav"}, "unfinished outputs"),
    ])  # fmt: skip
    def test_a_wrong_row_is_named(self, row: dict[str, Any], problem: str) -> None:
        with pytest.raises(ConfigError, match=problem) as caught:
            find(write_manifest(Path("list.jsonl"), [row]))
        assert "row 1" in str(caught.value) or "out" in problem

    @pytest.mark.parametrize("text", ["[" * 100_000, '{"input": ' + "[" * 100_000])
    def test_deeply_nested_json_is_refused(self, text: str) -> None:
        Path("list.jsonl").write_text(text)
        with pytest.raises(ConfigError, match=r"list.jsonl: cannot be read as a manifest"):
            find("list.jsonl")

    @pytest.mark.parametrize(("name", "text", "problem"), [
        ("a.jsonl", '{"input": "in/a.wav"}\n\n{"input": a.wav}\n', "line 3, column 11: Expecting value"),
        ("a.jsonl", '{"input": "in/a.wav"}\n\n7\n', "line 3 is no object: 7"),
        ("a.csv", "input,output\n\na.wav\n", "line 3 has another number of columns"),
    ])  # fmt: skip
    def test_wrong_lines_are_counted_with_empty_ones(self, name: str, text: str, problem: str) -> None:
        Path(name).write_text(text)
        with pytest.raises(ConfigError, match=rf"^{name}: cannot be read as a manifest \(ValueError: {problem}"):
            find(name)

    def test_parquet_of_millions_of_rows_is_refused_before_it_is_decoded(self) -> None:
        parquet.write_table(pyarrow.table({"input": pyarrow.array(["a.wav"] * 1_000_001)}), "list.parquet")
        assert Path("list.parquet").stat().st_size < 100_000
        with pytest.raises(ConfigError, match="more than 1000000 rows"):
            find("list.parquet")

    @given(st.binary(max_size=60), st.sampled_from([".csv", ".jsonl", ".parquet"]))
    def test_any_bytes_are_read_or_refused_in_one_line(
        self, tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str
    ) -> None:
        path = tmp_path_factory.mktemp("manifest") / f"list{suffix}"
        path.write_bytes(data)
        with pytest.raises(ConfigError) as caught:
            find(str(path))
        assert "\n" not in str(caught.value)


class TestOptions:
    def test_shared_ones_go_to_the_files_that_have_them(self) -> None:
        items = find("in", sigma=10, attenuation_limit=12)
        assert items["in/a.wav"].options == AudioFileOptions(attenuation_limit=12)
        assert items["in/b.PNG"].options == ImageFileOptions(sigma=10)

    @pytest.mark.parametrize(("values", "problem"), [
        ({"sgima": 10}, "option sgima: no such option"),
        ({"sigma": 999}, "expected auto or a number from 0 to 255"),
        ({"attenuation_limit": "much"}, "attenuation_limit"),
    ])  # fmt: skip
    def test_wrong_ones_are_refused(self, values: dict[str, Any], problem: str) -> None:
        with pytest.raises(ConfigError, match=problem):
            find("in", **values)

    def test_those_of_no_file_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="no such option of audio files"):
            find("one.flac", sigma=10)

    def test_become_those_of_the_pipelines(self) -> None:
        audio = AudioFileOptions(perception=0.5, seed=3, channels="linked").denoise_options()
        assert audio == DenoiseOptions(steps=5, perception=0.5, seed=3, stereo="linked", overwrite=True)
        image = ImageFileOptions(task="declip", limit=204, steps=7).restore_options()
        assert image == RestoreOptions(task="declip", limit=0.8, steps=7, overwrite=True)
        gaps = AudioFileOptions(task="inpaint", mask="0:01-0:01.5,3-4").restore_options()
        assert gaps == AudioRestoreOptions(task="inpaint", gaps=((1, 1.5), (3, 4)), overwrite=True)
        clipped = AudioFileOptions(task="declip", limit=0.5, gain=-3, prior="speech-prior", steps=4).restore_options()
        assert clipped == AudioRestoreOptions(task="declip", limit=0.5, gain_db=-3, steps=4, overwrite=True)
        profile = AudioFileOptions(noise_profile="0:00-0:02").denoise_options()
        assert profile == DenoiseOptions(steps=5, noise_profile=(0, 2), overwrite=True)
        image = ImageFileOptions(task="upscale", factor=2, sigma="51", steps=7).restore_options()
        assert image == RestoreOptions(task="upscale", factor=2, sigma=0.2, steps=7, overwrite=True)
