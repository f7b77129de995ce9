"""`allod run`: a question to a model, with a receipt; without arguments, what could run here."""

from __future__ import annotations

import argparse
import base64
import json
import mimetypes
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from allod.api.ports import NodeStatus
from allod.cli.admin import Admin, Answer, failure
from allod.cli.output import Out, size, table
from allod.cli.parser import Verbs, home_of
from allod.engines import fit
from allod.errors import NotReady, Unprocessable, Usage
from allod.models import store
from allod.policy.decision import CATEGORIES, DataClass

KEY_VARIABLE = "ALLOD_API_KEY"
_CALL_TIMEOUT_S = 900.0  # a long answer of a small machine


def register(verbs: Verbs) -> None:
    run = verbs.add("run", "ask a model; without arguments, name the models that fit this machine", act)
    run.add_argument("model", nargs="?", help="as `allod status` shows it")
    run.add_argument("prompt", nargs="?", help="what to ask; - or nothing reads it from stdin")
    run.add_argument("--file", type=Path, help="a document or an image, for a model that reads documents")
    run.add_argument(
        "--class",
        dest="data_class",
        choices=[c.label for c in DataClass],
        help="what the request carries (default: the project's)",
    )
    run.add_argument(
        "--category", action="append", choices=sorted(CATEGORIES), default=[], help="may be repeated"
    )
    run.add_argument(
        "--key",
        metavar="REF",
        help=f"API key as env:NAME or file:PATH (default: env:{KEY_VARIABLE} if set, else as operator)",
    )
    run.add_argument("--url", help="the node to ask with that key (default: the one of this home)")


def act(args: argparse.Namespace, out: Out) -> int:
    if args.model is None:
        return _could_run(args, out)
    body, path = _question(args)
    headers = {"allod-data-class": args.data_class or "", "allod-data-categories": ", ".join(args.category)}
    key = _key(args.key)
    if key is None:
        if args.url:
            raise Usage("run.no-key", f"asking {args.url} takes a key", hint=f"--key env:{KEY_VARIABLE}")
        asked = {
            "path": path,
            "body": body,
            "data_class": headers["allod-data-class"],
            "data_categories": headers["allod-data-categories"],
        }
        return _tell(Admin(home_of(args)).call(asked), args, out)
    import httpx  # needed here alone, and slow to import

    url = args.url or Admin(home_of(args)).get("/admin/v1/status", NodeStatus).listen
    sent = {name: value for name, value in headers.items() if value} | {"authorization": f"Bearer {key}"}
    try:
        with (
            httpx.Client(timeout=httpx.Timeout(_CALL_TIMEOUT_S, connect=10.0), trust_env=False) as client,
            client.stream("POST", url.rstrip("/") + path, json=body, headers=sent) as response,
        ):
            return _tell(Answer(response.status_code, response.headers, response.iter_raw()), args, out)
    except httpx.HTTPError as e:
        raise NotReady("run.unreachable", f"{url} did not answer: {e}", hint="allod status") from e


def _could_run(args: argparse.Namespace, out: Out) -> int:
    """What is installed, and which open-weight models would fit. Nothing is fetched."""
    installed = store.ls(home_of(args).models)
    hardware = fit.probe()
    suggested = fit.fit(hardware)
    gpus = ", ".join(f"{g.name} {size(g.memory_bytes)}" for g in hardware.gpus) or "no GPU"
    lines = [f"this machine: {size(hardware.ram_bytes)} of memory, {hardware.cores} cores, {gpus}"]
    rows = [(m.name + (" (test model)" if m.test_model else ""), m.kind, m.licence) for m in installed]
    lines += ["", *table(("INSTALLED", "KIND", "LICENCE"), rows)] if rows else []
    if suggested:
        header = ("FITS", "FROM", "LICENCE", "AS", "MEMORY", "ON", "GOOD FOR")
        lines += ["", *table(header, [_fitting(s) for s in suggested])]
        if not all(s.model.source for s in suggested):
            lines += ["", "* as widely stated: nobody has looked it up for this list"]
    out.result({"hardware": hardware, "installed": installed, "suggested": suggested}, lines)
    fast = next((s for s in suggested if not s.slow), None)
    out.say(f"next: {fast.how}" if fast else "nothing in the bundled list fits: ask for a smaller model")
    return 0


def _fitting(s: fit.Suggestion) -> tuple[str, ...]:
    where = f"{s.runs_on} (slow)" if s.slow else s.runs_on
    maker = f"{s.model.maker} ({s.model.country})"
    name = s.model.name if s.model.source else f"{s.model.name} *"
    return name, maker, s.model.licence, s.quantisation, size(s.memory_bytes), where, s.model.good_for


# --- asking -------------------------------------------------------------------------------------------------


def _question(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    if args.file:
        try:
            data = base64.b64encode(args.file.read_bytes()).decode()
        except OSError as e:
            raise Usage(
                "run.no-file", f"{args.file} cannot be read: {e.strerror}", hint="name a PDF or an image"
            ) from e
        mime = mimetypes.guess_type(args.file.name)[0] or "application/pdf"
        url = f"data:{mime};base64,{data}"
        kind = "image_url" if mime.startswith("image/") else "document_url"
        return {"model": args.model, "document": {"type": kind, kind: url}}, "/v1/ocr"
    messages = [{"role": "user", "content": _prompt(args.prompt)}]
    return {"model": args.model, "messages": messages, "stream": True}, "/v1/chat/completions"


def _prompt(given: str | None) -> str:
    if given not in (None, "-"):
        return str(given)
    if given is None and sys.stdin.isatty():
        raise Usage("run.no-prompt", "there is nothing to ask", hint='allod run MODEL "your question"')
    return sys.stdin.read()


def _key(reference: str | None) -> str | None:
    """The key that a reference leads to. Keys themselves are refused: a command line is seen by everybody."""
    if reference is None:
        return os.environ.get(KEY_VARIABLE) or None
    kind, _, target = reference.partition(":")
    if kind == "env" and (value := os.environ.get(target)):
        return value
    if kind == "file":
        try:
            return Path(target).expanduser().read_text().strip()
        except OSError as e:
            raise Usage("run.no-key", f"{target} cannot be read: {e.strerror}", hint="--key file:PATH") from e
    raise Usage(
        "run.no-key",
        f"{target} is not set" if kind == "env" else "a key is given by reference, never as it is",
        hint=f"export {KEY_VARIABLE}=…, or --key file:PATH",
    )


# --- telling ------------------------------------------------------------------------------------------------


def _tell(answer: Answer, args: argparse.Namespace, out: Out) -> int:
    receipt, site = answer.headers.get("allod-receipt", ""), answer.headers.get("allod-site", "")
    if answer.status != 200:
        error = failure(answer.status, b"".join(answer.pieces))
        if error.code == "model.wrong-kind" and not args.file:
            error.hint = f"a document is read with: allod run {args.model} --file FILE"
        if receipt:
            error.details["receipt"] = receipt
            error.hint = error.hint or f"allod receipt show {receipt}"
        raise error
    said: list[str] = []
    for text in _pages(answer.pieces) if args.file else _deltas(answer.pieces):
        said.append(text)
        if not out.as_json:
            out.data(text, end="")
    if out.as_json:
        out.one({"model": args.model, "text": "".join(said), "site": site, "receipt": receipt})
    elif said and not said[-1].endswith("\n"):
        out.data("")
    out.say(f"receipt {receipt}  site {site}")
    return 0


def _deltas(pieces: Iterable[bytes]) -> Iterator[str]:
    """The text of a streamed chat answer as it comes."""
    for event in _events(pieces):
        if "error" in event:
            raise failure(int(event["error"].get("status") or 503), json.dumps(event).encode())
        for choice in event.get("choices", ()):
            if text := (choice.get("delta") or {}).get("content"):
                yield text


def _events(pieces: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """Server-sent events with JSON data; the end marker ends them."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            data = line.strip().removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                return
            if data:
                yield _json(data)


def _pages(pieces: Iterable[bytes]) -> Iterator[str]:
    for page in _json(b"".join(pieces)).get("pages", ()):
        yield page["markdown"] + "\n"


def _json(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as e:
        raise NotReady(
            "run.garbled", "the answer is not what this command understands", hint="allod status"
        ) from e
    if not isinstance(value, dict):
        raise Unprocessable("run.garbled", "the answer is not an object", hint="allod status")
    return value
