"""Whether words stay what they were: the error of a recogniser of spoken digits, of noisy and of denoised ones.

python recipes/benchmarks/words.py --data digits.npz --noise DIR/noise/test --models speech,speech-flow,speech-flow:5
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from audio import mono, system
from common import JsonFile, Models, Row, Threads, bar, report, short, use_threads, where
from numpy.typing import NDArray
from priors import accuracy, read, train_judge

RATE = 8000
SEED = 0


def noisy_words(words: Any, noises: list[Path], snr_db: float) -> NDArray[np.float32]:
    """One recording of all words, each with a random stretch of a random noise. Shape: (words * time,)."""
    import torch

    from denoise.noise import generator_for, scale_to_snr

    parts = []
    for index, word in enumerate(words[:, 0]):
        generator = generator_for(SEED, index)
        noise = torch.from_numpy(mono(noises[int(torch.randint(len(noises), (), generator=generator))], RATE))
        noise = noise.repeat(-(-len(word) // len(noise)))
        start = int(torch.randint(len(noise) - len(word) + 1, (), generator=generator))
        noise = noise[start : start + len(word)] + 1e-5 * torch.randn(len(word), generator=generator)  # of silence
        parts.append(word + scale_to_snr(word, noise, snr_db))
    return torch.cat(parts).numpy()


def main(
    data: Annotated[Path, typer.Option(help="Made by recipes/data/digits.py.", metavar="NPZ")],
    noise: Annotated[Path, typer.Option(help="A folder of noises that no model heard.", metavar="DIR")],
    models: Models = "speech,speech-best,speech-flow,speech-flow:5",
    snr: Annotated[str, typer.Option(help="dB, comma separated.")] = "-5,0,5,10",
    epochs: Annotated[int, typer.Option(help="Of the recogniser.")] = 25,
    threads: Threads = 1,
    json_file: JsonFile = None,
) -> None:
    """Measure the errors, and print a table in Markdown and the protocol."""
    use_threads(threads)
    import torch

    from denoise.files.audio import AUDIO_EXTENSIONS
    from denoise.files.find import find_files

    torch.set_num_threads(threads)
    digits = read(data, False)
    judge, words, labels = train_judge(digits, epochs), digits["test"], digits["test_labels"]
    noises = find_files(noise, (".",), AUDIO_EXTENSIONS)
    levels = snr.split(",")
    mixed = {level: noisy_words(words, noises, float(level)) for level in bar(levels, "mixes")}

    def wrong(x: NDArray[np.float32]) -> float:
        return 100 * (1 - accuracy(judge, torch.from_numpy(x).reshape(words.shape), labels))

    clean = words.flatten().numpy()
    systems: dict[str, Any] = {"noisy": lambda: lambda x, rate: x} | {name: system(name) for name in models.split(",")}
    table: list[Row] = [
        {"system": short(name), "clean": wrong(start()(clean, RATE))}
        | {f"{level} dB": wrong(start()(x, RATE)) for level, x in mixed.items()}  # each recording begins anew
        for name, start in bar([*systems.items()], "systems")
    ]
    protocol = (
        f"errors in percent of {len(words)} spoken digits of {data.stem} (test), judged by a convolutional classifier "
        f"that learnt the clean training recordings alone, {epochs} epochs; one recording of all of them at {RATE} Hz, "
        f"to each its own stretch of one of {len(noises)} noises, seed {SEED}; {where(['torch'])}"
    )
    report(table, protocol, dict.fromkeys(table[0], 1), json_file, {})


if __name__ == "__main__":
    typer.run(main)
