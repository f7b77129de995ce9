"""`allod receipt`: what happened in an exchange, and its proof. `verify FILE` needs no node and no home."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

import msgspec

from allod.api.ports import ExchangeView, ReceiptFormat, ReceiptView, Verification
from allod.cli.admin import Admin, segment
from allod.cli.output import Out, fields, table
from allod.cli.parser import Verbs, count, home_of
from allod.clock import iso
from allod.errors import Integrity, NotFound, Unprocessable, Usage
from allod.ledger.erasure import Erasure
from allod.ledger.proof import TlogProof
from allod.ledger.statement import Statement
from allod.ledger.verify import Proven, ReceiptVerifier
from allod.signing import VKey

_PROOF_HEAD = "c2sp.org/tlog-proof@"
_FILE_BYTES_MAX = 1 << 20  # a leaf, a proof and a checkpoint are a few KiB
_HEX_SHOWN = 23


class _Exported(msgspec.Struct):
    """What matters of the JSON form; the rest is for people."""

    leaf: bytes
    proof: str


def register(verbs: Verbs) -> None:
    under = verbs.group("receipt", "receipts: list, show, verify, export, erase")
    ls = under.add("ls", "list the latest exchanges, newest first", _ls)
    ls.add_argument("--project", help="only of this project")
    ls.add_argument("--limit", type=count, default=20, help="default: 20")
    ls.add_argument(
        "--before", type=count, metavar="INDEX", help="only those before this place in the ledger"
    )
    show = under.add("show", "what a receipt states", _show)
    show.add_argument("id", help="r-…, from the header allod-receipt")
    verify = under.add("verify", "check a receipt; a file offline, with public keys alone", _verify)
    verify.add_argument("receipt", help="an exported file, or the id of a receipt of the running node")
    verify.add_argument(
        "--key", action="append", default=[], metavar="KEY",
        help="verifier key of the log, or a file of them (default: the home's keys/ledger.pub)",
    )  # fmt: skip
    verify.add_argument(
        "--witness",
        action="append",
        default=[],
        metavar="KEY",
        help="verifier key of a witness, or a file of them",
    )
    verify.add_argument(
        "--witnesses-needed", type=count, metavar="N", default=0, help="how many have to have cosigned"
    )
    export = under.add("export", "write a receipt with its proof to a file, for others to verify", _export)
    export.add_argument("id", help="r-…")
    export.add_argument(
        "--form", choices=get_args(ReceiptFormat), default="tlog-proof", help="default: tlog-proof (C2SP)"
    )
    export.add_argument(
        "--out", type=Path, metavar="FILE", help="default: ID.FORM in this folder; - for stdout"
    )
    erase = under.add(
        "erase", "destroy the key of a receipt: its commitments can never be opened again", _erase
    )
    erase.add_argument("id", help="r-…")
    erase.add_argument("--yes", action="store_true", help="do it: this cannot be undone")


def _ls(args: argparse.Namespace, out: Out) -> int:
    found = Admin(home_of(args)).get(
        "/admin/v1/exchanges", list[ExchangeView], limit=args.limit, before=args.before, project=args.project
    )
    rows = [
        (
            "-" if view.index is None else view.index, s.id, iso(s.ended_us), s.project, s.action, s.model,
            s.data_class, s.decision, s.site or "-", s.outcome,
        )
        for view in found
        for s in (view.statement,)
    ]  # fmt: skip
    header = (
        "INDEX",
        "RECEIPT",
        "ENDED",
        "PROJECT",
        "ACTION",
        "MODEL",
        "CLASS",
        "DECISION",
        "SITE",
        "OUTCOME",
    )
    out.result({"exchanges": found}, table(header, rows))
    if not found:
        out.say("no exchanges yet")
    return 0


def _show(args: argparse.Namespace, out: Out) -> int:
    view = Admin(home_of(args)).get(f"/admin/v1/receipts/{segment(args.id)}", ReceiptView)
    lines = [*_told(view.statement), *fields([("ledger index", view.index)])]
    out.result(view, lines)
    out.say(f"next: allod receipt verify {args.id}, or for others: allod receipt export {args.id}")
    return 0


def _told(s: Statement) -> list[str]:
    """A statement for people; what is empty is left out."""
    usage = [f"{s.usage.input_tokens} tokens in, {s.usage.output_tokens} out" if s.usage.input_tokens else ""]
    usage.append(f"{s.usage.pages} page{'s' * (s.usage.pages > 1)}" if s.usage.pages else "")
    energy = "not known" if s.energy.microjoules is None else f"{s.energy.microjoules / 1e6:.3f} J"
    carries = ", ".join([s.data_class, *s.categories])
    refused = [("refused site", f"{r.site} by {', '.join(r.rules)}") for r in s.refused]
    tried = [("tried", f"{a.site}, replica {a.replica}: {a.outcome}") for a in s.attempts]
    return fields(
        [
            ("receipt", s.id),
            ("log", s.origin),
            ("outcome", f"{s.outcome}, HTTP {s.status}"),
            ("decision", f"{s.decision} by {', '.join(s.rules)}"),
            *refused,
            ("asked", f"{s.action} {s.model} ({carries})"),
            ("by", f"project {s.project} of {s.organisation}"),
            ("site", s.site),
            *tried,
            ("engine", s.engine),
            ("model digest", s.model_digest),
            ("began", iso(s.started_us)),
            ("took", f"{(s.ended_us - s.started_us) / 1000:.0f} ms"),
            ("usage", ", ".join(u for u in usage if u) + (f" ({s.usage.source})" if any(usage) else "")),
            ("energy", f"{energy} ({s.energy.method})" if s.energy.method != "none" else ""),
            ("sampling", ", ".join(f"{k} {v}" for k, v in s.sampling.items() if v)),
            ("policy", s.policy),
            ("site facts", s.site_facts),
            ("input", f"{s.input_bytes} bytes, commitment {s.input[:_HEX_SHOWN]}…"),
            ("output", f"{s.output_bytes} bytes, commitment {s.output[:_HEX_SHOWN]}…"),
            ("part of", s.parent),
        ]
    )


def _verify(args: argparse.Namespace, out: Out) -> int:
    path = Path(args.receipt)
    if not path.is_file():
        if not args.receipt.startswith("r-"):
            raise NotFound(
                "receipt.no-file",
                f"there is no file {args.receipt}",
                hint="allod receipt export ID --out FILE",
            )
        return _verify_online(args, out)
    log = read_keys(args.key or [str(home_of(args).ledger_pub)])
    leaf, proof = _read(path)
    verifier = ReceiptVerifier(log, read_keys(args.witness), witnesses_needed=args.witnesses_needed)
    proven = verifier.verify(proof, leaf)
    out.result(_proven_value(proven), _proven_lines(proven, out))
    return 0


def _proven_value(proven: Proven) -> dict[str, Any]:
    return {
        "ok": True,
        "index": proven.index,
        "size": proven.verified.checkpoint.size,
        "log_keys": [k.name for k in proven.verified.log],
        "witnesses": [k.name for k in proven.verified.witnesses],
        "statement": proven.leaf,
    }


def _proven_lines(proven: Proven, out: Out) -> list[str]:
    leaf, checkpoint = proven.leaf, proven.verified.checkpoint
    ok = out.mark(True)
    kinds = {1: "Ed25519", 6: "ML-DSA-44"}
    by = " and ".join(kinds.get(k.type, "?") for k in proven.verified.log)
    lines = [
        f"{ok}checkpoint of {checkpoint.origin} over {checkpoint.size} leaves, signed with {by}",
        f"{ok}receipt {leaf.id} is leaf {proven.index} of it",
    ]
    lines += [f"{ok}cosigned by witness {k.name}" for k in proven.verified.witnesses]
    if isinstance(leaf, Erasure):
        return [*lines, f"     it says: the key of {leaf.erased} was destroyed at {iso(leaf.ended_us)}"]
    where = f" at {leaf.site}" if leaf.site else ""
    said = f"{leaf.action} {leaf.model}, {leaf.data_class}: {leaf.decision}, {leaf.outcome}{where}"
    return [
        *lines,
        f"     it says: {iso(leaf.ended_us)} {said}",
        f"     by the rules: {', '.join(leaf.rules)}",
    ]


def _verify_online(args: argparse.Namespace, out: Out) -> int:
    answer = Admin(home_of(args)).post(f"/admin/v1/receipts/{segment(args.receipt)}/verify", Verification)
    lines = [f"{out.mark(c.ok)}{c.name}: {c.detail}" for c in answer.checks]
    out.result(answer, lines)
    return 0 if answer.ok else Integrity.exit_code


def _read(path: Path) -> tuple[bytes, TlogProof]:
    """Leaf and proof from an exported file, in either of the forms that need no other tool."""
    with path.open("rb") as f:
        data = f.read(_FILE_BYTES_MAX)
    try:
        text = data.decode()
    except UnicodeDecodeError as e:
        raise Unprocessable(
            "receipt.form", f"{path} is neither a tlog-proof nor JSON; is it COSE?",
            hint="verify COSE with any SCITT verifier, or export again: allod receipt export ID",
        ) from e  # fmt: skip
    if text.startswith(_PROOF_HEAD):
        proof = TlogProof.parse(text)
        if not proof.extra:
            raise Unprocessable(
                "receipt.no-leaf", f"{path} is a proof without its receipt",
                hint="export it again: allod receipt export ID",
            )  # fmt: skip
        return proof.extra, proof
    try:
        exported = msgspec.json.decode(data, type=_Exported)
    except msgspec.MsgspecError as e:
        raise Unprocessable(
            "receipt.form", f"{path} is no exported receipt", hint="allod receipt export ID --out FILE"
        ) from e
    return exported.leaf, TlogProof.parse(exported.proof)


def read_keys(given: list[str]) -> list[VKey]:
    """Verifier keys from arguments: each a key itself, or a file with one per line."""
    keys: list[VKey] = []
    for one in given:
        path = Path(one)
        if "+" in one and not path.exists():
            keys.append(VKey.parse(one))
            continue
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise Usage(
                "receipt.no-key", f"{one} is neither a verifier key nor a file of them",
                hint="ask the operator for keys/ledger.pub and give it with --key",
            ) from e  # fmt: skip
        keys += [VKey.parse(line.strip()) for line in lines if line.strip() and not line.startswith("#")]
    return keys


def _export(args: argparse.Namespace, out: Out) -> int:
    data = Admin(home_of(args)).raw(f"/admin/v1/receipts/{segment(args.id)}/file?form={args.form}")
    target = args.out or Path(f"{args.id}.{args.form}")
    if str(target) == "-":
        out.binary(data)
        return 0
    try:
        target.write_bytes(data)
    except OSError as e:
        raise Usage(
            "receipt.not-written", f"{target} cannot be written: {e.strerror}", hint="--out FILE"
        ) from e
    out.result({"file": str(target), "form": args.form, "bytes": len(data)}, [str(target)])
    if args.form == "tlog-proof":
        out.say(f"anyone can verify it: allod receipt verify {target} --key ledger.pub")
    return 0


def _erase(args: argparse.Namespace, out: Out) -> int:
    if not args.yes:
        raise Usage(
            "receipt.erase-unconfirmed",
            f"destroying the key of {args.id} cannot be undone: what went in and came out can never be shown",
            hint=f"allod receipt erase {args.id} --yes",
        )
    answer = Admin(home_of(args)).delete(f"/admin/v1/receipts/{segment(args.id)}/key", dict[str, Any])
    out.result(answer, [f"the key of {args.id} is destroyed, and the ledger says so"])
    return 0
