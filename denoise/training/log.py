"""The log of a training: rows of ``metrics.jsonl``, also reported to the caller."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from denoise.training.objectives import StepResult
from denoise.training.state import TrainingState

Report = Callable[[dict[str, Any]], None]


class MetricsLog:
    """Rows of ``metrics.jsonl``.

    Rows of an interrupted training that lie beyond its checkpoint are removed. A row states ``skipped_steps``, those
    since the last row whose gradient was not finite, if there are any.

    Args:
        path: file of the rows.
        state: state of the training, restored if it is resumed.
        report: called with each row.
    """

    def __init__(self, path: Path, state: TrainingState, report: Report) -> None:
        self.path, self.report = path, report
        if path.exists():
            rows = [line for line in path.read_text("utf-8").splitlines() if line.endswith("}")]
            path.write_text("".join(f"{row}\n" for row in rows if json.loads(row)["step"] <= state.step), "utf-8")
        self._step, self._time = state.step, time.monotonic()
        self.skipped_steps = 0

    def write(
        self, state: TrainingState, result: StepResult, learning_rate: float, progress: float, batch: int
    ) -> None:
        """Append a row; numbers that are not finite are null, as JSON has none.

        Args:
            state: state after the step.
            result: what the step reports.
            learning_rate: learning rate of the step.
            progress: progress of the schedule before the step.
            batch: examples in a batch of all processes together.
        """
        now = time.monotonic()
        examples_per_s = batch * (state.step - self._step) / (now - self._time)
        self._step, self._time = state.step, now
        row: dict[str, Any] = {"step": state.step, "loss": result.loss.item(), "lr": learning_rate}
        row |= {"grad_norm": result.grad_norm} | {key: value.item() for key, value in result.metrics().items()}
        row |= {"seconds": round(state.seconds, 1), "progress": min(1.0, progress)}
        row |= {"examples_per_s": round(examples_per_s, 1)}
        if self.skipped_steps:
            row["skipped_steps"] = self.skipped_steps
            self.skipped_steps = 0
        with self.path.open("a", encoding="utf-8") as file:
            finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
            file.write(json.dumps(finite, allow_nan=False) + "\n")
        self.report(row)
