"""Archives of signals and labels: what is joined, what is refused, and what is warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from denoise.config import parse
from denoise.errors import ConfigError
from denoise.noise import generator_for
from denoise.training.example_recipe import Examples
from denoise.training.examples import LabelledExamples

SETTINGS = {"files": ["a.npz"], "labels": "labels"}
NAMED = SETTINGS | {"class_names": "names"}


def examples(root: Path, settings: dict[str, Any], classes: int | None = None) -> LabelledExamples:
    return LabelledExamples(parse(Examples, settings, "test"), root, classes)


def pixels(*values: int) -> NDArray[np.uint8]:
    """Images of 2 x 2 pixels of one value each."""
    return np.broadcast_to(np.array(values, np.uint8)[:, None, None], (len(values), 2, 2))


def test_classes_of_several_archives_are_joined_by_name(tmp_path: Path) -> None:
    """The value of each pixel says the true class, whatever its index is in its archive."""
    np.savez(tmp_path / "a.npz", signals=pixels(10, 20, 20), labels=[0, 1, 1], names=["ten", "twenty"])
    np.savez(tmp_path / "b.npz", signals=pixels(20, 10, 30), labels=[1, 2, 0], names=["thirty", "twenty", "ten"])
    np.savez(tmp_path / "c.npz", signals=pixels(40, 40), labels=[0, 0], names=["forty"])  # one file per class
    expected = {10: "ten", 20: "twenty", 30: "thirty", 40: "forty"}
    for files in (["a.npz", "b.npz", "c.npz"], ["c.npz", "b.npz", "a.npz"]):
        settings = NAMED | {"files": files, "label_dropout": 0.0}
        data = examples(tmp_path, settings, classes=4)
        assert len(data.class_names) == 4
        batch = data.batch(100, generator_for(0, 0))
        assert batch.labels is not None
        for x, label in zip(batch.clean, batch.labels, strict=True):
            assert isinstance(label, int)
            assert data.class_names[label] == expected[round(255 * float(x[0, 0, 0]))]
    assert examples(tmp_path, NAMED | {"files": ["a.npz", "b.npz"]}).class_names == ("ten", "twenty", "thirty")


def test_every_archive_names_its_classes_if_one_does(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", signals=pixels(1), labels=[0], names=["one"])
    np.savez(tmp_path / "b.npz", signals=pixels(1), labels=[0])
    with pytest.raises(ConfigError, match=r"b\.npz: holds signals, labels, no names"):
        examples(tmp_path, NAMED | {"files": ["a.npz", "b.npz"]})


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        ([0.0, 255.0], "signals is 0 to 255; expected finite floats from 0 to 1"),
        ([-1.0, 1.0], "signals is -1 to 1; expected finite floats from 0 to 1; audio has a sample_rate"),
        ([0.0, 16.0], "signals is 0 to 16"),
        ([0.0, np.nan], "signals is nan to nan; expected finite"),
        ([0.0, np.inf], "signals is 0 to inf; expected finite"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_of_another_scale_are_refused(signals: list[float], message: str, dtype: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", signals=np.array(signals, dtype)[:, None, None], labels=[0, 0])
    with pytest.raises(ConfigError, match=rf"a\.npz: {message}") as error:
        examples(tmp_path, SETTINGS)
    assert "\n" not in str(error.value)


def test_floats_of_full_scale_are_taken_with_rounding_and_audio_with_both_signs(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", signals=np.float32([[[-0.0005]], [[1.0005]]]), labels=[0, 0])
    assert examples(tmp_path, SETTINGS).signals.shape == (2, 1, 1, 1)
    audio = SETTINGS | {"sample_rate": 8000}
    np.savez(tmp_path / "a.npz", signals=np.float32([[-1.0, 1.0], [0.0, 1.2]]), labels=[0, 0])
    assert examples(tmp_path, audio).signals.shape == (2, 1, 2)
    np.savez(tmp_path / "a.npz", signals=np.float32([[-20000.0, 9000.0]]), labels=[0])
    with pytest.raises(ConfigError, match="signals is -20000 to 9000; expected finite floats from -1 to 1"):
        examples(tmp_path, audio)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"names": ["one"]}, r"names is \['one'\], labels go up to 1; expected as many different names"),
        ({"names": ["one", "one"]}, r"names is \['one', 'one'\]"),
        ({"names": np.array(["one", 2], object)}, "names holds Python objects"),
        ({"labels": [0.7, 1.7]}, "values that are no whole numbers; expected 2 class indices"),
        ({"labels": [0.0, np.nan]}, "values that are no whole numbers"),
        ({"labels": ["zero", "one"]}, "values that are no whole numbers"),
        ({"signals": pixels()}, r"signals has shape \(0, 2, 2\); expected \(n, H, W\)"),
        ({"signals": np.float32(1)}, r"signals has shape \(\); expected \(n, H, W\)"),
    ],
)
def test_what_is_no_label_no_name_or_no_signal_is_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    right = {"signals": pixels(1, 2), "labels": [0, 1], "names": ["one", "two"]}
    np.savez(tmp_path / "a.npz", allow_pickle=True, **(right | arrays))
    with pytest.raises(ConfigError, match=message):
        examples(tmp_path, NAMED, classes=2)


def test_labels_that_are_whole_numbers_of_floats_are_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", signals=pixels(1, 2, 3), labels=[2.0, 0.0, 1.0])
    assert examples(tmp_path, SETTINGS, classes=3).labels == [2, 0, 1]


def test_classes_of_the_network_have_names_and_examples(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", signals=pixels(1, 2), labels=[0, 2], names=["one", "two", "three"])
    with pytest.raises(ConfigError, match="holds 3 classes, the network has 2"):
        examples(tmp_path, NAMED, classes=2)
    with pytest.warns(UserWarning, match="classes two, 3 have no examples"):
        examples(tmp_path, NAMED, classes=4)
    with pytest.raises(ConfigError, match="has no labels, the network has 3 classes"):
        examples(tmp_path, {"files": ["a.npz"]}, classes=3)


@pytest.mark.parametrize("unused", [{"class_names": "names"}, {"captions": ["a {}"]}])
def test_names_and_captions_need_labels(unused: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"give examples\.labels or leave them out"):
        parse(Examples, {"files": ["a.npz"]} | unused, "test")


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_levels_are_found_in_floats_too(dtype: Any, tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (20, 8, 8)).astype(np.uint8)
    signals = levels if dtype is np.uint8 else (levels / 255).astype(dtype)
    np.savez(tmp_path / "a.npz", signals=signals)
    assert examples(tmp_path, {"files": ["a.npz"]}).has_levels
    np.savez(tmp_path / "a.npz", signals=(levels / 256).astype(np.float32))
    assert not examples(tmp_path, {"files": ["a.npz"]}).has_levels
