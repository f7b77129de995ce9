"""A model hub for tests: a real process that speaks the hub's API over real files.

`<root>/<org>/<repo>/<revision>/` are the repositories; a revision is 40 hexadecimal digits, and `main` a file
that names one. Files above `--lfs-over` bytes are large files: they have a SHA-256 in the listing and are
redirected to a second port, as to a content network. Repositories called `private-…` want the token.

Each request is appended to `--log` as one JSON line: what was asked, with which range and authorisation, and
how many bytes were sent. `--rate` limits bytes per second and connection, `--break-after` closes each
connection after that many bytes of a file, `--no-ranges` ignores ranges, `--lie` changes one byte of that
file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test_token"
_LOCK = threading.Lock()


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    options: argparse.Namespace
    cdn = ""

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if api := re.fullmatch(r"/api/models/([^/]+)/([^/]+)(?:/revision/(.+))?", path):
            self._api(api[1], api[2], api[3] or "main")
        elif file := re.fullmatch(r"/([^/]+)/([^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(*file.groups())
        elif path.startswith("/cdn/"):
            self._send(Path(self.options.root, path.removeprefix("/cdn/")), {})
        else:
            self._answer(404, {"error": "no such page"})

    def _api(self, org: str, repo: str, revision: str) -> None:
        if (folder := self._open(org, repo, revision)) is None:
            return
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        siblings = [self._sibling(p, p.relative_to(folder).as_posix()) for p in files]
        self._answer(200, {"id": f"{org}/{repo}", "modelId": f"{org}/{repo}", "sha": folder.name,
                           "private": repo.startswith("private-"), "tags": [], "downloads": 0, "likes": 0,
                           "siblings": siblings})  # fmt: skip

    def _sibling(self, path: Path, name: str) -> dict[str, Any]:
        raw = path.read_bytes()
        found: dict[str, Any] = {"rfilename": name, "size": len(raw), "blobId": git_id(raw)}
        if len(raw) > self.options.lfs_over:
            found["lfs"] = {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw), "pointerSize": 135}
        return found

    def _file(self, org: str, repo: str, revision: str, name: str) -> None:
        if (folder := self._open(org, repo, revision)) is None:
            return
        path = folder / name
        if not path.is_file():
            self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        raw = path.read_bytes()
        large = len(raw) > self.options.lfs_over
        etag = hashlib.sha256(raw).hexdigest() if large else git_id(raw)
        headers = {"X-Repo-Commit": folder.name, "ETag": f'"{etag}"'}
        if large:
            where = f"{self.cdn}/cdn/{path.relative_to(self.options.root)}"
            headers |= {"Location": where, "X-Linked-Size": str(len(raw)), "X-Linked-ETag": f'"{etag}"'}
            self._answer(302, {}, headers)
        else:
            self._send(path, headers)

    def _open(self, org: str, repo: str, revision: str) -> Path | None:
        """The folder of a revision; None if an error was answered."""
        if repo.startswith("private-") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        base = Path(self.options.root, org, repo)
        if not base.is_dir():
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        if (base / revision).is_file():
            revision = (base / revision).read_text().strip()
        if not (base / revision).is_dir():
            self._answer(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
            return None
        return base / revision

    def _answer(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "error" in body:
            self.send_header("X-Error-Message", body["error"])
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(raw)
        self._note(status, 0)

    def _send(self, path: Path, headers: dict[str, str]) -> None:
        raw = bytearray(path.read_bytes())
        if path.name == self.options.lie:
            raw[len(raw) // 2] ^= 1
        start, end = 0, len(raw)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and not self.options.no_ranges:
            start, end = int(asked[1]), min(len(raw), int(asked[2] or len(raw) - 1) + 1)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(raw)}"
        self.send_response(206 if "Content-Range" in headers else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command == "HEAD":
            self._note(200, 0)
            return
        sent = 0
        try:
            while start + sent < end:
                piece = raw[start + sent : min(end, start + sent + 65_536)]
                if self.options.break_after and sent + len(piece) > self.options.break_after:
                    self.close_connection = True
                    return
                self.wfile.write(piece)
                sent += len(piece)
                if self.options.rate:
                    time.sleep(len(piece) / self.options.rate)
        except OSError:
            self.close_connection = True
        finally:
            self._note(206 if "Content-Range" in headers else 200, sent)

    def _note(self, status: int, sent: int) -> None:
        line = {"method": self.command, "path": self.path, "status": status, "sent": sent,
                "range": self.headers.get("Range"), "authorised": "Authorization" in self.headers,
                "agent": self.headers.get("User-Agent")}  # fmt: skip
        with _LOCK, Path(self.options.log).open("a") as f:
            f.write(json.dumps(line) + "\n")


def git_id(raw: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--lfs-over", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--break-after", type=int, default=0)
    parser.add_argument("--no-ranges", action="store_true")
    parser.add_argument("--lie", default="")
    Hub.options = parser.parse_args()
    Path(Hub.options.log).touch()
    content = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.cdn = f"http://127.0.0.1:{content.server_address[1]}"
    threading.Thread(target=content.serve_forever, daemon=True).start()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
