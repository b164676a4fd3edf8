"""What keeps other pages out: a browser may reach this server from any page that it shows."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Headers of every response. The page loads nothing from elsewhere, and no other page shows or reads it."""


class Guard:
    """Middleware that refuses requests of other pages, and adds `HEADERS`.

    A page of another site can send requests to a server on loopback. Those with its name in ``Origin`` are refused, and
    so are those to another name in ``Host``, as of a site whose name leads to this machine (DNS rebinding).

    Args:
        app: application behind it.
        hosts: names by which the server may be addressed; None allows every IP address, ``localhost`` and the name of
            this machine, none of which another site can have.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._find_refusal(Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, send_guarded)
        else:
            await JSONResponse({"error": refusal}, status_code=403)(scope, receive, send_guarded)

    def _find_refusal(self, headers: Headers) -> str | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        name = _parse_address(f"//{host}").hostname or ""
        if self._hosts is not None and name not in self._hosts:
            return f"the request is for host {name!r}; expected {', '.join(sorted(self._hosts))}. Use such an address."
        if self._hosts is None and not (_is_ip_address(name) or name in ("localhost", socket.gethostname().lower())):
            return (
                f"the request is for host {name!r}; expected an IP address, localhost or {socket.gethostname()}. "
                "Use such an address."
            )
        if origin is not None and _parse_address(origin).netloc != host:
            return f"the request comes from a page of {origin}; expected the page of this server. Open it directly."
        return None


def _parse_address(text: str) -> SplitResult:
    """Return the parts of an address, all empty if it is malformed."""
    try:
        return urlsplit(text)
    except ValueError:
        return SplitResult("", "", "", "", "")


def _is_ip_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
