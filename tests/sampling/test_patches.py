"""Patches of images: their grid, the density and the denoiser of overlapping ones, half-quadratic splitting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from denoise.priors.patch_flow import PatchFlow, PatchFlowConfig
from denoise.sampling.operators import Mask
from denoise.sampling.patches import cut_patches, denoise_at_scales, denoise_patches, image_log_prob, patch_grid
from denoise.sampling.posterior import half_quadratic_splitting

SIDE = 4


@pytest.fixture(scope="module")
def flow() -> PatchFlow:
    torch.manual_seed(0)
    flow = PatchFlow(PatchFlowConfig(SIDE, 1, 2, hidden=(24,), embedding=4)).double().eval().requires_grad_(False)
    for p in flow.parameters():
        p.add_(0.1 * torch.randn(p.shape))
    return flow


def images(height: int, width: int, n: int = 2) -> Tensor:
    return torch.rand(n, 1, height, width, generator=torch.Generator().manual_seed(height), dtype=torch.float64)


def naive_mean(flow: PatchFlow, x: Tensor, sigma: Tensor, stride: int, offset: int) -> tuple[Tensor, Tensor]:
    """The mean of denoised patches, and how many there are at each pixel, one patch after another."""
    total, count = torch.zeros_like(x), torch.zeros_like(x)
    for i in patch_grid(x.shape[2], SIDE, stride, offset).tolist():
        for j in patch_grid(x.shape[3], SIDE, stride, offset).tolist():
            total[:, :, i : i + SIDE, j : j + SIDE] += flow(x[:, :, i : i + SIDE, j : j + SIDE], sigma)
            count[:, :, i : i + SIDE, j : j + SIDE] += 1
    return total / count, count


@pytest.mark.parametrize(("stride", "offset"), [(1, 0), (2, 1), (3, 2), (4, 0)])
def test_a_grid_reaches_every_pixel(stride: int, offset: int) -> None:
    for size in range(SIDE, 20):
        grid = patch_grid(size, SIDE, stride, offset)
        reached = {int(start) + i for start in grid for i in range(SIDE)}
        assert reached == set(range(size))
        assert (grid.diff() > 0).all()
        assert (grid.diff() <= stride).all()


@pytest.mark.parametrize(("stride", "offset"), [(1, 0), (2, 1), (3, 0), (4, 0)])
def test_the_denoiser_is_the_mean_of_overlapping_patches(flow: PatchFlow, stride: int, offset: int) -> None:
    x, sigma = images(9, 7), torch.tensor([0.1, 0.2], dtype=torch.float64)
    expected, _ = naive_mean(flow, x, sigma, stride, offset)
    torch.testing.assert_close(denoise_patches(flow, x, sigma, stride=stride, offset=offset), expected)


def test_patches_in_several_parts_are_those_at_once(flow: PatchFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    x, sigma = images(9, 7), torch.tensor([0.1, 0.2], dtype=torch.float64)
    expected = denoise_patches(flow, x, sigma)
    fractions: list[float] = []
    monkeypatch.setattr("denoise.sampling.patches.BATCH", 1)
    torch.testing.assert_close(denoise_patches(flow, x, sigma, progress=fractions.append), expected)
    assert fractions == sorted(fractions)
    assert len(fractions) == 6
    assert fractions[-1] == 1


@pytest.mark.parametrize("stride", [1, 3])
def test_the_denoiser_follows_the_gradient_of_the_density_of_images(flow: PatchFlow, stride: int) -> None:
    x, sigma = images(9, 7).requires_grad_(), torch.tensor([0.1, 0.2], dtype=torch.float64)
    log_prob = image_log_prob(flow, x, sigma, stride=stride)
    assert log_prob.shape == (2,)
    (gradient,) = torch.autograd.grad(log_prob.sum(), x)
    x = x.detach()
    _, count = naive_mean(flow, x, sigma, stride, 0)
    expected = x + sigma[:, None, None, None] ** 2 * gradient / count
    torch.testing.assert_close(denoise_patches(flow, x, sigma, stride=stride), expected)
    direction, step = torch.randn_like(x), 1e-5
    rise = image_log_prob(flow, x + step * direction, sigma, stride=stride)
    rise = (rise - image_log_prob(flow, x - step * direction, sigma, stride=stride)) / (2 * step)
    torch.testing.assert_close((gradient * direction).flatten(1).sum(dim=1), rise, rtol=1e-6, atol=1e-5)


def test_the_density_of_patches_that_do_not_overlap_is_their_sum(flow: PatchFlow) -> None:
    x, sigma = images(8, 12), torch.tensor([0.1, 0.2], dtype=torch.float64)
    patches = cut_patches(x, SIDE, SIDE)
    assert patches.shape == (2, 2, 3, 1, SIDE, SIDE)
    torch.testing.assert_close(patches[1, 1, 2], x[1, :, 4:, 8:])
    expected = sum(flow.noisy_log_prob(patches[:, i, j], sigma) for i in range(2) for j in range(3))
    torch.testing.assert_close(image_log_prob(flow, x, sigma, stride=SIDE), expected)


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (5, 3)])
def test_images_smaller_than_a_patch_are_mirrored(flow: PatchFlow, shape: tuple[int, int]) -> None:
    x, sigma = images(*shape), torch.tensor([0.1, 0.2], dtype=torch.float64)
    mirrored = torch.cat([x, x.flip(2), x, x.flip(2)], dim=2)[:, :, : max(SIDE, shape[0])]
    mirrored = torch.cat([mirrored, mirrored.flip(3), mirrored, mirrored.flip(3)], dim=3)[..., : max(SIDE, shape[1])]
    expected = denoise_patches(flow, mirrored, sigma)[:, :, : shape[0], : shape[1]]
    torch.testing.assert_close(denoise_patches(flow, x, sigma), expected)


def test_half_quadratic_splitting_by_a_normal_distribution_is_the_linear_estimate() -> None:
    flow = PatchFlow(PatchFlowConfig(SIDE, 1, 0)).double().requires_grad_(False)
    x, sigma, sigma_y = images(SIDE, 2 * SIDE, 1), 2.0, 0.5
    observed = (images(SIDE, 2 * SIDE + 1, 1)[..., 1:] < 0.6).double()

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return denoise_patches(flow, x, sigma, stride=SIDE)

    y, sigmas = x * observed, torch.full((150,), sigma, dtype=torch.float64)
    restored = half_quadratic_splitting(denoiser, y, Mask(observed), sigma_y, sigmas, start=torch.zeros_like(x))
    # the least sum of |A x - y|^2 / sigma_y^2, |x - z|^2 / sigma^2 and (z - m)^T V^-1 (z - m), for each patch
    mean, precision = flow.mean @ flow.basis, flow.basis.T @ (-flow.log_variance).exp().diag() @ flow.basis
    for j in (0, SIDE):
        a, b = (t[0, 0, :, j : j + SIDE].flatten() for t in (observed, y))
        eye = torch.eye(SIDE**2, dtype=torch.float64)
        fit, tie = (a / sigma_y**2).diag(), eye / sigma**2
        system = torch.cat([torch.cat([fit + tie, -tie], dim=1), torch.cat([-tie, precision + tie], dim=1)])
        solution = torch.linalg.solve(system, torch.cat([a * b / sigma_y**2, precision @ mean]))[: SIDE**2]
        torch.testing.assert_close(restored[0, 0, :, j : j + SIDE].flatten(), solution, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 12), (7, 9), (1, 1), (2, 5)])
def test_scales_of_a_denoiser_that_changes_nothing_change_nothing(shape: tuple[int, int]) -> None:
    x = images(*shape)
    torch.testing.assert_close(denoise_at_scales(lambda x, sigma: x, x, torch.full((2,), 0.1), 3), x)


def test_a_scale_replaces_the_means_of_2_x_2_pixels() -> None:
    x, calls = images(5, 6), []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:  # 0 at the first scale, and what it is given at the second
        calls.append((tuple(x.shape[2:]), sigma.tolist()))
        return torch.zeros_like(x) if len(calls) == 1 else x

    denoised = denoise_at_scales(denoise, x, torch.full((2,), 0.1), 2)
    assert calls[0] == ((5, 6), [pytest.approx(0.1)] * 2)
    assert {size for size, _ in calls[1:]} == {(3, 3), (3, 4)}
    assert all(sigma == [pytest.approx(0.05)] * 2 for _, sigma in calls[1:])
    # the mean of the four blocks that a pixel is part of: a filter with weights 1, 2, 1 in both directions
    weights = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    filtered = torch.nn.functional.conv2d(x, (weights[:, None] * weights)[None, None])
    torch.testing.assert_close(denoised[:, :, 1:-1, 1:-1], filtered)


def test_more_than_noise_is_not_removed(flow: PatchFlow) -> None:
    x, sigma = images(SIDE, SIDE), torch.tensor([0.1, 0.2], dtype=torch.float64)
    removed = x - flow(x, sigma)
    limited = x - denoise_patches(flow, x, sigma, limit=0.5)
    rms = removed.flatten(1).square().mean(dim=1).sqrt() / sigma
    assert (rms > 0.5).all()
    torch.testing.assert_close(limited, removed * (0.5 / rms)[:, None, None, None])
    torch.testing.assert_close(denoise_patches(flow, x, sigma, limit=100.0), x - removed)


def test_patches_get_noise_of_their_own_that_the_mean_averages_out() -> None:
    class Identity:
        event_shape = torch.Size([1, SIDE, SIDE])

        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x

    x, sigma = torch.zeros(1, 1, 64, 64), torch.tensor([0.2])
    stds = []
    for stride in (SIDE, 1):
        y = denoise_patches(Identity(), x, sigma, stride=stride, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
        stds.append(float(y[..., SIDE:-SIDE, SIDE:-SIDE].std()))
    assert stds == [pytest.approx(0.2, rel=0.1), pytest.approx(0.2 / SIDE, rel=0.1)]
