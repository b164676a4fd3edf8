"""The benchmarks of priors, against closed forms."""

import anomaly
import numpy as np
import torch


def test_anomalies_are_what_the_protocol_says() -> None:
    digits = torch.rand(5, 1, 8, 6, generator=torch.Generator().manual_seed(0))
    kinds = anomaly.make_anomalies(digits, torch.Generator().manual_seed(1))
    assert all(x.shape == digits.shape and x.min() >= 0 and x.max() <= 1 for x in kinds.values())
    assert not kinds["blank"].any()
    assert torch.equal(kinds["half"][:, :, :4], digits[:, :, :4])
    assert not kinds["half"][:, :, 4:].any()
    torch.testing.assert_close(kinds["inverted"] + digits, torch.ones_like(digits))
    sorted_pixels = [x.flatten(1).sort(dim=1).values for x in (digits, kinds["shuffled"])]
    assert torch.equal(*sorted_pixels)
    orders = [np.argsort(np.argsort(x.flatten())) for x in kinds["shuffled"].numpy()]
    assert len({tuple(order) for order in orders}) == 5
    inner = (digits - 0.5).abs() < 0.05  # where no noise is clipped
    assert 0.1 < float((kinds["noisy"] - digits)[inner].std()) < 0.3


def test_scores_of_anomalies_are_higher_where_the_likelihood_is_lower() -> None:
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x[::2] = x[::2].round()  # of lower complexity
    nats = torch.linspace(-60, -40, 20)
    scores = anomaly.make_scores(nats, x)
    for name, score in scores.items():
        low, middle = score(torch.tensor([-500.0, -50.0]), x[:1].expand(2, -1, -1, -1))
        assert low > middle, name
    assert scores["typicality"](torch.tensor([0.0]), x[:1]) == 50
