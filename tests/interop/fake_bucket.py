"""A bucket of Google's that is a folder here: a server with the calls that tensorstore makes, and the files that epath opens."""

import contextlib
import http.server
import json
import os
import pathlib
import re
import threading
import urllib.parse
from collections.abc import Iterator

from etils.epath import backend

BUCKET = "a-bucket"


def _handler(root: pathlib.Path) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        """`objects.get` with alt=media, also of a range, and `objects.list` of a range of names, for anybody."""

        def do_GET(self):
            url = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(url.query))
            place, _, name = url.path.partition("/o/")
            if not place.startswith(f"/storage/v1/b/{BUCKET}"):
                self._answer(404, b"")
            elif name:
                file = root / urllib.parse.unquote(name)
                self._send(file.read_bytes() if file.is_file() else None)
            else:
                self._answer(200, json.dumps({"items": self._items(query)}).encode())

        def _items(self, query: dict[str, str]) -> list[dict[str, str]]:
            start, end = query.get("startOffset", ""), query.get("endOffset", "\U0010ffff")
            names = sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
            found = [
                name for name in names if start <= name < end and name.startswith(query.get("prefix", ""))
            ]
            return [{"name": name, "generation": "1", "size": "1"} for name in found]

        def _send(self, content: bytes | None) -> None:
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if content is None:
                self._answer(404, b"")
            elif wanted is None:
                self._answer(200, content)
            else:
                first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
                part = content[first : last + 1]
                self._answer(206, part, f"bytes {first}-{first + len(part) - 1}/{len(content)}")

        def _answer(self, status: int, body: bytes, place: str | None = None) -> None:
            self.send_response(status)
            if place is not None:
                self.send_header("Content-Range", place)
            self.send_header("x-goog-generation", "1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *arguments):
            pass

    return Handler


class _Server(http.server.ThreadingHTTPServer):
    # Tensorstore opens all arrays at once; by default only five connections may wait.
    request_queue_size = 128


class FolderBackend(type(backend.os_backend)):
    """The backend of epath for paths gs://a-bucket/..., which are files below a folder."""

    def __init__(self, root: pathlib.Path):
        self._root = root

    def _here(self, path) -> str:
        return os.fspath(path).replace(f"gs://{BUCKET}", str(self._root), 1)

    def open(self, path, mode):
        return super().open(self._here(path), mode)

    def exists(self, path):
        return super().exists(self._here(path))

    def isdir(self, path):
        return super().isdir(self._here(path))

    def listdir(self, path):
        return super().listdir(self._here(path))

    def stat(self, path):
        return super().stat(self._here(path))

    def glob(self, path):
        found = super().glob(self._here(path))
        return [str(each).replace(str(self._root), f"gs://{BUCKET}", 1) for each in found]


@contextlib.contextmanager
def serve(root: pathlib.Path, monkeypatch) -> Iterator[str]:
    """Serves a folder as a bucket; yields its address, gs://..."""
    server = _Server(("127.0.0.1", 0), _handler(root))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setattr(backend, "tf_backend", FolderBackend(root))
    try:
        yield f"gs://{BUCKET}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
