"""A batch: find the files, skip what the journal has, run the rest, and lock the journal meanwhile."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from denoise.backends import is_certain_cpu
from denoise.cards import read_header
from denoise.errors import ConfigError, InputError, WeightsError
from denoise.options import DEVICES, TIME_LIMIT_S, check_number
from denoise.pipelines.batch.engines import ENGINES, Engine, EngineName, LocalEngine, RayEngine
from denoise.pipelines.batch.file_options import Modality, named_files
from denoise.pipelines.batch.items import Item, find_items
from denoise.pipelines.batch.journal import Journal, Plan, Record, default_journal, may_replace, plan_of
from denoise.pipelines.batch.snapshot import Snapshot
from denoise.pipelines.batch.storage import STAGING, is_url, local_path
from denoise.pipelines.batch.worker import Task, WorkerSettings
from denoise.registry import RESTORERS, locate

PLANNING_THREADS = 16  # which list and hash files


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """Settings of a batch.

    Args:
        engine: ``"local"`` for processes of this machine, ``"ray"`` for a Ray cluster.
        workers: number of workers; None is the number of processors, or 1 on a GPU.
        threads: threads of each worker; None shares the processors among the workers.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        address: address of a Ray cluster.
        journal: file of the journal; None is one beside the output folder.
        time_limit: seconds after which a file has failed.
        retry_failed: whether files that failed before are tried again although nothing has changed.
        overwrite: whether outputs are replaced that no run of this journal wrote; what failed before is tried again.

    Raises:
        ConfigError: a value is out of range.
    """

    engine: EngineName = "local"
    workers: int | None = None
    threads: int | None = None
    device: str = "auto"
    address: str | None = None
    journal: Path | None = None
    time_limit: float = TIME_LIMIT_S
    retry_failed: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(f"engine is {self.engine!r}; expected {' or '.join(ENGINES)}.")
        for name in ("workers", "threads"):
            if (value := getattr(self, name)) is None:
                continue
            check_number(name, value, is_whole=True)
            if not 1 <= value <= 4096:
                raise ConfigError(f"{name} is {value}; expected 1 to 4096.")
        check_number("time_limit", self.time_limit)
        if self.device not in DEVICES:
            raise ConfigError(f"device is {self.device!r}; expected {', '.join(DEVICES)}.")
        if not self.time_limit > 0:
            raise ConfigError(f"the time limit is {self.time_limit:g} s; expected more than 0.")
        if self.address is not None and self.engine != "ray":
            raise ConfigError("an address is for the engine ray. Leave it out.")

    @property
    def retries_failed(self) -> bool:
        """Whether files that failed before are tried again; some failed because their outputs existed."""
        return self.retry_failed or self.overwrite


@dataclass(frozen=True)
class PlannedFile:
    """What is to be done with one file.

    Args:
        item: the file.
        plan: see `denoise.pipelines.batch.journal.plan_of`.
        last: its last record, None of a new file.
        overwrite: whether its output may be replaced.
    """

    item: Item
    plan: Plan
    last: Record | None
    overwrite: bool


@dataclass
class Batch:
    """A batch that is planned: iterate over `run` to do it.

    Args:
        target: folder or URL of the outputs.
        settings: settings.
        journal: its journal.
        files: all files in order.
        skipped_kinds: number of files in folders that are skipped, by extension or by a few words.
    """

    target: str
    settings: BatchSettings
    journal: Journal
    files: list[PlannedFile]
    skipped_kinds: Counter[str] = field(default_factory=Counter)

    @property
    def pending(self) -> list[PlannedFile]:
        """The files that `run` will denoise."""
        left = {"done"} if self.settings.retries_failed else {"done", "failed"}
        return [file for file in self.files if file.plan not in left]

    def run(self) -> Iterator[Record]:
        """Denoise the pending files.

        Yields:
            The record of each file as it ends.

        Raises:
            ConfigError: the engine is not installed.
        """
        tasks = [Task(file.item, file.overwrite or self.settings.overwrite) for file in self.pending]
        if not tasks:
            return
        self.journal.create()
        try:
            with (
                tempfile.TemporaryDirectory(prefix="denoise-", ignore_cleanup_errors=True) as scratch,
                self._engine(len(tasks), Path(scratch)) as engine,
            ):
                yield from engine.run(tasks)
        finally:
            remove_unfinished(self.target)

    def _engine(self, n_tasks: int, scratch: Path) -> Engine:
        s, device = self.settings, "cpu"
        if not is_certain_cpu(s.device):
            from denoise.backends.device import pick_device  # imports torch

            device = str(pick_device(s.device))
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(n_tasks, s.workers or (processors if device == "cpu" else 1))
        threads = s.threads or max(1, processors // workers)
        settings = WorkerSettings(self.target, scratch, self.journal.path, device, threads)
        if s.engine == "ray":
            return RayEngine(settings, workers=workers, time_limit=s.time_limit, address=s.address)
        return LocalEngine(settings, workers=workers, time_limit=s.time_limit)


def plan_batch(
    sources: str | Path | Iterable[str | Path],
    target: str | Path,
    options: Mapping[str, Any] | None = None,
    *,
    modalities: Iterable[Modality] = ("audio", "image"),
    settings: BatchSettings | None = None,
) -> Batch:
    """Plan a batch; nothing is written.

    Args:
        sources: folder, file, pattern, manifest or URL of one, or several of them.
        target: folder or URL of a folder.
        options: options of all files, by the names that they have on the command line.
        modalities: modalities that are taken.
        settings: settings.

    Raises:
        ConfigError: nothing is found, an option, a model or a name does not fit, or the target cannot be written.
    """
    settings = settings or BatchSettings()
    sources, target = _names(sources), _name(target)
    if not is_url(target) and os.path.exists(local_path(target)) and not os.path.isdir(local_path(target)):
        raise ConfigError(f"{target}: is a file. Give a folder.")
    values = {name: str(value) if isinstance(value, Path) else value for name, value in (options or {}).items()}
    items, skipped_kinds = find_items(sources, target, values, modalities)
    weights = _find_weights(items)
    journal = Journal(Path(os.path.abspath(settings.journal or default_journal(target))))
    records, snapshot = journal.read(), Snapshot()
    with ThreadPoolExecutor(PLANNING_THREADS) as threads:
        files = [*threads.map(lambda item: _plan(item, records.get(item.name, []), weights, snapshot), items)]
    batch = Batch(target, settings, journal, files, skipped_kinds)
    folders = {path.parent: name for path, name in _journals(target, settings).items()}
    if not is_url(target):
        folders[Path(os.path.abspath(local_path(target)))] = target
    for folder, name in folders.items():
        if batch.pending and not _is_writable(folder):
            raise ConfigError(f"{name}: cannot be written. Give another folder.")
    return batch


@contextmanager
def open_batch(
    sources: str | Path | Iterable[str | Path],
    target: str | Path,
    options: Mapping[str, Any] | None = None,
    *,
    modalities: Iterable[Modality] = ("audio", "image"),
    settings: BatchSettings | None = None,
) -> Iterator[Batch]:
    """Plan a batch, and keep other runs from its outputs and its journal until the block ends.

    Args:
        sources: as in `plan_batch`.
        target: as in `plan_batch`.
        options: as in `plan_batch`.
        modalities: as in `plan_batch`.
        settings: as in `plan_batch`.

    Yields:
        The batch, planned but not run.

    Raises:
        ConfigError: as in `plan_batch`, or another run is going on.
    """
    from filelock import FileLock, Timeout

    settings = settings or BatchSettings()
    sources, target = _names(sources), _name(target)
    with ExitStack() as locks:
        for path, name in sorted(_journals(target, settings).items()):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                locks.enter_context(FileLock(path.with_name(f".{path.name}.lock"), blocking=False))
            except Timeout:
                busy = f"{target}: another run is writing there. Wait for it, or give another folder."
                raise ConfigError(busy) from None
            except OSError as error:
                raise ConfigError(f"{name}: cannot be written ({error.strerror}). Give another folder.") from None
        remove_unfinished(target)
        yield plan_batch(sources, target, options, modalities=modalities, settings=settings)


def _name(name: object) -> str:
    """Return a path or URL as text."""
    if not isinstance(name, str | Path):
        raise ConfigError(f"{name!r} is of type {type(name).__name__}; expected a path or URL, as text or Path.")
    return str(name)


def _names(sources: object) -> list[str]:
    """Return one or several paths or URLs as text, each once."""
    several = sources if isinstance(sources, Iterable) and not isinstance(sources, str | bytes) else [sources]
    names = [*dict.fromkeys(map(_name, several))]
    if not names:
        raise ConfigError("no sources are given; expected at least one folder, file, pattern, manifest or URL.")
    return names


def _find_weights(items: Sequence[Item]) -> dict[str, Path]:
    """Find the weights that items name.

    Those of another modality are refused, which would fail for each file; the worker says what else is wrong.
    """
    weights = {}
    items_by_use = {(model, item.modality): item for item in reversed(items) for model in item.options.models}
    for (model, modality), item in items_by_use.items():
        restorers = RESTORERS[modality] if item.options.restores else None
        weights[model] = locate(model, "prior" if restorers else "denoiser", modality, restorers)
        with suppress(WeightsError):
            card = read_header(weights[model])["card"]
            if card.modality != modality:
                raise ConfigError(
                    f"{item.source}: {model} is a {card.kind} for {card.modality}; expected one for {modality}. Take "
                    "one modality (--audio or --image, in Python modalities), or give a manifest."
                )
    return weights


def _journals(target: str, settings: BatchSettings) -> dict[Path, str]:
    """Return the journal and the default one, which both are locked, with their names in messages."""
    names = {} if settings.journal is None else {settings.journal: str(settings.journal)}
    return {Path(os.path.abspath(path)): name for path, name in (names | {default_journal(target): target}).items()}


def _is_writable(folder: Path) -> bool:
    """Whether files can be put into a folder, which may have to be made."""
    there = next(each for each in (folder, *folder.parents) if os.path.exists(each))
    return os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)


def _plan(item: Item, records: Sequence[Record], weights: Mapping[str, Path], snapshot: Snapshot) -> PlannedFile:
    """Plan a file, for which the files that its options name count by their bytes."""
    hashes = {}
    for name in (*item.options.models, *named_files(asdict(item.options)).values()):
        with suppress(OSError, InputError):  # the worker will say what is wrong with it
            if is_url(name):
                if state := snapshot.state_of(name):
                    hashes[name] = f"{state.size} bytes, {state.version}"
            elif (path := weights.get(name, local_path(name))).is_file():
                hashes[name] = snapshot.sha256_of(path)
    item = replace(item, option_files=hashes)
    last = records[-1] if records else None
    return PlannedFile(item, plan_of(item, records, snapshot), last, may_replace(item, records, snapshot))


def remove_unfinished(target: str) -> None:
    """Remove what killed workers have left of files that they had not finished.

    Args:
        target: folder or URL of the outputs.
    """
    if not is_url(target):
        shutil.rmtree(local_path(target) / STAGING, ignore_errors=True)
