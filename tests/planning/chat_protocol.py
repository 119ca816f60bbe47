"""A server of OpenAI's chat-completions protocol for tests: a real one, on loopback, that follows a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG, DROP, HALF = "hang", "drop", "half"
"""Replies that are none: silence; the connection closed at once; closed in the middle of the body."""


class ScriptedServer(ThreadingHTTPServer):
    """Gives one reply of its script after the other, the last one for ever.

    A reply is the text of an answer, (status, text of the body), or one of ``HANG``, ``DROP``, ``HALF``.

    Attributes:
        requests: the JSON bodies that came in.
        keys: the authorization headers that came with them.
    """

    daemon_threads = True

    def __init__(self, script: list[Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script, self.requests, self.keys = list(script), [], []  # type: ignore[var-annotated]
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def reply(self) -> Any:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        self.server.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.keys.append(self.headers["Authorization"])
        reply = self.server.reply()
        if self.path != "/v1/chat/completions":
            reply = (404, json.dumps({"error": {"message": f"no {self.path}"}}))
        if reply == HANG:
            self.server.closing.wait()
        if reply in (HANG, DROP):
            self.close_connection = True
            return
        status, body = reply if isinstance(reply, tuple) else (200, json.dumps(completion(reply)))
        raw = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(completion("")) * 1000 if reply == HALF else len(raw)))
        self.end_headers()
        self.wfile.write(raw[: len(raw) // 2] if reply == HALF else raw)
        self.close_connection = reply == HALF


def completion(text: str) -> dict[str, Any]:
    """A reply of the protocol that carries a text."""
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "scripted", "choices": choices}


@contextmanager
def serving(*script: Any) -> Iterator[ScriptedServer]:
    """Run a server for the time of the block."""
    server = ScriptedServer(list(script))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
