"""The training loop: one for every objective."""

from __future__ import annotations

import copy
import math
import os
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import nn

from denoise.errors import TrainingError
from denoise.noise import generator_for
from denoise.registry import locate
from denoise.training.batches import prefetch
from denoise.training.data import Source
from denoise.training.export import export
from denoise.training.initial import load_initial_weights
from denoise.training.log import MetricsLog, Report
from denoise.training.objectives import Objective, make_objective
from denoise.training.recipe import Recipe, Schedule
from denoise.training.state import TrainingState
from denoise.training.trainer import Trainer

MAX_SKIPPED = 0.9  # of the last steps, beyond which a training has not learnt


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Round numbers below 1e-38 to 0 in this context: gradients of that size make products a hundred times slower."""
    was_flushing = bool(torch.tensor(1e-40) * 0.5 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushing)


@flush_denormals()
def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    minutes: float | None = None,
    resume: bool = False,
    device: str = "auto",
    precision: str = "bf16-mixed",
    report: Report = lambda row: None,
) -> Path:
    """Train a recipe and write ``NAME.safetensors``, ``metrics.jsonl`` and samples.

    Args:
        recipe: recipe of the training.
        data: folder that the paths of the recipe are relative to.
        out: folder that is written.
        minutes: budget of time, with that before a resumption. The learning rate then follows the clock, so that the
            budget ends annealed. Without it, a resumed training repeats an uninterrupted one exactly.
        resume: continue from the last checkpoint.
        device: Lightning accelerator, e.g. ``"cpu"``, ``"cuda"``.
        precision: Lightning precision, ``"bf16-mixed"`` or ``"32-true"``.
        report: called with each row of the metrics, with ``progress`` from 0 to 1.

    Returns:
        The weights file.

    Raises:
        ConfigError: data, recipe and network do not fit, or there is nothing to resume.
        TrainingError: nearly all of the last steps were skipped, because their gradients were not finite.
    """
    objective = make_objective(recipe)
    fabric = make_fabric(objective, device, precision)
    fabric.seed_everything(recipe.schedule.seed, verbose=False)
    state = make_state(objective, fabric, minutes)
    state.open(out / "checkpoint.pt", resume)
    out.mkdir(parents=True, exist_ok=True)
    source = objective.open_data(data, state.trainer.module)
    train_steps(objective, state, source, out, report)
    fabric.barrier()
    if fabric.world_size > 1:  # its threads must end before the process does, otherwise it may crash
        torch.distributed.destroy_process_group()
    return out / f"{recipe.name}.safetensors"


def train_steps(objective: Objective, state: TrainingState, source: Source, out: Path, report: Report) -> None:
    """Take all remaining steps of a training; write its log, checkpoints, samples and weights.

    Args:
        objective: objective, which owns the step.
        state: state to start from.
        source: training data.
        out: folder that is written.
        report: called with each row of the metrics.

    Raises:
        TrainingError: nearly all of the last steps were skipped.
    """
    recipe, schedule, trainer = objective.recipe, objective.recipe.schedule, state.trainer
    fabric = trainer.fabric
    log = MetricsLog(out / "metrics.jsonl", state, report) if fabric.is_global_zero else None
    skipped = deque[bool](maxlen=max(10, schedule.log_every))

    def export_as(name: str) -> None:
        class_names = objective.class_names(state.ema, source)
        export(out / f"{name}.safetensors", recipe, state.ema, class_names, state.seconds / 60)

    is_cpu = fabric.device.type == "cpu"
    with closing(prefetch(source, schedule, state.step, fabric.global_rank, is_cpu)) as batches:
        state.start_clock()
        while (progress := state.progress) < 1:
            trainer.step = state.step
            learning_rate = trainer.set_learning_rates(
                partial(anneal, schedule=schedule, step=state.step, progress=progress)
            )
            torch.manual_seed(generator_for(schedule.seed, state.step, fabric.global_rank).initial_seed())
            trainer.has_skipped = False
            result = objective.step(trainer, next(batches).map(fabric.to_device))
            state.advance()
            skipped.append(trainer.has_skipped)
            is_last = state.progress >= 1
            if log and trainer.has_skipped:
                log.skipped_steps += 1
            if log and (is_last or state.is_due(schedule.log_every)):
                log.write(state, result, learning_rate, progress, schedule.batch * fabric.world_size)
            if is_last and len(skipped) == min(state.step, skipped.maxlen or 0):  # a resumption may know too few steps
                check_not_diverged(skipped, recipe.name)
            if is_last or state.is_due(schedule.checkpoint_every):
                state.save(out / "checkpoint.pt")
            if fabric.is_global_zero and (is_last or state.is_due(schedule.sample_every)):
                export_as(recipe.name)
                with torch.no_grad():  # behind the weights: those of slow samplers may be interrupted
                    objective.write_samples(out, state.step, state.ema.eval(), source)
            if fabric.is_global_zero and state.is_due(schedule.keep_every):
                export_as(f"{recipe.name}-{state.step}")
    if fabric.is_global_zero:  # again, for a resumption without remaining steps
        export_as(recipe.name)


def check_not_diverged(skipped: Collection[bool], name: str) -> None:
    """Refuse the weights of a training that ended without learning, before they are written.

    Args:
        skipped: of each of the last steps, whether it was skipped, because its gradient was not finite.
        name: name of the recipe.

    Raises:
        TrainingError: nearly all of them were.
    """
    if sum(skipped) >= MAX_SKIPPED * len(skipped):
        raise TrainingError(
            f"recipe {name}: the loss or its gradient was not finite in {sum(skipped)} of the last {len(skipped)} "
            "steps, which were skipped; expected finite ones. Check the data, lower schedule.learning_rate, or train "
            "with --precision 32-true."
        )


def anneal(rate: float, schedule: Schedule, step: int, progress: float) -> float:
    """Return the learning rate of a step: linear warm-up, then a half cosine to 0.

    Args:
        rate: learning rate after the warm-up.
        schedule: steps of the warm-up.
        step: index of the step.
        progress: complete fraction of the schedule.
    """
    return rate * min(1.0, (step + 1) / max(1, schedule.warmup)) * (0.5 + 0.5 * math.cos(math.pi * progress))


def make_fabric(objective: Objective, device: str, precision: str) -> Fabric:
    """Return Lightning's Fabric: one process, or those of its launcher (``fabric run``), with its settings.

    Args:
        objective: objective of the training.
        device: Lightning accelerator.
        precision: Lightning precision.
    """
    if "LT_CLI_USED" not in os.environ:
        return Fabric(accelerator=device, devices=1, precision=precision)  # type: ignore[arg-type]
    needs_search = objective.partial_backward and "LT_STRATEGY" not in os.environ
    strategy = "ddp_find_unused_parameters_true" if needs_search else "auto"
    return Fabric(accelerator=device, devices="auto", strategy=strategy, precision=precision)  # type: ignore[arg-type]


def make_state(objective: Objective, fabric: Fabric, minutes: float | None) -> TrainingState:
    """Build the module of an objective, its optimizers and its averaged copy, before the first step.

    Args:
        objective: objective of the training.
        fabric: device, precision and processes.
        minutes: budget of time.

    Raises:
        ConfigError: recipe and module do not fit.
    """
    recipe = objective.recipe
    module = objective.build()
    objective.validate(module)
    if recipe.init:
        load_initial_weights(locate(recipe.init), objective.shipped(module))
    if any(p.ndim == 4 for p in module.parameters()):
        module = module.to(memory_format=torch.channels_last)
    ema: nn.Module = copy.deepcopy(objective.shipped(module)).requires_grad_(False)
    optimizers = objective.configure_optimizers(module, recipe.schedule)
    trainer = Trainer(fabric, module, optimizers, recipe.schedule.grad_clip)
    return TrainingState(trainer, objective.shipped(module), fabric.to_device(ema), recipe, minutes)
