"""The playground: one prompt or one document down the same path as any client's, and what became of it.

The call is `NodePort.call` on behalf of the signed-in key, so identity, class, rules, placement, usage and
receipt are those of the path; this module only writes the request and reads the answer.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response

from allod import limits
from allod.api.ports import Inner, ReceiptView, ServiceView
from allod.console import picture
from allod.console.session import Session
from allod.console.shell import Shell
from allod.errors import AllodError, TooLarge, Usage
from allod.policy.decision import CATEGORIES, Ask, DataClass
from allod.policy.explain import Explanation

ANSWER_BYTES_MAX = 32 * limits.MIB  # a thousand pages of Markdown fit several times
TOKENS_DEFAULT = 256
PATHS = {"chat": "/v1/chat/completions", "ocr": "/v1/ocr"}  # kind of service, also the policy's action
MEDIA = {
    b"%PDF-": "application/pdf",
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
}


class Sent(msgspec.Struct, frozen=True):
    """What the form asked for, kept so that the form shows it again."""

    model: str = ""
    data_class: str = ""
    categories: tuple[str, ...] = ()
    prompt: str = ""
    tokens: int = TOKENS_DEFAULT
    file_name: str = ""
    file_bytes: int = 0


class Part(msgspec.Struct, frozen=True):
    """One piece of the answer; `page` counts from 1, 0 where an answer has no pages."""

    text: str
    page: int = 0


class Result(msgspec.Struct, frozen=True):
    status: int
    parts: tuple[Part, ...]
    cut: bool  # whether the answer is longer than what is shown
    problem: str  # what the answer says went wrong; "" where it went well
    picture: picture.Picture | None  # None where no receipt could be read yet
    receipt_id: str


class Playground:
    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._node = shell.node

    async def prompt_page(self, request: Request) -> Response:
        return await self._page(request, await self._shell.sender(request), "chat", Sent())

    async def document_page(self, request: Request) -> Response:
        return await self._page(request, await self._shell.sender(request), "ocr", Sent())

    async def send_prompt(self, request: Request) -> Response:
        session = await self._shell.sender(request)
        form = await self._shell.form(request, session.nonce)
        sent = read_sent(form)
        if not sent.prompt.strip():
            raise Usage("console.empty-prompt", "the prompt is empty", hint="write something to send")
        body = {
            "model": sent.model,
            "messages": [{"role": "user", "content": sent.prompt}],
            "max_tokens": sent.tokens,
        }
        result = await self._send(request, session, sent, "chat", body)
        return await self._page(request, session, "chat", sent, result)

    async def send_document(self, request: Request) -> Response:
        session = await self._shell.sender(request)
        form = await self._shell.form(request, session.nonce, upload=True)
        upload = form.get("document")
        content = await upload.read() if isinstance(upload, UploadFile) else b""
        sent = read_sent(form)
        if isinstance(upload, UploadFile):
            sent = msgspec.structs.replace(sent, file_name=upload.filename or "", file_bytes=len(content))
        body = {"model": sent.model, "document": document_of(content)}
        result = await self._send(request, session, sent, "ocr", body)
        return await self._page(request, session, "ocr", sent, result)

    async def _send(
        self, request: Request, session: Session, sent: Sent, kind: str, body: dict[str, Any]
    ) -> Result:
        inner = Inner(
            caller=session.caller,
            path=PATHS[kind],
            body=msgspec.json.encode(body),
            data_class=sent.data_class,
            data_categories=",".join(sent.categories),
        )
        answer = await self._node.call(inner)
        try:
            raw = await answer.read()
        finally:
            await answer.aclose()
        receipt_id = answer.headers.get("allod-receipt", "")
        parts, problem = read_answer(answer.status, raw)
        shown, cut = bounded(parts)
        return Result(
            status=answer.status,
            parts=shown,
            cut=cut,
            problem=problem,
            picture=await self._picture(request, session, receipt_id, kind),
            receipt_id=receipt_id,
        )

    async def _picture(
        self, request: Request, session: Session, receipt_id: str, action: str
    ) -> picture.Picture | None:
        if not receipt_id:
            return None
        try:
            view = await self._node.receipt(receipt_id)
        except AllodError:
            return None  # durable but not in the tree yet; the page links to it
        c = self._shell.catalogue(request)
        told = await self._explanation(session, view, action, c.language)
        return picture.draw(view.statement, view.index, told, c)

    async def _explanation(
        self, session: Session, view: ReceiptView, action: str, language: str
    ) -> Explanation | None:
        """The reasons behind the rules the receipt names, asked again; None where the policy cannot say."""
        caller, s = session.caller, view.statement
        try:
            ask = Ask(
                organisation=caller.organisation,
                project=caller.project,
                role=caller.role.value,
                action=action,
                model=s.model,
                data_class=DataClass.parse(s.data_class),
                categories=frozenset(s.categories),
            )
            return await self._node.explain(ask, language)
        except AllodError:
            return None

    async def _page(
        self, request: Request, session: Session, kind: str, sent: Sent, result: Result | None = None
    ) -> Response:
        if result is not None and "hx-request" in request.headers:
            return self._shell.page(request, "result.html", session, result=result, sent=sent, kind=kind)
        status = await self._node.status()
        services = tuple(s for s in status.services if s.kind == kind)
        return self._shell.page(
            request,
            "playground.html",
            session,
            kind=kind,
            services=services,
            ready=any(_ready(s) for s in services),
            classes=tuple(c.label for c in DataClass),
            categories=sorted(CATEGORIES),
            sent=sent,
            result=result,
        )


def _ready(service: ServiceView) -> bool:
    return any(r.state == "ready" for r in service.replicas)


def read_sent(form: FormData) -> Sent:
    """The fields of either form. Raises Usage on a class, category or number that the form does not offer."""

    def text(name: str) -> str:
        value = form.get(name, "")
        return value if isinstance(value, str) else ""

    categories = tuple(str(x) for x in form.getlist("category"))
    if unknown := set(categories) - CATEGORIES:
        raise Usage("class.unknown-category", f"there is no data category {min(unknown)[:40]!r}")
    data_class = text("data_class")
    if data_class:
        DataClass.parse(data_class)
    tokens = text("tokens") or str(TOKENS_DEFAULT)
    if not tokens.isdecimal() or not 1 <= int(tokens) <= limits.CONSOLE_TOKENS_MAX:
        raise Usage(
            "console.bad-number", f"the longest answer is between 1 and {limits.CONSOLE_TOKENS_MAX} tokens"
        )
    return Sent(
        model=text("model"),
        data_class=data_class,
        categories=categories,
        prompt=text("prompt"),
        tokens=int(tokens),
    )


def document_of(content: bytes) -> dict[str, str]:
    """A file as the OCR dialect takes it: a data URL, by what the bytes are and not by what the name says.

    Raises Usage `console.no-document` or `console.unknown-document`, TooLarge.
    """
    if not content:
        raise Usage(
            "console.no-document", "no document was chosen, or it is empty", hint="choose a PDF or an image"
        )
    if len(content) > limits.CONSOLE_UPLOAD_BYTES_MAX:
        raise TooLarge(
            "console.document-too-large",
            f"documents here have at most {limits.CONSOLE_UPLOAD_BYTES_MAX:,} bytes",
        )
    media = next((m for magic, m in MEDIA.items() if content.startswith(magic)), None)
    if media is None:
        raise Usage(
            "console.unknown-document",
            "this is not a PDF, PNG, JPEG or TIFF file",
            hint="choose one of those",
        )
    url = f"data:{media};base64,{base64.b64encode(content).decode()}"
    kind = "document_url" if media == "application/pdf" else "image_url"
    return {"type": kind, kind: url}


def read_answer(status: int, raw: bytes) -> tuple[tuple[Part, ...], str]:
    """Parts and problem of a chat, OCR or error body; a body of another shape is shown as it is."""
    try:
        body = msgspec.json.decode(raw[:ANSWER_BYTES_MAX])
    except msgspec.DecodeError:
        body = None
    if status >= 400:
        return (), _problem(body) or raw[:2_000].decode("utf-8", "replace")
    match body:
        case {"pages": [*pages]}:
            return tuple(
                Part(str(p.get("markdown", "")), n) for n, p in enumerate(pages, 1) if isinstance(p, dict)
            ), ""
        case {"choices": [{"message": {"content": str(text)}}, *_]}:
            return (Part(text),), ""
        case {"choices": [{"message": message}, *_]}:
            return (Part(msgspec.json.format(msgspec.json.encode(message)).decode()),), ""
        case _:
            return (Part(raw.decode("utf-8", "replace")),), ""


def _problem(body: object) -> str:
    match body:
        case {"error": {"message": str(text)}} | {"message": str(text)} | {"detail": str(text)}:
            return text
        case {"detail": [{"msg": str(text)}, *_]}:
            return text
        case _:
            return ""


def bounded(parts: tuple[Part, ...]) -> tuple[tuple[Part, ...], bool]:
    """The parts up to the number of characters a page shows, and whether anything is missing."""
    left, shown = limits.CONSOLE_ANSWER_CHARS_SHOWN, []
    for part in parts:
        if len(part.text) > left:
            shown.append(Part(part.text[:left], part.page))
            return tuple(shown), True
        left -= len(part.text)
        shown.append(part)
    return tuple(shown), False
