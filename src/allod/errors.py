"""Every error allod raises on purpose, as one tree.

    AllodError
    ├── Usage            2  what was asked is malformed            (HTTP 400)
    │   ├── NotFound     2  the named thing does not exist         (HTTP 404)
    │   ├── TooLarge     2  a bound of `limits` was exceeded       (HTTP 413)
    │   └── Unprocessable 2 well-formed, but not acceptable        (HTTP 422)
    ├── NotReady         3  true later: Retry-After applies        (HTTP 503)
    ├── Denied           4  policy, role or data class says no     (HTTP 403)
    │   └── Unauthenticated 4 no or wrong credential               (HTTP 401)
    ├── AwaitingApproval 5  a person has to say yes first          (HTTP 409)
    └── Integrity        6  a signature, digest or proof is wrong  (HTTP 500)

The number is the process exit code. `code` is stable and dotted (`key.expired`); `message` says what and
why; `hint` is the next step, as a command where there is one. Causes are chained with `from`, never pasted.
"""

from __future__ import annotations

from typing import Any


class AllodError(Exception):
    """Base of all deliberate errors. `code` never changes once released."""

    exit_code = 1
    status = 500

    def __init__(self, code: str, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = details

    def as_dict(self) -> dict[str, Any]:
        """The machine-readable form that `--json` and the admin API print."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.hint:
            body["hint"] = self.hint
        if self.details:
            body["details"] = self.details
        return body

    def __str__(self) -> str:
        return f"[{self.code}] {self.message}"


class Usage(AllodError):
    exit_code = 2
    status = 400


class NotFound(Usage):
    status = 404


class TooLarge(Usage):
    status = 413


class Unprocessable(Usage):
    status = 422


class NotReady(AllodError):
    exit_code = 3
    status = 503

    def __init__(
        self, code: str, message: str, *, hint: str = "", retry_after_s: int = 1, **details: Any
    ) -> None:
        super().__init__(code, message, hint=hint, **details)
        self.retry_after_s = retry_after_s


class Denied(AllodError):
    exit_code = 4
    status = 403


class Unauthenticated(Denied):
    status = 401


class AwaitingApproval(AllodError):
    exit_code = 5
    status = 409


class Integrity(AllodError):
    exit_code = 6
    status = 500
