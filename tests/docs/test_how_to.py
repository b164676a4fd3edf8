"""The code of the how-to guides does what they say: it is taken from the pages and run."""

from __future__ import annotations

import itertools
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from denoise import registry
from denoise.config import parse
from denoise.errors import ConfigError
from denoise.protocols import Completer, HasLogProb, NoiseDecoder, Prior, SamplingOptions
from denoise.training import objectives
from denoise.training.loop import train
from denoise.training.recipe import Recipe

GUIDES = Path(__file__).parents[2] / "docs/how-to"


def blocks(guide: str, language: str) -> list[str]:
    """The blocks of code of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", (GUIDES / guide).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules and the lines of tables of both pages, as if they had been added to the package."""
    module = ModuleType("")
    for guide in ("add-a-prior.md", "add-an-objective.md"):
        text = (GUIDES / guide).read_text(encoding="utf-8")
        path = next(match[1] for match in re.finditer(r"`(denoise/\S+)\.py`:\n\n```python\n\"\"\"", text))
        name = path.replace("/", ".")
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        source = next(block for block in blocks(guide, "python") if block.startswith('"""'))
        exec(compile(source, f"{guide}: {name}", "exec"), module.__dict__)
    lines = [block for guide in ("add-a-prior.md", "add-an-objective.md") for block in blocks(guide, "python")]
    (prior,) = [line for line in lines if "denoise.priors.rbm" in line and line.startswith("    ")]
    (objective,) = [line for line in lines if line.startswith('    "contrastive-divergence"')]
    monkeypatch.setattr(registry, "PRIORS", registry.PRIORS | eval(f"{{{prior}}}"))
    monkeypatch.setattr(registry, "ARCHITECTURES", registry.ARCHITECTURES | registry.PRIORS)
    protocols = tuple((registry.PRIORS if each is Prior else table, each) for table, each in registry.PROTOCOLS)
    monkeypatch.setattr(registry, "PROTOCOLS", protocols)
    monkeypatch.setattr(objectives, "OBJECTIVES", objectives.OBJECTIVES | eval(f"{{{objective}}}", dict(vars(module))))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def states(n: int) -> Tensor:
    return torch.tensor([*itertools.product([0.0, 1.0], repeat=n)])


@pytest.fixture
def machine(modules: None) -> Any:
    """A machine of four pixels and three hidden units, with weights of the order of 1."""
    torch.manual_seed(0)
    rbm = registry.build("rbm", {"shape": [1, 2, 2], "hidden": 3})
    with torch.no_grad():
        for p in rbm.parameters():
            p.copy_(torch.randn(p.shape))
    return rbm


def exact_probabilities(machine: Any) -> Tensor:
    """The probabilities of all 16 images, by the sum over all 128 states of pixels and hidden units."""
    x, hidden = states(4), states(3)
    with torch.no_grad():
        exponents = (
            torch.einsum("hj,xj,sh->xs", machine.weight, x, hidden)
            + (x @ machine.bias)[:, None]
            + (hidden @ machine.hidden_bias)[None]
        )
    joint = exponents.exp()
    return joint.sum(dim=1) / joint.sum()


def frequencies(samples: Tensor) -> Tensor:
    return torch.bincount((samples.flatten(1) @ torch.tensor([8.0, 4.0, 2.0, 1.0])).long(), minlength=16) / len(samples)


def test_the_prior_of_the_guide_has_the_probabilities_of_its_states(machine: Any) -> None:
    assert isinstance(machine, Prior)
    assert isinstance(machine, Completer)
    assert not isinstance(machine, HasLogProb | NoiseDecoder)
    expected = exact_probabilities(machine)
    torch.testing.assert_close((-machine.free_energy(states(4))).softmax(dim=0), expected)
    samples = machine.sample(20_000, options=SamplingOptions(steps=100), generator=seeded())
    torch.testing.assert_close(frequencies(samples), expected, atol=0.015, rtol=0)


def test_the_prior_of_the_guide_completes_by_conditional_probabilities(machine: Any) -> None:
    x = torch.tensor([[[[1.0, 0.0], [torch.nan, torch.nan]]]]).expand(20_000, -1, -1, -1)
    mask = x.isfinite().float()
    completed = machine.complete(x, mask, options=SamplingOptions(steps=100), generator=seeded())
    expected = exact_probabilities(machine)
    expected[[i for i in range(16) if i // 4 != 2]] = 0
    torch.testing.assert_close(frequencies(completed), expected / expected.sum(), atol=0.015, rtol=0)


def test_what_the_prior_of_the_guide_cannot_do_is_refused(machine: Any) -> None:
    with pytest.raises(ConfigError, match="takes no temperature"):
        machine.sample(1, options=SamplingOptions(temperature=0.5))
    with pytest.raises(ConfigError, match="has no classes"):
        machine.sample(1, label=1)
    with pytest.raises(ConfigError, match="hidden 0; expected sizes of 1 to"):
        registry.build("rbm", {"shape": [4], "hidden": 0})


def guide_recipe(**changes: Any) -> Recipe:
    """The recipe of the guide for images of 2 x 2 pixels."""
    (text,) = (block for block in blocks("add-an-objective.md", "toml") if "examples" in block)
    values = tomllib.loads(text)
    values["model"] = {"shape": [1, 2, 2], "hidden": 8}
    values["examples"]["files"] = ["pixels.npz"]
    values["schedule"] |= {"steps": 1200, "batch": 256, "learning_rate": 0.03}
    return parse(Recipe, values | changes, "guide")


def test_the_objective_of_the_guide_learns_a_distribution(modules: None, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = np.repeat(generator.integers(0, 2, (2000, 2, 1)), 2, axis=2)  # rows of two equal pixels
    np.savez(tmp_path / "pixels.npz", train_images=(255 * pixels).astype(np.uint8))
    recipe = guide_recipe()
    train(recipe, tmp_path, tmp_path / "run", device="cpu", precision="32-true")
    prior, card = registry.load(tmp_path / f"run/{recipe.name}.safetensors")
    assert (card.architecture, card.kind) == ("rbm", "prior")
    samples = prior.sample(2000, options=SamplingOptions(steps=200), generator=seeded())
    assert float((samples[..., 0] == samples[..., 1]).float().mean()) > 0.9
    assert 0.4 < float(samples.mean()) < 0.6


def test_the_objective_of_the_guide_refuses_what_does_not_fit(modules: None) -> None:
    examples = {"files": ["pixels.npz"], "signals": "train_images"}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"examples": examples}, "set examples.binarise = true"),
        ({"architecture": "flow", "model": {"shape": [1, 2, 2]}}, "flow is no Boltzmann machine"),
    ]
    for changes, message in wrong:
        objective = objectives.make_objective(guide_recipe(**changes))
        with pytest.raises(ConfigError, match=message):
            objective.validate(objective.build())
