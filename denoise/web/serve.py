"""Start the server of the page."""

from __future__ import annotations

import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from denoise.errors import ConfigError

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
MAX_UPLOAD_MIB = 1024
"""Largest upload by default; audio is read block by block, images have a limit of their own in megapixels."""


def serve(host: str, port: int, *, max_upload_mib: float, announce: Callable[[str], None]) -> None:
    """Serve the page until the process is interrupted, or its terminal is closed.

    Args:
        host: address to listen on.
        port: port; 0 takes a free one.
        max_upload_mib: largest upload in MiB.
        announce: called with the address of the page when it can be opened.

    Raises:
        ConfigError: the extra is not installed, an option is out of range, or the address cannot be used.
    """
    if not 0 <= port < 1 << 16:
        raise ConfigError(f"--port is {port}; expected 0 (a free one) to {(1 << 16) - 1}.")
    if not 0 < max_upload_mib < 1 << 20:
        raise ConfigError(f"--max-upload is {max_upload_mib:g} MiB; expected more than 0 and below 2^20.")
    for module in ("starlette", "uvicorn"):
        if find_spec(module) is None:
            raise ConfigError(f'{module} is missing. In the source: pip install ".[web]".')
    import uvicorn

    from denoise.web.app import Limits, Server
    from denoise.web.jobs import Jobs

    with (
        _listen(host, port) as listener,
        tempfile.TemporaryDirectory(prefix="denoise-web-") as folder,
        _terminate_on_hangup(),
    ):
        limits = Limits(int(max_upload_mib * 2**20), LOOPBACK if host in LOOPBACK else None)
        app = Server(Jobs(Path(folder)), limits).app()
        address = f"[{host}]" if ":" in host else host
        announce(f"http://{address}:{listener.getsockname()[1]}/")
        config = uvicorn.Config(app, log_level="error", access_log=False, server_header=False, ws="none")
        config.timeout_graceful_shutdown = 1  # seconds for open downloads
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def _terminate_on_hangup() -> Iterator[None]:
    """Handle SIGHUP, as of a terminal that is closed, like SIGTERM, so that files are removed; nohup ignores it."""
    number = getattr(signal, "SIGHUP", None)  # which Windows lacks
    is_main = threading.current_thread() is threading.main_thread()
    if number is None or not is_main or signal.getsignal(number) != signal.SIG_DFL:
        yield
        return
    signal.signal(number, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        reason = str(error.strerror).partition(" (")[0] if isinstance(error, OSError) else error
        raise ConfigError(f"{host}:{port} cannot be used ({reason}). Give another --port or --host.") from None
