"""Many files: pairs of inputs and outputs, and batches with a journal over several processes."""

from __future__ import annotations

from denoise.pipelines.batch.pairs import STREAM, count_skipped, list_kinds, plan

__all__ = ["STREAM", "count_skipped", "list_kinds", "plan"]
