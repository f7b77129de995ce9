"""Someone else's model server, in the test's own process: does what its `mode` says and remembers it all.

Modes: `answer`, a status to answer with (the error repeats the key), `hang-up`, `tear` (a stream that ends in
its middle), or a function that acts and then names one of these.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

FACTS = """
[site]
operator = { value = "Example Cloud SE", source = "contract 1", date = 2026-11-21 }
establishment = { value = "DE", source = "contract 1", date = 2026-11-21 }
storage_countries = { value = ["DE"], source = "contract 1", date = 2026-11-21 }
processing_countries = { value = ["DE"], source = "contract 1", date = 2026-11-21 }
transfer_basis = { value = "none-needed", source = "contract 1", date = 2026-11-21 }
"""


class FarProvider(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name = name
        self.mode: str | Callable[[], str] = "answer"
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []

    def site(self, model: str, *, key: str, trains: bool | None, upstream: str = "theirs") -> str:
        """A site file for it. `trains` is whether it trains on content; None: nobody knows."""
        fact = f'{{ value = {str(trains).lower()}, source = "contract 1", date = 2026-11-21 }}'
        known = f"trains_on_content = {fact}\n" if trains is not None else ""
        return (
            f'{FACTS}{known}\n[provider]\nbase_url = "http://127.0.0.1:{self.server_address[1]}/v1"\n'
            f'api = "openai"\nkey = "{key}"\n[provider.models."{model}"]\nupstream = "{upstream}"\n'
            'kind = "chat"\n'
        )


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FarProvider

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
        mode = self.server.mode
        if callable(mode):
            mode = mode()
        if mode == "hang-up":
            self.close_connection = True
            return
        if mode.isdigit():
            self._json(int(mode), {"error": {"message": f"no: {self.headers['authorization']}"}})
            return
        if body.get("stream"):
            self._stream(torn=mode == "tear")
        else:
            message = {"role": "assistant", "content": f"from {self.server.name}"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            used = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            self._json(200, {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
                             "choices": [choice], "usage": used})  # fmt: skip

    def _json(self, status: int, body: Any) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _stream(self, *, torn: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        for word in ("from ", self.server.name):
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            frame = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m"}
            self.wfile.write(f"data: {json.dumps(frame | {'choices': [choice]})}\n\n".encode())
        if not torn:
            used = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            self.wfile.write(f"data: {json.dumps({'id': 'x', 'choices': [], 'usage': used})}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")


@contextmanager
def far_providers(*names: str) -> Iterator[dict[str, FarProvider]]:
    """One of each name, listening on loopback."""
    providers = {name: FarProvider(name) for name in names}
    for provider in providers.values():
        threading.Thread(target=provider.serve_forever, daemon=True).start()
    try:
        yield providers
    finally:
        for provider in providers.values():
            provider.shutdown()
            provider.server_close()
