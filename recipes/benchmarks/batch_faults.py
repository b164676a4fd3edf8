"""Disturb `denoise batch`: kill its processes at random moments, fill its disk, break its S3 server."""

from __future__ import annotations

import http.server
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import soundfile
import typer
from batch import DENOISE, QUIET, batch_line, make_sounds, records, workers_of
from common import JsonFile, Row, describe_environment, report

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def faults(
    names: Annotated[str, typer.Option("--faults", help="Which of them.")] = "driver,workers,disk,s3",
    kills: Annotated[int, typer.Option(help="Kills of the driver, and of workers.")] = 50,
    files: Annotated[int, typer.Option(help="Number of files of each batch.")] = 100,
    seconds: Annotated[float, typer.Option(help="Length of each file.")] = 20.0,
    workers: Annotated[int, typer.Option(help="Number of workers.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the moments.")] = 0,
    journals: Annotated[Path | None, typer.Option(help="Keep the journals in this folder.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Kill driver and workers at random moments, fill a disk, break an S3 server; check that nothing is lost."""
    chance, table = random.Random(seed), []
    for name in names.split(","):
        with tempfile.TemporaryDirectory() as folder:
            make_sounds(Path(folder) / "in", files, seconds)
            fault, run = FAULTS[name]
            times, redone = run(Trial(Path(folder), kills, workers, chance))
            table.append({"fault": fault, "times": times} | check(Path(folder), files, redone))
            if journals is not None:
                journals.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path(folder) / "out.journal.jsonl", journals / f"{name}.journal.jsonl")
    environment = describe_environment(["torch"])
    protocol = f"{files} files of {seconds:g} s, model speech, workers: {workers}, seed {seed}; {environment}"
    report(table, protocol, {}, json_file, {})


class Trial(NamedTuple):
    """A batch that is disturbed.

    Args:
        folder: it has the sounds in `in`.
        kills: number of kills.
        workers: number of workers.
        chance: source of the moments.
    """

    folder: Path
    kills: int
    workers: int
    chance: random.Random

    def line(self, *words: str) -> list[str]:
        """Return the command of the batch."""
        return batch_line(self.folder, ["--workers", str(self.workers), *words])


def versions(folder: Path) -> dict[str, int]:
    """Return the times of the outputs that are in place."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "out").glob("*.wav")}


def kill_driver(trial: Trial) -> tuple[int, int]:
    """Kill the driver again and again, every other time just after it has finished a file.

    Returns:
        How often it was killed, and how many outputs that were in place were written again by a later run.
    """
    folder, chance = trial.folder, trial.chance
    killed, redone, before = 0, 0, versions(folder)
    while killed < trial.kills:
        n_done = len(records(folder))
        process = subprocess.Popen(trial.line(), **QUIET)
        if chance.random() < 0.5:
            while len(records(folder)) <= n_done and process.poll() is None:
                time.sleep(0.005)
        else:
            time.sleep(3 * chance.random())
        time.sleep(0.5 * chance.random())
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        killed += 1
        now = versions(folder)
        redone, before = redone + sum(now.get(name) != time for name, time in before.items()), now
    subprocess.run(trial.line(), **QUIET, check=True)
    now = versions(folder)
    return killed, redone + sum(now.get(name) != time for name, time in before.items())


def kill_workers(trial: Trial) -> tuple[int, int]:
    """Kill a worker again and again while a batch runs, every other time just after one has finished a file.

    Files that failed thereby are retried at the end.

    Returns:
        As `kill_driver`.
    """
    process = subprocess.Popen(trial.line(), **QUIET)
    killed = 0
    while process.poll() is None and killed < trial.kills:
        n_lines = len(records(trial.folder))
        if trial.chance.random() < 0.5:
            while len(records(trial.folder)) == n_lines and process.poll() is None:
                time.sleep(0.005)
        time.sleep(trial.chance.random())
        if workers := workers_of(process.pid):
            os.kill(trial.chance.choice(workers), signal.SIGKILL)
            killed += 1
    process.wait()
    before = versions(trial.folder)
    subprocess.run(trial.line("--retry-failed"), **QUIET, check=True)
    now = versions(trial.folder)
    return killed, sum(now.get(name) != time for name, time in before.items())


def check(folder: Path, n: int, redone: int) -> Row:
    """Return what became of the files of a batch that has ended."""
    outputs = [path for path in sorted((folder / "out").iterdir()) if path.suffix == ".wav"]
    complete = sum(soundfile.info(path).frames == soundfile.info(folder / "in" / path.name).frames for path in outputs)
    done = sum(record["status"] == "done" for record in records(folder))
    left = [path for path in (folder / "out").rglob("*") if path.is_file() and path not in outputs]
    counts = {"files": n, "complete": complete, "finished twice": redone}
    return counts | {"lines without output": done - len(outputs), "left over": len(left)}


def fill_disk(trial: Trial) -> tuple[int, int]:
    """Write to a disk for half of the sounds, which is then made larger; needs the right to mount."""
    folder = trial.folder
    sizes = [path.stat().st_size for path in (folder / "in").iterdir()]
    (folder / "out").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sum(sizes) // 2}", "tmpfs", folder / "out"], check=True)
    try:
        if subprocess.run(trial.line(), **QUIET).returncode != 1:
            raise SystemExit("the disk was not full")
        before = versions(folder)
        subprocess.run(["mount", "-o", "remount,size=8G", folder / "out"], check=True)
        subprocess.run(trial.line("--retry-failed"), **QUIET, check=True)
        now = versions(folder)
        shutil.copytree(folder / "out", folder / "copy")
    finally:
        subprocess.run(["umount", folder / "out"], check=True)
    (folder / "out").rmdir()
    (folder / "copy").rename(folder / "out")
    return 1, sum(now.get(name) != time for name, time in before.items())


class FlakyProxy(http.server.BaseHTTPRequestHandler):
    """A proxy of an S3 server that answers 503, or cuts the connection, at one request in five."""

    protocol_version = "HTTP/1.1"  # whose "100 Continue" uploads wait for
    target: str
    chance: random.Random
    faults = 0

    def handle_request(self) -> None:
        """Forward a request, or fail."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.close_connection = True
        if self.chance.random() < 0.2:
            type(self).faults += 1
            if self.chance.random() < 0.5:
                self.send_error(503)
            else:
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        request = urllib.request.Request(self.target + self.path, body or None, dict(self.headers), method=self.command)
        try:
            with urllib.request.urlopen(request) as answer:
                status, headers, data = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, headers, data = error.code, error.headers, error.read()
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "server", "date"):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_request  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def break_s3(trial: Trial) -> tuple[int, int]:
    """Run a batch from and to an S3 server behind a flaky proxy; retry what failed until all is there.

    Returns:
        How many requests failed, and how many files were finished twice.
    """
    import boto3
    from moto.server import ThreadedMotoServer

    folder = trial.folder
    server = ThreadedMotoServer(port=0)
    server.start()
    _, port = server.get_host_and_port()
    FlakyProxy.target, FlakyProxy.chance = f"http://127.0.0.1:{port}", trial.chance
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FlakyProxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(keys)
    client = boto3.client("s3", endpoint_url=FlakyProxy.target)
    client.create_bucket(Bucket="sounds")
    for path in (folder / "in").iterdir():
        client.upload_file(str(path), "sounds", f"in/{path.name}")
    line = [*DENOISE, "batch", "s3://sounds/in", "s3://sounds/out", "--model", "speech", "--audio", "--retry-failed"]
    line += ["--workers", str(trial.workers), "--journal", str(folder / "out.journal.jsonl")]
    flaky = os.environ | {"FSSPEC_S3_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}"}
    for _ in range(10):
        if subprocess.run(line, env=flaky, **QUIET).returncode == 0:
            break
    (folder / "out").mkdir()
    for item in client.list_objects_v2(Bucket="sounds", Prefix="out/").get("Contents", []):
        client.download_file("sounds", item["Key"], str(folder / item["Key"]))
    proxy.shutdown()
    server.stop()
    done = Counter(record["name"] for record in records(folder) if record["status"] == "done")
    return FlakyProxy.faults, sum(n - 1 for n in done.values())


FAULTS: dict[str, tuple[str, Callable[[Trial], tuple[int, int]]]] = {
    "driver": ("driver killed", kill_driver),
    "workers": ("worker killed", kill_workers),
    "disk": ("disk full, then larger", fill_disk),
    "s3": ("S3 answers 503, or cuts the connection, at one request in five", break_s3),
}


if __name__ == "__main__":
    app()
