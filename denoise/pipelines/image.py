"""Image pipeline: file -> frame -> tiles -> model -> overlap-add -> frame -> file."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from denoise.backends import load_network, pick_backend
from denoise.errors import ConfigError, InputError
from denoise.files.image import ImageReader, write_image
from denoise.files.names import OUTPUT, check_file, file_name, open_bytes
from denoise.frames import Grid
from denoise.options import IMAGE_STEPS, MAX_MEGAPIXELS, DenoiseOptions, Sigma, check_number
from denoise.pipelines.choice import AUTO, BY_DEFAULT, GIVEN, ModelChoice
from denoise.pipelines.float_range import find_float_range, warn_units
from denoise.pipelines.image_frames import FrameDenoiser
from denoise.pipelines.impulse_frames import denoise_without_impulses
from denoise.pipelines.noise_estimate import (
    FrameNoise,
    estimate_noise,
    load_noise_network,
    own_scale,
    tells_noise,
    uniform_noise,
)
from denoise.pipelines.posterior import check_posterior
from denoise.pipelines.progress import progress_of_part
from denoise.pipelines.result import IMAGE_UNITS, Diagnostics, Result, warn_underestimated
from denoise.pipelines.white_noise import suits_model_of_white_noise
from denoise.protocols import ArrayNetwork, Device, Progress
from denoise.registry import DEFAULTS, NOISE_MODEL, SIGMA_MODEL
from denoise.signals import Image, require_image

TILE = 1024  # pixels: 12 megapixels stay below two gigabytes in every precision; a quarter is computed twice
MAX_CONTEXT = 56  # pixels: those further away change the output by less than 0.1 of 255, whatever the receptive field
FADE = 8  # pixels
AUTO_MODELS = (DEFAULTS["image"], SIGMA_MODEL)  # which the choice of a model may need


class ImagePipeline:
    """A loaded image denoiser for files, bytes and frames.

    Args:
        model: name of a bundled model, or path of a weights file or of one of `denoise export`: a denoiser, or a
            denoising prior of square images, which is applied to windows of their size. ``"auto"`` takes ``photo``, and
            ``gaussian`` for frames whose noise is estimated and found to be white, of 8 of 255 at least, if it has the
            lower risk there by Stein's estimate.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``, or a device of torch.
        tile: side in pixels of the tiles that the network processes; None takes the largest that two gigabytes of
            memory allow. It changes the output by less than one step of 8 bits, up to a sigma of 75 of 255.
        precision: ``"float32"``, ``"bfloat16"``, ``"int8"`` (8-bit integers, on CPUs) or ``"auto"``, the fastest on
            this machine. int8 is for 8-bit images from 128 x 128 pixels on, without hidden pixels, with noise of at
            most 12 of 255, and only if it hardly changes the output; others are computed in float32. ``auto`` uses
            int8 from two megapixels on.
        backend: ``"torch"``, ``"onnx"`` (onnxruntime, on CPUs, in float32: no posterior samples) or ``"auto"``, see
            `denoise.options.Backend`.
        batch: tiles that the network processes at a time, which takes more memory and keeps a GPU busy; it changes the
            output by no more than rounding.

    Raises:
        ConfigError: the model is unknown or no image denoiser, or a setting is out of range.
        WeightsError: the weights file is missing or damaged.
    """

    def __init__(
        self,
        model: str | Path = AUTO,
        *,
        device: Device = "auto",
        tile: int | None = None,
        precision: str = "auto",
        backend: str = "auto",
        batch: int = 1,
    ) -> None:
        for name, value in (("tile", tile), ("batch", batch)):
            if value is not None:
                check_number(name, value, is_whole=True)
        if tile is not None and tile < 1:
            raise ConfigError(f"tile is {tile} pixels; expected at least 1.")
        if batch < 1:
            raise ConfigError(f"batch is {batch} tiles; expected at least 1.")
        self.chooses_model = model == AUTO
        if self.chooses_model:
            model = DEFAULTS["image"]
        self.batch = batch
        self.precision = precision
        self._tile = tile
        self._backend = pick_backend(model, device, backend)
        self.network, self.card = load_network(
            model, modality="image", device=device, precision=precision, backend=backend
        )
        facts = self.network.facts
        window = facts.window
        if window is None:
            assert facts.context is not None
            context = min(facts.context, MAX_CONTEXT)
            self.grid = Grid.fit(TILE if tile is None else tile, context, FADE, facts.size_multiple)
        elif tile is None:  # the only size that the network takes, half of each tile faded into the next
            self.grid = Grid(window, 0, window // 2)
        else:
            raise ConfigError(f"{self.card.name} takes tiles of {window} x {window} pixels alone. Leave tile out.")

    @cached_property
    def _noise_network(self) -> ArrayNetwork:
        """The network that the noise is estimated with: that of an exported file itself, if it is the one."""
        takes_maps = self.network.facts.sigma_maps == 2 * self.network.facts.channels
        if self._backend == "onnx" and self.card.name == NOISE_MODEL and takes_maps:
            return self.network
        return load_noise_network(self.device, self.precision, self._backend)

    @cached_property
    def _of_white_noise(self) -> ImagePipeline:
        """The pipeline that is chosen for white noise."""
        return ImagePipeline(
            SIGMA_MODEL,
            device=self.device,
            tile=self._tile,
            precision=self.precision,
            backend=self._backend,
            batch=self.batch,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({AUTO if self.chooses_model else self.card.name!r}, device={self.device!r})"

    @property
    def device(self) -> str:
        """What the network is computed on."""
        return self.network.device

    def denoise_file(
        self,
        source: str | Path | BinaryIO,
        target: str | Path | BinaryIO,
        options: DenoiseOptions,
        *,
        progress: Progress | None = None,
        name: str | None = None,
    ) -> Result:
        """Denoise every frame of an image file, as `file`.

        Args:
            source: path or binary file.
            target: path or binary file.
            options: options of the run.
            progress: as in `file`.
            name: as in `file`.

        Returns:
            As `file`.
        """
        self.check(options)
        started = time.perf_counter()
        finished: list[tuple[Diagnostics, int]] = []  # of each frame, and its number of pixels
        warnings: list[str] = []
        is_unchanged = True
        with ImageReader(source, max_megapixels=options.max_megapixels, name=name) as reader:

            def denoise_frames() -> Iterator[Image]:
                nonlocal is_unchanged
                for i, image in enumerate(reader):
                    frame_progress = progress_of_part(progress, i, reader.n_frames)
                    try:
                        chooses = reader.n_frames == 1  # frames of an animation would flicker
                        denoised, diagnostics = self._measured_frame(image, options, frame_progress, chooses)
                    except InputError as error:
                        raise InputError(f"{reader.name}: {error}") from error
                    finished.append((diagnostics, image.pixels[..., 0].size))
                    is_unchanged = is_unchanged and denoised.equals(image)
                    if not warnings and not options.estimates_sigma:
                        warnings.extend(warn_units(reader.name, image))
                    yield denoised

            write_image(
                target,
                denoise_frames(),
                reader.format,
                overwrite=options.overwrite,
                find_original=lambda: reader if is_unchanged and len(finished) == reader.n_frames else None,
            )
            diagnostics = Diagnostics.combine([of_frame for of_frame, _ in finished])
            if options.estimates_sigma:
                warnings.extend(warn_underestimated(reader.name, diagnostics.noise_before, diagnostics.noise_after))
            return Result.from_diagnostics(
                diagnostics,
                IMAGE_UNITS,
                input=reader.name,
                output=file_name(target, OUTPUT),
                amount=sum(n_pixels for _, n_pixels in finished) / 1e6,
                seconds=time.perf_counter() - started,
                warnings=[*reader.warnings, *warnings],
                model=self._choice(diagnostics.models),
            )

    def _choice(self, models: tuple[str, ...]) -> ModelChoice:
        """The models of the frames of a file, and why they were taken."""
        if not self.chooses_model:
            return ModelChoice(self.card.name, GIVEN)
        return ModelChoice(", ".join(models) or self.card.name, "white noise" if SIGMA_MODEL in models else BY_DEFAULT)

    def denoise_frame(
        self, image: Image, options: DenoiseOptions, progress: Progress | None = None
    ) -> tuple[Image, Diagnostics]:
        """Denoise one frame, as `frame`.

        Args:
            image: noisy frame.
            options: options of the run.
            progress: as in `file`.

        Returns:
            The denoised frame, and its diagnostics but for the noise levels, which take time to estimate.
        """
        denoise = partial(self._denoise_frame, estimate=None, options=options, progress=progress)
        return denoise(image) if self.card.blind else denoise_without_impulses(image, options, denoise)

    def _denoise_frame(
        self,
        image: Image,
        estimate: FrameNoise | None,
        options: DenoiseOptions,
        progress: Progress | None,
        chooses: bool = True,
    ) -> tuple[Image, Diagnostics]:
        """As `denoise_frame`, with an estimate of the noise if there is one already, perhaps without a choice."""
        pixel_range = find_float_range(image)
        self.check(options, 1.0 if pixel_range is None else pixel_range.scale)
        if options.limited_strength == 0:
            return image, Diagnostics()
        if image.alpha is not None and not image.is_alpha_opacity:
            return _denoise_parts(image, partial(self.denoise_frame, options=options), progress)
        noise = None if self.card.blind else self.resolve_noise(image, options, estimate)
        if noise is not None and chooses and self.chooses_model and options.estimates_sigma:
            networks = self.network, lambda: self._of_white_noise.network
            if suits_model_of_white_noise(image, noise, *networks):
                return self._of_white_noise._denoise_frame(image, noise, options, progress)
        denoised, diagnostics = self._frame_denoiser().denoise(image, noise, options, progress)
        return denoised, replace(diagnostics, models=(self.card.name,))

    def _measured_frame(
        self, image: Image, options: DenoiseOptions, progress: Progress | None, chooses: bool
    ) -> tuple[Image, Diagnostics]:
        """Denoise one frame, with the noise levels before and after."""
        if image.alpha is not None and not image.is_alpha_opacity:
            denoise_part = partial(self._measured_frame, options=options, chooses=chooses)
            return _denoise_parts(image, denoise_part, progress)
        denoise = partial(self._denoise_and_measure, options=options, progress=progress, chooses=chooses)
        return denoise(image) if self.card.blind else denoise_without_impulses(image, options, denoise)

    def _denoise_and_measure(
        self, image: Image, options: DenoiseOptions, progress: Progress | None, chooses: bool
    ) -> tuple[Image, Diagnostics]:
        estimate = self.estimate_noise(image)
        denoised, diagnostics = self._denoise_frame(image, estimate, options, progress, chooses)
        noise_before = sigma_255(estimate)
        is_unchanged = denoised.equals(image)  # two estimates of the same pixels would differ
        return denoised, replace(
            diagnostics,
            noise_before=noise_before,
            noise_after=noise_before if is_unchanged else sigma_255(self.estimate_noise(denoised, by_intensity=False)),
            no_noise_found=diagnostics.precision is None and options.limited_strength > 0,
        )

    def posterior_mean(self, image: Image, sigma: float, progress: Progress | None = None) -> NDArray[Any]:
        """Return the output of the network for a whole frame with noise of a given level.

        Args:
            image: noisy frame.
            sigma: standard deviation of its noise, full scale 1.0.
            progress: called with the finished fraction, 0 to 1.

        Returns:
            (channels, height, width), full scale 1.0.
        """
        return self._frame_denoiser().posterior_mean(image, sigma, progress)

    def _frame_denoiser(self) -> FrameDenoiser:
        return FrameDenoiser(self.network, self.grid, self.batch, self._max_sigma, self.estimate_noise)

    def check(self, options: DenoiseOptions, scale: float = 1.0) -> None:
        """Refuse options that the model does not support.

        Args:
            options: options of a run.
            scale: factor by which pixels and sigma are above full scale 1.0, for floats in units of their own.

        Raises:
            ConfigError: the model is blind and takes no sigma and no detail, sigma is out of its range, or the model
                has no posterior samples, or does not mix them with their mean.
        """
        check_posterior(self.network.facts, self.card.name, options)
        if options.detail and self.card.blind:
            raise ConfigError(f"model {self.card.name} is blind: it takes no detail. Leave detail out.")
        if options.sigma is None:
            return
        if self.card.blind:
            raise ConfigError(f"model {self.card.name} is blind: it takes no sigma. Leave sigma out.")
        if not isinstance(options.sigma, str) and not 0 <= options.sigma <= self._max_sigma * scale:
            raise ConfigError(
                f"sigma is {options.sigma:g}; expected 0 to {self._max_sigma:g} ({255 * self._max_sigma:.3g} of 255), "
                f"the range of model {self.card.name}, full scale 1.0 (25 of 255 is 0.098)."
            )

    def estimate_noise(self, image: Image, *, by_intensity: bool = True) -> FrameNoise:
        """Estimate the noise of the visible pixels of a frame.

        Args:
            image: noisy frame.
            by_intensity: whether the noise may depend on intensity; without, the estimate takes a third of the time.

        Returns:
            Noise profile of each group of channels, in the units of the frame, full scale 1.0. It is 0 where a frame
            does not tell its noise, see `tells_noise`, unless the model is a prior, whose images may be as small.
        """
        if self.card.kind == "denoiser" and not tells_noise(image):
            return uniform_noise(0.0, image.pixels.shape[2])
        pixel_range = find_float_range(image)
        white = own_scale(image)
        inner, scale = image, white / image.full_scale
        if pixel_range is not None:
            inner, scale = pixel_range.normalise(image), pixel_range.scale
        elif scale != 1:
            inner = replace(image, pixels=image.pixels / np.float32(white))
        noise = estimate_noise(inner, self._noise_network, by_intensity=by_intensity)
        return noise if scale == 1 else tuple(profile.in_units(1 / scale) for profile in noise)

    def resolve_noise(self, image: Image, options: DenoiseOptions, estimate: FrameNoise | None = None) -> FrameNoise:
        """Return the noise that the network is conditioned on.

        Args:
            image: noisy frame.
            options: options of the run.
            estimate: estimate for the frame, if there is one already.

        Returns:
            White noise of the sigma of the options, or an estimate, in the units of the frame, full scale 1.0.
        """
        if options.estimates_sigma:
            return self.estimate_noise(image) if estimate is None else estimate
        return uniform_noise(cast(float, options.sigma), image.pixels.shape[2])

    def max_sigma(self, image: Image) -> float:
        """Return the upper end of the range of the model in the units of a frame; noise of floats may exceed white.

        Args:
            image: noisy frame.
        """
        pixel_range = find_float_range(image)
        return self._max_sigma * (1.0 if pixel_range is None else pixel_range.scale)

    @property
    def _max_sigma(self) -> float:
        """Upper end of the range of the model; floats may have more noise than full scale."""
        return self.card.sigma[1] if self.card.sigma else 1.0

    def file(
        self,
        source: str | Path | BinaryIO,
        target: str | Path | BinaryIO,
        *,
        sigma: Sigma = None,
        strength: float = 1.0,
        luminance: float = 1.0,
        colour: float = 1.0,
        detail: float = 0.0,
        overwrite: bool = False,
        max_megapixels: float = MAX_MEGAPIXELS,
        progress: Progress | None = None,
        name: str | None = None,
        perception: float | None = None,
        steps: int = IMAGE_STEPS,
        seed: int | None = None,
    ) -> Result:
        """Denoise every frame of an image file into another file of the same format.

        Args:
            source: path or binary file.
            target: path or binary file.
            sigma: standard deviation of white Gaussian noise, full scale 1.0, for models that are not blind; ``"auto"``
                and None estimate the noise of each frame, also of floats in units of their own, such as 0 to 4095.
            strength: as in `denoise.options.DenoiseOptions`.
            luminance: as in `denoise.options.DenoiseOptions`.
            colour: as in `denoise.options.DenoiseOptions`.
            detail: as in `denoise.options.DenoiseOptions`.
            overwrite: whether an existing target is replaced.
            max_megapixels: size up to which images are read.
            progress: called with the finished fraction, 0 to 1.
            name: name of the source in messages, if it is no path.
            perception: as in `denoise.options.DenoiseOptions`, of models with posterior samples.
            steps: network calls per posterior sample.
            seed: seed of the posterior sample.

        Returns:
            Time, noise levels and warnings.

        Raises:
            InputError: the file cannot be read or the target cannot be written; no partial target remains.
            ConfigError: an option is out of range or the model does not support it.
        """
        options = DenoiseOptions(
            sigma=sigma,
            strength=strength,
            luminance=luminance,
            colour=colour,
            detail=detail,
            perception=perception,
            steps=steps,
            seed=seed,
            overwrite=overwrite,
            max_megapixels=max_megapixels,
        )
        check_file(source, "source")
        check_file(target, "target")
        return self.denoise_file(source, target, options, progress=progress, name=name)

    def bytes(
        self,
        data: bytes,
        *,
        sigma: Sigma = None,
        strength: float = 1.0,
        luminance: float = 1.0,
        colour: float = 1.0,
        detail: float = 0.0,
        max_megapixels: float = MAX_MEGAPIXELS,
        perception: float | None = None,
        steps: int = IMAGE_STEPS,
        seed: int | None = None,
    ) -> bytes:
        """Denoise an image file in memory.

        Args:
            data: content of the file.
            sigma: as in `file`.
            strength: as in `file`.
            luminance: as in `file`.
            colour: as in `file`.
            detail: as in `file`.
            max_megapixels: as in `file`.
            perception: as in `file`.
            steps: as in `file`.
            seed: as in `file`.

        Returns:
            Content of a file of the same format.

        Raises:
            InputError: the data are no image file.
            ConfigError: as in `file`.
        """
        options = DenoiseOptions(
            sigma=sigma,
            strength=strength,
            luminance=luminance,
            colour=colour,
            detail=detail,
            perception=perception,
            steps=steps,
            seed=seed,
            max_megapixels=max_megapixels,
        )
        target = io.BytesIO()
        self.denoise_file(open_bytes(data), target, options, name="image bytes")
        return target.getvalue()

    def frame(
        self,
        image: Image,
        *,
        sigma: Sigma = None,
        strength: float = 1.0,
        luminance: float = 1.0,
        colour: float = 1.0,
        detail: float = 0.0,
        perception: float | None = None,
        steps: int = IMAGE_STEPS,
        seed: int | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Denoise one frame.

        Salt-and-pepper noise is replaced first, unless sigma is a number. A channel of unspecified kind beside the
        colours is denoised as a grey image.
        Alpha and fully transparent pixels are unchanged, and their colours do not affect visible pixels. The memory of
        posterior sampling grows with the image.

        Args:
            image: noisy frame.
            sigma: as in `file`.
            strength: as in `file`.
            luminance: as in `file`.
            colour: as in `file`.
            detail: as in `file`.
            perception: as in `file`.
            steps: as in `file`.
            seed: as in `file`.
            progress: as in `file`.

        Returns:
            A frame of the same dtype and shape.

        Raises:
            ConfigError: as in `file`.
        """
        require_image(image, "denoise_image, with this pipeline as its model")
        options = DenoiseOptions(
            sigma=sigma,
            strength=strength,
            luminance=luminance,
            colour=colour,
            detail=detail,
            perception=perception,
            steps=steps,
            seed=seed,
        )
        return self.denoise_frame(image, options, progress)[0]


def default_model(options: DenoiseOptions) -> str:
    """Return the bundled model for a run: the one for white noise, which is a prior, for posterior samples.

    Args:
        options: options of the run.

    Returns:
        Its name, or ``"auto"``.
    """
    return SIGMA_MODEL if options.uses_posterior else AUTO


def sigma_255(noise: FrameNoise) -> float:
    """Return the level of the noise of a frame, without that of the black ink of CMYK.

    Args:
        noise: its noise.

    Returns:
        Standard deviation in 8-bit steps.
    """
    return 255 * noise[0].mean_sigma


def _denoise_parts(
    image: Image, denoise_part: Callable[..., tuple[Image, Diagnostics]], progress: Progress | None
) -> tuple[Image, Diagnostics]:
    """Denoise the pixels of a frame, and its further channel as a grey image of its own."""
    assert image.alpha is not None
    parts = [Image(image.pixels), Image(image.alpha[..., None])]
    results = [denoise_part(part, progress=progress_of_part(progress, i, 2)) for i, part in enumerate(parts)]
    (colour, _), (further, _) = results
    diagnostics = Diagnostics.combine([diagnostics for _, diagnostics in results])
    return replace(image, pixels=colour.pixels, alpha=further.pixels[..., 0]), diagnostics
