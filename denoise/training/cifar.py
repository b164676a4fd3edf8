"""Reader of the binary files of CIFAR-10."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise.errors import ConfigError

CLASSES, SIDE = 10, 32
RECORD = 1 + 3 * SIDE * SIDE  # bytes: the label, then the red, the green and the blue plane, row by row


def read_cifar(path: Path) -> dict[str, NDArray[Any]]:
    """Read images and labels of one file, such as ``data_batch_1.bin``.

    Args:
        path: file of whole records of 3073 bytes.

    Returns:
        ``images``, (n, 32, 32, 3), uint8, and ``labels``, (n,), uint8.

    Raises:
        ConfigError: the file cannot be read, is truncated or holds other labels than 0 to 9.

    Reference:
        Learning Multiple Layers of Features from Tiny Images, Krizhevsky, 2009.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Give --data the folder that holds it.") from None
    if not data or len(data) % RECORD:
        raise ConfigError(
            f"{path}: has {len(data)} bytes; expected records of {RECORD} bytes. Download the binary version of "
            "CIFAR-10 again."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    labels, planes = records[:, 0], records[:, 1:].reshape(-1, 3, SIDE, SIDE)
    if labels.max() >= CLASSES:
        raise ConfigError(
            f"{path}: record {int(labels.argmax())} has label {labels.max()}; expected 0 to {CLASSES - 1}. Give the "
            "binary version of CIFAR-10."
        )
    return {"images": np.moveaxis(planes, 1, -1), "labels": labels}
