"""Images: file --> frame --> tiles --> model --> overlap-add --> frame --> file."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from denoise.errors import ConfigError, InputError
from denoise.files.image import ImageReader, write_image
from denoise.frames import Grid, Window, gathered, overlap_add, split
from denoise.noise_level import estimate_sigma
from denoise.pipelines.device import as_numpy, autocast, pick_device, precision_of
from denoise.pipelines.int8 import LOUDEST, in_8_bits, worth_int8
from denoise.pipelines.latent_noise import Draw, check_dial
from denoise.pipelines.perception import STEPS, as_tensor, draw_image, left_over, mean_of
from denoise.pipelines.result import Result, check_strength, doubted_much, found_silent
from denoise.pipelines.transparency import cover
from denoise.protocols import Progress
from denoise.registry import DEFAULTS, SIGMA_MODEL, load, weights_version
from denoise.signals import Image

TILE = {"bfloat16": 1936, "float32": 1280}  # a fifth is done twice, or less; these stay below two gigabytes
REACH = 56  # pixels: what lies further away changes answers by less than 0.1 of 255, whatever the receptive field
FADE = 8
Pixels = TypeVar("Pixels", bound=NDArray[Any] | Tensor)
Sigma = float | Literal["auto"] | None


class ImagePipeline:
    """A loaded image denoiser that takes files, bytes and frames.

    ``tile`` is the side of the squares in pixels that the network sees, by itself as large as two gigabytes allow; it
    changes the result by less than one step of 8 bits (up to sigma 75 of 255). ``precision`` is ``auto`` (bfloat16
    where it is fast, else int8 for large calm pictures of 8 bits where the CPU has VNNI) or ``float32``.
    """

    def __init__(
        self,
        model: str | Path = DEFAULTS["image"],
        *,
        device: str = "auto",
        tile: int | None = None,
        precision: str = "auto",
    ) -> None:
        self.device = pick_device(device)
        if tile is None:
            tile = TILE[precision_of(self.device) if precision == "auto" else "float32"]
        if tile < 1:
            raise ConfigError(f"tile is {tile} pixels; expected at least 1.")
        if precision not in ("auto", "float32"):
            raise ConfigError(f"precision is {precision!r}; expected auto or float32.")
        self.precision = precision
        self.model, self.card = load(model, kind="denoiser", modality="image")
        self.model.to(self.device)
        self.variational = bool(getattr(self.model, "variational", False))
        only = self.model.window
        if only is not None:  # tiles of the one size that the network takes, half of each faded into the next
            self.grid = Grid(only, 0, only // 2)
        else:
            self.grid = Grid.fit(tile, min(self.model.context, REACH), FADE, self.model.size_multiple)

    def file(
        self,
        source: str | Path | BinaryIO,
        target: str | Path | BinaryIO,
        *,
        sigma: Sigma = None,
        strength: float = 1.0,
        overwrite: bool = False,
        max_megapixels: float = 200,
        progress: Progress | None = None,
        name: str | None = None,
        **drawing: Any,
    ) -> Result:
        """Denoise every frame of an image file into another file of the same make.

        ``sigma``, for a model that takes one, is of full scale, 0 to 1; "auto", or none, gives it an estimate for each
        frame. ``drawing`` is ``perception``, ``steps`` and ``draw`` of `frame`.

        Raises:
            InputError: the file cannot be read or the target cannot be written; nothing is left behind.
        """
        check_strength(strength)
        self.check_sigma(sigma)
        started, levels, residuals, doubted, silent, pixels = time.perf_counter(), [], [], [], [], 0
        with ImageReader(source, max_megapixels=max_megapixels, name=name) as reader:

            def frames() -> Iterator[Image]:
                nonlocal pixels
                for i, frame in enumerate(reader):
                    part = part_of(progress, i, reader.n_frames)
                    before = sigma_255(frame)
                    level = self.level(sigma, frame, before)
                    silent.append(level == 0 and isinstance(sigma, str | None))
                    out, share = self.answer(frame, level, strength, progress=part, **drawing)
                    doubted.append(share)
                    levels.append((before, sigma_255(out)))
                    if self.goes(drawing.get("perception"), drawing.get("draw")) and level and strength:
                        residuals.append(left_over(frame, out, strength * level))
                    pixels += frame.pixels.shape[0] * frame.pixels.shape[1]
                    yield out

            write_image(target, frames(), reader.format, overwrite=overwrite)
            seconds = time.perf_counter() - started
            before, after = np.mean(levels, axis=0)
            return Result(
                input=reader.name,
                output=str(target),
                seconds=round(seconds, 3),
                speed=round(pixels / 1e6 / seconds, 3),
                speed_unit="megapixels_per_s",
                noise_before=round(float(before), 2),
                noise_after=round(float(after), 2),
                noise_unit="sigma_255",
                residual=mean_of(residuals),
                warnings=(
                    *reader.warnings,
                    *doubted_much(reader.name, float(np.mean(doubted))),
                    *found_silent(reader.name, any(silent)),
                ),
            )

    def bytes(self, data: bytes, **how: Any) -> bytes:
        """Denoise an image file in memory, as `file` does; the result is a file of the same make."""
        out = io.BytesIO()
        self.file(io.BytesIO(data), out, name="image bytes", **how)
        return out.getvalue()

    def frame(
        self,
        image: Image,
        *,
        sigma: Sigma = None,
        strength: float = 1.0,
        perception: float | None = None,
        steps: int = STEPS,
        draw: int | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Denoise one frame.

        ``sigma`` is of full scale, 0 to 1; without it, or with "auto", a model that needs one gets an estimate.

        Alpha is not touched, nor are pixels that it hides; their colours do not bleed into those that are seen.

        ``draw`` is the seed of one of the answers that are likely, in place of their mean, of a variational model or
        of one that takes a sigma. With the latter, ``perception`` goes from the mean (0), the nearest to all of them,
        to that one answer (1), which has the detail of a photograph, in so many ``steps``, calls of the network. There
        memory grows with the picture.
        """
        return self.answer(image, sigma, strength, perception, steps, draw, progress)[0]

    def answer(
        self,
        image: Image,
        sigma: Sigma,
        strength: float,
        perception: float | None = None,
        steps: int = STEPS,
        draw: int | None = None,
        progress: Progress | None = None,
    ) -> tuple[Image, float]:
        """As `frame`, and the share of a draw that was doubted and is nearer to the mean."""
        check_strength(strength)
        self.check_sigma(sigma)
        self.check_drawing(perception, steps, draw)
        if strength == 0:
            return image, 0.0
        doubted = 0.0
        level, share = self.level(sigma, image), self.goes(perception, draw)
        if share and level:

            def mean(x: Image, sigma: float, progress: Progress | None) -> Tensor:
                return torch.cat([*self._denoise(x, sigma, 1.0, None, progress)], dim=1)

            whole, doubted = draw_image(mean, image, level, share, steps, draw or 0, progress)
            drawn = iter([torch.lerp(as_tensor(image.as_float()), whole, strength)])
        else:
            drawn = self._denoise(image, level, strength, draw if self.variational else None, progress)
        x = image.pixels
        out = np.empty_like(x)
        row = 0
        for rows in drawn:
            light = rows.permute(1, 2, 0).numpy()
            out[row : row + len(light)] = image.numbers(light)
            row += len(light)
        if image.seen is not None:
            out = np.where(image.seen[..., None], out, x)
        return replace(image, pixels=out), doubted

    def check_sigma(self, sigma: Sigma) -> None:
        """Refuse a sigma for a model that cannot use it."""
        if sigma is None:
            return
        if self.card.blind:
            raise ConfigError(
                f"model {self.card.name} is blind: it judges the noise itself and cannot use a sigma. Leave sigma out."
            )
        if isinstance(sigma, str):
            if sigma != "auto":
                raise ConfigError(f"sigma is {sigma!r}; expected auto or a number.")
        elif not 0 <= sigma <= self._loudest:
            raise ConfigError(
                f"sigma is {sigma:g}; expected 0 to {self._loudest:g}, of full scale (25 of 255 is 0.098): model "
                f"{self.card.name} knows noise up to {self._loudest:g} ({255 * self._loudest:.3g} of 255)."
            )

    @property
    def _loudest(self) -> float:
        """The most noise that the model knows; floats may be far louder than full scale."""
        return self.card.sigma[1] if self.card.sigma else 1.0

    def level(self, sigma: Sigma, image: Image, estimate: float | None = None) -> float | None:
        """What the network is told: what was given, or an estimate (of 255), but no more than it knows."""
        if not isinstance(sigma, str | None) or self.card.blind:
            return cast(float | None, sigma)
        estimate = sigma_255(image) if estimate is None else estimate
        return min(estimate / 255, self._loudest)

    def goes(self, perception: float | None, draw: int | None) -> float:
        """How far to go from the mean to a draw, 0 to 1; a variational model draws in another way."""
        if self.variational:
            return 0.0
        return float(draw is not None) if perception is None else perception

    def check_drawing(self, perception: float | None, steps: int, draw: int | None) -> None:
        """Refuse draws from a model that gives one answer, and settings that make no sense."""
        check_dial(self.model, self.card.name, draw, perception, steps, goes=not self.variational)

    def _denoise(
        self, image: Image, sigma: float | None, strength: float, draw: int | None, progress: Progress | None
    ) -> Iterator[Tensor]:
        """Denoised rows (channels, rows, width) from the top down, full scale 1.0."""

        def tiles(band: Window) -> Tensor:
            # a band stays in the numbers of the file; only one tile at a time is light in float32
            def tile(w: Window) -> Tensor:
                drawn = None if draw is None else Draw(draw, (band.start, w.start))
                x = w.data.float() / image.full_scale
                x = x if image.seen is None else cover(x[:-1], x[-1] > 0)
                return self._tile(network, x, sigma, strength, drawn)

            windows = (w.map(tile(w)) for w in split([band.data], self.grid, dim=2))
            shape = (image.pixels.shape[2], *band.data.shape[1:])
            return gathered(overlap_add(windows, self.grid, dim=2), shape, dim=2)

        done, bands, network = 0, _bands(image), self._network_for(image, sigma)
        for rows in overlap_add((w.map(tiles(w)) for w in split(bands, self.grid, dim=1)), self.grid, dim=1):
            yield rows
            done += rows.shape[1]
            if progress:
                progress(done / image.pixels.shape[0])

    def _network_for(self, image: Image, sigma: float | None) -> nn.Module:
        """The model, or, where that is worth while and does no harm, its twin of 8 bits."""
        if self.precision != "auto" or not worth_int8(self.model, self.device, image):
            return self.model
        if (sigma_255(image) if sigma is None else 255 * sigma) > LOUDEST:
            return self.model
        return in_8_bits(self.model, image, lambda x: self._fed(x[:, :3] / image.full_scale, sigma))

    def _fed(self, x: Tensor, sigma: float | None) -> tuple[Tensor, Tensor | None]:
        """Shape: (batch, 1 or 3, height, width) to the model's channels: 3, or 1, the colours one by one."""
        n = self.card.channels
        fed = (x.expand(-1, n, -1, -1) if x.shape[1] == 1 else x).reshape(-1, n, *x.shape[2:])
        fed = fed.to(self.device).contiguous(memory_format=torch.channels_last)
        return fed, None if sigma is None else torch.full((len(fed),), sigma, device=self.device)

    @torch.inference_mode()
    def _tile(self, network: nn.Module, x: Tensor, sigma: float | None, strength: float, draw: Draw | None) -> Tensor:
        """One tile (channels, height, width), channels 1, 3 or 4, full scale 1.0."""
        groups = [x[:3], x[3:]] if x.shape[0] == 4 else [x]  # the black ink of CMYK is a grey image of its own
        return torch.cat([self._group(network, group, sigma, strength, draw) for group in groups])

    def _group(self, network: nn.Module, x: Tensor, sigma: float | None, strength: float, draw: Draw | None) -> Tensor:
        with autocast(self.device) if self.precision == "auto" else torch.autocast("cpu", enabled=False):
            fed, level = self._fed(x[None], sigma)
            y = network(fed, level, **({"draw": draw} if draw else {})).flatten(0, 1).float().cpu()
        if len(y) > len(x):
            y = y.mean(dim=0, keepdim=True)
        return x + strength * (y - x)


def denoise_image(
    pixels: Pixels,
    sigma: Sigma = None,
    *,
    model: str | Path | None = None,
    strength: float = 1.0,
    perception: float | None = None,
    steps: int = STEPS,
    seed: int = 0,
    tile: int | None = None,
    device: str = "auto",
) -> Pixels:
    """Denoise an image in memory; kind, dtype, shape and device stay.

    Integers have the full scale of their type (uint8 255, uint16 65535), floats 1.0; floats may leave
    [0, 1] and are not clipped. ``sigma``, in the units of ``pixels`` or "auto", is of white noise; it selects the
    model that takes one unless one is named, and so does ``perception``: 0 gives the mean of all likely pictures, 1 one
    of them, drawn by ``seed`` in so many ``steps``.

    Shape:
        pixels: NumPy (height, width) or (height, width, 1 or 3); tensor (1 or 3, height, width) or
            (batch, 1 or 3, height, width).
    Raises:
        InputError: shape, dtype or values do not fit.
        ConfigError: the model is unknown or blind and a sigma was given.

    >>> import numpy as np
    >>> noisy = np.full((8, 8, 3), 128, np.uint8)
    >>> denoise_image(noisy).shape
    (8, 8, 3)
    """
    is_tensor = isinstance(pixels, Tensor)
    x: Any = as_numpy(pixels) if isinstance(pixels, Tensor) else np.asarray(pixels)
    shape = x.shape
    if 0 in shape[-3:]:
        raise InputError(f"pixels have shape {shape}; expected none of them 0.")
    if is_tensor:
        if x.ndim not in (3, 4) or shape[-3] not in (1, 3):
            raise InputError(f"tensor has shape {shape}; expected (1 or 3, height, width), with an optional batch.")
        frames = np.moveaxis(x.reshape(-1, *shape[-3:]), 1, -1)
    else:
        if x.ndim not in (2, 3) or (x.ndim == 3 and shape[2] not in (1, 3)):
            raise InputError(f"array has shape {shape}; expected (height, width) or (height, width, 1 or 3).")
        frames = x.reshape(1, *shape[:2], -1 if x.ndim == 3 else 1)
    is_float = np.issubdtype(x.dtype, np.floating)
    if not is_float and x.dtype not in (np.uint8, np.uint16):
        raise InputError(f"pixels are {x.dtype}; expected uint8, uint16 or a float type.")
    model = pick(model, sigma, perception)
    pipeline = _pipeline(model, weights_version(model), device, tile)
    scale = 1.0 if is_float else float(np.iinfo(x.dtype).max)
    if isinstance(sigma, int | float) and not is_float and not 0 <= sigma <= scale:
        raise ConfigError(f"sigma is {sigma:g}; expected 0 to {scale:g}, as the pixels are.")
    unit_sigma = sigma if sigma is None or isinstance(sigma, str) else sigma / scale
    out = [
        pipeline.frame(
            Image(np.ascontiguousarray(f, np.float32 if is_float else None)),
            sigma=unit_sigma,
            strength=strength,
            perception=perception,
            steps=steps,
            draw=None if perception is None else seed + i,
        ).pixels
        for i, f in enumerate(frames)
    ]
    stacked = np.stack(out) if out else frames
    if strength == 0:  # to the bit, whatever the type
        stacked = frames.copy()
    if isinstance(pixels, Tensor):
        result = torch.from_numpy(np.ascontiguousarray(np.moveaxis(stacked, -1, 1).reshape(shape)))
        return cast(Pixels, result.to(pixels))
    return cast(Pixels, np.ascontiguousarray(stacked.reshape(shape).astype(x.dtype)))


def pick(model: str | Path | None, *said: object) -> str | Path:
    """The model that was named, else the one that is told sigma if anything is said of that, else the default."""
    return model or (DEFAULTS["image"] if all(x is None for x in said) else SIGMA_MODEL)


@lru_cache(maxsize=4)
def _pipeline(model: str | Path, version: int, device: str, tile: int | None) -> ImagePipeline:
    """Loaded once per version of the weights, for callers in a loop."""
    return ImagePipeline(model, device=device, tile=tile)


def _bands(image: Image, rows: int = 256) -> Iterator[Tensor]:
    """Pixels as tensors (channels, rows, width), a few rows at a time; last comes what is seen if some is not."""
    wide = {np.dtype(np.uint16): np.int32}.get(image.pixels.dtype, image.pixels.dtype)  # torch does little with uint16
    for start in range(0, image.pixels.shape[0], rows):
        x = image.pixels[start : start + rows].astype(wide)
        if image.seen is not None:
            x = np.concatenate([x, image.seen[start : start + rows, :, None].astype(wide)], axis=2)
        yield torch.from_numpy(x).permute(2, 0, 1)


def sigma_255(image: Image) -> float:
    """Estimated noise of the first channels, in 8-bit steps."""
    x = torch.from_numpy(image.pixels[..., :3]).permute(2, 0, 1)
    seen = None if image.seen is None else torch.from_numpy(image.seen)
    return estimate_sigma(x, image.full_scale, seen) / image.full_scale * 255


def part_of(progress: Progress | None, index: int, n: int) -> Progress | None:
    """The progress of one of ``n`` parts as that of the whole."""
    return None if progress is None else lambda done: progress((index + done) / max(1, n))
