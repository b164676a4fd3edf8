"""The work on one file of a batch, the same in every engine: read, denoise, note in the journal, put in place."""

from __future__ import annotations

import os
import shutil
import sys
import time
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from denoise.errors import InputError, describe_unexpected
from denoise.pipelines.batch.file_options import Modality, named_files
from denoise.pipelines.batch.items import Item
from denoise.pipelines.batch.journal import Journal, JournalError, Record, absolute, changed_options
from denoise.pipelines.batch.storage import (
    FileState,
    download,
    is_url,
    local_copy,
    local_path,
    sha256_of,
    stage,
    state_of,
)
from denoise.pipelines.result import Result

MODELS_KEPT = 4  # in the memory of a worker, if rows of a manifest name several
COPIES_KEPT = 4  # of files that options name at URLs; a file of a batch names fewer


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of all workers of a batch.

    Args:
        folder: folder or URL of all outputs.
        scratch: folder of temporary files, removed when the batch ends.
        journal: the journal, which all workers see under this path.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        threads: threads of each worker.
    """

    folder: str
    scratch: Path
    journal: Path
    device: str = "auto"
    threads: int = 1


@dataclass(frozen=True)
class Task:
    """One file for a worker.

    Args:
        item: the file.
        overwrite: whether an existing output is replaced.
    """

    item: Item
    overwrite: bool


class Worker:
    """Denoises one file after another; the models stay loaded.

    Args:
        settings: settings of all workers.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings, self.journal = settings, Journal(settings.journal)
        self._pipeline = lru_cache(MODELS_KEPT)(self._load)
        self._copies: OrderedDict[tuple[str, str], Path] = OrderedDict()  # by URL and its version
        weakref.finalize(self, _remove_copies, self._copies)  # the driver removes `scratch` on its own machine only

    def set_up(self) -> None:
        """Limit the threads of the libraries that `prepare` imports."""
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(self.settings.threads)

    def prepare(self, task: Task) -> None:
        """Load the model of a file, and the libraries that it needs; `__call__` reports what fails.

        Args:
            task: the file.
        """
        with suppress(Exception):
            self._pipeline_of(task.item)
        if torch := sys.modules.get("torch"):  # which takes at most one for each core from the environment
            torch.set_num_threads(self.settings.threads)

    def __call__(self, task: Task) -> Record:
        """Denoise one file.

        Args:
            task: the file.

        Returns:
            Its record, which is in the journal already.

        Raises:
            JournalError: the journal cannot be written.
        """
        started = time.perf_counter()
        item, state = task.item, None
        try:
            state = state_of(item.source)
            return self._denoise(task, state, started)
        except JournalError:
            raise
        except Exception as error:
            message = describe_unexpected(error)
            if not message.startswith(f"{item.source}:"):
                message = f"{item.source}: {message}"
        record = Record.failed(item, message, round(time.perf_counter() - started, 3), state)
        self.journal.append(record)
        return record

    def _denoise(self, task: Task, state: FileState | None, started: float) -> Record:
        item = task.item
        with (
            local_copy(item.source, self.settings.scratch) as source,
            stage(item.target, self.settings.folder, self.settings.scratch, overwrite=task.overwrite) as staged,
        ):
            result = self._run(item, source, staged.path)
            sha256 = sha256_of(source)
            if state_of(item.source) != state:
                raise InputError(f"{item.source}: changed while it was read. Run the batch again.")

            def finish(output: FileState | None, output_sha256: str | None = None) -> Record:
                known = {"input", "output", "seconds", "warnings"}
                figures = {name: value for name, value in result.asdict().items() if name not in known}
                record = Record(
                    absolute(item.source),
                    item.target,
                    item.name,
                    "done",
                    round(time.perf_counter() - started, 3),
                    changed_options(item),
                    state,
                    sha256,
                    output,
                    output_sha256,
                    warnings=result.warnings,
                    result=figures,
                    option_files=item.option_files,
                )
                self.journal.append(record)
                return record

            if is_url(item.target):  # noted when it is there: the version is the storage's
                staged.publish()
                return finish(state_of(item.target))
            record = finish(
                staged.state(), sha256_of(staged.path)
            )  # noted first: a line without its output is as good as none
            staged.publish()
            return record

    def _run(self, item: Item, source: Path, target: Path) -> Result:
        """Denoise or restore a file of this machine."""
        pipeline = self._pipeline_of(item)
        files: dict[str, Any] = {
            option: str(self._option_file(name, item.option_files.get(name, "")))
            for option, name in named_files(asdict(item.options)).items()
        }
        options = replace(item.options, **files)
        if options.restores:
            return pipeline.file(source, target, options.restore_options(), name=item.source)
        return pipeline.denoise_file(source, target, options.denoise_options(), name=item.source)

    def _option_file(self, name: str, version: str) -> Path:
        """Return a file that an option names, or the copy of one at a URL, which the next files may name again."""
        if not is_url(name):
            return local_path(name)
        key = name, version
        if key not in self._copies:
            while len(self._copies) >= COPIES_KEPT:
                _, oldest = self._copies.popitem(last=False)
                shutil.rmtree(oldest.parent)
            self._copies[key] = download(name, self.settings.scratch)
        self._copies.move_to_end(key)
        return self._copies[key]

    def _pipeline_of(self, item: Item) -> Any:
        """Return the pipeline of a file."""
        options = item.options
        uses_posterior = not options.restores and options.denoise_options().uses_posterior
        return self._pipeline(item.modality, options.restores, options.chosen_model, uses_posterior)

    def _load(self, modality: Modality, restores: bool, model: str | None, uses_posterior: bool) -> Any:
        """Load the pipeline of a model, and import what it needs; recordings are denoised as by `denoise audio`."""
        device = self.settings.device
        if restores and modality == "audio":
            from denoise.pipelines.restore_audio import AudioRestorePipeline

            return AudioRestorePipeline(model, device=device)
        assert model is not None  # only recordings are restored without one
        if restores:
            from denoise.pipelines.restore import RestorePipeline

            return RestorePipeline(model, device=device)
        if modality == "image":
            from denoise.pipelines.image import ImagePipeline

            return ImagePipeline(model, device=device)
        from denoise.pipelines.audio import AudioPipeline, preferred_backend

        backend = "auto" if uses_posterior else preferred_backend(model, device)
        return AudioPipeline(model, device=device, backend=backend)


def _remove_copies(copies: Mapping[tuple[str, str], Path]) -> None:
    for copy in copies.values():
        shutil.rmtree(copy.parent, ignore_errors=True)
