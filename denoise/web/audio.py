"""Audio jobs of the page: one file, denoised into its own format, and what the page plays."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

from denoise.config import config
from denoise.errors import ConfigError
from denoise.files.audio import AudioReader, AudioWriter
from denoise.options import AUDIO_STEPS, DenoiseOptions
from denoise.pipelines.audio import AudioPipeline, default_model, read_blocks
from denoise.pipelines.choice import AUTO
from denoise.protocols import Progress
from denoise.registry import bundled
from denoise.signals import AudioFormat
from denoise.web.files import denoise_upload, require_bundled
from denoise.web.jobs import Outcome, Work

PREVIEW_S = 300.0  # seconds that a page plays: five minutes of stereo take 230 MB in a browser


@config
class AudioRequest:
    """Query of an audio job; the options are those of `denoise.options.DenoiseOptions`.

    Args:
        model: name of a bundled denoiser, or ``"auto"``.
        strength: 0 to 1.
        attenuation_limit: dB, 0 or more.
        noise_start: start in seconds of a part that holds noise alone.
        noise_end: its end.
        preview: whether WAV files of at most `PREVIEW_S` of the input and the output are made for a page to play.
    """

    model: str = AUTO
    strength: float = 1.0
    attenuation_limit: float | None = None
    noise_start: float | None = None
    noise_end: float | None = None
    preview: bool = False

    def options(self) -> DenoiseOptions:
        """Return the options of the run.

        Raises:
            ConfigError: a value is out of range, or only one end of the noise is given.
        """
        if (self.noise_start is None) != (self.noise_end is None):
            raise ConfigError("noise_start and noise_end belong together: give both or none.")
        noise = None if self.noise_start is None or self.noise_end is None else (self.noise_start, self.noise_end)
        return DenoiseOptions(
            steps=AUDIO_STEPS,
            strength=self.strength,
            attenuation_limit=self.attenuation_limit,
            noise_profile=noise,
        )


def plan_audio(source: Path, request: AudioRequest) -> Work:
    """Return the work of an audio job, after a check of the request.

    Args:
        source: path of the file, alone in its folder.
        request: query of the job.

    Raises:
        ConfigError: an option is out of range, or there is no such bundled model.
    """
    options = request.options()
    require_bundled(request.model, [AUTO, *bundled("denoiser", "audio")])
    model = default_model(options) if request.model == AUTO else request.model
    return partial(_denoise, source, str(model), options, request.preview)


def _denoise(source: Path, model: str, options: DenoiseOptions, preview: bool, progress: Progress) -> Outcome:
    preview_writer = write_preview if preview else None
    pipeline = load_audio(model)
    return denoise_upload(pipeline, source, options, progress, preview_suffix=".wav", write_preview=preview_writer)


def write_preview(source: Path, target: Path) -> None:
    """Write the first `PREVIEW_S` of a recording as WAV of 16 bits, which every browser plays.

    Args:
        source: path of the recording.
        target: path of the WAV.

    Raises:
        InputError: the recording cannot be read.
    """
    with AudioReader(source) as reader:
        rate = reader.format.sample_rate
        with AudioWriter(target, AudioFormat(rate, reader.format.channels, "WAV", "PCM_16")) as writer:
            n_left = round(PREVIEW_S * rate)
            for block in read_blocks(reader, rate):
                writer.write(block[:, :n_left])
                n_left -= block.shape[1]
                if n_left <= 0:
                    break


@lru_cache(maxsize=4)
def load_audio(model: str) -> AudioPipeline:
    """Return the pipeline of a model, loaded once. Only the worker calls this."""
    return AudioPipeline(model)
