"""Engines of a batch: processes of this machine, or actors of a Ray cluster. Both run the same worker."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from queue import SimpleQueue
from typing import Any, Literal, Protocol, Self, TypeVar, get_args

from denoise.backends.malloc import keep_freed_memory, return_freed_memory
from denoise.errors import ConfigError, DenoiseError
from denoise.pipelines.batch.journal import Journal, Record, plan_of
from denoise.pipelines.batch.storage import FileState, state_of
from denoise.pipelines.batch.worker import Task, Worker, WorkerSettings

T = TypeVar("T")
EngineName = Literal["local", "ray"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
MAX_BLOCKS = 1000  # of a data set of Ray
START_LIMIT_S = 300.0  # for a process that imports its packages and loads a model
RETRY = "Give --retry-failed (retry_failed=True)."
RAISE_LIMIT = "Raise --time-limit (time_limit), and give --retry-failed (retry_failed=True)."
ATTEMPTS = 2  # for a file whose process died: perhaps the system needed its memory for another one


class Engine(Protocol):
    """Workers that run tasks in parallel."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Record]:
        """Run tasks.

        Args:
            tasks: the files.

        Yields:
            The record of each file as it ends, which is in the journal.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: object, error: object, trace: object) -> None: ...


class WorkerProcess:
    """A process that does one file after another, and is replaced when it dies or exceeds the time limit.

    A file whose process died is tried once more. The pool has one process, so that nothing is shared with others:
    a killed process can hold no lock that they wait for.

    Args:
        settings: settings of all workers.
        time_limit: seconds after which a file has failed.
    """

    def __init__(self, settings: WorkerSettings, time_limit: float) -> None:
        self.settings, self.time_limit = settings, time_limit
        self.pool: ProcessPoolExecutor | None = None
        self.is_stopped = False

    def run(self, task: Task) -> Record:
        """Run a task.

        Args:
            task: the file.

        Returns:
            Its record, which is in the journal.

        Raises:
            CancelledError: another thread has called `stop`.
        """
        started = time.perf_counter()
        for _ in range(ATTEMPTS):
            limit, late = START_LIMIT_S, f"its process has not started after {START_LIMIT_S:g} s. {RETRY}"
            try:
                self._submit(prepare, task).result(limit)
                limit, late = self.time_limit, f"not finished after {self.time_limit:g} s. {RAISE_LIMIT}"
                return self._submit(run_task, task).result(limit)
            except TimeoutError:
                self._kill()
                self.close()
                return self.finished(task) or self._fail(task, late, limit)
            except BrokenProcessPool:
                self.close()
                if self.is_stopped:
                    raise CancelledError from None
                if record := self.finished(task):
                    return record
        reason = f"its process died {ATTEMPTS} times, perhaps for lack of memory. {RETRY}"
        return self._fail(task, reason, round(time.perf_counter() - started, 3))

    def _submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Call a function in the process, a new one if there is none."""
        if self.pool is None:
            self.pool = ProcessPoolExecutor(
                max_workers=1,
                mp_context=multiprocessing.get_context("spawn"),  # a fork would copy locks that threads of torch hold
                initializer=_start_worker,
                initargs=(self.settings,),
            )
        future = self.pool.submit(function, *args)
        if self.is_stopped:  # perhaps before there was a process
            self._kill()
        return future

    def _fail(self, task: Task, reason: str, seconds: float) -> Record:
        name = task.item.source
        record = Record.failed(task.item, f"{name}: {reason}", seconds, self.state_of(name))
        Journal(self.settings.journal).append(record)
        return record

    def state_of(self, name: str) -> FileState | None:
        """Return the state of a file, None if there is none, or its storage does not answer.

        Args:
            name: path or URL.
        """
        try:
            return state_of(name)
        except DenoiseError:
            return None

    def finished(self, task: Task) -> Record | None:
        """Return the record of a file that a process had finished before it died.

        Args:
            task: the file.
        """
        records = Journal(self.settings.journal).read().get(task.item.name, [])
        return records[-1] if plan_of(task.item, records) == "done" else None

    def _kill(self) -> None:
        processes = None if self.pool is None else self.pool._processes  # Python 3.14 has `kill_workers`
        for process in [*(processes or {}).values()]:
            process.kill()

    def stop(self) -> None:
        """End the process at once, and run no further file."""
        self.is_stopped = True
        self._kill()

    def close(self) -> None:
        """End the process when it has finished its file."""
        if self.pool is not None:
            self.pool.shutdown()
        self.pool = None


class LocalEngine:
    """Processes of this machine.

    Args:
        settings: settings of all workers.
        workers: number of processes.
        time_limit: seconds after which a file has failed.
    """

    def __init__(self, settings: WorkerSettings, *, workers: int, time_limit: float) -> None:
        self.processes = [WorkerProcess(settings, time_limit) for _ in range(workers)]
        self.idle: SimpleQueue[WorkerProcess] = SimpleQueue()
        for process in self.processes:
            self.idle.put(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """End the processes."""
        for process in self.processes:
            process.close()

    def run(self, tasks: Sequence[Task]) -> Iterator[Record]:
        """Run tasks; see `Engine.run`.

        Args:
            tasks: the files.
        """

        def run(task: Task) -> Record:
            process = self.idle.get()
            try:
                return process.run(task)
            finally:
                self.idle.put(process)

        with ThreadPoolExecutor(len(self.processes)) as threads:
            futures = [threads.submit(run, task) for task in tasks]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                for process in self.processes:
                    process.stop()
                raise


_worker: Worker | None = None  # of this process
STARTED = "the pool starts each process by _start_worker"


def _start_worker(settings: WorkerSettings) -> None:
    """Prepare a process for its files."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the first process ends the others
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()
    _worker = Worker(settings)
    _worker.set_up()


def _exit_with(sentinel: int) -> None:
    """End this process when another one has ended, so that a killed batch leaves no worker that goes on."""
    wait([sentinel])
    os._exit(1)


def prepare(task: Task) -> None:
    """Load the model of a task by the worker of this process."""
    assert _worker is not None, STARTED
    _worker.prepare(task)


def run_task(task: Task) -> Record:
    """Run a task by the worker of this process, with the allocator set as by `denoise audio` or `denoise image`."""
    assert _worker is not None, STARTED
    (keep_freed_memory if task.item.modality == "image" else return_freed_memory)()
    return _worker(task)


class RayEngine:
    """Actors of a Ray cluster; each has a `WorkerProcess`.

    Args:
        settings: settings of all workers.
        workers: number of actors.
        time_limit: seconds after which a file has failed.
        address: address of the cluster; None starts one on this machine, or joins that of ``RAY_ADDRESS``.

    Raises:
        ConfigError: Ray is not installed.
    """

    def __init__(
        self, settings: WorkerSettings, *, workers: int, time_limit: float, address: str | None = None
    ) -> None:
        try:
            import ray.data
        except ImportError:
            raise ConfigError('the engine ray is missing; run: pip install "denoise-toolkit[ray]"') from None
        self.settings, self.workers, self.time_limit = settings, workers, time_limit
        self.ray, self.starts_cluster = ray, not ray.is_initialized()
        if self.starts_cluster:  # by None, Ray would join the last cluster of this machine, which may be dead
            address = address or os.environ.get("RAY_ADDRESS") or "local"
            ray.init(address=address, log_to_driver=False, include_dashboard=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Leave the cluster."""
        if self.starts_cluster:
            self.ray.shutdown()

    def run(self, tasks: Sequence[Task]) -> Iterator[Record]:
        """Run tasks; see `Engine.run`.

        Args:
            tasks: the files.
        """
        data = self.ray.data
        data.DataContext.get_current().enable_progress_bars = False
        rows = data.from_items([{"task": task} for task in tasks], override_num_blocks=min(len(tasks), MAX_BLOCKS))
        records = rows.map(
            RayWorker,
            fn_constructor_kwargs={"settings": self.settings, "time_limit": self.time_limit},
            compute=data.ActorPoolStrategy(size=self.workers),
            num_cpus=self.settings.threads,
            num_gpus=int(self.settings.device == "cuda"),
        )
        for row in records.iter_rows():
            yield row["record"]


class RayWorker:
    """The actor of a `RayEngine`.

    Args:
        settings: settings of all workers.
        time_limit: seconds after which a file has failed.
    """

    def __init__(self, settings: WorkerSettings, time_limit: float) -> None:
        self.process = WorkerProcess(settings, time_limit)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the record of the task of a row, which Ray repeats when the machine has died that had finished it."""
        task: Task = row["task"]
        is_perhaps_finished = not task.overwrite and self.process.state_of(task.item.target) is not None
        record = self.process.finished(task) if is_perhaps_finished else None
        return {"record": record or self.process.run(task)}
