"""Protocols of denoisers, codecs, priors and classifiers: capabilities that callers test for with ``isinstance``."""

from __future__ import annotations

from denoise.protocols.classifiers import Classifier
from denoise.protocols.codecs import (
    Codec,
    LikelihoodCodec,
    OrthonormalCodec,
    StochasticCodec,
    Support,
    VariationalCodec,
)
from denoise.protocols.denoisers import (
    Denoiser,
    FlowNetwork,
    LatentSampler,
    Network,
    NoiseProfileNetwork,
    PosteriorDiagnostics,
    PosteriorSampler,
    Progress,
    StreamingNetwork,
    VariationalNetwork,
)
from denoise.protocols.priors import (
    DEFAULT_OPTIONS,
    Completer,
    DenoisingPrior,
    HasEstimatedLogProb,
    HasLogProb,
    HasLogProbBound,
    HasTrajectory,
    Label,
    NoiseDecoder,
    NoiseEncoder,
    Prior,
    SamplingOptions,
)

__all__ = [
    "DEFAULT_OPTIONS",
    "Classifier",
    "Codec",
    "Completer",
    "Denoiser",
    "DenoisingPrior",
    "FlowNetwork",
    "HasEstimatedLogProb",
    "HasLogProb",
    "HasLogProbBound",
    "HasTrajectory",
    "Label",
    "LatentSampler",
    "LikelihoodCodec",
    "Network",
    "NoiseDecoder",
    "NoiseEncoder",
    "NoiseProfileNetwork",
    "OrthonormalCodec",
    "PosteriorDiagnostics",
    "PosteriorSampler",
    "Prior",
    "Progress",
    "SamplingOptions",
    "StochasticCodec",
    "StreamingNetwork",
    "Support",
    "VariationalCodec",
    "VariationalNetwork",
]
