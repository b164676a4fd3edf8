"""Options, selection of systems, measurement of memory, and reports, shared by the benchmarks."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import typer

# flags that determine the speed of a network
CPU_FLAGS = ["avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile"]

Row = dict[str, Any]
T = TypeVar("T")

Models = Annotated[str, typer.Option(help="Names or .safetensors files, comma separated.")]
Threads = Annotated[int, typer.Option(help="Threads of each system that can use several.", min=1)]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all figures here.", metavar="FILE")]


def peers_option(known: Iterable[str]) -> Any:
    """Return the option that selects the peers."""
    return typer.Option(help=f"all, none or some of {','.join(known)}.")


def select_systems(models: str, peers: str, known: Mapping[str, Callable[[], object]]) -> list[str]:
    """Return the names of the selected models and peers; leave out peers that are not installed, and report them.

    Args:
        models: names or files, comma separated.
        peers: ``"all"``, ``"none"`` or names, comma separated.
        known: constructors of the peers by name.

    Raises:
        typer.BadParameter: a peer is unknown.
    """
    names = [name for name in models.split(",") if name]
    selected = {"all": [*known], "none": []}.get(peers, peers.split(","))
    if unknown := set(selected) - set(known):
        raise typer.BadParameter(f"peer {', '.join(unknown)} is unknown; expected some of {', '.join(known)}.")
    for name in selected:
        try:
            known[name]()
            names.append(name)
        except ImportError as error:
            print(f'{name} is left out: {error.name} is missing (pip install ".[bench]").', file=sys.stderr)
        except FileNotFoundError as error:
            print(f"{name} is left out: the command {error.filename} is missing.", file=sys.stderr)
    return names


def short_name(name: str) -> str:
    """Return the name of a system without folder and extension; options after a colon are kept."""
    return name.rpartition("/")[2].removesuffix(".onnx").replace(".safetensors", "")


def evenly_spaced(items: Sequence[T], n: int) -> list[T]:
    """Return at most ``n`` items, evenly spaced over a list that may be sorted by kind."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(n, len(items))).round().astype(int)]


def show_progress(items: Sequence[T], description: str) -> Iterable[T]:
    """Iterate over items with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import track

    return track(items, description, console=Console(stderr=True), transient=True)


# Time and memory


def use_threads(n: int) -> Callable[[], float]:
    """Set the number of threads of libraries that are imported later, and return the clock for timing, in seconds."""
    os.environ["OMP_NUM_THREADS"] = str(n)  # must be set before torch is imported; child processes inherit it
    # Processor time of one thread equals wall-clock time on an idle machine; over several threads it adds up.
    return processor_time if n == 1 else time.perf_counter


def processor_time() -> float:
    """Return the processor time of this process and of the commands that it has run, in seconds."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def describe_clock(threads: int) -> str:
    """Describe the clock of `use_threads` and the number of threads."""
    return f"{'processor' if threads == 1 else 'wall-clock'} time, {threads} thread(s)"


def shortest_time(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the shortest time of a call in seconds, of at least 3 calls and 0.2 s; the first call is not timed.

    Args:
        work: what is timed.
        clock: clock of `use_threads`.
    """
    work()  # allocates memory, and chooses algorithms
    times: list[float] = []
    while len(times) < 3 or sum(times) < 0.2:
        started = clock()
        work()
        times.append(clock() - started)
    return min(times)


class HiddenTorch:
    """An import hook that hides torch, which some peers load if it is installed but do not need."""

    def find_spec(self, name: str, *_: object) -> None:
        """Raise an error for torch; leave other modules to the next finder."""
        if name == "torch":
            raise ModuleNotFoundError(name=name)


def peak_mib(work: Callable[..., object], *arguments: Any, torch: bool) -> float | None:
    """Return the peak memory of a fresh process that runs ``work``, with or without torch; None outside Linux."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_peak_mib, work, arguments, torch).result()


def _peak_mib(work: Callable[..., object], arguments: Sequence[Any], torch: bool) -> float | None:
    if not torch:
        sys.meta_path.insert(0, HiddenTorch())
    work(*arguments)
    status = Path("/proc/self/status")  # ru_maxrss would start at the memory of the parent process
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)


# The report


def report(
    table: Sequence[Row], protocol: str, digits: Mapping[str, int], file: Path | None, figures: Mapping[str, Any]
) -> None:
    """Print a table in Markdown and its protocol; write both, and further figures, to a JSON file.

    Args:
        table: rows with the same keys.
        protocol: how the figures were measured.
        digits: decimal places of columns of floats, 2 by default.
        file: JSON file to write, or None.
        figures: further content of the JSON file.
    """
    print_table(table, digits)
    print(f"\nProtocol: {protocol}.")
    if file:
        file.write_text(json.dumps({"protocol": protocol, "table": table, **figures}, indent=1))


def print_table(table: Sequence[Row], digits: Mapping[str, int]) -> None:
    """Print a table in Markdown.

    Args:
        table: rows with the same keys.
        digits: decimal places of columns of floats, 2 by default.
    """

    def format_value(key: str, value: Any) -> str:
        return "-" if value is None else f"{value:.{digits.get(key, 2)}f}" if isinstance(value, float) else str(value)

    print("| " + " | ".join(table[0]) + " |")
    print("|" + "---|" * len(table[0]))
    for row in table:
        print("| " + " | ".join(format_value(key, value) for key, value in row.items()) + " |")


def describe_environment(packages: Sequence[str]) -> str:
    """Describe the versions of denoise and of the installed ``packages``, and the processor."""
    from denoise import __version__

    versions = [f"denoise {__version__}"]
    for package in packages:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return f"{', '.join(versions)}; {platform.machine()} with {_cpu_flags()}"


def _cpu_flags() -> str:
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return "unknown CPU flags"
    return " ".join(flag for flag in CPU_FLAGS if flag in words) or "none of " + " ".join(CPU_FLAGS)
