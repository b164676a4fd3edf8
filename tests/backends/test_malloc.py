"""Memory of freed tensors: glibc itself says whether a large block has pages of its own, which it returns at once."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, json, sys

import numpy as np

from denoise.backends.malloc import keep_freed_memory, return_freed_memory
from denoise.pipelines.batch import engines
from denoise.pipelines.batch.file_options import KINDS
from denoise.pipelines.batch.items import Item
from denoise.pipelines.batch.worker import Task


class Info(ctypes.Structure):  # struct mallinfo2
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd".split() + [*"abcde"]]


libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info


def has_pages_of_its_own(n=24 << 20):
    mapped = libc.mallinfo2().hblkhd
    block = np.empty(n, np.uint8)
    return libc.mallinfo2().hblkhd - mapped >= block.nbytes


def by_command(modality):
    (keep_freed_memory if modality == "image" else return_freed_memory)()
    return has_pages_of_its_own()


def by_worker(modality):
    engines._worker = lambda task: has_pages_of_its_own()
    return engines.run_task(Task(Item("in", "out", modality, KINDS[modality](), "out"), overwrite=False))


run = {"command": by_command, "worker": by_worker}[sys.argv[1]]
print(json.dumps([run(modality) for modality in sys.argv[2:]]))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
@pytest.mark.parametrize("caller", ["command", "worker"])
def test_images_reuse_what_recordings_return(caller: str) -> None:
    """In any order, as the files of a batch come."""
    line = [sys.executable, "-c", PROGRAM, caller, "audio", "image", "audio", "audio", "image", "image"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout) == [True, False, True, True, False, False]
