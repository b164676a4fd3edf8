"""Write the 8x8 digits that come with scikit-learn as training data: 1797 images, ten classes.

python recipes/data/digits8.py DIR/image/digits8.npz
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import typer


def main(out: Path) -> None:
    """Write ``images``, (1797, 8, 8), uint8, ``labels`` and ``names``."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)  # 17 levels, 0 to 16
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, images=images, labels=digits.target, names=names)


if __name__ == "__main__":
    typer.run(main)
