"""``denoise audio``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from denoise.cli.completion import model_names
from denoise.cli.params import (
    BackendOption,
    DeviceOption,
    InputsArgument,
    JsonLinesOption,
    OutputOption,
    OverwriteOption,
    SeedOption,
    SkipExistingOption,
    StrengthOption,
    given_options,
)
from denoise.errors import ConfigError
from denoise.options import (
    AUDIO_STEPS,
    AUDIO_TASKS,
    BLOCK_S,
    RESTORE_STEPS,
    STEREO,
    AudioRestoreOptions,
    DenoiseOptions,
    Stereo,
)

if TYPE_CHECKING:
    from denoise.files.audio import RawFormat
    from denoise.pipelines.result import Result
    from denoise.protocols import Progress

PANEL = "Restoration"


def audio(
    context: typer.Context,
    inputs: InputsArgument,
    out: OutputOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of a bundled model, or a .safetensors or .onnx file. By default, `speech` or `general` for each "
            "file, by what is heard in excerpts of it; `speech` for standard input.",
            metavar="NAME|FILE",
            autocompletion=model_names("denoiser", "audio"),
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            help="Restore by this prior: a diffusion or flow matching prior of mono audio, such as `speech-prior`.",
            metavar="NAME|FILE",
            autocompletion=model_names("prior", "audio", can_restore=True),
            rich_help_panel=PANEL,
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="What is undone: noise, clipping, gaps and clicks up to 100 ms (inpaint), or a missing upper band "
            "(extend). Declipping and inpainting need no prior.",
            metavar="|".join(AUDIO_TASKS),
            rich_help_panel=PANEL,
        ),
    ] = "denoise",
    sigma: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation of white noise, full scale 1, with --prior; by default the spectrum of the noise "
            "is estimated.",
            metavar="SIGMA",
            rich_help_panel=PANEL,
        ),
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(
            help="Level at which the recording is clipped, full scale 1; by default it is found.",
            metavar="LEVEL",
            rich_help_panel=PANEL,
        ),
    ] = None,
    gain: Annotated[
        float | None,
        typer.Option(
            help="Gain of a declipped recording, -60 to 0: restored peaks exceed full scale, which integers do not. "
            "By default -6 for integers that are clipped near full scale.",
            metavar="DB",
            rich_help_panel=PANEL,
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            help="What is missing: time ranges, as in 0:01.20-0:01.25,0:03-0:03.02, or a recording of the same length "
            "that is not 0 there; by default runs of zeros and clicks are found.",
            metavar="FROM-TO,...|FILE",
            rich_help_panel=PANEL,
        ),
    ] = None,
    band: Annotated[
        float | None,
        typer.Option(
            help="Frequency above which the recording holds nothing; by default it is found.",
            metavar="HZ",
            rich_help_panel=PANEL,
        ),
    ] = None,
    strength: StrengthOption = 1.0,
    attenuation_limit: Annotated[
        float | None, typer.Option(help="Maximum attenuation; 12 dB sounds natural.", metavar="DB")
    ] = None,
    noise_profile: Annotated[
        str | None,
        typer.Option(
            help="Part of the recording with noise alone, as in 0:00-0:02.5, or a recording of the noise. Selects the "
            "model `general`.",
            metavar="FROM-TO|FILE",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(help='Write spectrograms of input, output and removed signal; needs ".[compare]".', metavar="PNG"),
    ] = None,
    removed: Annotated[str | None, typer.Option(help="Write the removed signal.", metavar="WAV")] = None,
    perception: Annotated[
        float | None,
        typer.Option(
            help="Trade-off between distortion and perception: 0 is the posterior mean (MMSE), 1 a posterior sample. "
            "Selects the model `speech-flow`.",
            metavar="0..1",
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Write this many posterior samples, their mean and standard deviation.", min=0)
    ] = 0,
    steps: Annotated[
        int,
        typer.Option(
            help="Network calls per posterior sample, with --perception or --samples; "
            f"{RESTORE_STEPS} with --prior or --task."
        ),
    ] = AUDIO_STEPS,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    block: Annotated[
        float, typer.Option(help="Length of a block, for models that cannot stream.", metavar="SECONDS")
    ] = BLOCK_S,
    overwrite: OverwriteOption = False,
    skip_existing: SkipExistingOption = False,
    as_json: JsonLinesOption = False,
    rate: Annotated[int | None, typer.Option(help="Sample rate in Hz of raw PCM on standard input.")] = None,
    channels: Annotated[
        list[str] | None,
        typer.Option(
            help="`linked` channels share one mask, which keeps the stereo image; `separate` ones, as of two "
            "microphones, do not. By default, two channels are linked unless they hardly correlate. N is the number of "
            "channels of raw PCM on standard input; give --channels twice for both.",
            metavar="linked|separate|N",
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option("--format", help="Raw PCM on standard input: s16le, s24le, s32le, f32le, f64le or u8."),
    ] = None,
) -> None:
    """Remove noise from audio files.

    Without -o, NAME.denoised.EXT is written beside each input. Sample rate, channels, length, format,
    tags, pictures and markers are kept. Clipping, gaps and clicks are repaired by `--task declip` and
    `--task inpaint`.
    """
    from denoise.backends.malloc import return_freed_memory
    from denoise.cli.files import BatchOptions, denoise_files
    from denoise.cli.image import refuse
    from denoise.cli.interrupt import until_interrupted
    from denoise.cli.restore import restore_recordings
    from denoise.files.audio import AUDIO_EXTENSIONS
    from denoise.pipelines.audio import AudioPipeline, default_model, preferred_backend
    from denoise.pipelines.choice import AUTO
    from denoise.pipelines.compare import check_extras, compare_audio, write_removed
    from denoise.pipelines.noise_segment import parse_gaps, parse_noise_source
    from denoise.pipelines.samples import check_samples, write_audio_samples

    batch = BatchOptions(overwrite=overwrite, skip_existing=skip_existing, as_json=as_json)
    given = given_options(context, "steps", "seed")
    if task != "denoise" or prior is None:
        refuse({"--sigma": sigma}, "needs --prior" if task == "denoise" else f"is not for --task {task}")
    of_tasks = {"--limit": (limit, "declip"), "--gain": (gain, "declip"), "--mask": (mask, "inpaint")}
    for name, (value, own) in {**of_tasks, "--band": (band, "extend")}.items():
        refuse({name: None if own == task else value}, f"needs --task {own}")
    if prior is not None or task != "denoise":
        mode = "--prior" if task == "denoise" else f"--task {task}"
        only_denoising = {
            "--model": model,
            "--strength": strength != 1 or None,
            "--attenuation-limit": attenuation_limit,
            "--noise-profile": noise_profile,
            "--compare": compare,
            "--removed": removed,
            "--perception": perception,
            "--block": block != BLOCK_S or None,
            "--backend": None if backend == "auto" else backend,
            "--rate": rate,
            "--channels": channels,
            "--format": encoding,
        }
        refuse(only_denoising, f"is not for {mode}")
        if prior is None:
            refuse(given, "needs --prior")
        elif task == "denoise" and not samples:
            refuse(given, "needs --samples")
        restore_options = AudioRestoreOptions(
            task=task,  # type: ignore[arg-type]
            sigma=sigma,
            limit=limit,
            gain_db=gain,
            gaps=None if mask is None else parse_gaps(mask),
            band=band,
            steps=steps if "--steps" in given else RESTORE_STEPS,
            seed=seed,
            samples=samples,
            overwrite=overwrite,
        )
        check_samples(samples, inputs, out, {"--skip-existing": skip_existing or None})
        restore_recordings(inputs, out, prior, restore_options, batch, device=device)
        return
    if backend == "onnx":
        refuse({"--perception": perception, "--samples": samples or None}, "needs --backend torch")
    stereo, raw_channels = _parse_channels(channels or [])
    options = DenoiseOptions(
        stereo=stereo,
        steps=steps,
        strength=strength,
        attenuation_limit=attenuation_limit,
        perception=perception,
        seed=seed if samples or perception is not None else None,
        noise_profile=None if noise_profile is None else parse_noise_source(noise_profile),
        overwrite=overwrite,
    )
    if perception is None and not samples:
        refuse(given, "needs --perception or --samples")
    extra_outputs = {"--compare": compare, "--removed": removed}
    check_extras(extra_outputs, inputs, out, AUDIO_EXTENSIONS, overwrite=overwrite)
    raw = _parse_raw_format(inputs, rate, raw_channels, encoding)
    chosen_model = default_model(options) if model is None or model == AUTO else model
    if backend == "auto" and not options.uses_posterior:
        backend = preferred_backend(chosen_model, device)
    pipeline = AudioPipeline(chosen_model, device=device, block=block, backend=backend)
    pipeline.check(options)
    single_output_options: dict[str, Any] = {
        "--skip-existing": skip_existing or None,
        "raw PCM": raw,
        "--perception 0": perception == 0 or None,
    }
    check_samples(samples, inputs, out, extra_outputs | single_output_options)

    def denoise_file(source: Any, target: Any, progress: Progress, name: str | None) -> Result:
        if samples:
            return write_audio_samples(pipeline, source, target, samples, options, progress=progress, name=name)
        with until_interrupted(source) as interruptible:
            result = pipeline.denoise_file(
                interruptible,
                target,
                options,
                raw=raw,
                progress=progress,
                name=name,
                examine=isinstance(source, str),  # a pipe takes `speech`, also where it could be read twice
            )
        if removed:
            write_removed(source, target, removed, overwrite=overwrite)
        if compare:
            compare_audio(source, target, compare, overwrite=overwrite)
        return result

    return_freed_memory()
    denoise_files(inputs, out, AUDIO_EXTENSIONS, denoise_file, batch)


def _parse_channels(words: list[str]) -> tuple[Stereo, int | None]:
    """Return how channels are denoised, and the number of channels of raw PCM, from the words of --channels."""
    numbers = [int(word) for word in words if re.fullmatch(r"-?\d+", word)]
    names = [name for word in words for name in STEREO if word == name]
    if len(numbers) + len(names) < len(words) or max(len(numbers), len(names)) > 1:
        given = " and ".join(words)
        raise ConfigError(f"--channels is {given}; expected linked, separate or auto, and for raw PCM a number.")
    return names[0] if names else "auto", numbers[0] if numbers else None


def _parse_raw_format(
    inputs: list[str], rate: int | None, channels: int | None, encoding: str | None
) -> RawFormat | None:
    """Return the format of raw PCM on standard input, None for files with a header."""
    from denoise.files.audio import RawFormat

    if rate is None and channels is None and encoding is None:
        return None
    if rate is None or channels is None or encoding is None:
        raise ConfigError("raw PCM needs all three, as in --rate 48000 --channels 1 --format s16le.")
    if inputs != ["-"]:
        raise ConfigError("--rate, --channels and --format describe raw PCM from standard input: give - as INPUT.")
    return RawFormat(rate, channels, encoding)
