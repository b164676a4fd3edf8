"""What particular flows promise beside the laws of all priors."""

from __future__ import annotations

import torch

from denoise.priors.flows import FlowConfig, build_flow
from denoise.priors.rad import PIECES, Zigzag


def test_samples_of_a_piecewise_flow_have_its_density() -> None:
    torch.manual_seed(0)
    flow = build_flow(FlowConfig((2,), "rad", transforms=2, hidden=(16,), mean=0.5, scale=1.5)).eval()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1 * torch.randn(p.shape))
        samples = flow.sample(200_000, generator=torch.Generator().manual_seed(0))
        counts = torch.histogramdd(samples, bins=[12, 12], range=[-6.0, 6.0, -6.0, 6.0]).hist / len(samples)
        side = (torch.arange(120) + 0.5) / 10 - 6
        density = flow.log_prob(torch.cartesian_prod(side, side)).exp().view(12, 10, 12, 10).sum(dim=(1, 3)) / 100
    assert counts.sum() > 0.5
    torch.testing.assert_close(counts, density, atol=1.5e-3, rtol=0)


def test_three_signals_have_the_value_of_a_zigzag_near_its_centre() -> None:
    zigzag = Zigzag(2)
    z = torch.tensor([[0.1, -0.2]])
    signals = [zigzag.inverse(z, torch.full((1, 2), k)) for k in range(PIECES)]
    for k, x in enumerate(signals):
        value, piece, log_slope = zigzag(x)
        torch.testing.assert_close(value, z)
        assert (piece == k).all()
        slope = torch.autograd.functional.jacobian(lambda y: zigzag(y)[0].sum(), x).abs()
        torch.testing.assert_close(slope.log(), log_slope)
    assert len({tuple(x[0].tolist()) for x in signals}) == PIECES
    assert zigzag.reaches(torch.tensor([[9.0, -9.0]])).tolist() == [[[False, False, True], [True, False, False]]]


def test_the_flow_of_the_lecture() -> None:
    """Z = 0.5 x - 2.5 is standard normal where x is from N(5, 2^2)."""
    flow = build_flow(FlowConfig((1,), "normal", mean=5.0, scale=2.0))
    x = torch.linspace(-3, 13, 50)[:, None]
    torch.testing.assert_close(flow.encode_noise(x), 0.5 * x - 2.5)
    torch.testing.assert_close(flow.log_prob(x), torch.distributions.Normal(5.0, 2.0).log_prob(x)[:, 0])
