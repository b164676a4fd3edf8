"""Consistency models against the probability flow of normal distributions, which has a closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from denoise.errors import ConfigError
from denoise.nn.unet import BackboneConfig
from denoise.priors.consistency_model import ConsistencyModel, ConsistencyModelConfig
from denoise.priors.diffusion import Diffusion, DiffusionConfig
from denoise.registry import build
from denoise.training.losses.generative import consistency_distillation

NET = BackboneConfig("mlp", widths=(16,), blocks=1, embedding=8)
MEAN, STD = 0.7, 0.3


class Teacher(Diffusion):
    """The optimal denoiser of signals from N(0.7, 0.3^2)."""

    def forward(self, x: Tensor, sigma: Tensor, labels: Any = None, guidance: float = 1.0) -> Tensor:
        return MEAN + (STD**2 / (STD**2 + sigma**2))[:, None] * (x - MEAN)


class Student(Diffusion):
    """The estimate that leads to the end of each step: the flow keeps x - mean in units of its standard deviation."""

    ends: tuple[float, ...]
    gain = 1.0

    def forward(self, x: Tensor, sigma: Tensor, labels: Any = None, guidance: float = 1.0) -> Tensor:
        end = torch.tensor([max(e for e in self.ends if e < float(level) - 1e-6) for level in sigma])
        shrunk = ((STD**2 + end**2) / (STD**2 + sigma**2)).sqrt()
        factor = (shrunk - end / sigma) / (1 - end / sigma)
        return MEAN + self.gain * factor[:, None] * (x - MEAN)


def student(sigmas: tuple[float, ...], substeps: int = 6) -> ConsistencyModel:
    denoiser = Student(DiffusionConfig((3,), NET, mean=MEAN, sigma_data=STD))
    denoiser.ends = (*sigmas[1:], 0.0)
    return ConsistencyModel(ConsistencyModelConfig({}, sigmas, substeps=substeps), denoiser).eval()


SIGMAS = [(10.0,), (10.0, 0.5), (10.0, 1.0, 0.3), (10.0, 2.0, 0.5, 0.1)]


@pytest.mark.parametrize("sigmas", SIGMAS)
def test_the_exact_jumps_sample_the_distribution_in_any_number_of_steps(sigmas: tuple[float, ...]) -> None:
    noise = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    x = student(sigmas).decode_noise(noise)
    torch.testing.assert_close(x, MEAN + STD * noise, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sigmas", SIGMAS)
def test_the_exact_jumps_have_the_least_loss(sigmas: tuple[float, ...]) -> None:
    x = MEAN + STD * torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    teacher = Teacher(DiffusionConfig((3,), NET, mean=MEAN, sigma_data=STD))

    def loss(substeps: int, gain: float = 1.0) -> float:
        model = student(sigmas, substeps)
        model.denoiser.gain = gain  # type: ignore[assignment]
        torch.manual_seed(5)
        return float(consistency_distillation(model, teacher, x))

    assert loss(40) < 1e-3
    assert loss(40) < loss(10)  # what remains is the error of the teacher's solver
    assert loss(40) < 0.2 * min(loss(40, 0.95), loss(40, 1.05))


def test_the_levels_of_the_teacher_include_those_of_the_student() -> None:
    sigmas = student((10.0, 2.0, 0.5), substeps=4).training_sigmas()
    assert sigmas.shape == (13,)
    assert (sigmas.diff() < 0).all()
    torch.testing.assert_close(sigmas[::4], torch.tensor([10.0, 2.0, 0.5, 0.0]))


def test_the_gradient_reaches_the_student_alone() -> None:
    torch.manual_seed(0)
    teacher = Diffusion(DiffusionConfig((3,), NET, classes=2, guidance=2.0))
    settings = {"architecture": "diffusion", "shape": [3], "net": {"kind": "mlp", "widths": [16]}, "classes": 2}
    model = build("consistency-model", {"denoiser": settings})
    consistency_distillation(model, teacher, torch.randn(8, 3), [0, 1] * 4).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"sigmas": []}, "sigmas are"),
        ({"sigmas": [1.0, 2.0]}, "expected decreasing levels"),
        ({"sigmas": [1.0, 0.001]}, "above sigma_min"),
        ({"substeps": 0}, "substeps is 0"),
        (
            {"denoiser": {"architecture": "flow", "shape": [4]}},
            "expected architecture diffusion, ddpm or flow-matching",
        ),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], reason: str) -> None:
    denoiser = {"architecture": "diffusion", "shape": [3], "net": {"kind": "mlp", "widths": [16]}}
    with pytest.raises(ConfigError, match=reason):
        build("consistency-model", {"denoiser": denoiser, **settings})
