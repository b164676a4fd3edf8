"""Write images of an archive as 32x32 images in the binary format of CIFAR-10, where CIFAR-10 itself is not at hand.

python recipes/data/cifar.py DIR/image/flowers48/flowers48.npz -o DIR/image/cifar-10-batches-bin

The images are dealt to ``data_batch_1.bin`` to ``data_batch_5.bin`` in turn; every tenth goes to ``test_batch.bin``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch.nn import functional as F


def main(
    archive: Annotated[Path, typer.Argument(help="Archive (.npz) with images (n, H, W, 3) and labels (n,), uint8.")],
    out: Annotated[Path, typer.Option("-o", help="Folder of the files.")],
    images: Annotated[str, typer.Option(help="Name of the array of images.")] = "images",
    labels: Annotated[str, typer.Option(help="Name of the array of labels.")] = "labels",
) -> None:
    """Write six files of records: a label, then the red, the green and the blue plane."""
    arrays = np.load(archive)
    x = torch.from_numpy(arrays[images]).permute(0, 3, 1, 2).float()
    planes = F.interpolate(x, (32, 32), mode="bicubic", antialias=True).clamp(0, 255).round().byte().numpy()
    records = np.concatenate([arrays[labels].astype(np.uint8)[:, None], planes.reshape(len(planes), -1)], axis=1)
    is_test = np.arange(len(records)) % 10 == 0
    out.mkdir(parents=True, exist_ok=True)
    (out / "test_batch.bin").write_bytes(records[is_test].tobytes())
    for i in range(5):
        (out / f"data_batch_{i + 1}.bin").write_bytes(records[~is_test][i::5].tobytes())


if __name__ == "__main__":
    typer.run(main)
