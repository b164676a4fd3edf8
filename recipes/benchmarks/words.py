"""Measure the error rate of a recogniser of spoken digits on clean, noisy and denoised recordings.

python recipes/benchmarks/words.py --data digits.npz --noise DIR/noise/test --models speech,speech-flow,speech-flow:5
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from audio import read_mono, system
from common import JsonFile, Models, Row, Threads, describe_environment, report, short_name, show_progress, use_threads
from generative import accuracy, read_archive, train_classifier
from numpy.typing import NDArray

RATE = 8000
SEED = 0


def noisy_words(words: Any, noises: list[Path], snr_db: float) -> NDArray[np.float32]:
    """Return one recording of all words, each mixed with a random segment of a random noise, (words * time,)."""
    import torch

    from denoise.noise import generator_for, scale_to_snr

    noisy = []
    for index, word in enumerate(words[:, 0]):
        generator = generator_for(SEED, index)
        noise = torch.from_numpy(read_mono(noises[int(torch.randint(len(noises), (), generator=generator))], RATE))
        noise = noise.repeat(-(-len(word) // len(noise)))
        start = int(torch.randint(len(noise) - len(word) + 1, (), generator=generator))
        hiss = 1e-5 * torch.randn(len(word), generator=generator)  # the noise may be silent
        noise = noise[start : start + len(word)] + hiss
        noisy.append(word + scale_to_snr(word, noise, snr_db))
    return torch.cat(noisy).numpy()


def main(
    data: Annotated[Path, typer.Option(help="Archive written by recipes/data/digits.py.", metavar="NPZ")],
    noise: Annotated[Path, typer.Option(help="Folder of noises outside the training data.", metavar="DIR")],
    models: Models = "speech,speech-best,speech-flow,speech-flow:5",
    snr: Annotated[str, typer.Option(help="dB, comma separated.")] = "-5,0,5,10",
    epochs: Annotated[int, typer.Option(help="Epochs of the recogniser.")] = 25,
    threads: Threads = 1,
    json_file: JsonFile = None,
) -> None:
    """Measure the error rates; print a table in Markdown and the protocol."""
    use_threads(threads)
    import torch

    from denoise.files.audio import AUDIO_EXTENSIONS
    from denoise.files.find import find_files

    torch.set_num_threads(threads)
    digits = read_archive(data, False)
    classifier, words, labels = train_classifier(digits, epochs), digits["test"], digits["test_labels"]
    noises = find_files(noise, (".",), AUDIO_EXTENSIONS)
    levels = snr.split(",")
    mixtures = {level: noisy_words(words, noises, float(level)) for level in show_progress(levels, "mixtures")}

    def error_rate(x: NDArray[np.float32]) -> float:
        return 100 * (1 - accuracy(classifier, torch.from_numpy(x).reshape(words.shape), labels))

    clean = words.flatten().numpy()
    systems: dict[str, Any] = {"noisy": lambda: lambda x, rate: x} | {name: system(name) for name in models.split(",")}
    table: list[Row] = [
        {"system": short_name(name), "clean": error_rate(start()(clean, RATE))}
        | {f"{level} dB": error_rate(start()(x, RATE)) for level, x in mixtures.items()}  # in its initial state
        for name, start in show_progress([*systems.items()], "systems")
    ]
    protocol = (
        f"errors in percent of {len(words)} spoken digits of {data.stem} (test), by a convolutional classifier "
        f"trained on clean recordings, {epochs} epochs; one recording of all of them at {RATE} Hz, each with a segment "
        f"of one of {len(noises)} noises, seed {SEED}; {describe_environment(['torch'])}"
    )
    report(table, protocol, dict.fromkeys(table[0], 1), json_file, {})


if __name__ == "__main__":
    typer.run(main)
