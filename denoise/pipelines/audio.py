"""Audio pipeline: file -> blocks -> model -> blocks -> file, and the choice of the model."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from denoise.backends import load_network, prefer_exported
from denoise.errors import ConfigError, InputError
from denoise.files.audio import (
    FLOATS,
    LFE,
    AudioReader,
    AudioSource,
    AudioWriter,
    EncodedTrack,
    RawFormat,
    channel_names,
    open_media_file,
)
from denoise.files.names import OUTPUT, check_file, file_name, open_bytes
from denoise.options import AUDIO_STEPS, BLOCK_S, Backend, DenoiseOptions, NoiseSource, Stereo
from denoise.pipelines.audio_run import STEP_S, AudioRun
from denoise.pipelines.choice import AUTO, AUTO_MODELS, GIVEN, ModelChoice, StereoChoice, Survey, survey_file
from denoise.pipelines.noise_floor import NoiseFloor, warn_of_loss
from denoise.pipelines.noise_segment import (
    NoisePrint,
    measure_noise_print,
    measure_profile,
    read_noise,
    require_noise_profile_network,
)
from denoise.pipelines.posterior import check_posterior
from denoise.pipelines.progress import progress_of_part
from denoise.pipelines.result import AUDIO_UNITS, Result
from denoise.protocols import ArrayStreamingNetwork, Device, Progress
from denoise.registry import DEFAULTS, GENERAL_MODEL, POSTERIOR_MODEL
from denoise.signals import AudioFormat, NetworkOverflowError, as_whole

MIN_S = 0.1  # of a recording: in less, noise cannot be told from sound


class AudioPipeline:
    """A loaded audio denoiser for files, bytes and streams of samples.

    Channels are never mixed down. A streaming network estimates one mask for a stereo pair whose channels correlate,
    and one for each channel otherwise; other networks denoise the channels one by one, or in pairs if they are stereo.

    Args:
        model: name of a bundled model or path of a weights file, or of one of `denoise export`; ``"auto"`` chooses
            ``speech`` or ``general`` for each file. `start` and `stream`, which have no file to examine, then use
            ``speech``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``, or a device of torch.
        block: seconds that a network without a state processes at a time, above 0. It bounds the memory and does not
            change the output.
        backend: ``"torch"``, ``"onnx"`` (onnxruntime, on CPUs: no posterior samples) or ``"auto"``, see
            `denoise.options.Backend`.

    Raises:
        ConfigError: the model is unknown or no audio denoiser, or a setting is out of range.
        WeightsError: the weights file is missing or damaged.
    """

    def __init__(
        self, model: str | Path = AUTO, *, device: Device = "auto", block: float = BLOCK_S, backend: str = "auto"
    ) -> None:
        self.chooses_model = model == AUTO
        if self.chooses_model:
            model = DEFAULTS["audio"]
        self._chosen: dict[str, AudioPipeline] = {str(model): self}  # loaded models by name
        if not 0 < block < math.inf:
            raise ConfigError(f"block is {block:g} s; expected more than 0.")
        self.block, self._device, self._backend = block, device, backend
        self.network, self.card = load_network(model, modality="audio", device=device, backend=backend)
        if self.card.sample_rate is None:
            raise ConfigError(f"{model}: the card has no sample rate. Export the model again.")
        self.sample_rate: int = self.card.sample_rate

    def denoise_file(
        self,
        source: str | Path | BinaryIO,
        target: str | Path | BinaryIO,
        options: DenoiseOptions,
        *,
        raw: RawFormat | None = None,
        progress: Progress | None = None,
        name: str | None = None,
        examine: bool = True,
    ) -> Result:
        """Denoise an audio file, as `file`.

        Args:
            source: path or binary file.
            target: path or binary file.
            options: options of the run.
            raw: as in `file`.
            progress: as in `file`.
            name: as in `file`.
            examine: whether a file is examined to choose the model and to compare two channels; a pipe never is.

        Returns:
            As `file`.
        """
        if self.chooses_model and options.noise_profile is not None:  # which decides
            general = self._load_chosen(GENERAL_MODEL)
            return general.denoise_file(source, target, options, raw=raw, progress=progress, name=name, examine=examine)
        self.check(options)
        if raw is not None:
            return self._denoise_recording(
                source, target, options, raw=raw, progress=progress, name=name, examine=examine
            )
        started = time.perf_counter()
        with open_media_file(source, target, overwrite=options.overwrite, name=name) as opened:
            if opened.media is None:
                return self._denoise_recording(
                    opened.source, target, options, progress=progress, name=opened.name, examine=examine
                )
            n = opened.media.n_tracks
            tracks = [
                self._denoise_recording(*track, options, progress=progress_of_part(progress, i, n), examine=examine)
                for i, track in enumerate(opened.media.tracks)
            ]
            warnings = opened.media.copy()
        return Result.combine_tracks(tracks, str(target), time.perf_counter() - started, warnings)

    def _denoise_recording(
        self,
        source: AudioSource,
        target: str | Path | BinaryIO | EncodedTrack,
        options: DenoiseOptions,
        *,
        raw: RawFormat | None = None,
        progress: Progress | None = None,
        name: str | None = None,
        examine: bool = True,
    ) -> Result:
        """Denoise an audio file, or an audio track of a media file."""
        started = time.perf_counter()
        survey = Survey()
        if examine and (self.chooses_model or (self.links_channels and options.linked is None)):
            survey = survey_file(source, raw, partial(self.new_survey, options=options))
        noise_profile = None
        if options.noise_profile is not None:
            noise = read_noise(source, options.noise_profile, raw=raw, name=name)
            noise_profile = measure_noise_print(self.network, self.card.name, *noise)
        with AudioReader(source, raw=raw, name=name) as reader:
            rate, frames = reader.format.sample_rate, reader.frames
            pipeline, model, options, stereo = self.choose(survey, reader.format.channels, options)
            warnings = []
            if frames is not None and is_too_short(frames, rate, options):
                options = replace(options, strength=0.0)
                warnings.append(
                    f"{1000 * frames / rate:.3g} ms are too short to tell noise from sound: left unchanged."
                )
                if self.chooses_model:
                    model = ModelChoice(model.model, "left unchanged")  # what it sounds like does not matter
            length = pipeline._live_length(rate) if reader.is_live else round(STEP_S * rate)
            channels = channel_names(reader.format)
            noise_before, noise_after = NoiseFloor(rate, len(channels)), NoiseFloor(rate, len(channels))
            run = pipeline.start(
                rate, options, noise_profile=noise_profile, live=reader.is_live, unchanged=find_unchanged(channels)
            )
            n_done = 0
            blocks = run.blocks(noise_before.measure(read_blocks(reader, length)))
            with AudioWriter(target, reader.format, overwrite=options.overwrite, raw=raw, frames=frames) as writer:
                try:
                    for block in noise_after.measure(blocks):
                        writer.write(block)
                        n_done += block.shape[1]
                        if progress and frames:
                            progress(min(1.0, n_done / frames))
                except NetworkOverflowError as error:
                    raise InputError(f"{reader.name}: {error}") from None
            loss = warn_of_loss(noise_before, noise_after, channels)
            return Result.from_diagnostics(
                replace(run.diagnostics(), noise_before=noise_before.level_db(), noise_after=noise_after.level_db()),
                AUDIO_UNITS,
                input=reader.name,
                output=file_name(target, OUTPUT),
                amount=n_done / rate,
                seconds=time.perf_counter() - started,
                warnings=[*reader.warnings, *writer.warnings, *warnings, *warn_of_clipping(reader, [writer]), *loss],
                model=model,
                stereo=stereo,
            )

    def measure_noise(self, noise: NDArray[Any], sample_rate: int) -> NDArray[Any]:
        """Measure the noise profile of a recording of noise alone, for models that take one.

        Args:
            noise: (channels, time), float32 or float64, full scale 1.0, at least 0.1 s.
            sample_rate: its sample rate in Hz.

        Returns:
            Mean power of the noise of each channel at the frequencies of the network, (channels, positions).

        Raises:
            ConfigError: the model takes no noise profile.
            InputError: the noise has another shape or type, or is silent, not finite or too short.
        """
        return measure_profile(self.network, self.card.name, noise, sample_rate)

    def __repr__(self) -> str:
        model = AUTO if self.chooses_model else self.card.name
        return f"{type(self).__name__}({model!r}, device={self.device!r})"

    @property
    def device(self) -> str:
        """What the network is computed on."""
        return self.network.device

    @property
    def links_channels(self) -> bool:
        """Whether the model can share one mask between channels."""
        return isinstance(self.network, ArrayStreamingNetwork)

    def new_survey(self, channels: int, options: DenoiseOptions) -> Survey:
        """Return a survey, for excerpts of a recording, of what is left to be chosen.

        Args:
            channels: channels of the recording.
            options: options of the run.
        """
        is_open = channels == 2 and options.linked is None and self.links_channels
        return Survey(chooses_model=self.chooses_model, compares_channels=is_open, backend=self._backend)

    def choose(
        self, survey: Survey, channels: int, options: DenoiseOptions
    ) -> tuple[AudioPipeline, ModelChoice, DenoiseOptions, StereoChoice | None]:
        """Choose what the options leave open.

        Args:
            survey: survey of excerpts, perhaps of none.
            channels: channels of the recording.
            options: options of the run.

        Returns:
            The pipeline to use and why; the options with linked or separate channels, and why.
        """
        if self.chooses_model:
            model = survey.model()
            pipeline = self._load_chosen(model.model)
        else:
            model = ModelChoice(self.card.name, self._reason(options))
            pipeline = self
        stereo = survey.stereo(channels, options.linked) if pipeline.links_channels else None
        if stereo is not None:
            options = replace(options, stereo="linked" if stereo.is_linked else "separate")
        return pipeline, model, options, stereo

    def _reason(self, options: DenoiseOptions) -> str:
        if options.noise_profile is not None:
            return "noise profile"
        return "posterior samples" if options.uses_posterior else GIVEN

    def _load_chosen(self, name: str) -> AudioPipeline:
        """Return the pipeline of another model with the settings of this one, loaded once."""
        if name not in self._chosen:
            self._chosen[name] = AudioPipeline(name, device=self._device, block=self.block, backend=self._backend)
        return self._chosen[name]

    def start(
        self,
        sample_rate: int,
        options: DenoiseOptions,
        seeds: Sequence[int] | None = None,
        noise_profile: NDArray[Any] | NoisePrint | None = None,
        *,
        live: bool = False,
        unchanged: Sequence[int] = (),
    ) -> AudioRun:
        """Start the denoising of one recording.

        Args:
            sample_rate: sample rate of the recording in Hz.
            options: options of the run.
            seeds: seeds of several posterior samples; None takes that of the options.
            noise_profile: as of `measure_noise`; None estimates the noise.
            live: whether its blocks come while they are recorded, so that none must wait for later ones.
            unchanged: channels, from 0, that pass unchanged.

        Returns:
            A run, of which `AudioRun.blocks` takes the blocks of the recording.

        Raises:
            InputError: the sample rate is out of range.
            ConfigError: the model does not support the options.
        """
        self.check(options)
        if noise_profile is not None:
            require_noise_profile_network(self.network, self.card.name)
        sample_rate = as_whole("sample rate", sample_rate)
        AudioFormat(sample_rate, 1)  # checks its range
        if seeds is None:
            seeds = (options.seed or 0,) if options.mix_weight else ()
        return AudioRun(self, sample_rate, options, tuple(seeds), noise_profile, live=live, unchanged=unchanged)

    def check(self, options: DenoiseOptions) -> None:
        """Refuse options that the model does not support.

        Args:
            options: options of a run.

        Raises:
            ConfigError: the model has no posterior samples, does not mix them with their mean, takes no noise profile,
                or cannot share one mask between channels.
        """
        check_posterior(self.network.facts, self.card.name, options)
        if options.noise_profile is not None:
            require_noise_profile_network(self.network, self.card.name)
        if options.linked is not None and not self.links_channels:
            raise ConfigError(
                f"model {self.card.name} denoises channels in groups of {self.card.channels}; linked and separate "
                "channels need a network that streams, such as speech."
            )

    def _live_length(self, sample_rate: int) -> int:
        """Samples that are read at a time from a live source, which must not wait."""
        return self.network.hop(sample_rate) if isinstance(self.network, ArrayStreamingNetwork) else sample_rate // 100

    def file(
        self,
        source: str | Path | BinaryIO,
        target: str | Path | BinaryIO,
        *,
        strength: float = 1.0,
        attenuation_limit: float | None = None,
        overwrite: bool = False,
        raw: RawFormat | None = None,
        progress: Progress | None = None,
        name: str | None = None,
        perception: float | None = None,
        steps: int = AUDIO_STEPS,
        seed: int | None = None,
        noise_profile: NoiseSource | None = None,
        stereo: Stereo = "auto",
    ) -> Result:
        """Denoise an audio file into another of the same format, block by block; a pipe as its bytes arrive.

        Args:
            source: path or binary file.
            target: path or binary file.
            strength: as in `denoise.options.DenoiseOptions`.
            attenuation_limit: as in `denoise.options.DenoiseOptions`, in dB.
            overwrite: whether an existing target is replaced.
            raw: format of source and target, if they are headerless PCM.
            progress: called with the finished fraction, 0 to 1, if the length is known.
            name: name of the source in messages, if it is no path.
            perception: as in `denoise.options.DenoiseOptions`, of models with posterior samples.
            steps: network calls per posterior sample.
            seed: seed of the posterior sample.
            noise_profile: as in `denoise.options.DenoiseOptions`, of models that take one.
            stereo: as in `denoise.options.DenoiseOptions`.

        Returns:
            Time, noise floors, the choices of model and channels, and warnings.

        Raises:
            InputError: the file cannot be read or the target cannot be written; no partial target remains.
            ConfigError: an option is out of range or the model does not support it.
        """
        options = DenoiseOptions(
            strength=strength,
            attenuation_limit=attenuation_limit,
            perception=perception,
            steps=steps,
            seed=seed,
            noise_profile=noise_profile,
            stereo=stereo,
            overwrite=overwrite,
        )
        check_file(source, "source")
        check_file(target, "target")
        return self.denoise_file(source, target, options, raw=raw, progress=progress, name=name)

    def bytes(
        self,
        data: bytes,
        *,
        strength: float = 1.0,
        attenuation_limit: float | None = None,
        raw: RawFormat | None = None,
        perception: float | None = None,
        steps: int = AUDIO_STEPS,
        seed: int | None = None,
        noise_profile: NoiseSource | None = None,
        stereo: Stereo = "auto",
    ) -> bytes:
        """Denoise an audio file in memory.

        Args:
            data: content of the file.
            strength: as in `file`.
            attenuation_limit: as in `file`.
            raw: as in `file`.
            perception: as in `file`.
            steps: as in `file`.
            seed: as in `file`.
            noise_profile: as in `file`.
            stereo: as in `file`.

        Returns:
            Content of a file of the same format.

        Raises:
            InputError: the data are no audio file.
        """
        options = DenoiseOptions(
            strength=strength,
            attenuation_limit=attenuation_limit,
            perception=perception,
            steps=steps,
            seed=seed,
            noise_profile=noise_profile,
            stereo=stereo,
        )
        target = io.BytesIO()
        self.denoise_file(open_bytes(data), target, options, raw=raw, name="audio bytes")
        return target.getvalue()

    def stream(
        self,
        chunks: Iterable[NDArray[Any]],
        sample_rate: int,
        *,
        strength: float = 1.0,
        attenuation_limit: float | None = None,
        perception: float | None = None,
        steps: int = AUDIO_STEPS,
        seeds: Sequence[int] | None = None,
        noise_profile: NDArray[Any] | None = None,
        stereo: Stereo = "auto",
        live: bool = True,
    ) -> Iterator[NDArray[Any]]:
        """Denoise chunks as they come; the output has the same total length and no delay.

        Args:
            chunks: (channels, any time) each, float32 or float64, full scale 1.0.
            sample_rate: sample rate in Hz.
            strength: as in `file`.
            attenuation_limit: as in `file`.
            perception: as in `file`.
            steps: as in `file`.
            seeds: seeds of several posterior samples, in place of their mean.
            noise_profile: as of `measure_noise`; None estimates the noise.
            stereo: as in `file`; chunks are not examined, so that ``"auto"`` links two channels.
            live: whether chunks come while they are recorded. Of a recording, False gives ``general`` the look-ahead of
                `file`, which keeps sounds that decay.

        Returns:
            Denoised chunks of any length, (channels, time); posterior samples are concatenated along the channels,
            (seeds * channels, time).

        Raises:
            InputError: shape, type or values of a chunk do not fit; chunks before it have been denoised.
            ConfigError: an option is out of range or the model does not support it.
        """
        options = DenoiseOptions(
            strength=strength,
            attenuation_limit=attenuation_limit,
            perception=perception,
            steps=steps,
            seed=seeds[0] if seeds else None,
            stereo=stereo,
        )
        return self.start(sample_rate, options, seeds, noise_profile, live=live).blocks(chunks)


def default_model(options: DenoiseOptions, otherwise: str | Path = AUTO) -> str | Path:
    """Return the model for a run: the one with posterior samples or a noise profile if that is requested.

    Args:
        options: options of the run.
        otherwise: the model if they are not.

    Returns:
        Its name.
    """
    if options.noise_profile is not None:
        return GENERAL_MODEL
    return POSTERIOR_MODEL if options.uses_posterior else otherwise


def preferred_backend(model: str | Path, device: Device) -> Backend:
    """Return the backend for runs without posterior samples that leave it open, see `prefer_exported`.

    Args:
        model: as of `AudioPipeline`.
        device: as of `AudioPipeline`.
    """
    return prefer_exported(AUTO_MODELS if model == AUTO else (model,), device)


def is_too_short(frames: int, sample_rate: int, options: DenoiseOptions) -> bool:
    """Tell whether a recording is too short for an estimate of its noise; it is left unchanged then.

    Args:
        frames: length of the recording in samples.
        sample_rate: in Hz.
        options: options of the run.
    """
    return frames < MIN_S * sample_rate and options.noise_profile is None and not options.uses_posterior


def find_unchanged(channels: Sequence[str]) -> list[int]:
    """Return the channels that are left unchanged: low-frequency effects, which the models would take for noise.

    Args:
        channels: names of the channels, as of `denoise.files.audio.channel_names`.
    """
    return [i for i, name in enumerate(channels) if name == LFE]


def warn_of_clipping(reader: AudioReader, writers: Sequence[AudioWriter], advice: str | None = None) -> list[str]:
    """Return a warning if samples over full scale were clipped, which float recordings and lossy codecs hold.

    Args:
        reader: reader of the source.
        writers: writers of what was written.
        advice: what to do; None says how to avoid the clipping.
    """
    n_over = sum(writer.n_over for writer in writers)
    if not n_over:
        return []
    if advice is None:
        keeps_floats = reader.format.subtype in FLOATS
        advice = f"{'Choose .wav, which keeps floats, or lower' if keeps_floats else 'Lower'} the recording first."
    over_db = 20 * math.log10(max(writer.peak for writer in writers))
    samples = f"{n_over:,} sample{'s' * (n_over > 1)}"
    clipped = f"clips {samples} over full scale, by at most {over_db:.2g} dB, as {writers[0].clips_as} has to"
    return [f"{reader.name}: {clipped}. {advice}"]


def read_blocks(reader: AudioReader, length: int) -> Iterator[NDArray[Any]]:
    """Read a recording block by block.

    Args:
        reader: reader of the file.
        length: length of each block but the last, in samples.

    Returns:
        Blocks, (channels, time).
    """
    while (block := reader.read(length)).shape[1]:
        yield block
