"""What the benchmarks share: their options, who takes part, memory, and the report."""

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

CPU_FLAGS = ["avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile"]  # what decides a network's speed

Row = dict[str, Any]
T = TypeVar("T")

Models = Annotated[str, typer.Option(help="Names or .safetensors files, comma separated.")]
Threads = Annotated[int, typer.Option(help="Threads of each system that can use several.", min=1)]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all figures here.", metavar="FILE")]


def peers_option(known: Iterable[str]) -> Any:
    """The option that chooses the peers."""
    return typer.Option(help=f"all, none or some of {','.join(known)}.")


def take_part(models: str, peers: str, known: Mapping[str, Callable[[], object]]) -> list[str]:
    """Names of the models and of the peers asked for; a peer whose packages are missing is left out, and it is said.

    Raises:
        typer.BadParameter: a peer is unknown.
    """
    names = [name for name in models.split(",") if name]
    chosen = {"all": [*known], "none": []}.get(peers, peers.split(","))
    if unknown := set(chosen) - set(known):
        raise typer.BadParameter(f"peer {', '.join(unknown)} is unknown; expected some of {', '.join(known)}.")
    for name in chosen:
        try:
            known[name]()
            names.append(name)
        except ImportError as error:
            print(f'{name} is left out: {error.name} is missing (pip install ".[bench]").', file=sys.stderr)
    return names


def short(name: str) -> str:
    """The name of a system without the folder and the kind of its file; what follows a colon stays."""
    return name.rpartition("/")[2].replace(".safetensors", "")


def spread(items: Sequence[T], n: int) -> list[T]:
    """At most ``n`` of the items, from the whole list: it is sorted, often by kind."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(n, len(items))).round().astype(int)]


def bar(items: Sequence[T], description: str) -> Iterable[T]:
    """Draw a bar on standard error while the items are gone through."""
    from rich.console import Console
    from rich.progress import track

    return track(items, description, console=Console(stderr=True), transient=True)


# Time and memory


def use_threads(n: int) -> Callable[[], float]:
    """Give ``n`` threads to what is loaded from now on, and return the clock, in seconds, that it is timed with."""
    os.environ["OMP_NUM_THREADS"] = str(n)  # before torch is imported, and for the processes to come
    # One thread's processor time is its time on an idle machine; that of several would be added up.
    return time.process_time if n == 1 else time.perf_counter


def clock_name(threads: int) -> str:
    """The clock of `use_threads`, and the threads, in words."""
    return f"{'processor' if threads == 1 else 'wall-clock'} time, {threads} thread(s)"


class NoTorch:
    """Hides torch from the import system: a peer may take it where it is, and not need it."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "torch":
            raise ModuleNotFoundError(name=name)


def peak_mib(work: Callable[..., object], *arguments: Any, torch: bool) -> float | None:
    """Peak memory of a fresh process that does ``work`` and nothing else, with or without torch; on Linux only."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_peak_mib, work, arguments, torch).result()


def _peak_mib(work: Callable[..., object], arguments: Sequence[Any], torch: bool) -> float | None:
    if not torch:
        sys.meta_path.insert(0, NoTorch())
    work(*arguments)
    status = Path("/proc/self/status")  # not ru_maxrss, which begins with what the parent process held
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)


# The report


def report(
    table: Sequence[Row], protocol: str, digits: Mapping[str, int], file: Path | None, figures: Mapping[str, Any]
) -> None:
    """Print the table in Markdown and the protocol; write them and all ``figures`` to ``file`` if there is one.

    ``digits`` says how many follow the point in each column of floats, if not 2.
    """

    def shown(key: str, value: Any) -> str:
        return "-" if value is None else f"{value:.{digits.get(key, 2)}f}" if isinstance(value, float) else str(value)

    print("| " + " | ".join(table[0]) + " |")
    print("|" + "---|" * len(table[0]))
    for line in table:
        print("| " + " | ".join(shown(key, value) for key, value in line.items()) + " |")
    print(f"\nProtocol: {protocol}.")
    if file:
        file.write_text(json.dumps({"protocol": protocol, "table": table, **figures}, indent=1))


def where(packages: Sequence[str]) -> str:
    """Versions of this package and of those of ``packages`` that are installed, and the kind of processor."""
    from denoise import __version__

    found = [f"denoise {__version__}"]
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return f"{', '.join(found)}; {platform.machine()} with {_cpu_flags()}"


def _cpu_flags() -> str:
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return "unknown CPU flags"
    return " ".join(flag for flag in CPU_FLAGS if flag in words) or "none of " + " ".join(CPU_FLAGS)
