"""Refuses what another web page sends to the server of `studio`, and forbids the page to load anything from elsewhere.

A page of another site can send requests to this machine, either by its address (the browser then says of which site the
page is), or by a name of its own that it lets point to this machine (DNS rebinding: then that name is in `Host`).
"""

import ipaddress
import socket
import urllib.parse

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class Guard:
    """An application, reached only by the addresses and names of its machine, and only by its own page."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        """`host`: a name by which the machine is reached, beside `localhost`, its own name and its addresses."""
        self._app = app
        self._names = {name.lower() for name in ("localhost", host, socket.gethostname())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refused = self._refuse(scope["method"], Headers(scope=scope))
        await (refused or self._app)(scope, receive, send_safely)

    def _refuse(self, method: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if not self._is_here(host):
            return _refusal(421, "this host is not this machine: open the address that `studio` prints")
        if method in ("GET", "HEAD"):
            return None  # which change nothing, and whose answers no other site may read
        origin = headers.get("origin")
        # Programs that are no browser send neither.
        foreign = origin is not None and urllib.parse.urlsplit(origin).netloc.lower() != host.lower()
        if foreign or headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return _refusal(403, "requests of other web pages are refused")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _refusal(415, "requests have the content type application/json")
        return None

    def _is_here(self, host: str) -> bool:
        """Whether a `Host` is an address, or a name of this machine."""
        try:
            name = urllib.parse.urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refusal(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status)
