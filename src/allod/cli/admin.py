"""The node's admin API, over the socket in its home. Whoever may open that socket is the node's operator."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from allod.config import Home
from allod.errors import (
    AllodError,
    AwaitingApproval,
    Denied,
    Integrity,
    NotFound,
    NotReady,
    TooLarge,
    Unauthenticated,
    Unprocessable,
    Usage,
)

T = TypeVar("T")
_TIMEOUT_S = 30.0
_CALL_TIMEOUT_S = 900.0  # a long answer of a small machine
_BY_STATUS: dict[int, type[AllodError]] = {
    kind.status: kind
    for kind in (
        Usage, NotFound, TooLarge, Unprocessable, NotReady, Denied, Unauthenticated, AwaitingApproval,
        Integrity,
    )
}  # fmt: skip


class Answer(NamedTuple):
    """A streaming answer: iterate `pieces` to its end."""

    status: int
    headers: Mapping[str, str]  # lower-case names
    pieces: Iterator[bytes]


class Admin:
    """Raises NotReady (`node.not-running`, `node.starting`, `node.restarting`) and the node's own errors."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def get(self, path: str, kind: type[T], **query: object) -> T:
        asked = {name: value for name, value in query.items() if value is not None}
        return self._decoded("GET", f"{path}?{urlencode(asked)}" if asked else path, None, kind)

    def post(self, path: str, kind: type[T], body: Mapping[str, Any] | None = None) -> T:
        return self._decoded("POST", path, body or {}, kind)

    def delete(self, path: str, kind: type[T]) -> T:
        return self._decoded("DELETE", path, None, kind)

    def raw(self, path: str) -> bytes:
        answer = self._ask("GET", path, None, _TIMEOUT_S)
        return _whole(answer)

    def call(self, body: Mapping[str, Any]) -> Answer:
        """A model call on the operator's behalf. Error answers are returned too: they have receipts."""
        return self._ask("POST", "/admin/v1/call", body, _CALL_TIMEOUT_S)

    @property
    def running(self) -> bool:
        try:
            self._connect(1.0).close()
        except NotReady:
            return False
        return True

    def _decoded(self, method: str, path: str, body: Mapping[str, Any] | None, kind: type[T]) -> T:
        data = _whole(self._ask(method, path, body, _TIMEOUT_S))
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.MsgspecError as e:
            raise NotReady(
                "node.other-version",
                f"the node's answer to {path} is not understood: {e}",
                hint="node and command differ in version: allod down, then allod up",
            ) from e

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float) -> Answer:
        connection = self._connect(timeout_s)
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Host": "node", "Connection": "close"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        try:
            # An answer can come before the question was sent to its end, as 413 does: then it is still read.
            with contextlib.suppress(BrokenPipeError):
                connection.request(method, path, data, headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as e:
            raise _broken(e) from e
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, _pieces(response, connection))

    def _connect(self, timeout_s: float) -> _UnixConnection:
        connection = _UnixConnection(self._home.admin_socket, timeout_s)
        try:
            connection.connect()
        except PermissionError as e:
            raise Denied(
                "node.not-yours",
                f"{self._home.admin_socket} belongs to another user",
                hint="run the command as the user that runs the node",
            ) from e
        except OSError as e:
            raise _nobody(self._home) from e
        return connection


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("node", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _nobody(home: Home) -> NotReady:
    """Why nobody answers on the admin socket."""
    from allod.node import launcher  # costs time, and only an error pays it

    if launcher.running_pid(home) is None:
        return NotReady("node.not-running", f"no node is running (home {home.root})", hint="allod up")
    if any(home.run.glob("front-*.sock")):
        return NotReady(
            "node.restarting",
            "the control process is starting again; requests are still answered",
            hint="try again in a moment; if it stays so, `allod doctor` says why",
        )
    return NotReady("node.starting", "the node is starting", hint="try again in a moment")


def segment(text: str) -> str:
    """One path segment: what a person typed must not become another route."""
    return quote(text, safe="")


def failure(status: int, data: bytes) -> AllodError:
    """The error that an answer carries, as the class that its status stands for."""
    try:
        problem = json.loads(data)["error"]
        code, message = str(problem["code"]), str(problem["message"])
    except (ValueError, KeyError, TypeError):
        return NotReady("node.answer", f"the node answered {status}", hint="allod status")
    hint, details = str(problem.get("hint") or ""), problem.get("details") or {}
    if status >= 500 and code.startswith("internal"):
        return AllodError(code, message, hint=hint)
    return _BY_STATUS.get(status, AllodError)(code, message, hint=hint, **details)


def _whole(answer: Answer) -> bytes:
    data = b"".join(answer.pieces)
    if answer.status >= 400:
        raise failure(answer.status, data)
    return data


def _pieces(response: http.client.HTTPResponse, connection: http.client.HTTPConnection) -> Iterator[bytes]:
    try:
        while piece := response.read1(65_536):
            yield piece
    except (OSError, http.client.HTTPException) as e:
        raise _broken(e) from e
    finally:
        connection.close()


def _broken(cause: Exception) -> NotReady:
    return NotReady("node.broken-off", f"the node did not answer to the end ({cause})", hint="allod status")
