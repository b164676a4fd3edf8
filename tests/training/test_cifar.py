"""Binary files of CIFAR-10 as training data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from denoise.errors import ConfigError
from denoise.noise import generator_for
from denoise.training.cifar import read_cifar
from denoise.training.example_recipe import Examples
from denoise.training.examples import LabelledExamples


def write_batch(path: Path, n: int, seed: int = 0) -> list[bytes]:
    """Write random records and return them."""
    rng = np.random.default_rng(seed)
    records = [bytes([i % 10]) + rng.bytes(3072) for i in range(n)]
    path.write_bytes(b"".join(records))
    return records


def test_pixels_are_where_the_format_has_them(tmp_path: Path) -> None:
    records = write_batch(tmp_path / "data_batch_1.bin", 12)
    arrays = read_cifar(tmp_path / "data_batch_1.bin")
    assert arrays["images"].shape == (12, 32, 32, 3)
    assert arrays["labels"].tolist() == [*range(10), 0, 1]
    for i, y, x, plane in [(0, 0, 0, 0), (3, 0, 31, 1), (11, 31, 0, 2), (5, 17, 4, 0)]:
        assert arrays["images"][i, y, x, plane] == records[i][1 + 1024 * plane + 32 * y + x]


def test_several_batches_are_the_examples_of_a_recipe(tmp_path: Path) -> None:
    names = [f"data_batch_{i}.bin" for i in (1, 2)]
    records = [record for seed, name in enumerate(names) for record in write_batch(tmp_path / name, 7, seed)]
    data = LabelledExamples(Examples(tuple(names), signals="images", labels="labels", label_dropout=0), tmp_path)
    batch = data.batch(200, generator_for(0, 0))
    assert batch.clean.shape == (200, 3, 32, 32)
    stored = {record[1:]: record[0] for record in records}
    drawn = [(255 * x).round().to(torch.uint8).numpy().tobytes() for x in batch.clean]
    assert set(drawn) == set(stored)
    assert batch.labels is not None
    assert [stored[each] for each in drawn] == [*batch.labels]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        (b"", "has 0 bytes"),
        (bytes(3073 + 3072), "expected records of 3073 bytes"),
        (bytes(3073) + b"\x0a" + bytes(3072), "record 1 has label 10"),
    ],
)
def test_files_that_are_not_cifar_10_are_refused(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as error:
        LabelledExamples(Examples((path.name,), signals="images"), tmp_path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_an_array_that_the_format_lacks_is_refused(tmp_path: Path) -> None:
    write_batch(tmp_path / "a.bin", 1)
    with pytest.raises(ConfigError, match="holds images, labels, no fine_labels"):
        LabelledExamples(Examples(("a.bin",), signals="images", labels="fine_labels"), tmp_path)
