"""What a client reads when allod says no: one stable code, what happened, the next step, in its dialect's
shape.

OpenAI: `{"error": {"message", "type", "param", "code"}}`. Mistral: 422 as `{"detail": [{"type", "loc", "msg",
"input"}]}`, everything else as `{"object": "error", "message", "type", "param", "code"}`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

import msgspec

from allod.errors import AllodError, NotReady

Dialect = Literal["openai", "mistral"]

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    502: "upstream_error",
    503: "service_unavailable_error",
}


class Problem(Exception):
    """An answer of the front's own. `close` ends the connection after it: the framing can not be trusted."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        hint: str = "",
        param: str | None = None,
        retry_after_s: int | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.param = param
        self.retry_after_s = retry_after_s
        self.close = close

    @classmethod
    def of(cls, error: AllodError) -> Problem:
        """The same error, as a client reads it."""
        retry = error.retry_after_s if isinstance(error, NotReady) else None
        return cls(error.status, error.code, error.message, hint=error.hint, retry_after_s=retry)

    def fields(self, receipt: str, data_class: str) -> bytes:
        """The header fields that belong to it; `receipt` and `data_class` are empty where there are none."""
        lines = b""
        if self.retry_after_s is not None:
            lines += b"retry-after: %d\r\n" % self.retry_after_s
        if receipt:
            lines += b"allod-receipt: %b\r\nallod-data-class: %b\r\n" % (
                receipt.encode(),
                data_class.encode(),
            )
        if self.status == 401:
            lines += b"www-authenticate: Bearer\r\n"
        return lines

    def body(self, dialect: Dialect) -> bytes:
        text = f"{self.message}. {self.hint}" if self.hint else self.message
        kind = _TYPES.get(self.status, "api_error" if self.status >= 500 else "invalid_request_error")
        if dialect == "mistral":
            if self.status == 422:
                loc = ["body", self.param] if self.param else ["body"]
                return msgspec.json.encode(
                    {"detail": [{"type": self.code, "loc": loc, "msg": text, "input": None}]}
                )
            return msgspec.json.encode(
                {"object": "error", "message": text, "type": kind, "param": self.param, "code": self.code}
            )
        return msgspec.json.encode(
            {"error": {"message": text, "type": kind, "param": self.param, "code": self.code}}
        )


_REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}


def reason(status: int) -> bytes:
    """The reason phrase of a status line."""
    return _REASONS.get(status, b"Unknown")


def dialect_of(path: bytes, user_agent: bytes) -> Dialect:
    """OCR is Mistral's own shape; the rest is OpenAI's unless the client says it is Mistral's SDK."""
    if path == b"/v1/ocr" or path.startswith(b"/mistral/") or user_agent.startswith(b"mistral-client"):
        return "mistral"
    return "openai"
