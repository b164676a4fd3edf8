"""Muon against torch's for matrices, against AdamW for other weights, and the orthogonality of its updates."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from denoise.training.optimizer import Muon, orthogonalise


def test_matrices_are_updated_as_by_torchs_muon_and_vectors_as_by_adamw() -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((48, 20), (16, 64), (24,), (32, 3, 3, 3))]
    ours = [nn.Parameter(p.clone()) for p in start]
    theirs = [nn.Parameter(p.clone()) for p in start]
    optimizer = Muon(ours, lr=3e-3, weight_decay=0.1)
    references = (
        torch.optim.Muon(theirs[:2], lr=3e-3, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(theirs[2:], lr=3e-3, weight_decay=0.1),
    )
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        for each in (optimizer, *references):
            each.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    assert not torch.allclose(ours[0], start[0], atol=1e-3)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_is_updated_as_its_matrix(memory_format: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(1)
    weight, gradient = (torch.randn(20, 24, 3, 3, generator=generator) for _ in range(2))
    conv = nn.Parameter(weight.clone(memory_format=memory_format))
    flat = nn.Parameter(weight.flatten(1).clone())
    conv.grad, flat.grad = gradient.clone(memory_format=memory_format), gradient.flatten(1)
    Muon([conv], lr=1e-2).step()
    torch.optim.Muon([flat], lr=1e-2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw").step()
    update, expected = conv.detach().flatten(1) - weight.flatten(1), flat.detach() - weight.flatten(1)
    assert (update - expected).norm() < 0.02 * expected.norm()  # another order of columns has other rounding errors
    assert update.abs().max() > 1e-3


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_orthogonalise_preserves_singular_vectors_with_values_near_one(rows: int, columns: int, seed: int) -> None:
    # of condition 1 to 10: five steps cannot lift singular values that are thousands of times smaller
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    x = u @ torch.diag(torch.linspace(1, 10, len(s))) @ v
    y = orthogonalise(x)
    assert y.shape == x.shape
    singular = torch.linalg.svdvals(y)
    assert singular.min() > 0.4
    assert singular.max() < 1.4
    # U^T Y V is diagonal with positive entries
    core = u.T @ y @ v.T
    assert (core - torch.diag(core.diagonal())).abs().max() < 0.1
    assert core.diagonal().min() > 0.4


def test_state_is_restored() -> None:
    def run(optimizer: Muon, p: nn.Parameter, steps: range) -> None:
        for i in steps:
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
            optimizer.step()

    whole, resumed = (nn.Parameter(torch.ones(16, 16)) for _ in range(2))
    run(Muon([whole]), whole, range(6))
    first = Muon([resumed])
    run(first, resumed, range(3))
    second = Muon([resumed])
    second.load_state_dict(first.state_dict())
    run(second, resumed, range(3, 6))
    assert torch.equal(whole, resumed)


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="closure"):
        Muon([nn.Parameter(torch.ones(16, 16))]).step(lambda: 0.0)
