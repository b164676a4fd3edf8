"""Prefetching of batches by other threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from threading import Barrier

import torch

from denoise.noise import generator_for
from denoise.training.data import Batch, Source
from denoise.training.recipe import Schedule


def prefetch(
    source: Source, schedule: Schedule, step: int, rank: int, is_cpu: bool = True
) -> Generator[Batch, None, None]:
    """Yield the batches of all steps, computed by other threads while the network trains.

    Args:
        source: training data.
        schedule: size of a batch, seed, number of threads.
        step: first step.
        rank: index of the process.
        is_cpu: whether the network trains on the CPU, too.
    """
    n_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(schedule.workers, initializer=_use_one_thread if is_cpu else None)
    pending = deque[Future[Batch]]()
    try:
        started = Barrier(schedule.workers + 1)
        for _ in range(schedule.workers):
            pool.submit(started.wait)
        started.wait()
        torch.set_num_threads(n_threads)  # MKL has one number for all threads
        for index in count(step):
            pending.append(pool.submit(source.batch, schedule.batch, generator_for(schedule.seed, index, rank)))
            if len(pending) > schedule.workers:
                yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _use_one_thread() -> None:
    """Restrict PyTorch's loops of this thread to it.

    Otherwise OpenMP starts more threads than there are processors. All of them, those of the network included, then
    sleep after each operation, and training takes half as long again.
    """
    torch.get_num_threads()  # initialises the number, which would otherwise be reset when this thread first computes
    torch.set_num_threads(1)
