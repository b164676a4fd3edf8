"""The code of the how-to guides does what they say: it is taken from the pages and run."""

from __future__ import annotations

import itertools
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from denoise import registry
from denoise.config import parse
from denoise.errors import ConfigError
from denoise.files.image import write_image
from denoise.pipelines.image import ImagePipeline
from denoise.protocols import Completer, HasLogProb, Network, NoiseDecoder, Prior, SamplingOptions
from denoise.signals import Image, ImageFormat
from denoise.training import objectives
from denoise.training.loop import train
from denoise.training.losses import denoising
from denoise.training.recipe import Loss, Recipe
from tests.laws import test_denoisers, test_priors

GUIDES = Path(__file__).parents[2] / "docs/how-to"
NETWORK, PRIOR, OBJECTIVE = "add-a-network.md", "add-a-prior.md", "add-an-objective.md"


def blocks(guide: str, language: str) -> list[str]:
    """The blocks of code of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", (GUIDES / guide).read_text(encoding="utf-8"), re.DOTALL)


def add_module(guide: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the module of a page as if it had been added to the package."""
    text = (GUIDES / guide).read_text(encoding="utf-8")
    (path,) = re.findall(r"`(denoise/\S+)\.py`[^\n]*:\n\n```python\n\"\"\"", text)
    (source,) = (block for block in blocks(guide, "python") if block.startswith('"""'))
    module = ModuleType(path.replace("/", "."))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, f"{guide}: {module.__name__}", "exec"), module.__dict__)


def line(guide: str, start: str, names: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Return the line of a table that a page states in a block of its own."""
    (text,) = (block for block in blocks(guide, "python") if block.startswith(f"    {start}"))
    entry: dict[str, Any] = eval(f"{{{text}}}", dict(names))
    return entry


def register(table: str, protocol: Any, added: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a line to a table of the registry."""
    entries = getattr(registry, table) | added
    protocols = tuple((entries if each is protocol else others, each) for others, each in registry.PROTOCOLS)
    monkeypatch.setattr(registry, table, entries)
    monkeypatch.setattr(registry, "ARCHITECTURES", registry.ARCHITECTURES | entries)
    monkeypatch.setattr(registry, "PROTOCOLS", protocols)


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prior and its objective of two pages, as if they had been added to the package."""
    for guide in (PRIOR, OBJECTIVE):
        add_module(guide, monkeypatch)
    register("PRIORS", Prior, line(PRIOR, '"rbm": ("denoise'), monkeypatch)
    imported: dict[str, Any] = {}
    (source,) = (block for block in blocks(OBJECTIVE, "python") if block.startswith("from denoise.training.objectives"))
    exec(source, imported)
    added = line(OBJECTIVE, '"contrastive-divergence"', imported)
    monkeypatch.setattr(objectives, "OBJECTIVES", objectives.OBJECTIVES | added)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network of its page, as if it had been added to the package."""
    add_module(NETWORK, monkeypatch)
    register("NETWORKS", Network, line(NETWORK, '"small-cnn": ("denoise'), monkeypatch)


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
    (text,) = (block for block in blocks(OBJECTIVE, "toml") if "examples" in block)
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


def test_the_lines_of_the_guide_are_those_that_the_laws_need(modules: None, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (GUIDES / PRIOR).read_text(encoding="utf-8")
    rows = dict(re.findall(r"\| `([A-Z]+)` \| `(.+)` \|$", text, re.MULTILINE))
    names = vars(test_priors) | vars(sys.modules["denoise.priors.rbm"])
    added = {table: eval(f"{{{row}}}", dict(names)) for table, row in rows.items()}
    for table in ("BUILDERS", "CAPABILITIES", "ARCHITECTURES"):
        monkeypatch.setattr(test_priors, table, getattr(test_priors, table) | added[table])
    test_priors.test_the_capabilities_of_every_prior_are_stated()
    test_priors.test_capabilities_are_declared_truthfully("rbm")
    ((settings, architecture),) = zip(added["SMALL"].values(), added["ARCHITECTURES"].values(), strict=True)
    assert type(registry.build(architecture, settings)) in added["ARCHITECTURES"]


def test_the_network_of_the_guide_obeys_the_laws(network: None) -> None:
    (text,) = (block for block in blocks(NETWORK, "python") if "# tests/laws/test_denoisers.py" in block)
    for_laws, for_weights = (eval(f"{{{each}\n}}")["small-cnn"] for each in text.splitlines())
    assert for_laws == ("small-cnn", for_weights)
    torch.manual_seed(0)
    net = registry.build(*for_laws).eval().requires_grad_(False)
    for law in (
        test_denoisers.test_networks_implement_the_protocol,
        test_denoisers.test_sigma_is_refused_or_required_and_never_ignored,
        test_denoisers.test_context_bounds_the_receptive_field,
        test_denoisers.test_every_weight_has_a_gradient,
    ):
        law(net)
    with pytest.raises(ConfigError, match="must be 1 to 4096"):
        registry.build("small-cnn", {"width": 0})


def test_the_network_of_the_guide_is_trained_by_its_recipe(network: None, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 40, 3)).astype(np.uint8)
    write_image(tmp_path / "photos/a.png", [Image(pixels)], ImageFormat())
    values = tomllib.loads(blocks(NETWORK, "toml")[0])
    values["image"]["patch"] = 16
    values["schedule"] |= {"steps": 2, "batch": 2}
    recipe = parse(Recipe, values, "guide")
    train(recipe, tmp_path, tmp_path / "run", device="cpu", precision="32-true")
    pipeline = ImagePipeline(str(tmp_path / "run/small-cnn.safetensors"), device="cpu")
    assert pipeline.frame(Image(pixels)).pixels.shape == pixels.shape


def test_the_loss_of_the_guide_is_one_more_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = (block for block in blocks(OBJECTIVE, "python") if block.startswith("def charbonnier"))
    names = dict(vars(denoising))
    exec(compile(source, OBJECTIVE, "exec"), names)
    losses = line(OBJECTIVE, '"image": {"psnr"', names)
    assert losses["image"] == denoising.DENOISING_LOSSES["image"] | {"charbonnier": names["charbonnier"]}
    settings = parse(Loss, tomllib.loads(blocks(OBJECTIVE, "toml")[0])["loss"], "guide")
    clean, error = torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 3e-3)
    estimate = denoising.Estimate(clean + error, clean, clean, None, torch.zeros(2))
    assert settings.name == "charbonnier"
    assert float(losses["image"][settings.name](estimate, settings)) == pytest.approx(1e-5**0.5)
