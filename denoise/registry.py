"""The tables of architectures that recipes and weights files can name, and the bundled weights.

To add a network, codec, prior or classifier, write ``models/NAME.py`` or ``priors/NAME.py`` with its Config above its
class, and add one line to a table below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

from denoise.cards import RETRY, Card, read_header
from denoise.config import parse
from denoise.errors import ConfigError, WeightsError, shorten
from denoise.protocols import Classifier, Codec, Network, Prior

NETWORKS = {  # denoisers
    "conv-dae": ("denoise.models.conv_dae", "ConvDAE"),
    "dense-ae": ("denoise.models.dense_ae", "DenseAE"),
    "dpcrn": ("denoise.models.dpcrn", "DPCRN"),
    "noise-floor-dpcrn": ("denoise.models.noise_floor_dpcrn", "NoiseFloorDPCRN"),
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
PRIORS = {  # kinds of flows, such as "maf", "rad" or "glow", are settings of "flow" and "multiscale-flow"
    "autoregressive-flow": ("denoise.priors.autoregressive_flow", "AutoregressiveFlow"),
    "consistency-model": ("denoise.priors.consistency_model", "ConsistencyModel"),
    "ddgan": ("denoise.priors.ddgan", "DDGAN"),
    "ddpm": ("denoise.priors.ddpm", "DDPM"),
    "diffusion": ("denoise.priors.diffusion", "Diffusion"),
    "flow": ("denoise.priors.flows", "Flow"),
    "flow-matching": ("denoise.priors.flow_matching", "FlowMatching"),
    "gan": ("denoise.priors.gan", "GAN"),
    "latent-prior": ("denoise.priors.latent", "LatentPrior"),
    "multiscale-flow": ("denoise.priors.multiscale_flow", "MultiscaleFlow"),
    "patch-flow": ("denoise.priors.patch_flow", "PatchFlow"),
    "pixelcnn": ("denoise.priors.pixelcnn", "PixelCNN"),
    "pixelrnn": ("denoise.priors.pixelrnn", "PixelRNN"),
}
CLASSIFIERS = {"audio-classifier": ("denoise.models.audio_classifier", "AudioClassifier")}
ARCHITECTURES = NETWORKS | CODECS | PRIORS | CLASSIFIERS
PARTS = {  # fields of a configuration that describe submodules by their architecture and settings
    "autoregressive-flow": ("network",),
    "consistency-model": ("denoiser",),
    "latent-prior": ("codec", "prior"),
    "spectral-codec": ("codec",),
}
PROTOCOLS: tuple[tuple[Mapping[str, Any], Any], ...] = (
    (NETWORKS, Network),
    (CODECS, Codec),
    (PRIORS, Prior),
    (CLASSIFIERS, Classifier),
)
FACTORIES = {  # functions that build the class which the configuration or the submodules call for
    "flow": "build_flow",
    "latent-prior": "build_latent_prior",
    "multiscale-flow": "build_multiscale_flow",
    "spectral-codec": "build_spectral_codec",
}

Kind = Literal["denoiser", "codec", "prior", "classifier"]
Modality = Literal["audio", "image", "points"]

PRETRAINED = Path(__file__).parent / "pretrained"
DEFAULTS = {"audio": "speech", "image": "photo"}
SIGMA_MODEL = "gaussian"  # the image denoiser for white Gaussian noise of a given sigma, and the prior of samples
NOISE_MODEL = "photo"  # the image denoiser whose residual the noise is estimated from
SPEECH_MODELS = ("speech", "speech-best", "speech-flow")  # to which tones that last are noise, as they are not in music
GENERAL_MODEL = "general"  # the audio denoiser for recordings without speech, and with a noise profile
CLASSIFIER = "audio-kind"  # tells recordings of speech from others
POSTERIOR_MODEL = "speech-flow"  # the audio denoiser that samples the posterior
RESTORERS = {  # what --prior takes, of all that is bundled
    "audio": ("speech-prior",),
    "image": (
        "gaussian",
        "mnist-aae",
        "mnist-diffusion",
        "mnist-flow",
        "mnist-gan",
        "mnist-matching",
        "mnist-vae",
        "patch-flow",
    ),
}
POINT_MODEL = "shapes"  # the prior of point clouds, which denoises them


def bundled(kind: Kind | None = None, modality: Modality | None = None) -> list[str]:
    """List the names of the weights that come with the package.

    Args:
        kind: list the models of one kind only.
        modality: list models of one modality only.

    Returns:
        Names in alphabetical order.

    Raises:
        ConfigError: there is no such kind or modality.
    """
    for name, value, known in (("kind", kind, get_args(Kind)), ("modality", modality, get_args(Modality))):
        if value is not None and value not in known:
            raise ConfigError(f"{name} is {shorten(value)}; expected {', '.join(known)}.")
    names = sorted(path.stem for path in PRETRAINED.glob("*.safetensors"))
    if kind is None and modality is None:
        return names
    return [name for name in names if _fits(read_header(PRETRAINED / f"{name}.safetensors")["card"], kind, modality)]


def build(architecture: str, settings: Mapping[str, Any], where: str = "model") -> Any:
    """Build an untrained module.

    Args:
        architecture: key of `ARCHITECTURES`.
        settings: fields of its configuration.
        where: prefix of error messages.

    Returns:
        A `denoise.protocols.Network`, `Codec`, `Prior` or `Classifier`.

    Raises:
        ConfigError: the architecture is unknown, or a setting does not fit.
    """
    if architecture not in ARCHITECTURES:
        raise ConfigError(f"{where}: architecture {architecture!r}; expected one of {', '.join(ARCHITECTURES)}.")
    module_name, class_name = ARCHITECTURES[architecture]
    source = import_module(module_name)
    factory = getattr(source, FACTORIES.get(architecture, class_name))
    config = parse(getattr(source, f"{class_name}Config"), settings, where)
    parts = {name: _build_part(getattr(config, name), f"{where}.{name}") for name in PARTS.get(architecture, ())}
    module = factory(config=config, **parts)
    protocol = next(each for table, each in PROTOCOLS if architecture in table)
    if not isinstance(module, protocol):  # checked before hours of training, not at the export
        members = {name for base in protocol.__mro__ for name in vars(base) if not name.startswith("_")}
        missing = ", ".join(sorted(members - {*dir(module)}))
        raise ConfigError(f"{class_name} does not implement denoise.protocols.{protocol.__name__}: it lacks {missing}.")
    return module


def kind_of(module: Any) -> Kind:
    """Return the kind of a module as model cards state it."""
    if isinstance(module, Prior):
        return "prior"
    if isinstance(module, Network):
        return "denoiser"
    return "classifier" if isinstance(module, Classifier) else "codec"


def locate(
    name_or_file: str | Path,
    kind: Kind | None = None,
    modality: Modality | None = None,
    names: Sequence[str] | None = None,
) -> Path:
    """Find weights by a bundled name or by the path of a ``.safetensors`` file.

    Args:
        name_or_file: bundled name, or path.
        kind: kind of the names that the error message lists.
        modality: modality of the names that the error message lists.
        names: names that the error message lists instead.

    Raises:
        ConfigError: there is no such name and no such file.
    """
    check_name(name_or_file)
    name = str(name_or_file)
    if name in bundled():
        return PRETRAINED / f"{name}.safetensors"
    path = Path(name_or_file)
    if path.suffix == ".safetensors" or path.is_file():
        return path
    names = bundled(kind, modality) if names is None else names
    expected = f"one of {', '.join(names)} or a" if names else "a"
    raise ConfigError(f"{kind or 'model'} {name!r} is unknown; expected {expected} .safetensors file.")


def check_name(name_or_file: object) -> None:
    """Refuse what is neither the name of a model nor the path of a file.

    Args:
        name_or_file: any value.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(name_or_file, str | Path):
        raise ConfigError(f"model is {shorten(name_or_file)}; expected a bundled name or the path of a weights file.")


def weights_version(name_or_file: str | Path, kind: Kind | None = None, modality: Modality | None = None) -> int:
    """Return a number that changes when the weights file is rewritten; 0 if there is no file.

    Args:
        name_or_file: as in `locate`.
        kind: as in `locate`.
        modality: as in `locate`.

    Raises:
        ConfigError: as of `locate`.
    """
    path = locate(name_or_file, kind, modality)
    return path.stat().st_mtime_ns if path.exists() else 0


def load(
    name_or_file: str | Path,
    *,
    kind: Kind | tuple[Kind, ...] | None = None,
    modality: Modality | None = None,
) -> tuple[Any, Card]:
    """Load a model, ready for inference, with its card.

    Args:
        name_or_file: bundled name, or path of a weights file.
        kind: kind that the model must be of, or several; messages name the first.
        modality: modality that the model must be for.

    Returns:
        The module in evaluation mode on the CPU, without gradients, and its card.

    Raises:
        ConfigError: there is no such name, or the model is of another kind or for the other modality.
        WeightsError: the file is missing, damaged, hostile or of another release.
    """
    import torch  # the tables and the cards need none

    from denoise.weights import check_tensors, load_tensors

    kinds = (kind,) if isinstance(kind, str) else kind or (None,)
    path = locate(name_or_file, kinds[0], modality)
    header = read_header(path)
    card: Card = header["card"]
    if not any(_fits(card, each, modality) for each in kinds):
        required = " for ".join(word for word in (kinds[0], modality) if word)
        raise ConfigError(
            f"{name_or_file} is a {card.kind} for {card.modality}; expected a {required}. See `denoise models`."
        )
    with torch.device("meta"):  # shapes alone: a hostile configuration cannot make the process allocate terabytes
        check_tensors(path, _build_stored(path, card, header["config"]))
    # the initialisation does not advance the caller's random numbers; the CPU, whatever the default device is
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        module = _build_stored(path, card, header["config"])
    if kind_of(module) != card.kind:
        raise WeightsError(f"{path}: the card states {card.kind}, the module is a {kind_of(module)}. {RETRY}")
    channels = module.event_shape[0] if card.kind in ("codec", "prior") else module.channels
    if channels != card.channels:
        raise WeightsError(f"{path}: the card states {card.channels} channels, the network has {channels}. {RETRY}")
    if card.kind == "denoiser" and module.blind != card.blind:
        raise WeightsError(f"{path}: card and network disagree on whether sigma is an input. {RETRY}")
    load_tensors(path, module)
    module = module.float()  # masks and bases of the constructor, whatever the default dtype is
    return module.eval().requires_grad_(False).to(memory_format=torch.channels_last), card  # faster on CPUs


def _fits(card: Card, kind: Kind | None, modality: Modality | None) -> bool:
    return kind in (None, card.kind) and modality in (None, card.modality)


def _build_part(settings: Mapping[str, Any], where: str) -> Any:
    """Build a submodule whose settings name its architecture, too."""
    remaining = dict(settings)
    return build(str(remaining.pop("architecture", "")), remaining, where)


def _build_stored(path: Path, card: Card, config: Mapping[str, Any]) -> Any:
    """Build the module that a weights file describes."""
    try:
        return build(card.architecture, config, f"{path}: config")
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:  # ConfigError is a ValueError
        reason = " ".join(str(error).split())[:200].removeprefix(f"{path}: ")
        raise WeightsError(f"{path}: {reason} The file is damaged or of a newer release.") from None
