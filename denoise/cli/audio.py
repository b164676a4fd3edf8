"""``denoise audio``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from denoise.cli.shared import Device, Overwrite, Seed
from denoise.errors import ConfigError

if TYPE_CHECKING:
    from denoise.pipelines.result import Result
    from denoise.protocols import Progress


def audio(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, or - for standard input.", metavar="INPUT")],
    out: Annotated[
        str | None, typer.Option("-o", "--out", help="A file, a folder, or - for standard output.", metavar="OUT")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A name of `denoise models` or a .safetensors file.", metavar="NAME|FILE")
    ] = None,
    strength: Annotated[float, typer.Option(help="0 leaves the file as it is, 1 is all that the model does.")] = 1.0,
    attenuation_limit: Annotated[
        float | None,
        typer.Option(help="Take away at most this much; 12 sounds natural.", metavar="DB"),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(help='Spectrograms before, after and of what was removed; needs ".[compare]".', metavar="PNG"),
    ] = None,
    removed: Annotated[str | None, typer.Option(help="Write what was taken away.", metavar="WAV")] = None,
    perception: Annotated[
        float | None,
        typer.Option(
            help="From 0, the mean of all likely answers, which is cleanest, to 1, one of them (`speech-flow`).",
            metavar="0..1",
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="Write so many likely answers, their mean and deviation.", min=0)] = 0,
    steps: Annotated[int, typer.Option(help="With --perception, --samples: calls of the network on the way.")] = 5,
    seed: Seed = 0,
    device: Device = "auto",
    block: Annotated[
        float, typer.Option(help="Seconds at a time, of models that cannot stream.", metavar="SECONDS")
    ] = 20.0,
    overwrite: Overwrite = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Pass over inputs whose output exists: go on with a broken run.")
    ] = False,
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
    from denoise.cli.interrupt import until_interrupted
    from denoise.cli.run import run
    from denoise.files.audio import AUDIO_EXTENSIONS, RawFormat
    from denoise.pipelines.audio import AudioPipeline
    from denoise.pipelines.compare import check_extras, compare_audio, write_removed
    from denoise.pipelines.result import limited_strength
    from denoise.pipelines.samples import check_samples, draw_audio
    from denoise.registry import DEFAULTS, POSTERIOR_MODEL

    limited_strength(strength, attenuation_limit)
    extras = {"--compare": compare, "--removed": removed}
    check_extras(extras, inputs, out, AUDIO_EXTENSIONS, overwrite=overwrite)
    given = [value is not None for value in (rate, channels, encoding)]
    if any(given) and not all(given):
        raise ConfigError("raw PCM needs all three, as in --rate 48000 --channels 1 --format s16le.")
    if any(given) and inputs != ["-"]:
        raise ConfigError("--rate, --channels and --format describe raw PCM from standard input: give - as INPUT.")
    raw = None
    if rate is not None and channels is not None and encoding is not None:
        raw = RawFormat(rate, channels, encoding)
    drawing = samples or perception is not None
    pipeline = AudioPipeline(model or (POSTERIOR_MODEL if drawing else DEFAULTS["audio"]), device=device, block=block)
    pipeline.check_drawing(perception, steps, samples or None)
    check_samples(
        pipeline,
        samples,
        inputs,
        out,
        extras | {"--skip-existing": skip_existing or None, "raw PCM": raw, "--perception 0": perception == 0 or None},
    )

    def one(source: Any, target: Any, progress: Progress, name: str | None) -> Result:
        if samples:
            part = limited_strength(strength, attenuation_limit)
            how: dict[str, Any] = {"strength": part, "overwrite": overwrite, "progress": progress, "name": name}
            how |= {"perception": perception, "steps": steps}
            return draw_audio(pipeline, source, target, samples, seed=seed, **how)
        with until_interrupted(source) as pipe:
            result = pipeline.file(
                pipe,
                target,
                strength=strength,
                attenuation_limit=attenuation_limit,
                overwrite=overwrite,
                raw=raw,
                progress=progress,
                name=name,
                perception=perception,
                steps=steps,
                draw=None if perception is None else seed,
            )
        if removed:
            write_removed(source, target, removed, overwrite=overwrite)
        if compare:
            compare_audio(source, target, compare, overwrite=overwrite)
        return result

    run(inputs, out, AUDIO_EXTENSIONS, one, overwrite=overwrite, skip_existing=skip_existing, as_json=as_json)
