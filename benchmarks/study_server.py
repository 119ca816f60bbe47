"""The pages of a human study, over HTTP on this machine alone. A browser is told no method's name, and no file's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from benchmarks.run_page import TEMPLATES, environment
from benchmarks.study import QUESTIONS, SIDES, Pair, Study, check_rater

HOST = "127.0.0.1"
_LARGEST_FORM = 1 << 14
_PIECE = 1 << 16

VideoOf = Callable[[str, str], Path]
"""The video of a sample by a method's name."""


def make_server(study: Study, video_of: VideoOf, port: int = 0) -> ThreadingHTTPServer:
    """A server, not yet running: ``serve_forever()`` runs it.

    Args:
        study: whose pairs to show.
        video_of: sample id, method -> the file.
        port: 0 = any that is free; ``server_address`` tells.
    """

    class Handler(_Handler):
        pages = Pages(study, video_of)

    return ThreadingHTTPServer((HOST, port), Handler)


class Pages:
    """What each address shows.

    Args:
        study: whose pairs to show.
        video_of: sample id, method -> the file.
    """

    def __init__(self, study: Study, video_of: VideoOf) -> None:
        self.study, self._video_of = study, video_of
        self._templates = environment()
        self._style = (TEMPLATES / "style.css").read_text(encoding="utf-8")

    def start(self, problem: str = "") -> str:
        """Where a rater says who they are."""
        return self._page("start", problem=problem, pairs=len(self.study.pairs))

    def rate(self, rater: str) -> str:
        """The rater's next pair, or thanks."""
        pair = self.study.next_pair(rater)
        done, of = self.study.progress(rater)
        if pair is None:
            return self._page("thanks", done=done)
        videos = {side: f"/video/{pair.key}/{side}?rater={quote(rater, safe='')}" for side in SIDES}
        return self._page("rate", rater=rater, pair=pair, videos=videos, questions=QUESTIONS, done=done, of=of)

    def answer(self, form: Mapping[str, str]) -> str:
        """Keep a rater's answers; returns the rater."""
        rater = form.get("rater", "")
        self.study.answer(rater, form.get("pair", ""), {name: form.get(name, "") for name in QUESTIONS})
        return rater

    def video(self, rater: str, key: str, side: str) -> Path:
        """The file on one side of a pair, as this rater sees it. ValueError: no such pair, side or rater."""
        check_rater(rater)
        pair: Pair | None = self.study.pairs.get(key)
        if pair is None or side not in SIDES:
            raise ValueError("There is no such video in this study.")
        method = pair.ours if side == self.study.ours_is(rater, pair) else pair.other
        return self._video_of(pair.sample, method)

    def _page(self, name: str, **values: object) -> str:
        template = self._templates.get_template("study.html")
        return template.render(part=name, style=self._style, **values)


class _Handler(BaseHTTPRequestHandler):
    pages: Pages
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        given = {key: values[0] for key, values in parse_qs(address.query).items()}
        self._guarded(lambda: self._get(address.path, given))

    def do_POST(self) -> None:
        self._guarded(self._post)

    def _guarded(self, act: Callable[[], None]) -> None:
        """A page of another site must not reach this server by a name of its own: the name asked for is checked."""
        if (self.headers.get("Host") or "").rpartition(":")[0] not in (HOST, "localhost"):
            self._send(HTTPStatus.FORBIDDEN, "This server answers on this machine alone.")
            return
        try:
            act()
        except ValueError as error:
            self._send(HTTPStatus.BAD_REQUEST, self.pages.start(str(error)))
        except FileNotFoundError:
            self._send(HTTPStatus.NOT_FOUND, "There is nothing here.")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the browser has left: nothing to say to it

    def _get(self, path: str, given: Mapping[str, str]) -> None:
        if path == "/":
            self._send(HTTPStatus.OK, self.pages.start())
        elif path == "/rate":
            self._send(HTTPStatus.OK, self.pages.rate(given.get("rater", "").strip()))
        elif found := re.fullmatch(r"/video/([0-9a-f]+)/([AB])", path):
            self._send_video(self.pages.video(given.get("rater", ""), *found.groups()))
        else:
            raise FileNotFoundError(path)

    def _post(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != "/answer" or not 0 < length <= _LARGEST_FORM:
            self.close_connection = True
            raise FileNotFoundError(self.path)
        form = parse_qs(self.rfile.read(length).decode("utf-8", "replace"))
        rater = self.pages.answer({key: values[0] for key, values in form.items()})
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", f"/rate?rater={quote(rater, safe='')}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, status: HTTPStatus, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)

    def _send_video(self, path: Path) -> None:
        """A video, whole or the range that a browser asks for (some play nothing else)."""
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        last = min(int(asked[2]) if asked and asked[2] else size - 1, size - 1)
        if first > last:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Cache-Control", "no-store")
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        with open(path, "rb") as stream:
            stream.seek(first)
            left = last - first + 1
            while left and (piece := stream.read(min(_PIECE, left))):
                self.wfile.write(piece)
                left -= len(piece)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal shows the address and nothing else."""
