"""``denoise audio``."""

from __future__ import annotations

from typing import Annotated

import typer

from denoise.errors import ConfigError


def audio(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, or - for standard input.", metavar="INPUT...")],
    out: Annotated[
        str | None, typer.Option("-o", "--out", help="A file, a folder, or - for standard output.", metavar="OUT")
    ] = None,
    model: Annotated[
        str, typer.Option(help="A name of `denoise models` or a .safetensors file.", metavar="NAME|FILE")
    ] = "conv-dae-audio",
    strength: Annotated[float, typer.Option(help="0 leaves the file as it is, 1 removes all noise.")] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    block: Annotated[float, typer.Option(help="Seconds worked on at a time.", metavar="SECONDS")] = 20.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per file.")] = False,
    rate: Annotated[int | None, typer.Option(help="Raw PCM from -: sample rate in Hz.")] = None,
    channels: Annotated[int | None, typer.Option(help="Raw PCM from -: channels.")] = None,
    encoding: Annotated[
        str | None, typer.Option("--format", help="Raw PCM from -: s16le, s24le, s32le, f32le, f64le or u8.")
    ] = None,
) -> None:
    """Remove noise from recordings.

    Without -o, NAME.denoised.EXT is written beside each input. Sample rate, channels, length, format
    and tags stay as they were.
    """
    from denoise.cli.run import run
    from denoise.files.audio import AUDIO_EXTENSIONS, RawFormat
    from denoise.pipelines.audio import AudioPipeline
    from denoise.pipelines.result import check_strength

    check_strength(strength)
    given = [value is not None for value in (rate, channels, encoding)]
    if any(given) and not all(given):
        raise ConfigError("raw PCM needs --rate, --channels and --format together.")
    if any(given) and inputs != ["-"]:
        raise ConfigError("--rate, --channels and --format describe raw PCM from standard input: give - as INPUT.")
    raw = None
    if rate is not None and channels is not None and encoding is not None:
        raw = RawFormat(rate, channels, encoding)
    pipeline = AudioPipeline(model, device=device, block=block)
    run(
        inputs,
        out,
        AUDIO_EXTENSIONS,
        lambda source, target, progress, name: pipeline.file(
            source, target, strength=strength, overwrite=overwrite, raw=raw, progress=progress, name=name
        ),
        overwrite=overwrite,
        as_json=as_json,
    )
