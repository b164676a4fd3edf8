import numpy as np
import pesq
import pystoi
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.spatial
import scipy.stats
import sklearn.metrics
import sklearn.neighbors
import torch
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from denoise import metrics


def test_psnr_of_a_known_error() -> None:
    x = torch.rand(2, 3, 16, 16)
    error = torch.full_like(x, 0.1)
    error[1] = 0.01
    np.testing.assert_allclose(metrics.psnr(x + error, x), [20.0, 40.0], atol=1e-3)
    np.testing.assert_allclose(metrics.psnr(255 * (x + error), 255 * x, 255.0), [20.0, 40.0], atol=1e-3)


def test_si_sdr_matches_torchmetrics() -> None:
    reference, estimate = torch.randn(4, 1000), torch.randn(4, 1000)
    estimate = 3 * (reference + 0.1 * estimate)
    expected = scale_invariant_signal_distortion_ratio(estimate, reference)
    torch.testing.assert_close(metrics.si_sdr(estimate, reference), expected, atol=1e-3, rtol=0)


def test_si_sdr_of_orthogonal_noise() -> None:
    reference, added = torch.zeros(100), torch.zeros(100)
    reference[:50], added[50:] = 1.0, 0.1
    assert float(metrics.si_sdr(reference + added, reference)) == pytest.approx(20.0, abs=1e-3)


def test_ssim_of_equal_and_of_unrelated_images() -> None:
    x = torch.rand(2, 3, 32, 32)
    np.testing.assert_allclose(metrics.ssim(x, x), [1.0, 1.0], atol=1e-5)
    assert float(metrics.ssim(torch.rand(2, 3, 32, 32), x).max()) < 0.3


def test_chamfer_distance_matches_a_tree_search() -> None:
    a, b = torch.randn(3, 3, 200), 0.1 + torch.randn(3, 3, 150)
    expected = []
    for x, y in zip(a.transpose(1, 2).numpy(), b.transpose(1, 2).numpy(), strict=True):
        there, back = scipy.spatial.cKDTree(y).query(x)[0], scipy.spatial.cKDTree(x).query(y)[0]
        expected.append((there**2).mean() + (back**2).mean())
    np.testing.assert_allclose(metrics.chamfer_distance(a, b), expected, rtol=1e-5)
    np.testing.assert_allclose(metrics.chamfer_distance(a, a), 0, atol=1e-12)


def test_modes_reached_are_classes_with_a_tenth_of_their_share() -> None:
    counts = torch.tensor([600, 10, 9, 0, 381])  # of 5 classes: a tenth of an equal share is 20 of 1000
    assert metrics.modes_reached(torch.arange(5).repeat_interleave(counts), 5) == 2
    assert metrics.modes_reached(torch.arange(10), 10) == 10
    assert metrics.modes_reached(torch.zeros(7).long(), 10) == 1


def test_auroc_matches_scikit_learn_and_counts_ties_half() -> None:
    typical, anomalous = torch.randn(50).mul(30).round(), 20 + torch.randn(40).mul(30).round()
    labels = np.repeat([0, 1], [50, 40])
    expected = sklearn.metrics.roc_auc_score(labels, torch.cat([typical, anomalous]))
    assert metrics.auroc(typical, anomalous) == pytest.approx(expected, abs=1e-6)
    assert metrics.auroc(torch.zeros(3), torch.zeros(4)) == 0.5
    assert metrics.auroc(torch.tensor([-1e9, 0.0]), torch.tensor([1e-9, 1e9])) == 1.0  # log-likelihoods have any scale


def test_r2_of_the_mean_and_of_the_reference() -> None:
    x = torch.rand(100)
    assert float(metrics.r2(x, x)) == 1.0
    assert float(metrics.r2(x.mean().expand(100), x)) == pytest.approx(0.0, abs=1e-5)


def test_speech_metrics_fall_with_noise() -> None:
    t = torch.arange(32_000) / 16_000
    voice = sum(torch.sin(2 * torch.pi * 120 * k * t) / k for k in range(1, 20))
    clean = 0.1 * voice * (torch.sin(2 * torch.pi * 3 * t) > 0)
    noisy = clean + 0.05 * torch.randn(32_000, generator=torch.Generator().manual_seed(0))
    assert metrics.pesq(clean, clean, 16_000) == pytest.approx(4.644, abs=1e-2)
    assert metrics.stoi(clean, clean, 16_000) == pytest.approx(1.0, abs=1e-6)
    assert metrics.pesq(noisy, clean, 16_000) < 3
    assert metrics.stoi(noisy, clean, 16_000) < 0.95
    assert metrics.pesq(torch.zeros_like(clean), clean, 16_000) == 1  # a silent estimate
    with pytest.raises(pesq.NoUtterancesError):
        metrics.pesq(noisy, torch.zeros_like(clean), 16_000)


def smooth(seed: int) -> torch.Tensor:
    """Return smooth random images in [0, 1]."""
    x = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(2, 3, 40, 50)), (0, 0, 3, 3))
    return torch.from_numpy((x - x.min()) / (x.max() - x.min()))


def test_ssim_matches_the_formula_of_the_paper_in_scipy() -> None:
    clean = smooth(0)
    added = torch.from_numpy(np.random.default_rng(1).normal(size=clean.shape))
    noisy = clean + torch.tensor([0.02, 0.2])[:, None, None, None] * added

    def blur(x: np.ndarray) -> np.ndarray:  # 11 x 11, mirrored at the borders
        return scipy.ndimage.gaussian_filter(x, (0, 0, 1.5, 1.5), radius=(0, 0, 5, 5), mode="mirror")

    a, b, c1, c2 = noisy.numpy(), clean.numpy(), 0.01**2, 0.03**2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    expected = (luminance * (2 * cov + c2) / (var_a + var_b + c2)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(metrics.ssim(noisy, clean).numpy(), expected, atol=1e-5)


def test_ssim_of_constant_images_is_the_luminance_term() -> None:
    a, b = torch.full((1, 3, 20, 20), 51.0), torch.full((1, 3, 20, 20), 204.0)
    expected = (2 * 51 * 204 + 2.55**2) / (51**2 + 204**2 + 2.55**2)
    assert metrics.ssim(a, b, 255.0).item() == pytest.approx(expected, abs=1e-4)


def test_r2_matches_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    clean = 3 * rng.normal(size=400) + 2
    noisy = clean + 0.5 * rng.normal(size=400)
    expected = sklearn.metrics.r2_score(clean, noisy)
    assert float(metrics.r2(torch.from_numpy(noisy), torch.from_numpy(clean))) == pytest.approx(expected)


@pytest.mark.parametrize("sdr", [-20.0, 0.0, 30.0])
@pytest.mark.parametrize("scale", [1e-3, 7.0, -1.0])
def test_si_sdr_is_invariant_to_scale(sdr: float, scale: float) -> None:
    t = torch.arange(16_000, dtype=torch.float64) / 16_000
    target, error = torch.sin(2 * torch.pi * 200 * t), torch.sin(2 * torch.pi * 300 * t)
    estimate = scale * (target + 10 ** (-sdr / 20) * error)
    assert float(metrics.si_sdr(estimate.float(), target.float())) == pytest.approx(sdr, abs=0.05)


def test_si_sdr_of_a_close_estimate_is_precise() -> None:
    clean, error = torch.randn(2, 48_000, generator=torch.Generator().manual_seed(0))
    estimate = clean + 1e-3 * error
    expected = scale_invariant_signal_distortion_ratio(estimate.double(), clean.double())
    assert float(metrics.si_sdr(estimate, clean)) == pytest.approx(float(expected), abs=0.1)


def test_si_sdr_of_a_perfect_estimate_is_finite() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(metrics.si_sdr(x, x))


def test_argument_order_is_estimate_then_reference() -> None:
    t = torch.arange(32_000) / 16_000
    voice = sum(torch.sin(2 * torch.pi * 120 * k * t) / k for k in range(1, 20))
    clean = 0.1 * voice * (torch.sin(2 * torch.pi * 3 * t) > 0)
    noisy = clean + 0.01 * torch.randn(32_000, generator=torch.Generator().manual_seed(0))
    a, b = noisy.double().numpy(), clean.double().numpy()
    assert pystoi.stoi(b, a, 16_000) != pytest.approx(pystoi.stoi(a, b, 16_000), abs=1e-4)  # the order matters
    assert metrics.stoi(noisy, clean, 16_000) == pytest.approx(pystoi.stoi(b, a, 16_000))
    assert metrics.pesq(noisy, clean, 16_000) == pytest.approx(pesq.pesq(16_000, b, a, "wb"))


def test_frechet_distance_matches_the_matrix_root() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(300, 5, generator=generator) @ torch.randn(5, 5, generator=generator)
    b = torch.randn(200, 5, generator=generator) + 1.0
    covariances = [np.cov(x.numpy(), rowvar=False) for x in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = float((a.mean(dim=0) - b.mean(dim=0)).square().sum()) + np.trace(sum(covariances) - 2 * root)
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_of_equal_sets_and_of_a_shift() -> None:
    x = torch.randn(100, 4)
    assert metrics.frechet_distance(x, x) == pytest.approx(0.0, abs=1e-6)
    assert metrics.frechet_distance(x + torch.tensor([3.0, 0, 0, 4.0]), x) == pytest.approx(25.0, rel=1e-4)


def test_frechet_distance_of_a_constant_set() -> None:
    x = torch.randn(100, 4)
    variance = float(x.double().var(dim=0).sum())
    mean = x.mean(dim=0, keepdim=True).expand(100, -1)
    assert metrics.frechet_distance(mean, x) == pytest.approx(variance, rel=1e-4)


def test_precision_and_recall_match_nearest_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(60, 2, generator=generator), 1.5 * torch.randn(50, 2, generator=generator) + 0.5

    def expected(x: torch.Tensor, examples: torch.Tensor) -> float:
        model = sklearn.neighbors.NearestNeighbors(n_neighbors=4).fit(examples.numpy())
        radii = model.kneighbors(examples.numpy())[0][:, -1]
        distances = scipy.spatial.distance.cdist(x.numpy(), examples.numpy())
        return float((distances <= radii).any(axis=1).mean())

    precision, recall = metrics.precision_recall(a, b)
    assert precision == pytest.approx(expected(a, b))
    assert recall == pytest.approx(expected(b, a))
    assert precision != recall


def test_a_lost_mode_costs_recall_and_not_precision() -> None:
    modes = torch.randn(200, 2) + torch.tensor([100.0, 0.0]) * (torch.arange(200)[:, None] % 2)
    assert metrics.precision_recall(modes[::2], modes) == (1.0, 0.5)
    assert metrics.precision_recall(modes, modes) == (1.0, 1.0)


def test_the_entropy_of_classes_is_that_of_scipy() -> None:
    classes = torch.tensor([0, 0, 0, 2, 2, 5])
    expected = scipy.stats.entropy([3, 2, 1], base=2)
    assert float(metrics.class_entropy(classes)) == pytest.approx(expected, rel=1e-6)
    assert float(metrics.class_entropy(torch.arange(10))) == pytest.approx(np.log2(10), rel=1e-6)
    assert float(metrics.class_entropy(torch.zeros(4, dtype=torch.long))) == 0
