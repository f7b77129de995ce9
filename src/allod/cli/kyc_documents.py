"""`allod kyc mrz` and `allod kyc identifier`: what a document or a number says, and how far that holds."""

from __future__ import annotations

import argparse
import base64
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allod.cli.admin import Admin, failure
from allod.cli.output import Out, table
from allod.cli.parser import Verbs, home_of
from allod.clock import SystemClock
from allod.errors import NotReady, TooLarge, Unprocessable, Usage
from allod.limits import DOCUMENT_BYTES_MAX
from allod.policy.decision import DataClass

if TYPE_CHECKING:  # these take a moment to import, and identifiers need an extra
    from allod.kyc.identifiers import Checked
    from allod.kyc.mrz import Field, Mrz

_KINDS = ("iban", "bic", "lei", "vat", "person", "company")
_PICTURES = {
    b"%PDF": "application/pdf",
    b"\x89PNG": "image/png",
    b"\xff\xd8": "image/jpeg",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"RIFF": "image/webp",
    b"BM": "image/bmp",
}


def register(verbs: Verbs) -> None:
    zone = verbs.add("mrz", "read the machine-readable zone of an identity document", _mrz)
    zone.add_argument(
        "file", metavar="FILE", nargs="?", help="text, a picture or a PDF; - or nothing reads stdin"
    )
    zone.add_argument(
        "--model", default="allod-ocr", help="what reads a picture, as `allod status` shows it (allod-ocr)"
    )
    zone.add_argument(
        "--class",
        dest="data_class",
        choices=[c.label for c in DataClass],
        default=DataClass.CONFIDENTIAL.label,
        help="what the picture is sent as (default: confidential); personal it is in any case",
    )
    number = verbs.add(
        "identifier", "check an account, a bank, a VAT, LEI, company or personal number", _identifier
    )
    number.add_argument("text", metavar="TEXT", help="the identifier")
    number.add_argument("--country", metavar="CC", default="", help="ISO 3166 code, as PL")
    number.add_argument("--kind", choices=_KINDS, help="what it has to be (default: all it could be)")


# --- the zone -----------------------------------------------------------------------------------------------


def _mrz(args: argparse.Namespace, out: Out) -> int:
    from allod.kyc.mrz_find import find

    data = _read(args.file)
    kind = next((mime for head, mime in _PICTURES.items() if data.startswith(head)), "")
    text, receipt = _recognised(args, data, kind) if kind else (data.decode("utf-8", "replace"), "")
    found = find(text, SystemClock())
    if found is None:
        raise Unprocessable(
            "kyc.no-mrz",
            "no machine-readable zone was found in it",
            hint="a sharper picture of the page with the lines full of <, all of it, at 300 dpi",
            **({"receipt": receipt} if receipt else {}),
        )
    out.result({"mrz": found, "status": found.status, "receipt": receipt}, list(_told(found)))
    if receipt:
        out.say(f"receipt {receipt}")
    out.say("check digits that hold do not make a document genuine")
    return 0


def _read(name: str | None) -> bytes:
    try:
        if name in (None, "-"):
            data = sys.stdin.buffer.read(DOCUMENT_BYTES_MAX + 1)
        else:
            with Path(str(name)).open("rb") as file:
                data = file.read(DOCUMENT_BYTES_MAX + 1)
    except OSError as e:
        raise Usage(
            "kyc.no-file", f"{name} cannot be read: {e.strerror}", hint="name a text, a picture or a PDF"
        ) from e
    if len(data) > DOCUMENT_BYTES_MAX:
        raise TooLarge(
            "kyc.file-too-large", f"it has more than {DOCUMENT_BYTES_MAX} bytes", hint="send the page alone"
        )
    return data


def _recognised(args: argparse.Namespace, data: bytes, mime: str) -> tuple[str, str]:
    """The text of a picture, read on the path by the node's own service, and the receipt of that."""
    kind = "image_url" if mime.startswith("image/") else "document_url"
    url = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    asked = {
        "path": "/v1/ocr",
        "body": {"model": args.model, "document": {"type": kind, kind: url}},
        "data_class": args.data_class,
        "data_categories": "personal",
    }
    answer = Admin(home_of(args)).call(asked)
    whole = b"".join(answer.pieces)
    receipt = answer.headers.get("allod-receipt", "")
    if answer.status != 200:
        error = failure(answer.status, whole)
        if receipt:
            error.details["receipt"] = receipt
        raise error
    try:
        pages: list[dict[str, Any]] = json.loads(whole)["pages"]
        text = "\n\n".join(str(page["markdown"]) for page in pages)
    except (ValueError, KeyError, TypeError) as e:
        raise NotReady(
            "kyc.garbled", f"{args.model} did not answer as a reader of documents does", hint="allod status"
        ) from e
    return text, receipt


def _told(found: Mrz) -> list[str]:
    expiry = {True: ", expired", False: "", None: ""}[found.expired]
    lines = [f"{found.format}, {found.status}{expiry}", "", *(f"    {line}" for line in found.lines), ""]
    rows = [(f.name, f.value or "-", f.status, _remark(f)) for f in found.fields if f.raw.strip("<")]
    return lines + table(("FIELD", "VALUE", "STATUS", "WHY"), rows)


def _remark(field: Field) -> str:
    parts = [field.reason] if field.reason else []
    if field.candidates:
        parts.append("one of " + ", ".join(field.candidates))
    if field.unseen and field.status != "doubtful":
        parts.append("no rule would notice: " + "; ".join(field.unseen))
    return ". ".join(parts)


# --- identifiers --------------------------------------------------------------------------------------------


def _identifier(args: argparse.Namespace, out: Out) -> int:
    try:
        from allod.kyc import identifiers

        found = (
            [identifiers.check(args.kind, args.text, args.country)]
            if args.kind
            else list(identifiers.recognise(args.text, args.country))
        )
    except ImportError as e:
        raise NotReady(
            "kyc.not-installed", f"{e.name} is not installed here", hint="pip install 'allod[kyc]'"
        ) from e
    if not found:
        raise Unprocessable(
            "kyc.identifier-unknown",
            "by no rule that is known here it is an identifier",
            hint="--kind and --country say why one kind does not fit",
        )
    if not found[0].valid:
        raise Unprocessable(
            "kyc.identifier-invalid",
            f"it is no {found[0].kind} number: {found[0].reason}",
            hint="compare it with the paper, character by character",
        )
    header = ("KIND", "OF", "SCHEME", "NUMBER", "SAYS", "KNOWN")
    out.result({"found": found}, table(header, [_row(one) for one in found]))
    return 0


def _row(one: Checked) -> tuple[str, ...]:
    says = ", ".join(f"{name} {value}" for name, value in one.says.items())
    return one.kind, one.country or "-", one.scheme, one.normalised, says or "-", one.reason
