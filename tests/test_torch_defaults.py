"""Results do not depend on the default dtype and the default device of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

import denoise
from denoise.backends.precision import measure_seconds
from denoise.pipelines import arrays
from denoise.registry import bundled, load


@contextmanager
def torch_defaults(name: str) -> Iterator[None]:
    """Make float64 the default dtype, or meta, which holds no values, the default device."""
    for cached in (arrays._audio_pipeline, arrays._image_pipeline, arrays._point_pipeline, measure_seconds):
        cached.cache_clear()
    try:
        if name == "float64":
            torch.set_default_dtype(torch.float64)
        else:
            torch.set_default_device(name)
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device("cpu")


def sample_prior(name: str) -> Tensor:
    prior = denoise.load(name)
    assert isinstance(prior, denoise.PriorPipeline)
    if name == "mnist-pixelcnn":  # whose samples take seconds
        return prior.log_prob(torch.zeros(1, 1, 28, 28, dtype=torch.float32, device="cpu"))[0]
    return prior.sample(1, seed=1, steps=2 if "steps" in prior.model.sampling_options else None)


@cache
def expected_sample(name: str) -> Tensor:
    return sample_prior(name)


def sample_audio() -> Tensor:
    x = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 3_200)).astype(np.float32))
    return denoise.denoise_audio(x, 16_000, perception=0.5, steps=1)


def sample_image() -> Tensor:
    x = torch.from_numpy(np.random.default_rng(0).normal(0.5, 0.1, (1, 16, 16)).astype(np.float32))
    return denoise.denoise_image(x, 0.1, perception=0.5, steps=2)


def denoise_cloud() -> Tensor:
    x = np.random.default_rng(0).normal(0, 0.01, (64, 3)) + np.eye(64, 3)
    return denoise.denoise_points(torch.from_numpy(x.astype(np.float32)))


@pytest.mark.parametrize("default", ["float64", "meta"])
@pytest.mark.parametrize("name", bundled("prior"))
def test_samples_of_priors(name: str, default: str) -> None:
    expected = expected_sample(name)
    with torch_defaults(default):
        sample = sample_prior(name)
    assert sample.dtype == torch.float32
    assert torch.equal(sample, expected)


@pytest.mark.parametrize("default", ["float64", "meta"])
@pytest.mark.parametrize("run", [sample_audio, sample_image, denoise_cloud])
def test_denoised_signals(run: Callable[[], Tensor], default: str) -> None:
    expected = run()
    with torch_defaults(default):
        denoised = run()
    assert torch.equal(denoised, expected)


@pytest.mark.parametrize("default", ["float64", "meta"])
def test_modules_are_float32_on_the_cpu(default: str) -> None:
    with torch_defaults(default):
        module, _ = load("speech")
    tensors = [*module.parameters(), *module.buffers()]
    assert {x.dtype for x in tensors if x.is_floating_point()} == {torch.float32}
    assert {x.device.type for x in tensors} == {"cpu"}
