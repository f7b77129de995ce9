"""An OCI registry for tests: a real process that speaks the distribution API over real files.

Blobs lie in `<root>/blobs/<hex>`, manifests in `<root>/<repository>/<tag or digest>`. With `--password` a
bearer token is demanded, which `/token` gives to `user` with that password, or to nobody in particular for
pulling where `--anonymous-pull` is set. Requests are appended to `--log` as JSON lines.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import secrets
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

_LOCK = threading.Lock()
_NAME = r"/v2/(?P<name>[a-z0-9/._-]+?)"


class Registry(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    options: argparse.Namespace
    tokens: dict[str, str] = {}  # token -> scope  # noqa: RUF012

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815

    def _route(self) -> None:
        self.parts = urlsplit(self.path)
        self.asked = {k: v[0] for k, v in parse_qs(self.parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else b""
        if self.parts.path == "/token":
            self._token()
            return
        if not self._allowed():
            return
        for method, pattern, act in (
            ("GET HEAD", _NAME + r"/blobs/(?P<digest>sha256:[0-9a-f]{64})", self._blob),
            ("POST", _NAME + r"/blobs/uploads/", self._begin),
            ("PATCH", _NAME + r"/blobs/uploads/(?P<id>\w+)", self._patch),
            ("PUT", _NAME + r"/blobs/uploads/(?P<id>\w+)", self._finish),
            ("GET HEAD", _NAME + r"/manifests/(?P<reference>[^/]+)", self._manifest),
            ("PUT", _NAME + r"/manifests/(?P<reference>[^/]+)", self._put_manifest),
            ("GET", _NAME + r"/tags/list", self._tags),
            ("GET", r"/v2/", self._root),
        ):
            if self.command in method.split() and (found := re.fullmatch(pattern, self.parts.path)):
                act(**found.groupdict())
                return
        self._answer(404, {})

    # --- who ----------------------------------------------------------------------------------------------

    def _token(self) -> None:
        scope = self.asked.get("scope", "")
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        known = base64.b64decode(given).decode() == f"user:{self.options.password}" if given else False
        if not known and not (self.options.anonymous_pull and scope.endswith(":pull")):
            self._answer(401, {})
            return
        token = secrets.token_hex(8)
        self.tokens[token] = scope
        self._answer(200, {"token": token})

    def _allowed(self) -> bool:
        if not self.options.password:
            return True
        writes = self.command in ("POST", "PUT", "PATCH")
        scope = self.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if scope is not None and (not writes or "push" in scope):
            return True
        host, wanted = self.headers["Host"], "pull,push" if writes else "pull"
        name = self.parts.path.split("/")[2] if self.parts.path.count("/") > 2 else ""
        challenge = f'Bearer realm="http://{host}/token",service="{host}",scope="repository:{name}:{wanted}"'
        self._answer(401, {"errors": [{"code": "UNAUTHORIZED"}]}, {"WWW-Authenticate": challenge})
        return False

    # --- what ---------------------------------------------------------------------------------------------

    def _root(self) -> None:
        self._answer(200, {})

    def _blob(self, name: str, digest: str) -> None:
        path = Path(self.options.root, "blobs", digest.removeprefix("sha256:"))
        if not path.is_file():
            self._answer(404, {"errors": [{"code": "BLOB_UNKNOWN"}]})
            return
        raw = path.read_bytes()
        start, end, status = 0, len(raw), 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end, status = int(asked[1]), min(len(raw), int(asked[2] or len(raw) - 1) + 1), 206
        headers = {"Docker-Content-Digest": digest, "Accept-Ranges": "bytes"}
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(raw)}"
        self._raw(status, raw[start:end], "application/octet-stream", headers)

    def _begin(self, name: str) -> None:
        path = Path(self.options.root, "uploads", secrets.token_hex(8))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._answer(202, {}, {"Location": f"/v2/{name}/blobs/uploads/{path.name}", "Range": "0-0"})

    def _patch(self, name: str, id: str) -> None:
        path = Path(self.options.root, "uploads", id)
        start = int((self.headers.get("Content-Range") or "0-").split("-")[0])
        if not path.is_file() or start != path.stat().st_size:
            self._answer(416, {})
            return
        with path.open("ab") as f:
            f.write(self.body)
        self._answer(202, {}, {"Location": self.parts.path, "Range": f"0-{path.stat().st_size - 1}"})

    def _finish(self, name: str, id: str) -> None:
        path = Path(self.options.root, "uploads", id)
        with path.open("ab") as f:
            f.write(self.body)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if self.asked.get("digest") != f"sha256:{found}":
            self._answer(400, {"errors": [{"code": "DIGEST_INVALID"}]})
            return
        target = Path(self.options.root, "blobs", found)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        self._answer(201, {}, {"Location": f"/v2/{name}/blobs/sha256:{found}"})

    def _manifest(self, name: str, reference: str) -> None:
        path = Path(self.options.root, name, reference)
        if not path.is_file():
            self._answer(404, {"errors": [{"code": "MANIFEST_UNKNOWN"}]})
            return
        raw = path.read_bytes()
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self._raw(200, raw, json.loads(raw)["mediaType"], {"Docker-Content-Digest": digest})

    def _put_manifest(self, name: str, reference: str) -> None:
        folder = Path(self.options.root, name)
        folder.mkdir(parents=True, exist_ok=True)
        manifest = json.loads(self.body)
        for one in (manifest["config"], *manifest["layers"]):
            if not Path(self.options.root, "blobs", one["digest"].removeprefix("sha256:")).is_file():
                self._answer(400, {"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]})
                return
        digest = f"sha256:{hashlib.sha256(self.body).hexdigest()}"
        for key in (reference, digest):
            (folder / key).write_bytes(self.body)
        self._answer(201, {}, {"Docker-Content-Digest": digest, "Location": self.parts.path})

    def _tags(self, name: str) -> None:
        folder = Path(self.options.root, name)
        tags = sorted(p.name for p in folder.iterdir() if ":" not in p.name) if folder.is_dir() else []
        self._answer(200, {"name": name, "tags": tags})

    # --- how ----------------------------------------------------------------------------------------------

    def _answer(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._raw(status, json.dumps(body).encode(), "application/json", headers or {})

    def _raw(self, status: int, raw: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        sent = 0
        try:
            while self.command != "HEAD" and sent < len(raw):
                piece = raw[sent : sent + 65_536]
                self.wfile.write(piece)
                sent += len(piece)
                if self.options.rate:
                    time.sleep(len(piece) / self.options.rate)
        except OSError:
            self.close_connection = True
        line = {"method": self.command, "path": self.path, "status": status, "sent": sent,
                "received": len(self.body), "range": self.headers.get("Range"),
                "authorised": "Authorization" in self.headers}  # fmt: skip
        with _LOCK, Path(self.options.log).open("a") as f:
            f.write(json.dumps(line) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--password", default="")
    parser.add_argument("--anonymous-pull", action="store_true")
    parser.add_argument("--rate", type=float, default=0)
    Registry.options = parser.parse_args()
    Path(Registry.options.log).touch()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    print(f"127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
