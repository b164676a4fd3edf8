"""The choice of the model for a recording, and of whether its two channels share one mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise.backends import load_classifier
from denoise.errors import InputError
from denoise.files.audio import AudioSource, RawFormat
from denoise.pipelines.excerpts import is_pipe, open_preview, read_excerpts
from denoise.pipelines.stereo import MIN_CORRELATION, ChannelCorrelation
from denoise.protocols import ArrayClassifier
from denoise.registry import CLASSIFIER, DEFAULTS, GENERAL_MODEL, bundled

AUTO = "auto"
AUTO_MODELS = (DEFAULTS["audio"], GENERAL_MODEL, CLASSIFIER)  # which it may need
GIVEN = "given"  # reason of a model that the user names
BY_DEFAULT = "default"  # reason of one that nothing speaks against
SPEECH = "speech"  # name of the class
MIN_SPEECH = 0.4  # fraction of the excerpts with speech that makes a recording one of speech
SOME_SPEECH = 0.15  # fraction that a voice taken for something else may have
MIN_POWER = 1e-9  # excerpts below -90 dB of full scale hold nothing to judge
RELATIVE_MIN_POWER = 1e-5  # nor do those 50 dB below the loudest


@dataclass(frozen=True)
class ModelChoice:
    """The model of a recording or an image, and why it is taken.

    Args:
        model: name of the model.
        reason: a few words.
        speech_fraction: estimated fraction of the excerpts with speech, the mean of its probability, 0 to 1; None if
            none was examined.
    """

    model: str
    reason: str
    speech_fraction: float | None = None

    @property
    def may_be_speech(self) -> bool:
        """Whether another model than that of speech was chosen, although there is some speech."""
        return self.speech_fraction is not None and SOME_SPEECH <= self.speech_fraction < MIN_SPEECH


@dataclass(frozen=True)
class StereoChoice:
    """Whether the channels of a recording share one mask.

    Args:
        is_linked: whether they do.
        correlation: correlation of two channels, -1 to 1; None if it was not measured.
    """

    is_linked: bool
    correlation: float | None = None


def can_choose() -> bool:
    """Return whether there is more than one model to choose from."""
    return GENERAL_MODEL in bundled()


class Survey:
    """What excerpts of a recording show.

    Args:
        chooses_model: whether it is to choose a model.
        compares_channels: whether it is to compare the channels of the recording, which are two.
        backend: of the classifier, see `denoise.options.Backend`.
    """

    def __init__(self, *, chooses_model: bool = False, compares_channels: bool = False, backend: str = "auto") -> None:
        self._classifier = audio_classifier(backend) if chooses_model and can_choose() else None
        self._powers: list[float] = []
        self._probabilities: list[NDArray[Any]] = []
        self._correlation = ChannelCorrelation() if compares_channels else None

    def examine(self, excerpts: Iterable[NDArray[Any]], sample_rate: int) -> None:
        """Examine excerpts, unless there is nothing to choose.

        Args:
            excerpts: excerpts, (channels, time) each, full scale 1.0.
            sample_rate: their rate in Hz.
        """
        if self._classifier is not None or self._correlation is not None:
            for excerpt in excerpts:
                self._add(excerpt, sample_rate)

    def _add(self, x: NDArray[Any], sample_rate: int) -> None:
        if self._correlation:
            self._correlation.add(x, sample_rate)
        if self._classifier is not None:
            self._powers.append(float(np.square(x, dtype=np.float64).mean()))
            excerpt = np.asarray(x, np.float32)[None]
            self._probabilities.append(self._classifier.probabilities(excerpt, sample_rate=sample_rate)[0])

    def model(self) -> ModelChoice:
        """Return the model: that of speech if a fair part of the excerpts hold speech, and if all are silent."""
        powers = np.array(self._powers)
        is_audible = powers > max(MIN_POWER, RELATIVE_MIN_POWER * powers.max(initial=0.0))
        if self._classifier is None or not is_audible.any():
            return ModelChoice(DEFAULTS["audio"], "silence" if len(powers) else BY_DEFAULT)
        names = self._classifier.class_names
        probabilities, speech = np.stack(self._probabilities)[is_audible], names.index(SPEECH)
        fraction = float(probabilities[:, speech].mean())
        found = f"speech in {100 * fraction:.0f} % of the excerpts" if fraction >= 0.005 else "no speech"
        if fraction >= MIN_SPEECH:
            return ModelChoice(DEFAULTS["audio"], found, fraction)
        others = [name for name in names if name != SPEECH]
        other = others[int(np.delete(probabilities, speech, axis=1).mean(axis=0).argmax())]
        return ModelChoice(GENERAL_MODEL, f"{other}, {found}", fraction)

    def stereo(self, channels: int, linked: bool | None) -> StereoChoice | None:
        """Return whether channels share a mask: two do unless they hardly correlate; None for a single one.

        Args:
            channels: channels of the recording.
            linked: what the user asks for; None for nothing.
        """
        if channels == 1:
            return None
        if linked is not None or channels > 2:
            return StereoChoice(bool(linked))
        correlation = self._correlation.value() if self._correlation else None
        return StereoChoice(correlation is None or correlation >= MIN_CORRELATION, correlation)


def survey_file(source: AudioSource, raw: RawFormat | None, new_survey: Callable[[int], Survey]) -> Survey:
    """Examine excerpts of a file; a pipe, and what cannot be read, is not examined.

    Args:
        source: path, binary file, or audio track.
        raw: format of headerless PCM.
        new_survey: returns the survey for a number of channels.
    """
    survey = Survey()
    if not is_pipe(source):
        with suppress(InputError), open_preview(source, raw=raw) as reader:  # whoever denoises it reports the error
            survey = new_survey(reader.format.channels)
            survey.examine(read_excerpts(reader), reader.format.sample_rate)
    return survey


@cache
def audio_classifier(backend: str = "auto") -> ArrayClassifier:
    """Load the bundled classifier of audio, once.

    Args:
        backend: see `denoise.options.Backend`.
    """
    return load_classifier(CLASSIFIER, backend=backend)
