"""Jobs of the page: one runs at a time, the others wait in the order in which they came."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from denoise.errors import DenoiseError, InputError, describe_unexpected
from denoise.options import TIME_LIMIT_S
from denoise.protocols import Progress

LIFETIME_S = 3600.0
"""Seconds after the end of a job, or since an upload began, after which it and its files are removed."""

MAX_JOBS = 32
"""Number of jobs, finished ones with files included, above which new ones are refused."""

OUT = ".out"
"""Folder of the files that a job makes, in its own; no upload has such a name."""

State = Literal["uploading", "queued", "running", "done", "failed", "cancelled"]


class UnknownJobError(DenoiseError):
    """There is no such job, perhaps no longer."""


class BusyError(DenoiseError):
    """There are too many jobs."""


class _CancelledError(BaseException):
    """Ends the work of a cancelled job. No handler of errors catches it on the way."""


@dataclass(frozen=True)
class Outcome:
    """What a job has made.

    Args:
        files: paths in the folder of the job, by the word by which they are downloaded.
        facts: figures and warnings, plain values for JSON.
    """

    files: dict[str, Path]
    facts: dict[str, Any]


Work = Callable[[Progress], Outcome]


@dataclass(eq=False)
class Job:
    """One file or one request of the page.

    Args:
        id: name that cannot be guessed, by which alone the job is reached.
        folder: folder of its files.
    """

    id: str
    folder: Path
    created: float = field(default_factory=time.monotonic)
    finished: float | None = None  # time of its end
    fraction: float = 0.0
    error: str | None = None
    outcome: Outcome | None = None
    is_cancelled: bool = False
    future: Future[None] | None = None
    undelivered: set[str] = field(default_factory=set)  # files that have not been downloaded

    @property
    def state(self) -> State:
        """Where the job is."""
        if self.is_cancelled:
            return "cancelled"
        if self.error is not None:
            return "failed"
        if self.outcome is not None:
            return "done"
        if self.future is None:
            return "uploading"
        return "running" if self.future.running() else "queued"

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed", "cancelled")

    def hide_folder(self, text: str) -> str:
        """Return a message with the names of files in place of their paths on the server."""
        folder = f"{self.folder}{os.sep}"
        return text.replace(f"{folder}{OUT}{os.sep}", "").replace(folder, "")


class Jobs:
    """All jobs of a server.

    Args:
        root: folder of the files of all jobs.
        lifetime_s: seconds after the end of a job, or since an upload began, after which it and its files are removed.
        max_jobs: number of jobs above which new ones are refused.
    """

    def __init__(self, root: Path, *, lifetime_s: float = LIFETIME_S, max_jobs: int = MAX_JOBS) -> None:
        self._root, self._lifetime_s, self._max_jobs = root.resolve(), lifetime_s, max_jobs
        self._jobs: dict[str, Job] = {}  # in the order in which they came
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="denoise")  # torch uses all cores for one job

    def create(self) -> Job:
        """Return a new job with an empty folder.

        Raises:
            BusyError: there are too many jobs.
        """
        if len(self._jobs) >= self._max_jobs:
            raise BusyError(f"{len(self._jobs)} jobs wait or hold files; expected fewer. Try again in some minutes.")
        id = secrets.token_urlsafe(16)
        folder = self._root / id
        (folder / OUT).mkdir(parents=True)
        self._jobs[id] = job = Job(id, folder)
        return job

    def start(self, job: Job, work: Work) -> None:
        """Queue the work of a job.

        Args:
            job: job of `create`.
            work: function of a callable that it calls with the fraction done, and which ends it if it is cancelled.
        """
        job.future = self._worker.submit(_run, job, work)

    def prepare(self, function: Callable[[], object]) -> None:
        """Call a function, which loads a model for instance, in the thread that works on the jobs."""
        self._worker.submit(function)

    def get(self, id: str) -> Job:
        """Return a job by its name.

        Raises:
            UnknownJobError: there is none.
        """
        try:
            return self._jobs[id]
        except KeyError:
            gone = "it was cancelled, its files were downloaded, or an hour has passed"
            raise UnknownJobError(f"there is no such job: {gone}. Send the request again.") from None

    def position(self, job: Job) -> int:
        """Return the number of jobs that are worked on before a job."""
        ids = [*self._jobs]
        before = ids[: ids.index(job.id)] if job.id in self._jobs else []
        return sum(self._jobs[id].state in ("queued", "running") for id in before)

    def cancel(self, job: Job) -> None:
        """End the work of a job as soon as it calls back, and at once if it waits."""
        job.is_cancelled = job.is_cancelled or not job.is_finished
        if job.future is not None:
            job.future.cancel()

    def remove(self, job: Job) -> None:
        """Cancel a job, forget it, and remove its files when nothing writes them any more."""
        self.cancel(job)
        self._jobs.pop(job.id, None)
        if job.future is None:
            shutil.rmtree(job.folder, ignore_errors=True)
        else:
            job.future.add_done_callback(lambda _: shutil.rmtree(job.folder, ignore_errors=True))

    def deliver(self, job: Job, word: str) -> None:
        """Note that a file was downloaded, and remove the job after the last one."""
        job.undelivered.discard(word)
        if job.outcome is not None and not job.undelivered:
            self.remove(job)

    def remove_expired(self, now: float | None = None) -> None:
        """Remove the jobs that ended too long ago, and the uploads that began too long ago.

        Args:
            now: time of `time.monotonic`; None is now.
        """
        now = time.monotonic() if now is None else now
        for job in [*self._jobs.values()]:
            since = job.created if job.state == "uploading" else job.finished
            if since is not None and now - since > self._lifetime_s:
                self.remove(job)

    def close(self) -> None:
        """Cancel all jobs, and wait for the one that runs."""
        for job in [*self._jobs.values()]:
            self.remove(job)
        self._worker.shutdown(wait=True)


def _run(job: Job, work: Work) -> None:
    """Work on a job in the thread of the worker; errors become messages, which hold no tensors of their frames."""
    started = time.monotonic()

    def check() -> None:
        if job.is_cancelled:
            raise _CancelledError
        if time.monotonic() - started > TIME_LIMIT_S:
            raise InputError(f"took more than {TIME_LIMIT_S:g} s. Use the command line, which has no limit.")

    def progress(fraction: float) -> None:
        check()
        job.fraction = fraction

    try:
        with _before_layers(check):
            outcome = work(progress)
        job.undelivered, job.fraction = {*outcome.files}, 1.0
        job.outcome = outcome
    except _CancelledError:
        job.is_cancelled = True
    except Exception as error:
        job.error = job.hide_folder(describe_unexpected(error))
    finally:
        job.finished = time.monotonic()


@contextmanager
def _before_layers(check: Callable[[], None]) -> Iterator[None]:
    """Call a function before each layer of any network, since not all work reports its progress."""
    from torch.nn.modules.module import register_module_forward_pre_hook

    handle = register_module_forward_pre_hook(partial(_call, check))
    try:
        yield
    finally:
        handle.remove()


def _call(check: Callable[[], None], *_: Any) -> None:
    check()
