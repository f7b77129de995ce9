"""What every page needs: who is signed in, in which language, with which headers. Decides nothing else."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import jinja2
from starlette.datastructures import FormData
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from allod import limits
from allod.api.ports import NodePort
from allod.clock import Clock, iso
from allod.console import i18n
from allod.console.places import COUNTRIES
from allod.console.session import Session, Sessions, Throttle
from allod.errors import AllodError, Denied, TooLarge, Unauthenticated, Usage
from allod.identity.caller import Role

SESSION_COOKIE = "allod_console"
VISITOR_COOKIE = "allod_visitor"  # ties the sign-in form to one browser before there is a session
LANGUAGE_COOKIE = "allod_language"

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    # not no-referrer: that would also blank the Origin header by which forms prove where they come from
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

MAY_SEND = frozenset({Role.OWNER, Role.ADMIN, Role.DEVELOPER})


class SignInNeeded(Exception):  # a detour, not an error
    """Raised by a page that only a signed-in caller may see."""


class Shell:
    """The shared ground of the pages: port, sessions, templates in each language."""

    def __init__(self, node: NodePort, session_key: bytes, clock: Clock) -> None:
        self.node = node
        self.clock = clock
        self.sessions = Sessions(session_key, clock)
        self.throttle = Throttle(clock)
        self.catalogues = i18n.load()
        self._templates = {code: _environment(c) for code, c in self.catalogues.items()}

    def catalogue(self, request: Request) -> i18n.Catalogue:
        asked = request.query_params.get("lang", "")
        remembered = request.cookies.get(LANGUAGE_COOKIE, "")
        return self.catalogues[i18n.choose(asked, remembered, request.headers.get("accept-language", ""))]

    async def signed_in(self, request: Request) -> Session:
        """The session, if its key is still good at this moment and says the same. Raises SignInNeeded."""
        session = self.sessions.read(request.cookies.get(SESSION_COOKIE, ""))
        if session is None:
            raise SignInNeeded
        try:
            caller = await self.node.caller(session.caller.key_id)
        except Unauthenticated as e:
            raise SignInNeeded from e
        if caller != session.caller:
            raise SignInNeeded
        return session

    async def sender(self, request: Request) -> Session:
        """The session of someone who may call models. Raises Denied `console.role`."""
        session = await self.signed_in(request)
        if session.caller.role not in MAY_SEND:
            raise Denied(
                "console.role",
                f"the role {session.caller.role.value} reads receipts and calls no model",
                hint="sign in with a developer key",
            )
        return session

    async def form(self, request: Request, nonce: str, *, upload: bool = False) -> FormData:
        """A posted form, bounded, in memory, proven to come from this console. Raises Usage, Denied."""
        allowed = limits.CONSOLE_FORM_BYTES_MAX + (limits.CONSOLE_UPLOAD_BYTES_MAX if upload else 0)
        form = await read_form(request, allowed)
        token = form.get("token", "")
        self.sessions.check_form(nonce, token if isinstance(token, str) else "", request.headers)
        return form

    def page(
        self,
        request: Request,
        template: str,
        session: Session | None,
        *,
        status: int = 200,
        **context: Any,
    ) -> HTMLResponse:
        """One rendered page or part of a page, with its headers."""
        c = self.catalogue(request)
        base = request.scope.get("root_path", "")
        html = (
            self._templates[c.language]
            .get_template(template)
            .render(
                c=c,
                base=base,
                here=request.url.path,
                languages=i18n.LANGUAGES,
                session=session,
                may_send=session is not None and session.caller.role in MAY_SEND,
                token=self.sessions.form_token(session.nonce) if session else "",
                partial="hx-request" in request.headers,
                limits=limits,
                **context,
            )
        )
        response = HTMLResponse(html, status, {"cache-control": "no-store", "content-language": c.language})
        response.headers["vary"] = "Accept-Language, Cookie, HX-Request"
        if request.query_params.get("lang") in i18n.LANGUAGES:
            self.set_cookie(request, response, LANGUAGE_COOKIE, c.language, 365 * 86_400)
        return response

    def problem(self, request: Request, session: Session | None, error: AllodError) -> HTMLResponse:
        """An error as a page (or as a part, for htmx): what, why, what next."""
        response = self.page(request, "problem.html", session, status=error.status, error=error)
        retry = getattr(error, "retry_after_s", None)
        if retry is not None:
            response.headers["retry-after"] = str(retry)
        return response

    def set_cookie(self, request: Request, response: Response, name: str, value: str, age_s: int) -> None:
        response.set_cookie(
            name,
            value,
            max_age=age_s,
            path=request.scope.get("root_path", "") or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def to_sign_in(self, request: Request) -> Response:
        """Off to the sign-in page; htmx is told to take the whole page there."""
        where = f"{request.scope.get('root_path', '')}/login"
        if "hx-request" in request.headers:
            return Response(status_code=401, headers={"hx-redirect": where, "cache-control": "no-store"})
        if request.method == "GET":
            where += "?" + urlencode({"next": request.url.path})
        return RedirectResponse(where, 303, {"cache-control": "no-store"})


class _InMemory(MultiPartParser):
    """Starlette's parser, never spooling to disk: a document under examination leaves no copy behind."""

    spool_max_size = limits.CONSOLE_UPLOAD_BYTES_MAX + limits.CONSOLE_FORM_BYTES_MAX


async def read_form(request: Request, bytes_max: int) -> FormData:
    """The fields and at most one file. Raises Usage `console.bad-form`, TooLarge `console.form-too-large`."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise Usage("console.bad-form", "a form has to say how long it is (Content-Length)")
    if int(length) > bytes_max:
        raise TooLarge(
            "console.form-too-large",
            f"{int(length):,} bytes were sent, {bytes_max:,} are taken here",
            hint="larger documents go through the API",
        )
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    part_max = limits.CONSOLE_FORM_BYTES_MAX
    try:
        if kind == "multipart/form-data":
            return await _InMemory(
                request.headers, request.stream(), max_files=1, max_fields=40, max_part_size=part_max
            ).parse()
        return await FormParser(
            request.headers, request.stream(), max_fields=40, max_part_size=part_max
        ).parse()
    except (MultiPartException, ValueError) as e:
        raise Usage("console.bad-form", "the form could not be read") from e


def _environment(catalogue: i18n.Catalogue) -> jinja2.Environment:
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("allod.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    env.install_gettext_translations(catalogue, newstyle=True)  # type: ignore[attr-defined]
    env.filters["iso"] = iso
    env.filters["country"] = lambda code: catalogue(COUNTRIES.get(code, str(code)))
    return env


def own_path(base: str, path: str) -> str:
    """`path` if it lies under `base` on this host, else the front page: sign-in sends nobody elsewhere."""
    plain = path.startswith(f"{base}/") and not path.startswith("//") and "\\" not in path
    return path if plain and all(" " < ch < "\x7f" for ch in path) else f"{base}/"


def source_of(request: Request, presented: str) -> str:
    """What failed sign-ins are counted by: the address, where the server in front says it, else the key's id.

    Without an address a shared count would let anyone lock everyone out.
    """
    if request.client:
        return request.client.host
    parts = presented.split("_", 2)
    return f"key {parts[1][: limits.NAME_CHARS_MAX]}" if len(parts) == 3 else "no key"
