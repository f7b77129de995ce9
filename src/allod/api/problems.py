"""Errors as each dialect's own clients expect them. The code stays allod's, so that a person can look it up.

OpenAI: {"error": {message, type, param, code}}. Mistral: {"object": "error", message, type, param, code},
and 422 adds {"detail": [{type, loc, msg, input}]}. Admin: {"error": {code, message, hint, details}}.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
from starlette.responses import Response

from allod.api.wire import json_response
from allod.errors import AllodError, NotReady, Unprocessable, Usage

Dialect = Literal["openai", "mistral", "admin"]
Loc = tuple[str | int, ...]

_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
_STEP = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d+|\.\.\.)\]")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")


class Invalid(Unprocessable):
    """One field of a request that cannot be honoured. `loc` is its path below the body."""

    def __init__(self, kind: str, loc: Loc, message: str, *, value: Any = None, hint: str = "") -> None:
        super().__init__(f"request.{kind.replace('_', '-')}", f"{_dotted(loc)}: {message}", hint=hint)
        self.kind = kind
        self.loc = loc
        self.value = value
        self.text = message if not hint else f"{message}; {hint}"

    def detail(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": self.kind, "loc": ["body", *self.loc], "msg": self.text}
        if self.value is not None:
            entry["input"] = self.value
        return entry


def response(error: AllodError, dialect: Dialect, headers: dict[str, str] | None = None) -> Response:
    """The HTTP answer for `error` in `dialect`; `Retry-After` where the error knows it."""
    sent = dict(headers or {})
    if isinstance(error, NotReady):
        sent.setdefault("retry-after", str(error.retry_after_s))
    if error.status == 401:
        sent.setdefault("www-authenticate", "Bearer")
    return json_response(shape(error, dialect), error.status, sent)


def shape(error: AllodError, dialect: Dialect) -> dict[str, Any]:
    """The JSON body of `error` in `dialect`."""
    if dialect == "admin":
        return {"error": error.as_dict()}
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    kind = _OPENAI_TYPES.get(error.status, "server_error")
    param = _dotted(error.loc) if isinstance(error, Invalid) else None
    if dialect == "openai":
        return {"error": {"message": message, "type": kind, "param": param, "code": error.code}}
    body: dict[str, Any] = {
        "object": "error",
        "message": message,
        "type": kind,
        "param": param,
        "code": error.code,
    }
    if isinstance(error, Unprocessable):
        plain = {"type": "value_error", "loc": ["body"], "msg": message}
        body["detail"] = [error.detail() if isinstance(error, Invalid) else plain]
    return body


def upstream(status: int, body: bytes) -> AllodError:
    """The error that an inner call answered with, from its OpenAI shape; anything else is quoted in short."""
    message, code, param = body[:400].decode(errors="replace"), "upstream.failed", None
    try:
        error = msgspec.json.decode(body)["error"]
        message = str(error["message"])
        code = str(error.get("code") or error.get("type") or code)
        param = error.get("param")
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
        pass
    if status == 422:
        return Invalid("value_error", tuple(str(param).split(".")) if param else (), message)
    found = NotReady(code, message) if status == 503 else AllodError(code, message)
    found.status = status
    return found


def invalid(error: msgspec.ValidationError, value: Any, fields: Iterable[str]) -> Invalid:
    """A schema violation as the field it is about; an unknown field gets the nearest known name."""
    text, _, path = str(error).partition(" - at `")
    loc: list[str | int] = [
        name or (int(number) if number.isdigit() else number) for name, number in _STEP.findall(path)
    ]
    unknown = _UNKNOWN.search(text)
    if unknown:
        name = unknown[1]
        near = difflib.get_close_matches(name, list(fields), 1)
        hint = f"did you mean {near[0]!r}?" if near else ""
        at = (*loc, name)
        return Invalid("extra_forbidden", at, "this field is not known", value=_at(value, at), hint=hint)
    kind = "missing" if "missing required field" in text else "value_error"
    named = re.search(r"required field `([^`]*)`", text)
    at = (*loc, named[1]) if named else tuple(loc)
    return Invalid(kind, at, text, value=None if named else _at(value, at))


def strict(error: msgspec.ValidationError, fields: Iterable[str]) -> Usage:
    """The same for the admin API: a plain 400 with the field and the nearest name."""
    found = invalid(error, None, fields)
    near = found.text.partition("; ")[2]
    return Usage(found.code, found.message, hint=near, field=_dotted(found.loc))


def _at(value: Any, loc: Iterable[str | int]) -> Any:
    """What the client sent there; None where the path does not lead to one value."""
    for step in loc:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _dotted(loc: Loc) -> str:
    return ".".join(str(step) for step in loc) or "body"
