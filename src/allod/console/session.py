"""Sign-in sessions as signed cookies, form tokens, and a bound on wrong guesses. Opens nothing.

A session holds the caller, never the API key; whoever reads the cookie jar cannot call a model outside the
console. What a session says is believed only together with the node's present answer about the key
(`NodePort.caller`), so revoking a key ends its sessions at once. A session that was signed out of is
remembered until it would have expired, for as long as this process lives: a copied cookie ends with it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from allod import limits
from allod.clock import Clock
from allod.errors import Denied, NotReady, Usage
from allod.identity.caller import Caller

KEY_BYTES_MIN = 32
COOKIE_CHARS_MAX = 4_096  # what browsers keep of one cookie


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A signed-in caller in one browser, until `expires_us`."""

    caller: Caller
    expires_us: int
    nonce: str  # ties the form tokens to this session


class Sessions:
    """Issues and reads sessions under `key` (at least 32 random bytes, kept by the node).

    Two keys are derived from it, so that a form token can never pass for a session.
    """

    def __init__(self, key: bytes, clock: Clock) -> None:
        if len(key) < KEY_BYTES_MIN:
            raise Usage(
                "console.weak-session-key",
                f"the session key has {len(key)} bytes, fewer than {KEY_BYTES_MIN}",
            )
        self._session_key = hmac.digest(key, b"allod console session v1", hashlib.sha256)
        self._form_key = hmac.digest(key, b"allod console form v1", hashlib.sha256)
        self._clock = clock
        self._ended: dict[str, int] = {}  # nonce -> when the session would have expired anyway

    def issue(self, caller: Caller) -> str:
        """The cookie value of a new session."""
        session = Session(
            caller=caller,
            expires_us=self._clock.now_us() + limits.CONSOLE_SESSION_S * 1_000_000,
            nonce=secrets.token_urlsafe(16),
        )
        body = base64.urlsafe_b64encode(msgspec.json.encode(session)).rstrip(b"=")
        return f"{body.decode()}.{self._tag(self._session_key, body)}"

    def read(self, cookie: str) -> Session | None:
        """The session in a cookie; None for anything not signed here, malformed or over."""
        body, _, tag = cookie.rpartition(".")
        if len(cookie) > COOKIE_CHARS_MAX or not cookie.isascii():
            return None
        if not hmac.compare_digest(tag, self._tag(self._session_key, body.encode())):
            return None
        try:
            raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
            session = msgspec.json.decode(raw, type=Session)
        except (ValueError, msgspec.MsgspecError):
            return None
        over = self._clock.now_us() >= session.expires_us or session.nonce in self._ended
        return None if over else session

    def end(self, session: Session) -> None:
        """Signed out: the cookie, also a copy of it, opens nothing any more."""
        now = self._clock.now_us()
        self._ended = {nonce: until for nonce, until in self._ended.items() if until > now}
        self._ended[session.nonce] = session.expires_us

    def form_token(self, nonce: str) -> str:
        """The token that each form of the session with this nonce carries."""
        return self._tag(self._form_key, nonce.encode())

    def check_form(self, nonce: str, token: str, headers: Mapping[str, str]) -> None:
        """Raises Denied `console.foreign-form` unless made here, for this session, and sent from here."""
        genuine = token.isascii() and hmac.compare_digest(token, self.form_token(nonce))
        if not (genuine and sent_from_here(headers)):
            raise Denied(
                "console.foreign-form",
                "this form was not made by this console for this sign-in",
                hint="open the page again and send it once more",
            )

    @staticmethod
    def _tag(key: bytes, body: bytes) -> str:
        return base64.urlsafe_b64encode(hmac.digest(key, body, hashlib.sha256)).rstrip(b"=").decode()


def sent_from_here(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that this request comes from a page of the same host (Fetch Metadata; RFC 6454).

    A client that sends neither header is not a browser that could be tricked, and still needs the token.
    """
    site = headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


class Throttle:
    """Counts failed sign-ins per source in fixed windows; memory is bounded by the number of sources."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def check(self, source: str) -> None:
        """Raises NotReady `console.too-many-sign-ins` while the source has used up its window."""
        began, count = self._failures.get(source, (0.0, 0))
        left = began + limits.CONSOLE_LOGIN_WINDOW_S - self._clock.monotonic()
        if count >= limits.CONSOLE_LOGIN_FAILURES_MAX and left > 0:
            raise NotReady(
                "console.too-many-sign-ins",
                "too many wrong keys in a row",
                hint="wait, then paste the key again",
                retry_after_s=int(left) + 1,
            )

    def failed(self, source: str) -> None:
        now = self._clock.monotonic()
        began, count = self._failures.pop(source, (now, 0))
        if now - began >= limits.CONSOLE_LOGIN_WINDOW_S:
            began, count = now, 0
        self._failures[source] = (began, count + 1)
        while len(self._failures) > limits.CONSOLE_LOGIN_SOURCES_MAX:
            self._failures.popitem(last=False)
