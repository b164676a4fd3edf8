"""The Gaussian mixture of the benchmark of patches, against scikit-learn, and EPLL, against linear algebra."""

from __future__ import annotations

import numpy as np
import patches
import pytest
import torch

SIGMA = 0.1


def test_the_mixture_has_the_density_and_the_linear_estimates_of_its_components(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixture = pytest.importorskip("sklearn.mixture")
    monkeypatch.setattr(patches, "SIDE", 1)
    rng = np.random.default_rng(0)
    data = rng.normal(0.5, 0.1, (300, 3)) + 0.4 * rng.integers(0, 2, (300, 1))
    fitted = mixture.GaussianMixture(2, random_state=0).fit(data)
    prior = patches.MixturePrior(fitted.weights_, fitted.means_, fitted.covariances_)
    noisy = data[:50] + rng.normal(0, SIGMA, (50, 3))
    fitted.covariances_ = fitted.covariances_ + SIGMA**2 * np.eye(3)
    fitted.precisions_cholesky_ = np.linalg.inv(np.linalg.cholesky(fitted.covariances_)).transpose(0, 2, 1)
    x, sigma = torch.from_numpy(noisy).float().reshape(50, 3, 1, 1), torch.full((50,), SIGMA)
    expected = fitted.score_samples(noisy)
    np.testing.assert_allclose(prior.noisy_log_prob(x, sigma).numpy(), expected, rtol=1e-4, atol=1e-4)
    best = fitted.predict(noisy)
    gains = np.eye(3) - SIGMA**2 * np.linalg.inv(fitted.covariances_)
    means = fitted.means_[best]
    restored = means + np.einsum("nij,nj->ni", gains[best], noisy - means)
    np.testing.assert_allclose(prior(x, sigma).numpy().reshape(50, 3), restored, rtol=1e-3, atol=1e-4)


def test_epll_of_a_normal_distribution_is_an_iteration_of_linear_systems(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patches, "SIDE", 2)
    rng = np.random.default_rng(1)
    root = rng.normal(0, 0.1, (12, 12))
    covariance, mean = root @ root.T, rng.uniform(0.3, 0.7, 12)
    prior = patches.MixturePrior(np.ones(1), mean[None], covariance[None])
    noisy = rng.uniform(0, 1, (4, 5, 3)).astype(np.float32)
    corners = [(i, j) for i in range(3) for j in range(4)]  # of all patches of 2 x 2 in 4 x 5 pixels
    selections = [np.zeros((12, 60)) for _ in corners]  # entries of a patch are (channel, row, column)
    for (i, j), selection in zip(corners, selections, strict=True):
        for entry in range(12):
            channel, row, column = entry // 4, entry // 2 % 2, entry % 2
            selection[entry, ((i + row) * 5 + j + column) * 3 + channel] = 1
    y = x = noisy.reshape(-1).astype(np.float64)
    count = sum(selection.sum(axis=0) for selection in selections)
    for penalty in (1, 4, 8, 16, 32):  # argmin |x - y|^2 / sigma^2 + penalty / sigma^2 mean of |P x - z|^2 at a pixel
        variance = SIGMA**2 / penalty
        total = np.zeros(60)
        for selection in selections:
            z = np.linalg.solve(
                np.eye(12) / variance + np.linalg.inv(covariance),
                selection @ x / variance + np.linalg.solve(covariance, mean),
            )
            total += selection.T @ z
        x = (y / SIGMA**2 + total / count / variance) / (1 / SIGMA**2 + 1 / variance)
    restored = patches.epll_denoiser(prior)(noisy, SIGMA)
    np.testing.assert_allclose(restored.reshape(-1), x, rtol=1e-3, atol=1e-4)
