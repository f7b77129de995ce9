"""Sign-in, the node at a glance, and receipts. Reads through the port; changes nothing but cookies."""

from __future__ import annotations

import asyncio
import hashlib
import secrets

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from allod import limits
from allod.api.ports import ExchangeView, ReceiptFormat, ReceiptView, SiteView, Verification
from allod.console import picture, words
from allod.console.session import Session
from allod.console.shell import SESSION_COOKIE, VISITOR_COOKIE, Shell, own_path, source_of
from allod.errors import Denied, NotFound, Unauthenticated
from allod.identity.caller import Caller, Role
from allod.policy.decision import DataClass

CLASSES = tuple(c.label for c in DataClass)
ALL_PROJECTS = frozenset({Role.OWNER, Role.ADMIN, Role.AUDITOR})

_FILES: dict[str, tuple[ReceiptFormat, str]] = {
    "tlog-proof": ("tlog-proof", "text/plain; charset=utf-8"),
    "cose": ("cose", "application/cose"),
    "json": ("json", "application/json"),
}


class Row(msgspec.Struct, frozen=True):
    """One exchange as the list shows it."""

    view: ExchangeView
    usage: str


class Lane(msgspec.Struct, frozen=True):
    """One site in the picture of what may go where."""

    view: SiteView
    reach: int  # how many classes may go there
    key: str  # unique in the page


class Jurisdiction(msgspec.Struct, frozen=True):
    """The sites whose operator is established in one country; `country` None is unknown, "" this machine."""

    country: str | None
    lanes: tuple[Lane, ...]


def project_of(caller: Caller) -> str | None:
    """The project whose receipts the caller may see; None: all of the organisation."""
    return None if caller.role in ALL_PROJECTS else caller.project


def by_jurisdiction(sites: list[SiteView]) -> tuple[Jurisdiction, ...]:
    """This machine first, then by country of establishment, unknown last."""
    groups: dict[tuple[int, str], list[Lane]] = {}
    for number, view in enumerate(sites):
        country = view.site.establishment.value
        key = (0, "") if view.site.local else ((1, country) if country else (2, ""))
        reach = sum(view.may.get(label, False) for label in CLASSES)
        groups.setdefault(key, []).append(Lane(view, reach, f"site-{number}"))
    return tuple(
        Jurisdiction(None if rank == 2 else country, tuple(lanes))
        for (rank, country), lanes in sorted(groups.items(), key=lambda item: item[0])
    )


class Pages:
    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._node = shell.node

    # --- signing in and out ---------------------------------------------------------------------------

    async def sign_in_page(self, request: Request) -> Response:
        return self._sign_in(request)

    def _sign_in(self, request: Request, *, status: int = 200, wrong: str = "") -> Response:
        visitor = request.cookies.get(VISITOR_COOKIE, "") or secrets.token_urlsafe(16)
        response = self._shell.page(
            request,
            "login.html",
            None,
            status=status,
            wrong=wrong,
            form_token=self._shell.sessions.form_token(_visitor(visitor)),
            next=own_path(request.scope.get("root_path", ""), request.query_params.get("next", "")),
        )
        self._shell.set_cookie(request, response, VISITOR_COOKIE, visitor, limits.CONSOLE_SESSION_S)
        return response

    async def sign_in(self, request: Request) -> Response:
        """Exchanges an API key for a session; the key itself is forgotten at once."""
        visitor = request.cookies.get(VISITOR_COOKIE, "")
        form = await self._shell.form(request, _visitor(visitor))
        presented = str(form.get("key", "")).strip()
        source = source_of(request, presented)
        self._shell.throttle.check(source)
        try:
            caller = await self._node.authenticate(presented)
        except Unauthenticated:
            self._shell.throttle.failed(source)
            return self._sign_in(request, status=401, wrong="key")
        if caller.role is Role.SERVICE:
            return self._sign_in(request, status=403, wrong="service")
        where = own_path(request.scope.get("root_path", ""), str(form.get("next", "")))
        response = RedirectResponse(where, 303, {"cache-control": "no-store"})
        cookie = self._shell.sessions.issue(caller)
        self._shell.set_cookie(request, response, SESSION_COOKIE, cookie, limits.CONSOLE_SESSION_S)
        self._shell.set_cookie(request, response, VISITOR_COOKIE, "", 0)
        return response

    async def sign_out(self, request: Request) -> Response:
        session = await self._shell.signed_in(request)
        await self._shell.form(request, session.nonce)
        self._shell.sessions.end(session)
        response = RedirectResponse(f"{request.scope.get('root_path', '')}/login", 303)
        response.headers["clear-site-data"] = '"cache"'
        self._shell.set_cookie(request, response, SESSION_COOKIE, "", 0)
        return response

    # --- the node -------------------------------------------------------------------------------------

    async def node(self, request: Request) -> Response:
        session = await self._shell.signed_in(request)
        status, sites, rows = await asyncio.gather(
            self._node.status(), self._node.sites(), self._rows(request, session)
        )
        return self._shell.page(
            request,
            "node.html",
            session,
            status_view=status,
            now_us=self._shell.clock.now_us(),
            jurisdictions=by_jurisdiction(sites),
            classes=CLASSES,
            rows=rows,
            news=0,
            live=request.query_params.get("live") != "off",
        )

    async def exchanges(self, request: Request) -> Response:
        """The list alone, for polling. 204 while nothing is new: nothing moves, nothing is announced."""
        session = await self._shell.signed_in(request)
        rows = await self._rows(request, session)
        seen = request.query_params.get("seen", "")
        ids = [row.view.statement.id for row in rows]
        news = ids.index(seen) if seen in ids else len(ids)
        waiting = request.query_params.get("waiting", "0")
        if not news and waiting == str(sum(row.view.index is None for row in rows)):
            return Response(status_code=204, headers={"cache-control": "no-store"})
        return self._shell.page(request, "exchanges.html", session, rows=rows, news=news, live=True)

    async def _rows(self, request: Request, session: Session) -> tuple[Row, ...]:
        caller = session.caller
        found = await self._node.exchanges(
            organisation=caller.organisation, project=project_of(caller), limit=limits.CONSOLE_EXCHANGES_SHOWN
        )
        c = self._shell.catalogue(request)
        return tuple(Row(view, picture.usage_text(view.statement, c)) for view in found)

    # --- receipts -------------------------------------------------------------------------------------

    async def receipt(self, request: Request) -> Response:
        session = await self._shell.signed_in(request)
        return await self._show(request, session, await self._visible(request, session))

    async def verify(self, request: Request) -> Response:
        """Runs the node's own verification and shows each check. Reads only."""
        session = await self._shell.signed_in(request)
        await self._shell.form(request, session.nonce)
        view = await self._visible(request, session)
        result = await self._node.verify_receipt(view.statement.id)
        if "hx-request" in request.headers:
            return self._shell.page(request, "verification.html", session, result=result)
        return await self._show(request, session, view, result=result)

    async def file(self, request: Request) -> Response:
        session = await self._shell.signed_in(request)
        form = _FILES.get(request.path_params["form"])
        if form is None:
            raise NotFound("console.no-such-form", "a receipt comes as tlog-proof, cose or json")
        view = await self._visible(request, session)
        content = await self._node.receipt_file(view.statement.id, form[0])
        name = f"{view.statement.id}.{request.path_params['form']}"
        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
        return Response(content, media_type=form[1], headers=headers)

    async def _visible(self, request: Request, session: Session) -> ReceiptView:
        """The receipt, if the caller's role covers it; else exactly what a missing one looks like."""
        receipt_id = request.path_params["receipt_id"]
        missing = NotFound("receipt.unknown", "there is no such receipt in your organisation or project")
        try:
            view = await self._node.receipt(receipt_id)
        except NotFound as e:
            raise missing from e
        except Denied as e:
            raise missing from e
        project = project_of(session.caller)
        statement = view.statement
        if statement.organisation != session.caller.organisation or project not in {None, statement.project}:
            raise missing
        return view

    async def _show(
        self, request: Request, session: Session, view: ReceiptView, result: Verification | None = None
    ) -> Response:
        c = self._shell.catalogue(request)
        return self._shell.page(
            request,
            "receipt.html",
            session,
            view=view,
            picture=picture.draw(view.statement, view.index, None, c),
            groups=words.explain(view.statement, c),
            result=result,
        )


def _visitor(cookie: str) -> str:
    """A form-token nonce for someone not signed in; cannot equal a session's nonce."""
    return "visitor:" + hashlib.sha256(cookie.encode()).hexdigest()
