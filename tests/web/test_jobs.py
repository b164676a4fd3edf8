"""Jobs: one after another, cancelled, delivered, removed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from denoise.errors import InputError
from denoise.protocols import Progress
from denoise.web.jobs import OUT, BusyError, Job, Jobs, Outcome, UnknownJobError


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path, lifetime_s=10.0, max_jobs=3)
    yield jobs
    jobs.close()


class Gate:
    """Work that begins, waits until it may go on, and reports its progress."""

    def __init__(self) -> None:
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()

    def __call__(self, progress: Progress) -> Outcome:
        self.has_begun.set()
        assert self.may_go_on.wait(60)
        progress(0.5)
        return Outcome({}, {"n": 1})


def wait(job: Job) -> None:
    assert job.future is not None
    job.future.exception(timeout=60)


def write_files(job: Job, *words: str) -> Outcome:
    paths = {word: job.folder / OUT / word for word in words}
    for path in paths.values():
        path.write_text("x")
    return Outcome(paths, {})


def test_jobs_run_one_after_another_in_their_order(jobs: Jobs) -> None:
    gate, order = Gate(), list[str]()
    first, second, third = jobs.create(), jobs.create(), jobs.create()
    jobs.start(first, gate)
    for name, job in (("second", second), ("third", third)):
        jobs.start(job, lambda _, name=name: order.append(name) or Outcome({}, {}))  # type: ignore[func-returns-value,misc]
    assert gate.has_begun.wait(60)
    assert [job.state for job in (first, second, third)] == ["running", "queued", "queued"]
    assert [jobs.position(job) for job in (first, second, third)] == [0, 1, 2]
    gate.may_go_on.set()
    wait(third)
    assert order == ["second", "third"]
    assert first.state == "done"
    assert first.outcome == Outcome({}, {"n": 1})


def test_a_running_job_ends_at_its_next_progress(jobs: Jobs) -> None:
    gate, job = Gate(), jobs.create()
    jobs.start(job, gate)
    assert gate.has_begun.wait(60)
    jobs.remove(job)
    assert job.folder.exists()  # until nothing writes into it any more
    gate.may_go_on.set()
    wait(job)
    assert (job.state, job.outcome) == ("cancelled", None)
    jobs.close()
    assert not job.folder.exists()


def test_a_network_that_reports_no_progress_is_cancelled_before_its_next_layer(jobs: Jobs) -> None:
    gate, job, layer, calls = Gate(), jobs.create(), torch.nn.Identity(), list[int]()

    def work(progress: Progress) -> Outcome:
        gate.has_begun.set()
        assert gate.may_go_on.wait(60)
        calls.append(1)
        layer(torch.zeros(1))
        calls.append(2)
        return Outcome({}, {})

    jobs.start(job, work)
    assert gate.has_begun.wait(60)
    jobs.cancel(job)
    gate.may_go_on.set()
    wait(job)
    assert calls == [1]
    layer(torch.zeros(1))  # layers outside of jobs run as ever


def test_a_job_that_waits_never_starts_if_it_is_cancelled(jobs: Jobs) -> None:
    gate, blocking, waiting = Gate(), jobs.create(), jobs.create()
    jobs.start(blocking, gate)
    jobs.start(waiting, lambda _: pytest.fail("started"))
    jobs.remove(waiting)
    assert waiting.state == "cancelled"
    assert not waiting.folder.exists()
    gate.may_go_on.set()


def test_errors_are_one_line_without_the_folder(jobs: Jobs) -> None:
    job, bug = jobs.create(), jobs.create()

    def refuse(_: Progress) -> Outcome:
        raise InputError(f"{job.folder / 'a.wav'}: is empty, {job.folder / OUT / 'a.denoised.wav'} is not written.")

    jobs.start(job, refuse)
    jobs.start(bug, lambda _: Outcome({}, {"n": [][0]}))
    wait(bug)
    assert job.error == "a.wav: is empty, a.denoised.wav is not written."
    assert bug.state == "failed"
    assert bug.error is not None
    assert bug.error.startswith("IndexError: list index out of range. This is a bug")


def test_a_job_is_removed_when_all_files_are_delivered(jobs: Jobs) -> None:
    job = jobs.create()
    jobs.start(job, lambda _: write_files(job, "a", "b"))
    wait(job)
    jobs.deliver(job, "a")
    jobs.deliver(job, "a")
    assert jobs.get(job.id) is job
    jobs.deliver(job, "b")
    assert not job.folder.exists()
    with pytest.raises(UnknownJobError, match="no such job"):
        jobs.get(job.id)


def test_jobs_are_removed_when_their_time_is_over(jobs: Jobs) -> None:
    old, new = jobs.create(), jobs.create()
    old.created -= 11
    (old.folder / "upload").write_text("x")
    jobs.remove_expired()
    assert not old.folder.exists()
    assert jobs.get(new.id) is new


def test_time_counts_from_the_end_of_a_job(jobs: Jobs) -> None:
    gate, done, running, queued = Gate(), jobs.create(), jobs.create(), jobs.create()
    jobs.start(done, lambda _: write_files(done, "a"))
    jobs.start(running, gate)
    jobs.start(queued, Gate())
    assert gate.has_begun.wait(60)
    for job in (done, running, queued):
        job.created -= 11
    jobs.remove_expired()
    assert [job.state for job in (done, running, queued)] == ["done", "running", "queued"]
    assert done.finished is not None
    jobs.remove_expired(done.finished + 11)
    assert not done.folder.exists()
    assert [job.state for job in (running, queued)] == ["running", "queued"]
    jobs.cancel(queued)
    gate.may_go_on.set()


def test_too_many_jobs_are_refused_until_one_is_removed(jobs: Jobs) -> None:
    first, *_ = [jobs.create() for _ in range(3)]
    with pytest.raises(BusyError, match="3 jobs wait or hold files"):
        jobs.create()
    jobs.remove(first)
    jobs.create()


def test_names_cannot_be_guessed(jobs: Jobs) -> None:
    ids = {jobs.create().id for _ in range(3)}
    assert len(ids) == 3
    assert all(len(id) >= 22 for id in ids)  # 128 bits in base 64
