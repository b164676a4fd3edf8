"""The server of the page: files in by POST, jobs by their names, each result downloaded once.

The body of a request is one file, its query the options, its answer a job as JSON:

    POST /api/audio/NAME, /api/image/NAME, /api/complete/NAME    a file
    POST /api/sample, /api/interpolate                           nothing
    GET /api/jobs/ID                                             state, progress, error, facts and files of a job
    GET /api/jobs/ID/WORD                                        a file; after the last one, the job is removed
    DELETE /api/jobs/ID                                          cancel a job and remove its files
    GET /api/models                                              cards of the bundled models

With ``wait=1`` in the query of a POST, its answer is the first file.
"""

from __future__ import annotations

import asyncio
import errno
import re
import unicodedata
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from denoise import __version__
from denoise.config import parse
from denoise.errors import DenoiseError, InputError, describe_unexpected
from denoise.pipelines.choice import AUTO
from denoise.web.about import list_models
from denoise.web.audio import AudioRequest, load_audio, plan_audio
from denoise.web.guard import Guard
from denoise.web.image import ImageRequest, plan_image
from denoise.web.jobs import BusyError, Job, Jobs, UnknownJobError, Work
from denoise.web.priors import (
    CompletionRequest,
    PathRequest,
    SampleRequest,
    plan_completions,
    plan_path,
    plan_samples,
)

STATIC = Path(__file__).parent / "static"
MAX_STEM = 150  # bytes in UTF-8 of a file name without its suffix; file systems have 255, outputs get a longer name
MAX_SUFFIX = 10  # bytes in UTF-8, beyond which the end of a name is none
SWEEP_S = 60.0  # between searches for jobs whose time is over
POLL_S = 0.5  # between looks at whether the client of a request that waits has left

T = TypeVar("T")


class TooLargeError(InputError):
    """An upload exceeds its limit."""


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Args:
        max_upload: size of a file in bytes.
        hosts: names by which the server may be addressed, as of `denoise.web.guard.Guard`.
    """

    max_upload: int
    hosts: frozenset[str] | None = None


class Server:
    """The endpoints.

    Args:
        jobs: jobs of the server; they are closed with it.
        limits: limits of the server.
    """

    def __init__(self, jobs: Jobs, limits: Limits) -> None:
        self._jobs, self._limits = jobs, limits

    def app(self) -> ASGIApp:
        """Return the application."""

        def from_file(path: str, kind: type[T], plan: Callable[[Path, T], Work]) -> Route:
            return Route(path, partial(self._create_from_file, kind, plan), methods=["POST", "PUT"])

        def from_query(path: str, kind: type[T], plan: Callable[[Path, T], Work]) -> Route:
            return Route(path, partial(self._create_from_query, kind, plan), methods=["POST"])

        routes = [
            Route("/", self._show_page),
            from_file("/api/audio/{name}", AudioRequest, plan_audio),
            from_file("/api/image/{name}", ImageRequest, plan_image),
            from_file("/api/complete/{name}", CompletionRequest, plan_completions),
            from_query("/api/sample", SampleRequest, plan_samples),
            from_query("/api/interpolate", PathRequest, plan_path),
            Route("/api/jobs/{id}", self._show_job),
            Route("/api/jobs/{id}", self._remove_job, methods=["DELETE"]),
            Route("/api/jobs/{id}/{word}", self._download),
            Route("/api/models", self._show_models),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        handlers = {DenoiseError: _answer_error, HTTPException: _answer_http_error, Exception: _answer_bug}
        return Guard(Starlette(routes=routes, exception_handlers=handlers, lifespan=self._run), self._limits.hosts)

    @asynccontextmanager
    async def _run(self, _: Starlette) -> AsyncIterator[None]:
        self._jobs.prepare(partial(load_audio, AUTO))  # before the first file comes
        sweep = asyncio.create_task(_sweep(self._jobs))
        try:
            yield
        finally:
            sweep.cancel()
            self._jobs.close()

    async def _create_from_file(self, kind: type[T], plan: Callable[[Path, T], Work], request: Request) -> Response:
        if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise InputError("the body is a form; expected the file itself, as sent by curl -T FILE. Send it alone.")
        query, waits = _parse_query(kind, request)
        job = self._jobs.create()
        path = job.folder / clean_name(request.path_params["name"])
        try:
            work = plan(path, query)  # bad options are refused before the upload
            await _receive(request, path, self._limits.max_upload)
        except ClientDisconnect:
            self._jobs.remove(job)
            return Response(status_code=400)  # which nobody reads
        except BaseException:
            self._jobs.remove(job)
            raise
        return await self._start(request, job, work, waits)

    async def _create_from_query(self, kind: type[T], plan: Callable[[Path, T], Work], request: Request) -> Response:
        query, waits = _parse_query(kind, request)
        job = self._jobs.create()
        try:
            work = plan(job.folder, query)
        except BaseException:
            self._jobs.remove(job)
            raise
        return await self._start(request, job, work, waits)

    async def _start(self, request: Request, job: Job, work: Work, waits: bool) -> Response:
        """Start a job; answer with it, or wait for its first file as long as the client does."""
        self._jobs.start(job, work)
        if not waits:
            return JSONResponse(self._describe(job), status_code=202, headers={"location": f"/api/jobs/{job.id}"})
        assert job.future is not None
        future = asyncio.wrap_future(job.future)
        while not future.done():
            if await request.is_disconnected():
                self._jobs.remove(job)
            await asyncio.wait([future], timeout=POLL_S)
        if job.outcome is None:
            self._jobs.remove(job)
            raise InputError(job.error or "the job was cancelled.")
        path = next(iter(job.outcome.files.values()))
        return FileResponse(path, filename=path.name, background=BackgroundTask(self._jobs.remove, job))

    async def _show_job(self, request: Request) -> Response:
        return JSONResponse(self._describe(self._jobs.get(request.path_params["id"])))

    async def _remove_job(self, request: Request) -> Response:
        self._jobs.remove(self._jobs.get(request.path_params["id"]))
        return Response(status_code=204)

    async def _download(self, request: Request) -> Response:
        job, word = self._jobs.get(request.path_params["id"]), request.path_params["word"]
        if job.outcome is None or word not in job.outcome.files:
            raise UnknownJobError(f"the job has no file {word!r}; its state is {job.state}.")
        path = job.outcome.files[word]
        return Download(path, partial(self._jobs.deliver, job, word))

    async def _show_models(self, _: Request) -> Response:
        row = {"version": __version__, "models": list_models(), "max_upload": self._limits.max_upload}
        return JSONResponse(row)

    async def _show_page(self, _: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    def _describe(self, job: Job) -> dict[str, Any]:
        """Return a job as plain values for JSON."""
        row: dict[str, Any] = {"id": job.id, "state": job.state, "fraction": round(job.fraction, 3)}
        row |= {"ahead": self._jobs.position(job), "error": job.error}
        if job.outcome is not None:
            row["facts"] = _hide_folders(job, job.outcome.facts)
            row["files"] = {
                word: {"name": path.name, "bytes": path.stat().st_size, "url": f"/api/jobs/{job.id}/{word}"}
                for word, path in job.outcome.files.items()
            }
        return row


class Download(FileResponse):
    """A file, with a call when a client has received all of it.

    A request of the headers (HEAD) or of a range does not count, nor does a client that leaves before the end.

    Args:
        path: path of the file.
        on_sent: called after the last byte was sent.
    """

    def __init__(self, path: Path, on_sent: Callable[[], None]) -> None:
        super().__init__(path, filename=path.name)
        self._on_sent = on_sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request, status, is_sent = Request(scope, receive), 0, False

        async def send_last(message: Message) -> None:
            nonlocal status, is_sent
            if message["type"] == "http.response.start":
                status = message["status"]
            if message["type"] != "http.response.body" or message.get("more_body", False):
                await send(message)
                return
            await send({**message, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": True})  # waits for a full buffer
            is_connected = not await request.is_disconnected()  # asked before the end, which counts as one
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            is_sent = is_connected

        await super().__call__(scope, receive, send_last)
        if is_sent and status == 200 and scope["method"] == "GET":
            self._on_sent()


def clean_name(name: str) -> str:
    r"""Return the name of an upload as the name of a file in the folder of its job.

    Args:
        name: name that the client gives.

    Returns:
        Its last part without control characters, with at most `MAX_STEM` bytes in UTF-8 before the suffix, which does
        not start with a dot.

    >>> clean_name("../.ssh/id rsa.wav"), clean_name(".."), clean_name("C:\\sounds\\a.wav")
    ('id rsa.wav', 'file', 'a.wav')
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    printable = "".join(c for c in last if c.isprintable()).lstrip(". ").rstrip(" ") or "file"
    stem, dot, suffix = printable.rpartition(".")
    if not dot or len(suffix.encode()) >= MAX_SUFFIX:
        stem, dot, suffix = printable, "", ""
    return f"{stem.encode()[:MAX_STEM].decode(errors='ignore')}{dot}{suffix}"


def _parse_query(kind: type[T], request: Request) -> tuple[T, bool]:
    """Return the options of a query, and whether the client waits for the file."""
    values = dict(request.query_params)
    waits = values.pop("wait", "0") not in ("", "0", "false")
    return parse(kind, values, "query"), waits


async def _receive(request: Request, path: Path, max_bytes: int) -> None:
    """Write the body of a request into a file, and stop where it is larger than allowed."""
    error = TooLargeError(f"{path.name}: is larger than {max_bytes / 2**20:g} MiB, the limit of this server.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise error
    n_bytes = 0
    try:
        with path.open("wb") as file:
            async for chunk in request.stream():
                n_bytes += len(chunk)
                if n_bytes > max_bytes:
                    raise error
                file.write(chunk)
    except OSError as failure:
        advice = " Free space on the server." if failure.errno == errno.ENOSPC else ""
        raise InputError(f"{path.name}: cannot be stored ({failure.strerror}).{advice}") from None


def _hide_folders(job: Job, facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts with names of files in place of paths."""

    def hide(value: Any) -> Any:
        if isinstance(value, str):
            return job.hide_folder(value)
        return [hide(each) for each in value] if isinstance(value, list | tuple) else value

    return {key: hide(value) for key, value in facts.items()}


async def _sweep(jobs: Jobs) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        jobs.remove_expired()


async def _answer_error(_: Request, error: Exception) -> Response:
    statuses: dict[type[Exception], int] = {UnknownJobError: 404, TooLargeError: 413, BusyError: 503}
    return JSONResponse({"error": str(error)}, status_code=statuses.get(type(error), 400))


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}. See GET / for the page."
    return JSONResponse({"error": message}, status_code=error.status_code)


async def _answer_bug(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": describe_unexpected(error)}, status_code=500)
