"""A circuit breaker per replica: a pure state machine over a monotonic clock.

Closed until `FAILURES_TO_OPEN` failures in a row; then open for a time that doubles with each failed probe;
then half-open: exactly one exchange is let through, and its fate decides.
"""

from __future__ import annotations

from typing import Literal

FAILURES_TO_OPEN = 5  # fewer would let one restart of an engine under load close it for a second
OPEN_S = 1.0
OPEN_S_MAX = 30.0

State = Literal["closed", "open", "half-open"]


class Breaker:
    __slots__ = ("_open_s", "_opened_at", "_probing", "failures")

    def __init__(self) -> None:
        self.failures = 0
        self._open_s = OPEN_S
        self._opened_at = 0.0
        self._probing = False

    def allows(self, now: float) -> bool:
        """Whether an exchange may be sent. Does not reserve the probe: `sending` does."""
        if self.failures < FAILURES_TO_OPEN:
            return True
        return not self._probing and now - self._opened_at >= self._open_s

    def sending(self) -> None:
        """An exchange goes out now: with the circuit not closed it is the probe."""
        if self.failures >= FAILURES_TO_OPEN:
            self._probing = True

    def succeeded(self) -> None:
        self.failures = 0
        self._probing = False
        self._open_s = OPEN_S

    def failed(self, now: float) -> None:
        self.failures += 1
        if self.failures >= FAILURES_TO_OPEN:
            if self._probing:
                self._open_s = min(self._open_s * 2, OPEN_S_MAX)
            self._probing = False
            self._opened_at = now

    def abandoned(self) -> None:
        """The probe ended without a verdict (its client left): the next exchange may probe."""
        self._probing = False

    def state(self, now: float) -> State:
        if self.failures < FAILURES_TO_OPEN:
            return "closed"
        return "half-open" if self._probing or now - self._opened_at >= self._open_s else "open"
