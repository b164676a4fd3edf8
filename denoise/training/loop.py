"""The training loop: one for every network, readable in one sitting."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from denoise.errors import ConfigError
from denoise.noise import generator_for
from denoise.priors.latent import LatentPrior, LatentPriorConfig
from denoise.protocols import Network, Prior
from denoise.registry import build, kind_of, load, locate
from denoise.training.data import Batch, ImagePatches
from denoise.training.examples import LabelledExamples
from denoise.training.mixes import AudioMixes
from denoise.training.objectives import Metrics, Objective, as_denoiser, objective_of
from denoise.training.optimizer import Muon
from denoise.training.recipe import Degradations, Loss, Recipe, Schedule
from denoise.training.samples import write_denoised, write_signals
from denoise.weights import Card, load_tensors, save_weights

Report = Callable[[dict[str, Any]], None]
Source = ImagePatches | AudioMixes | LabelledExamples
OPTIMIZERS = {"adamw": torch.optim.AdamW, "muon": Muon}


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Take numbers below 1e-38 for 0: gradients of that size make a multiplication a hundred times slower."""
    before = bool(torch.tensor(1e-40) * 0.5 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@flushed_denormals()
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
    """Train a recipe and write ``NAME.safetensors``, ``metrics.jsonl`` and samples into ``out``.

    With ``minutes`` the cosine follows the clock (the minutes before a resumption are counted in), so
    that the budget ends annealed; without it a resumed run repeats the uninterrupted one exactly.
    ``report`` gets each row of the metrics file, with ``progress`` from 0 to 1.

    Raises:
        ConfigError: data or recipe do not fit, or there is nothing to resume.
    """
    # Under Fabric's launcher (`fabric run`) its settings of devices and nodes come through the environment.
    fabric = Fabric(accelerator=device, devices="auto" if "LT_CLI_USED" in os.environ else 1, precision=precision)  # type: ignore[arg-type]
    s = recipe.schedule
    fabric.seed_everything(s.seed, verbose=False)
    module, architecture = make(recipe)
    if recipe.objective == "denoising" and recipe.audio and module.channels != recipe.audio.channels:
        given = recipe.audio.channels
        raise ConfigError(f"recipe {recipe.name}: the network takes {module.channels} channels, the data have {given}.")
    if recipe.objective != "denoising" and recipe.audio and not recipe.examples:
        made, wanted = round(recipe.audio.seconds * recipe.audio.sample_rates[0]), tuple(module.event_shape)  # type: ignore[arg-type]
        if wanted != (1, made):
            raise ConfigError(f"recipe {recipe.name}: signals are of {wanted}, audio.seconds makes (1, {made}).")
    if recipe.image and recipe.image.degrade != Degradations() and not module.blind:
        raise ConfigError(
            f"recipe {recipe.name}: the network is told sigma, which image.degrade changes; leave one out."
        )
    if recipe.init:
        load_tensors(locate(recipe.init), module, partial=True)
    if any(p.ndim == 4 for p in module.parameters()):
        module = module.to(memory_format=torch.channels_last)
    ema = copy.deepcopy(module).requires_grad_(False)
    learning = [p for p in module.parameters() if p.requires_grad]
    optimizer = OPTIMIZERS[s.optimizer](learning, lr=s.learning_rate, weight_decay=s.weight_decay)
    model, optimizer = fabric.setup(Trained(module, objective_of(recipe), recipe.loss), optimizer)
    ema = fabric.to_device(ema)
    state: dict[str, Any] = {"model": model, "ema": ema, "optimizer": optimizer, "step": 0, "seconds": 0.0}
    checkpoint = out / "checkpoint.pt"
    if resume:
        if not checkpoint.exists():
            raise ConfigError(f"{checkpoint}: nothing to resume. Leave --resume out to start anew.")
        try:
            rest = fabric.load(checkpoint, {k: state[k] for k in ("model", "ema", "optimizer")}, weights_only=True)
        except (RuntimeError, ValueError):
            raise ConfigError(f"{checkpoint}: is of another network than this recipe's. Give another --out.") from None
        state.update(rest)
    elif checkpoint.exists():
        raise ConfigError(f"{out}: holds a training already. Give --resume to go on, or another --out.")
    out.mkdir(parents=True, exist_ok=True)
    if fabric.is_global_zero:
        keep_rows(out / "metrics.jsonl", state["step"])
    knows = {key: getattr(module, key) for key in ("channels", "classes", "text") if hasattr(module, key)}
    source = open_data(recipe, data, **knows)

    def progress(step: int, seconds: float) -> float:
        """The part of the schedule that is behind us."""
        return max(step / s.steps, seconds / (60 * minutes) if minutes else 0.0)

    started, before = time.monotonic(), state["seconds"]
    last_row, rows_from = started, state["step"]
    with closing(batches_ahead(source, s, state["step"], fabric.global_rank, fabric.device.type == "cpu")) as batches:
        while (done := progress(state["step"], state["seconds"])) < 1:
            step = state["step"]
            rate = s.learning_rate * min(1.0, (step + 1) / max(1, s.warmup)) * (0.5 + 0.5 * math.cos(math.pi * done))
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed(generator_for(s.seed, step, fabric.global_rank).initial_seed())  # what losses draw
            batch = next(batches).map(fabric.to_device)
            loss, metrics = model(lambda batch=batch: batch)  # a bare one would be rounded to bfloat16 on its way
            fabric.backward(loss)
            norm = fabric.clip_gradients(model, optimizer, max_norm=s.grad_clip, error_if_nonfinite=False)
            if norm is not None and torch.isfinite(norm):  # one overflowing batch must not end a night's training
                optimizer.step()
            optimizer.zero_grad()
            update_ema(ema, module, min(s.ema, (step + 1) / (step + 10)))
            seconds = before + time.monotonic() - started
            # one clock for all processes, or they would disagree on which step is the last
            state["step"], state["seconds"] = step + 1, fabric.broadcast(seconds) if fabric.world_size > 1 else seconds
            ended = progress(state["step"], state["seconds"]) >= 1
            if (step + 1) % s.log_every == 0 or ended:
                now = time.monotonic()
                row = {
                    "step": step + 1,
                    "loss": loss.item(),
                    "lr": rate,
                    "grad_norm": float(norm) if norm is not None else 0.0,
                }
                row |= {key: value.item() for key, value in metrics().items()}
                row |= {"seconds": round(state["seconds"], 1), "progress": min(1.0, done)}
                row["examples_per_s"] = round(
                    s.batch * fabric.world_size * (step + 1 - rows_from) / (now - last_row), 1
                )
                last_row, rows_from = now, step + 1
                if fabric.is_global_zero:
                    with (out / "metrics.jsonl").open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    report(row)
            if (step + 1) % s.checkpoint_every == 0 or ended:
                save_checkpoint(fabric, checkpoint, state)
            if fabric.is_global_zero and ((step + 1) % s.sample_every == 0 or ended):
                write_samples(out, step + 1, ema, source, s)
                export(out / f"{recipe.name}.safetensors", recipe, architecture, ema, source)
            if fabric.is_global_zero and s.keep_every and (step + 1) % s.keep_every == 0:
                export(out / f"{recipe.name}-{step + 1}.safetensors", recipe, architecture, ema, source)
    if fabric.is_global_zero:  # anew, also after a resumption with nothing left to do
        export(out / f"{recipe.name}.safetensors", recipe, architecture, ema, source)
    fabric.barrier()
    if fabric.world_size > 1:  # its threads must end before the process does, which now and then died of them
        torch.distributed.destroy_process_group()
    return out / f"{recipe.name}.safetensors"


class Trained(nn.Module):
    """A module and its objective as one forward pass: precision and several processes then act on both."""

    def __init__(self, module: nn.Module, objective: Objective, settings: Loss) -> None:
        super().__init__()
        self.module, self.objective, self.settings = module, objective, settings

    def forward(self, batch: Callable[[], Batch]) -> tuple[torch.Tensor, Metrics]:
        return self.objective(self.module, batch(), self.settings)


def batches_ahead(
    source: Source, s: Schedule, step: int, rank: int, on_cpu: bool = True
) -> Generator[Batch, None, None]:
    """The batches of all steps from ``step`` on, made by other threads while the network trains, perhaps ``on_cpu``."""
    threads = torch.get_num_threads()
    pool, waiting = ThreadPoolExecutor(s.workers, initializer=compute_alone if on_cpu else None), deque[Future[Batch]]()
    try:
        begun = Barrier(s.workers + 1)
        for _ in range(s.workers):
            pool.submit(begun.wait)
        begun.wait()
        torch.set_num_threads(threads)  # MKL's number is one for all threads
        for ahead in count(step):
            waiting.append(pool.submit(source.batch, s.batch, generator_for(s.seed, ahead, rank)))
            if len(waiting) > s.workers:
                yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def compute_alone() -> None:
    """Keep PyTorch's loops of this thread to it.

    OpenMP would give it others as well, and as soon as there are more than processors all fall asleep after each
    operation: those of the network too, which then takes half as long again.
    """
    torch.get_num_threads()  # or the number would be set again when this thread first computes
    torch.set_num_threads(1)


@torch.no_grad()
def update_ema(ema: nn.Module, module: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the current ones."""
    for average, current in zip(ema.parameters(), module.parameters(), strict=True):
        average.lerp_(current, 1 - decay)


def keep_rows(path: Path, step: int) -> None:
    """Drop the rows that lie beyond ``step``: a killed run may have written more than its checkpoint knows."""
    if path.exists():
        rows = [line for line in path.read_text("utf-8").splitlines() if line.endswith("}")]
        path.write_text("".join(f"{row}\n" for row in rows if json.loads(row)["step"] <= step), "utf-8")


def save_checkpoint(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint in one step: a kill while writing leaves the one before."""
    partial = path.with_suffix(".partial")
    fabric.save(partial, state)
    if fabric.is_global_zero:
        partial.replace(path)
    fabric.barrier()


@torch.no_grad()
def write_samples(out: Path, step: int, ema: nn.Module, source: Source, s: Schedule) -> None:
    """Leave a few examples of what the averaged weights do: denoised, remembered or made anew."""
    device = next(ema.parameters()).device
    batch = source.batch(4 if isinstance(ema, Network) else 32, generator_for(s.seed, -1 % (1 << 31)))
    ema.eval()
    if isinstance(ema, Network):
        there = batch.map(lambda x: x.to(device))
        write_denoised(out, step, batch, as_denoiser(ema, there)(there.noisy).cpu())
    elif isinstance(ema, Prior):
        made = ema.sample(32, generator=torch.Generator().manual_seed(s.seed))
        write_signals(out, step, made.float().cpu(), batch.sample_rate)
    else:
        remembered = ema(batch.clean.to(device)).float().cpu()
        write_signals(out, step, torch.cat([batch.clean[:16], remembered[:16]]), batch.sample_rate)


def make(recipe: Recipe) -> tuple[nn.Module, str]:
    """The module that a recipe trains and its architecture: with ``codec``, the prior and the codec in one."""
    module = build(recipe.architecture, recipe.model, recipe.name)
    if recipe.codec is None:
        return module, recipe.architecture
    found, card = load(recipe.codec)
    codec: Any = getattr(found, "codec", found) if card.kind == "prior" else found  # perhaps one beside a prior
    if not hasattr(codec, "latent_shape"):
        raise ConfigError(f"recipe {recipe.name}: {recipe.codec} is a {card.kind} without a codec; give one with it.")
    if tuple(codec.latent_shape) != tuple(module.event_shape):
        raise ConfigError(
            f"recipe {recipe.name}: the prior is of {tuple(module.event_shape)}, the codec's latents are "
            f"{tuple(codec.latent_shape)}. Mend the shape."
        )
    own = found.config.codec if card.kind == "prior" else {"architecture": card.architecture, **asdict(codec.config)}
    parts = LatentPriorConfig(own, {"architecture": recipe.architecture, **asdict(module.config)})
    return LatentPrior(codec, module, parts), "latent-prior"


def open_data(
    recipe: Recipe, root: Path, channels: int = 3, *, classes: int | None = None, text: bool = True
) -> Source:
    """Load the data of a recipe into memory, with the channels of photographs and the labels that a network knows."""
    if recipe.examples:
        return LabelledExamples(recipe.examples, root, classes, text)
    if recipe.audio:  # of which a prior learns the clean speech
        return AudioMixes(recipe.audio if recipe.objective == "denoising" else replace(recipe.audio, clean=1.0), root)
    return ImagePatches(recipe.image, root, channels)  # type: ignore[arg-type]


def export(path: Path, recipe: Recipe, architecture: str, ema: nn.Module, source: Source) -> None:
    """Write the averaged weights with their card."""
    audio, image, examples = recipe.audio, recipe.image, recipe.examples
    rate = max(audio.sample_rates) if audio else examples.sample_rate if examples else None
    if isinstance(ema, Network):
        facts: dict[str, Any] = {"channels": ema.channels, "blind": ema.blind, "size_multiple": ema.size_multiple}
        facts["snr_db"] = audio.snr_db if audio else None
    else:
        shape = tuple(ema.event_shape)  # type: ignore[arg-type]
        names = source.names if isinstance(source, LabelledExamples) and bool(getattr(ema, "classes", False)) else ()
        facts = {"channels": shape[0], "shape": shape, "classes": names, "text": bool(getattr(ema, "text", False))}
    card = Card(
        name=recipe.name,
        architecture=architecture,
        modality=recipe.modality,
        kind=kind_of(ema),  # type: ignore[arg-type]
        description=recipe.description,
        sample_rate=rate,
        sigma=(image.sigma[0], image.strongest if image.strong else image.sigma[1]) if image else None,
        parameters=sum(p.numel() for p in ema.parameters()),
        licence=recipe.licence,
        data=recipe.sources,
        **facts,
    )
    told = recipe.asdict()
    begun_with = {key: Path(told[key]).stem for key in ("init", "codec") if told.get(key)}  # no places
    save_weights(path, ema, card, told | begun_with, getattr(torch, recipe.stored))
