"""Denoising of NumPy arrays and tensors in memory, with models that are loaded once."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from denoise.errors import ConfigError, InputError
from denoise.options import AUDIO_STEPS, IMAGE_STEPS, DenoiseOptions, NoiseSource, Sigma, Stereo, check_number
from denoise.pipelines import audio, image
from denoise.pipelines.audio import AudioPipeline
from denoise.pipelines.choice import AUTO
from denoise.pipelines.excerpts import slice_excerpts
from denoise.pipelines.image import ImagePipeline
from denoise.pipelines.noise_segment import cut_noise, measure_noise_print
from denoise.protocols import Device
from denoise.registry import DEFAULTS, POINT_MODEL, Kind, Modality, weights_version
from denoise.signals import MAX_CHANNELS, AudioFormat, Image, as_whole, require_finite_samples

if TYPE_CHECKING:
    from torch import Tensor

    from denoise.pipelines.points import PointPipeline

Array = TypeVar("Array", bound="NDArray[Any] | Tensor")


def denoise_audio(
    samples: Array,
    sample_rate: int,
    *,
    model: str | Path | AudioPipeline | None = None,
    strength: float = 1.0,
    attenuation_limit: float | None = None,
    perception: float | None = None,
    steps: int = AUDIO_STEPS,
    seed: int | None = 0,
    stereo: Stereo = "auto",
    device: Device = "auto",
    noise_profile: NoiseSource | None = None,
) -> Array:
    """Denoise audio in memory; container, dtype and shape are kept.

    Args:
        samples: array (time,) or (channels, time), as of librosa, or tensor (channels, time) or (batch, channels,
            time). Integers (int16, int32) have the full scale of their type, floats 1.0; floats are not clipped.
        sample_rate: sample rate in Hz.
        model: name of a bundled model, path of a weights file, or a loaded pipeline; None selects ``speech``, or, with
            ``perception``, the model with posterior samples. ``"auto"`` chooses ``speech`` or ``general`` for each item
            of a batch, as for files; it is not the default, because parts of one recording must not be denoised by
            different models.
        strength: as in `denoise.options.DenoiseOptions`.
        attenuation_limit: as in `denoise.options.DenoiseOptions`, in dB.
        perception: as in `denoise.options.DenoiseOptions`, from the posterior mean (0) to a posterior sample (1).
        steps: network calls per posterior sample.
        seed: seed of the posterior sample, None is 0; each item of a batch adds 1 to it.
        stereo: as in `denoise.options.DenoiseOptions`.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``, or a device of torch, for a model that is loaded here.
        noise_profile: as in `denoise.options.DenoiseOptions`; selects ``general``.

    Returns:
        Denoised samples in new memory; less than 0.1 s comes back unchanged, unless ``noise_profile`` or
        ``perception`` is set.

    Raises:
        InputError: shape, dtype, sample rate or values do not fit.
        ConfigError: the model is unknown, an option is out of range or the model does not support it.
    """
    options = DenoiseOptions(
        strength=strength,
        attenuation_limit=attenuation_limit,
        perception=perception,
        steps=steps,
        seed=None if perception is None else seed,
        stereo=stereo,
        noise_profile=noise_profile,
    )
    x = _to_array(samples)
    channels = _check_audio(x, is_tensor=_is_tensor(samples))
    sample_rate = as_whole("sample rate", sample_rate)
    AudioFormat(sample_rate, channels)  # checks the range of the sample rate
    if model is None or model == AUTO:
        model = audio.default_model(options, otherwise=model or DEFAULTS["audio"])
    if isinstance(model, AudioPipeline):
        _require_defaults(device=device)
        pipeline = model
    else:
        pipeline = _audio_pipeline(model, _version(model, "denoiser", "audio"), device)
    pipeline.check(options)
    if options.limited_strength == 0:
        return cast(Array, cast(Any, samples).clone() if _is_tensor(samples) else x.copy())
    is_float = np.issubdtype(x.dtype, np.floating)
    scale = 1.0 if is_float else -float(np.iinfo(x.dtype).min)
    denoised = np.empty_like(x).reshape(-1, channels, x.shape[-1])
    for i, item in enumerate(x.reshape(denoised.shape)):
        item_float = item.astype(np.float32 if x.dtype in (np.float32, np.float16, np.int16) else np.float64) / scale
        require_finite_samples(item_float)
        if audio.is_too_short(x.shape[-1], sample_rate, options):
            denoised[i] = item
            continue
        survey = pipeline.new_survey(channels, options)
        survey.examine(slice_excerpts(item_float, sample_rate), sample_rate)
        chosen, _, item_options, _ = pipeline.choose(survey, channels, options)
        profile = None
        if noise_profile is not None:
            noise = cut_noise(item_float, sample_rate, noise_profile)
            profile = measure_noise_print(chosen.network, chosen.card.name, *noise)
        run = chosen.start(sample_rate, item_options, [(options.seed or 0) + i] if options.mix_weight else [], profile)
        y = np.concatenate([*run.blocks([item_float])], axis=1) * scale
        denoised[i] = y if is_float else np.rint(y).clip(-scale, scale - 1)
    return _in_container(denoised.reshape(x.shape), samples)


def denoise_image(
    pixels: Array,
    sigma: Sigma = None,
    *,
    model: str | Path | ImagePipeline | None = None,
    strength: float = 1.0,
    luminance: float = 1.0,
    colour: float = 1.0,
    detail: float = 0.0,
    perception: float | None = None,
    steps: int = IMAGE_STEPS,
    seed: int | None = 0,
    tile: int | None = None,
    device: Device = "auto",
) -> Array:
    """Denoise an image in memory; container, dtype and shape are kept.

    Args:
        pixels: array (height, width) or (height, width, 1 or 3), or tensor (1 or 3, height, width) or (batch, 1 or 3,
            height, width). Integers have the full scale of their type (uint8 255, uint16 65535), floats 1.0; floats may
            exceed [0, 1] and are not clipped, and floats in other units, such as 0 to 4095, are scaled internally.
        sigma: standard deviation of white noise in the units of ``pixels``; ``"auto"`` and None estimate the noise.
        model: name of a bundled model, path of a weights file, or a loaded pipeline, which keeps its device and its
            tiles; None selects ``photo``, ``gaussian`` where white noise is found, as
            `denoise.pipelines.image.ImagePipeline` does, and ``gaussian`` with ``perception``.
        strength: as in `denoise.options.DenoiseOptions`.
        luminance: as in `denoise.options.DenoiseOptions`.
        colour: as in `denoise.options.DenoiseOptions`.
        detail: as in `denoise.options.DenoiseOptions`.
        perception: as in `denoise.options.DenoiseOptions`, from the posterior mean (0) to a posterior sample (1).
        steps: network calls per posterior sample.
        seed: seed of the posterior sample, None is 0; each image of a batch adds 1 to it.
        tile: as in `denoise.pipelines.image.ImagePipeline`.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``, or a device of torch.

    Returns:
        Denoised pixels in new memory.

    Raises:
        InputError: shape, dtype or values do not fit.
        ConfigError: the model is unknown, an option is out of range or the model does not support it.

    >>> import numpy as np
    >>> noisy = np.full((8, 8, 3), 128, np.uint8)
    >>> denoise_image(noisy).shape
    (8, 8, 3)
    """
    x = _to_array(pixels)
    dtype = x.dtype
    x = x.astype(dtype.newbyteorder("="), copy=False)
    frames = as_frames(x, is_tensor=_is_tensor(pixels))
    is_float = np.issubdtype(x.dtype, np.floating)
    scale = 1.0 if is_float else float(np.iinfo(x.dtype).max)
    if sigma is not None and not isinstance(sigma, str):
        check_number("sigma", sigma)
        if not is_float and not 0 <= sigma <= scale:
            raise ConfigError(f"sigma is {sigma:g}; expected 0 to {scale:g}, the range of the pixels.")
        sigma = sigma / scale
    options = DenoiseOptions(
        strength=strength,
        luminance=luminance,
        colour=colour,
        detail=detail,
        sigma=sigma,
        perception=perception,
        steps=steps,
        seed=None if perception is None else seed,
    )
    model = image.default_model(options) if model is None else model
    if isinstance(model, ImagePipeline):
        _require_defaults(device=device, tile=tile)
        pipeline = model
    else:
        pipeline = _image_pipeline(model, _version(model, "denoiser", "image"), device, tile)
    denoised = np.empty_like(frames)
    for i, frame in enumerate(frames):
        noisy = Image(np.ascontiguousarray(frame, np.float32 if is_float else None))
        frame_options = replace(options, seed=None if perception is None else (seed or 0) + i)
        denoised[i] = pipeline.denoise_frame(noisy, frame_options)[0].pixels
    if strength == 0:  # bit by bit, whatever the type
        denoised = frames.copy()
    if _is_tensor(pixels):
        return _in_container(np.ascontiguousarray(np.moveaxis(denoised, -1, 1).reshape(x.shape)), pixels)
    return cast(Array, np.ascontiguousarray(denoised.reshape(x.shape), dtype))


def denoise_points(
    points: Array,
    sigma: float | Literal["auto"] | None = None,
    *,
    model: str | Path | None = None,
    device: Device = "auto",
) -> Array:
    """Denoise a point cloud in memory; container, dtype and the order of the points are kept.

    Args:
        points: coordinates in any unit, array or tensor (n, 3) of floats.
        sigma: standard deviation of the noise of each coordinate, as a fraction of the diagonal of the bounding box of
            ``points``; ``"auto"`` and None estimate it.
        model: name of a bundled prior of point clouds, or path of a weights file; None selects ``shapes``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``, or a device of torch.

    Returns:
        Denoised coordinates in new memory, (n, 3).

    Raises:
        InputError: shape, dtype or values do not fit.
        ConfigError: the model is unknown, or sigma is out of range.
    """
    x = _to_array(points)
    if not np.issubdtype(x.dtype, np.floating):
        raise InputError(f"points are {x.dtype}; expected a float type.")
    if sigma == "auto":
        sigma = None
    if sigma is not None:
        check_number("sigma", sigma)
    model = POINT_MODEL if model is None else model
    pipeline = _point_pipeline(model, _version(model, "prior", "points"), device)
    denoised, _ = pipeline.denoise(x.astype(np.float64), sigma)
    return _in_container(denoised if _is_tensor(points) else denoised.astype(x.dtype), points)


def _is_tensor(x: Any) -> bool:
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)  # who has a tensor has imported all of torch
    return tensor is not None and isinstance(x, tensor)


def _to_array(x: Any) -> Any:
    if np.ma.isMaskedArray(x):
        raise InputError("the array is masked, and the mask would be lost. Give x.filled(...) or x.data.")
    if not _is_tensor(x):
        return np.asarray(x)
    import torch

    from denoise.backends.device import as_numpy

    if x.layout != torch.strided:
        raise InputError(f"the tensor has layout {x.layout}; expected a dense one. Give x.to_dense().")
    if x.is_meta:
        raise InputError("the tensor is on the device meta, which holds no values; expected one with values.")
    return as_numpy(x)


def _in_container(result: NDArray[Any], like: Array) -> Array:
    """Return a result as a tensor, of type and device of another one, if that is one."""
    if not _is_tensor(like):
        return cast(Array, result)
    import torch

    return cast(Array, torch.from_numpy(result).to(cast("Tensor", like)))


def _check_audio(x: NDArray[Any], *, is_tensor: bool) -> int:
    """Check shape and dtype, and return the number of channels."""
    if x.ndim not in ((2, 3) if is_tensor else (1, 2)) or 0 in x.shape:
        expected = "(channels, time) or (batch, channels, time)" if is_tensor else "(time,) or (channels, time)"
        raise InputError(f"samples have shape {x.shape}; expected {expected}, none of them 0.")
    channels = x.shape[-2] if x.ndim > 1 else 1
    if channels > MAX_CHANNELS:
        remedy = " Transpose them." if x.shape[-1] <= MAX_CHANNELS else ""
        raise InputError(f"samples have shape {x.shape}; expected at most {MAX_CHANNELS} channels, then time.{remedy}")
    if not np.issubdtype(x.dtype, np.floating) and x.dtype.newbyteorder("=") not in (np.int16, np.int32):
        raise InputError(f"samples are {x.dtype}; expected int16, int32 or a float type.")
    return channels


def as_frames(x: NDArray[Any], *, is_tensor: bool = False) -> NDArray[Any]:
    """Check shape and dtype of pixels, and return them as frames.

    Args:
        x: as of `denoise_image`, in the byte order of the machine.
        is_tensor: whether they were a tensor.

    Returns:
        View, (n, height, width, channels).

    Raises:
        InputError: shape, dtype or values do not fit.
    """
    shape = x.shape
    if 0 in shape[-3:]:
        raise InputError(f"pixels have shape {shape}; expected none of them 0.")
    if is_tensor:
        if x.ndim not in (3, 4) or shape[-3] not in (1, 3):
            raise InputError(f"tensor has shape {shape}; expected (1 or 3, height, width), with an optional batch.")
        frames = np.moveaxis(x.reshape(-1, *shape[-3:]), 1, -1)
    else:
        if x.ndim not in (2, 3) or (x.ndim == 3 and shape[2] not in (1, 3)):
            raise InputError(
                f"array has shape {shape}; expected (height, width) or (height, width, 1 or 3). Give the colours of "
                "one image, without alpha."
            )
        frames = x.reshape(1, *shape[:2], -1 if x.ndim == 3 else 1)
    if not np.issubdtype(x.dtype, np.floating) and x.dtype not in (np.uint8, np.uint16):
        raise InputError(f"pixels are {x.dtype}; expected uint8, uint16 or a float type. Convert them with astype.")
    limit = np.finfo(np.float32).max
    if x.dtype.itemsize > 4 and x.size and np.isfinite(x).all() and max(-x.min(), x.max()) > limit:
        raise InputError(f"pixels range from {x.min():.3g} to {x.max():.3g}; expected at most {limit:.3g}. Scale them.")
    return frames


def _version(model: str | Path, kind: Kind, modality: Modality) -> int:
    """The version of the weights of a model, so that new weights are loaded again."""
    return 0 if model == AUTO else weights_version(model, kind, modality)


def _require_defaults(device: Device, tile: int | None = None) -> None:
    """Refuse settings that a loaded pipeline has already."""
    for name, value, default in (("device", device, "auto"), ("tile", tile, None)):
        if value != default:
            raise ConfigError(f"{name} is {value}, but the model is a loaded pipeline; load it with that {name}.")


@lru_cache(maxsize=4)
def _audio_pipeline(model: str | Path, version: int, device: Device) -> AudioPipeline:
    return AudioPipeline(model, device=device)


@lru_cache(maxsize=4)
def _point_pipeline(model: str | Path, version: int, device: Device) -> PointPipeline:
    from denoise.pipelines.points import PointPipeline  # points are denoised by a prior of torch

    return PointPipeline(model, device=device)


@lru_cache(maxsize=4)
def _image_pipeline(model: str | Path, version: int, device: Device, tile: int | None) -> ImagePipeline:
    return ImagePipeline(model, device=device, tile=tile)
