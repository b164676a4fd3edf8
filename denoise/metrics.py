"""Quality metrics, thin wrappers of maintained libraries. All take (estimate, reference) in this order."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def mse(estimate: Tensor, reference: Tensor) -> Tensor:
    """Return the mean squared error over all entries.

    Args:
        estimate: estimate, any shape.
        reference: reference, same shape.

    Returns:
        Scalar tensor.
    """
    return (estimate - reference).square().mean()


def r2(estimate: Tensor, reference: Tensor) -> Tensor:
    """Return the coefficient of determination over all entries: 1 is perfect, 0 is as good as the mean.

    Args:
        estimate: estimate, any shape.
        reference: reference, same shape.

    Returns:
        Scalar tensor.
    """
    return 1 - mse(estimate, reference) / (reference - reference.mean()).square().mean().clamp_min(1e-12)


def psnr(estimate: Tensor, reference: Tensor, full_scale: float = 1.0) -> Tensor:
    """Return the peak signal-to-noise ratio of each example.

    Args:
        estimate: (B, C, H, W).
        reference: (B, C, H, W).
        full_scale: value of white.

    Returns:
        (B,), dB.
    """
    error = (estimate - reference).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(full_scale**2 / error)


def ssim(estimate: Tensor, reference: Tensor, full_scale: float = 1.0) -> Tensor:
    """Return the structural similarity of each example: 11 x 11 Gaussian window of sigma 1.5, mean over channels.

    Args:
        estimate: (B, C, H, W), sides of at least 11 pixels.
        reference: (B, C, H, W).
        full_scale: value of white.

    Returns:
        (B,), at most 1.

    Reference:
        Image Quality Assessment: From Error Visibility to Structural Similarity, Wang et al., 2004.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = structural_similarity_index_measure(estimate, reference, data_range=full_scale, reduction="none")
    return cast(Tensor, values)


def chamfer_distance(estimate: Tensor, reference: Tensor) -> Tensor:
    """Return the Chamfer distance of point clouds: mean squared distance to the nearest point, summed both ways.

    Args:
        estimate: coordinates, (B, 3, n).
        reference: coordinates, (B, 3, m).

    Returns:
        (B,), in squared units of the coordinates.

    Reference:
        A Point Set Generation Network for 3D Object Reconstruction from a Single Image, 2016, arXiv:1612.00603, eq. 1.
    """
    squares = torch.cdist(estimate.transpose(1, 2).double(), reference.transpose(1, 2).double()).square()
    return (squares.amin(dim=2).mean(dim=1) + squares.amin(dim=1).mean(dim=1)).to(estimate.dtype)


def bits_per_dim(log_prob: Tensor, entries: int, levels: int = 256) -> Tensor:
    """Convert log-likelihoods in nats to bits per dimension.

    Args:
        log_prob: log-likelihoods of events in nats, any shape.
        entries: number of entries of an event.
        levels: levels of an entry that fill [0, 1], for a density; 1 for a probability.

    Returns:
        Bits per dimension, of the shape of log_prob.

    Reference:
        A Note on the Evaluation of Generative Models, 2015, arXiv:1511.01844.
    """
    return (math.log(levels) - log_prob / entries) / math.log(2)


def frechet_distance(estimate: Tensor, reference: Tensor) -> float:
    """Return the Frechet distance of Gaussians with the moments of two sets of features; 0 is equal.

    It is biased upwards for few examples, so only distances of equally many can be compared.

    Args:
        estimate: features of generated examples, (n, features), several times as many examples as features.
        reference: features of real examples, (m, features).

    Reference:
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, 2017, arXiv:1706.08500.
    """
    (mean_a, covariance_a), (mean_b, covariance_b) = (
        (x.mean(dim=0), torch.cov(x.T, correction=1)) for x in (estimate.double(), reference.double())
    )
    # the eigenvalues of a product of two covariances are those of the symmetric root(a) b root(a): real, not negative
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp_min(0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * overlap
    return max(0.0, float(distance))


def precision_recall(estimate: Tensor, reference: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Return the quality and the diversity of generated examples, from two sets of features.

    Precision is the fraction of the generated examples that lie as near to a real one as one of its nearest real
    neighbours; recall exchanges the roles.

    Args:
        estimate: features of generated examples, (n, features).
        reference: features of real examples, (m, features).
        neighbours: number of the nearest neighbours.

    Reference:
        Improved Precision and Recall Metric for Assessing Generative Models, 2019, arXiv:1904.06991.
    """

    def fraction_inside(x: Tensor, examples: Tensor) -> float:
        exact = "donot_use_mm_for_euclid_dist"  # matrix products lose the digits of near neighbours
        radii = torch.cat(
            [
                torch.cdist(batch, examples, compute_mode=exact).kthvalue(neighbours + 1).values  # +1 is the example
                for batch in examples.split(1000)
            ]
        )
        inside = [(torch.cdist(batch, examples, compute_mode=exact) <= radii).any(dim=1) for batch in x.split(1000)]
        return float(torch.cat(inside).double().mean())

    return fraction_inside(estimate, reference), fraction_inside(reference, estimate)


def class_entropy(classes: Tensor) -> Tensor:
    """Return the entropy of the classes that a classifier assigns to samples: their diversity.

    Args:
        classes: indices of classes, (n,).

    Returns:
        Scalar, bits; ten equally frequent classes have 3.32.
    """
    fractions = torch.bincount(classes) / len(classes)
    return -(fractions * fractions.clamp_min(1e-12).log2()).sum()


def modes_reached(classes: Tensor, n: int, least: float = 0.1) -> Tensor:
    """Return how many classes samples reach.

    Args:
        classes: indices of the classes that a classifier assigns to samples, (samples,).
        n: number of classes.
        least: fraction of the samples that a class needs, relative to equally frequent classes.

    Returns:
        Scalar, an integer of at most n.

    Reference:
        VEEGAN: Reducing Mode Collapse in GANs using Implicit Variational Learning, 2017, arXiv:1705.07761.
    """
    return (torch.bincount(classes, minlength=n) * n >= least * len(classes)).sum()


def auroc(typical: Tensor, anomalous: Tensor) -> float:
    """Return the area under the ROC curve of a score that should be higher for anomalous examples.

    Args:
        typical: scores of typical examples, (n,).
        anomalous: scores of anomalous examples, (m,).

    Returns:
        Probability that an anomalous example has the higher score, ties counted half; 0.5 for a useless score.

    Reference:
        An Introduction to ROC Analysis, Fawcett, 2006.
    """
    from torchmetrics.functional.classification import binary_auroc

    scores = torch.cat([typical, anomalous]).double()
    ranks = torch.unique(scores, return_inverse=True)[1] / len(scores)  # the library squashes scores beyond [0, 1]
    labels = torch.cat([torch.zeros(len(typical)), torch.ones(len(anomalous))]).long()
    return float(binary_auroc(ranks, labels))


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Return the scale-invariant signal-to-distortion ratio over the last axis; the mean is not removed.

    Args:
        estimate: (..., time).
        reference: (..., time).

    Returns:
        (...,), dB, at most 100.

    Reference:
        SDR - Half-baked or Well Done?, 2018, arXiv:1811.02508, eq. 3 to 5.
    """
    # in double precision: in single, 1 - target has no digits left above 60 dB
    target = F.cosine_similarity(estimate.double(), reference.double(), dim=-1, eps=1e-8).square()
    target = target.clamp(1e-10, 1 - 1e-10)
    return (10 * torch.log10(target / (1 - target))).to(estimate.dtype)


def pesq(estimate: Tensor, reference: Tensor, sample_rate: int) -> float:
    """Return the wide-band PESQ (ITU-T P.862.2) of one mono recording.

    Args:
        estimate: (time,).
        reference: (time,).
        sample_rate: 16 000 Hz.

    Returns:
        MOS-LQO from 1 to 4.6; 1 for a silent estimate.

    Raises:
        pesq.NoUtterancesError: there is no speech in the reference.
    """
    from pesq import pesq as pesq_wb

    if not estimate.any():  # the library divides by its peak
        return 1.0
    return float(pesq_wb(sample_rate, _numpy(reference), _numpy(estimate), "wb"))


def stoi(estimate: Tensor, reference: Tensor, sample_rate: int) -> float:
    """Return the short-time objective intelligibility of one mono recording.

    Args:
        estimate: (time,).
        reference: (time,).
        sample_rate: in Hz.

    Returns:
        About 0 to 1.

    Reference:
        An Algorithm for Intelligibility Prediction of Time-Frequency Weighted Noisy Speech, Taal et al., 2011.
    """
    from pystoi import stoi as stoi_classic

    return float(stoi_classic(_numpy(reference), _numpy(estimate), sample_rate))


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()
