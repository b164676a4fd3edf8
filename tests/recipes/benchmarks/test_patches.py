"""The Gaussian mixture of the benchmark of patches, against scikit-learn."""

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
