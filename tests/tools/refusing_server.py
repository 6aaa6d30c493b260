"""An S3 endpoint whose credentials can expire: it hands every request on, until it is asked to refuse them."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass
class Refusing:
    """The endpoint. `refuse`: (HTTP status, S3's name of the error) of every answer from now on; None: hand on.

    methods: those that are refused
    """

    upstream: str
    refuse: tuple[int, str] | None = None
    methods: frozenset[str] = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})
    address: str = ""
    requests: list[str] = field(default_factory=list)


@contextmanager
def refusing_server(upstream: str) -> Iterator[Refusing]:
    """An endpoint before the S3 server at `upstream` (HOST:PORT)."""
    state = Refusing(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self._body()
            state.requests.append(self.command)
            if state.refuse is not None and self.command in state.methods:
                status, name = state.refuse
                text = f"<?xml version='1.0'?><Error><Code>{name}</Code><Message>refused</Message></Error>".encode()
                self._send(status, [("content-type", "application/xml")], text)
                return
            there = http.client.HTTPConnection(state.upstream, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            there.request(self.command, self.path, body, headers | {"content-length": str(len(body))})
            answer = there.getresponse()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
            length = answer.getheader("content-length") if self.command == "HEAD" else None
            self._send(answer.status, kept, answer.read(), length)
            there.close()

        def _body(self) -> bytes:
            if "chunked" not in (self.headers.get("transfer-encoding") or ""):
                return self.rfile.read(int(self.headers.get("content-length") or 0))
            whole = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return whole

        def _send(self, status: int, headers: list[tuple[str, str]], body: bytes, length: str | None = None) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("content-length", length or str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

        def log_message(self, format: str, *arguments: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
