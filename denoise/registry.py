"""The tables: architectures that a recipe or a weights file can name, by what they are, and the bundled weights.

To add a model: write ``models/NAME.py`` with its Config above it, and add one line to `NETWORKS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from denoise.config import parse
from denoise.errors import ConfigError, WeightsError
from denoise.protocols import Codec, Network, Prior
from denoise.weights import Card, load_tensors, read_header

NETWORKS = {  # denoisers
    "conv-dae": ("denoise.models.conv_dae", "ConvDAE"),
    "dense-ae": ("denoise.models.dense_ae", "DenseAE"),
    "dpcrn": ("denoise.models.dpcrn", "DPCRN"),
    "speech-flow": ("denoise.models.speech_flow", "SpeechFlow"),
    "spectral-dae": ("denoise.models.spectral_dae", "SpectralDAE"),
}
CODECS = {
    "aae": ("denoise.models.autoencoder", "AAE"),
    "ae": ("denoise.models.autoencoder", "AE"),
    "mdct": ("denoise.models.mdct", "MDCT"),
    "spectral-codec": ("denoise.models.spectral_codec", "SpectralCodec"),
    "vae": ("denoise.models.autoencoder", "VAE"),
}
PRIORS = {
    "diffusion": ("denoise.priors.diffusion", "Diffusion"),
    "flow": ("denoise.priors.flows", "Flow"),
    "latent-prior": ("denoise.priors.latent", "LatentPrior"),
    "flow-matching": ("denoise.priors.flow_matching", "FlowMatching"),
}
ARCHITECTURES = NETWORKS | CODECS | PRIORS

PRETRAINED = Path(__file__).parent / "pretrained"
DEFAULTS = {"audio": "speech", "image": "photo"}
WITH_SIGMA = "gaussian"  # the image model for those who know their noise
WITH_DRAWS = "speech-flow"  # that of recordings for whom one answer is not enough


def bundled(**like: str) -> list[str]:
    """Names of the weights that come with the package; ``like`` says what their cards shall say (kind, modality)."""
    names = sorted(path.stem for path in PRETRAINED.glob("*.safetensors"))
    cards = {name: read_header(PRETRAINED / f"{name}.safetensors")["card"] for name in names} if like else {}
    return [name for name in names if all(getattr(cards[name], key) == value for key, value in like.items())]


def build(architecture: str, settings: Mapping[str, Any], where: str = "model") -> Any:
    """Make an untrained module: a `denoise.protocols` Network, Codec or Prior.

    Raises:
        ConfigError: the architecture is unknown, or a setting does not fit.
    """
    if architecture not in ARCHITECTURES:
        raise ConfigError(f"{where}: architecture {architecture!r}; expected one of {', '.join(ARCHITECTURES)}.")
    module_name, name = ARCHITECTURES[architecture]
    module = import_module(module_name)
    kind, config = getattr(module, name), parse(getattr(module, f"{name}Config"), settings, where)
    parts = {part: _part(getattr(config, part), f"{where}.{part}") for part in getattr(kind, "parts", ())}
    made = kind(config=config, **parts)
    if not isinstance(made, Network | Codec | Prior):  # told now, not when hours of training are to be written
        facts = [fact for fact, value in vars(Network).items() if isinstance(value, property)]
        lacking = [fact for fact in facts if not hasattr(made, fact)]
        raise TypeError(f"{name} is no denoise.protocols.Network: it lacks {', '.join(lacking)}.")
    return made


def _part(settings: Mapping[str, Any], where: str) -> Any:
    """One part of a module that is made of others; the settings of a part say its architecture, too."""
    rest = dict(settings)
    return build(str(rest.pop("architecture", "")), rest, where)


def kind_of(module: Any) -> str:
    """``"denoiser"``, ``"codec"`` or ``"prior"``, as cards say it."""
    return "prior" if isinstance(module, Prior) else "denoiser" if isinstance(module, Network) else "codec"


def locate(name_or_file: str | Path, **like: str) -> Path:
    """Find weights by a bundled name or by the path of a ``.safetensors`` file; ``like`` says which would fit.

    Raises:
        ConfigError: there is no such name and no such file.
    """
    name = str(name_or_file)
    if name in bundled():
        return PRETRAINED / f"{name}.safetensors"
    path = Path(name_or_file)
    if path.suffix == ".safetensors" or path.is_file():
        return path
    names = bundled(**like)
    expected = f"one of {', '.join(names)} or a" if names else "a"
    raise ConfigError(f"{like.get('kind', 'model')} {name!r} is unknown; expected {expected} .safetensors file.")


def version(name_or_file: str | Path) -> int:
    """A number that changes when the weights are written anew; 0 where there is no file."""
    path = locate(name_or_file)
    return path.stat().st_mtime_ns if path.exists() else 0


def load(name_or_file: str | Path, **like: str) -> tuple[Any, Card]:
    """Load a network, ready to run, with its card, which must say what ``like`` says.

    Raises:
        ConfigError: there is no such name, or it is of another kind or for the other modality.
        WeightsError: the file is missing, damaged, hostile or of another make.
    """
    path = locate(name_or_file, **like)
    header = read_header(path)
    card = header["card"]
    if any(getattr(card, key) != value for key, value in like.items()):
        wanted = " for ".join(like[key] for key in ("kind", "modality") if key in like)
        raise ConfigError(
            f"{name_or_file} is a {card.kind} for {card.modality}; expected a {wanted}. See `denoise models`."
        )
    try:
        with torch.device("meta"):  # shapes without memory: a hostile configuration cannot ask for terabytes
            module = build(card.architecture, header["config"], f"{path}: config")
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:  # ConfigError is a ValueError
        reason = " ".join(str(error).split())[:200].removeprefix(f"{path}: ")
        raise WeightsError(f"{path}: {reason} The file is damaged or of a newer release.") from None
    if kind_of(module) != card.kind:
        raise WeightsError(f"{path}: the card says {card.kind}, it is a {kind_of(module)}. Get it again.")
    channels = module.channels if card.kind == "denoiser" else module.event_shape[0]
    if channels != card.channels:
        raise WeightsError(f"{path}: the card says {card.channels} channels, the network {channels}. Get it again.")
    if card.kind == "denoiser" and module.blind != card.blind:
        raise WeightsError(f"{path}: card and network differ about sigma. Get it again.")
    load_tensors(path, module)
    return module.eval().requires_grad_(False).to(memory_format=torch.channels_last), card  # quicker on CPUs
