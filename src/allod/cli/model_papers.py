"""`allod models sign|trust|lineage|papers`: who vouches for a model, and what is known of it.

Works without a node.
"""

from __future__ import annotations

import argparse
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec

from allod.cli.output import Out, fields, table
from allod.cli.parser import Verbs, home_of
from allod.clock import SystemClock, iso
from allod.errors import Usage
from allod.models import store, trust

_RELOAD = "a running node takes it into force with: allod policy reload"


def extend(models: Verbs) -> None:
    """Adds these verbs to `allod models`."""
    sign = models.add("sign", "vouch for installed models with the organisation's key", _sign)
    sign.add_argument("name", nargs="?", help="as `allod models ls` shows it")
    sign.add_argument("--all", action="store_true", help="every installed model, after the key was replaced")
    lineage = models.add("lineage", "how a model came to be, as far as anybody says", _lineage)
    lineage.add_argument("name")
    papers = models.add("papers", "bill of materials, card and lineage of a model", _papers)
    papers.add_argument("name")
    papers.add_argument("--form", choices=("bom", "card", "lineage", "all"), default="all")
    papers.add_argument("--out", type=Path, metavar="DIR", help="write them there instead of printing one")
    under = models.group("trust", "whose signatures on models count: ls, add, revoke, rotate")
    under.add("ls", "list whom this home trusts, and for what", _trust_ls)
    add = under.add("add", "trust a publisher's key or certificate authority", _trust_add)
    add.add_argument("name", help="what the publisher is called here: a-z, 0-9 and '-'")
    add.add_argument("pem", type=Path, help="PEM file with an ECDSA public key, or with root certificates")
    add.add_argument(
        "--models", action="append", required=True, metavar="PATTERN",
        help="which models they may vouch for, like 'mistral-*'; may be repeated",
    )  # fmt: skip
    revoke = under.add("revoke", "take a publisher's word away, at once", _trust_revoke)
    revoke.add_argument("name")
    revoke.add_argument("--reason", required=True, help="for whoever asks later")
    revoke.add_argument("--certificate", default="", metavar="SHA256", help="only this signer's certificate")
    rotate = under.add("rotate", "replace the organisation's own model key", _trust_rotate)
    rotate.add_argument(
        "--until", type=_day, metavar="DATE",
        help="the last day on which what the old key signed verifies (default: in 30 days)",
    )  # fmt: skip


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{text!r} is no day, as 2027-01-31 is one") from e


# --- signing ------------------------------------------------------------------------------------------------


def _sign(args: argparse.Namespace, out: Out) -> int:
    from allod.models import oms  # brings a large library, which few verbs need

    home = home_of(args)
    if bool(args.name) == args.all:
        raise Usage("usage.invalid", "name one model, or say --all", hint="allod models sign --help")
    chosen = [store.look_up(home.models, args.name)] if args.name else store.installed(home.models)
    key = trust.organisation_key(home.keys)
    signed = []
    for one in chosen:
        manifest = store.verify(one.folder)  # nobody vouches for bytes that changed since they were admitted
        oms.sign_folder(one.folder, key)
        mark = oms.verify_folder(one.folder, trust.load(home.trust))
        signed.append({"name": manifest.name, "who": mark.who, "key": mark.key_id, "root": mark.digest})
    out.result({"signed": signed}, [f"{out.mark(True)}{v['name']}  {v['key']}" for v in signed])
    return 0


# --- trust --------------------------------------------------------------------------------------------------


def _trust_ls(args: argparse.Namespace, out: Out) -> int:
    known = trust.load(home_of(args).trust)
    rows = [
        (p.name, p.kind, ", ".join(p.models), _state(p, known.today), p.ids[0][:19] + "…")
        for p in known.publishers
    ]
    shown = [_shown(p, known.today) for p in known.publishers]
    out.result({"trusted": shown}, table(("WHO", "BY", "FOR", "STATE", "KEY"), rows))
    if not rows:
        out.say("nobody is trusted, so no model is served: allod init makes the organisation's own key")
    return 0


def _state(publisher: trust.Publisher, today: date) -> str:
    if publisher.revoked:
        return f"revoked {publisher.revoked}" + (f": {publisher.reason}" if publisher.reason else "")
    if publisher.until:
        return f"{'until' if today <= publisher.until else 'ended'} {publisher.until}"
    gone = len(publisher.revoked_certificates)
    return f"trusted, but for {gone} certificates" if gone else "trusted"


def _shown(publisher: trust.Publisher, today: date) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(publisher)
    del built["pem"]
    return built | {"state": _state(publisher, today)}


def _trust_add(args: argparse.Namespace, out: Out) -> int:
    try:
        pem = args.pem.read_bytes()
    except OSError as e:
        raise Usage("trust.no-file", f"{args.pem} cannot be read: {e.strerror}") from e
    added = trust.add(home_of(args).trust, args.name, pem, tuple(args.models))
    lines = [f"{added.name} is trusted for {', '.join(added.models)}", *(f"  {id_}" for id_ in added.ids)]
    out.result(_shown(added, trust.today()), lines)
    out.say(f"compare the {added.kind} with what {added.name} publishes; {_RELOAD}")
    return 0


def _trust_revoke(args: argparse.Namespace, out: Out) -> int:
    gone = trust.revoke(home_of(args).trust, args.name, reason=args.reason, certificate=args.certificate)
    what = f"certificate {args.certificate} of {gone.name}" if args.certificate else gone.name
    out.result(_shown(gone, trust.today()), [f"{what} is not trusted any more"])
    out.say(_RELOAD)
    return 0


def _trust_rotate(args: argparse.Namespace, out: Out) -> int:
    home = home_of(args)
    until = args.until or trust.today() + timedelta(days=30)
    old, made = trust.rotate_organisation(home.keys, home.trust, until=until)
    value = {"retired": _shown(old, trust.today()), "made": [str(p) for p in made]}
    out.result(value, [f"{old.name}: what it signed verifies through {until}"])
    out.say(f"next: allod models sign --all; {_RELOAD}")
    return 0


# --- papers -------------------------------------------------------------------------------------------------


def _lineage(args: argparse.Namespace, out: Out) -> int:
    from allod.models import card, lineage

    folder, manifest = store.find(home_of(args).models, args.name)
    found = lineage.of(folder, manifest)
    lines = fields(
        [
            ("model", manifest.name), ("how", found.how), ("by", found.who), ("with", found.builder),
            ("finished", found.finished),
        ]
    )  # fmt: skip
    rows = [(card.ROLES[m.role], m.name, m.digest[:19], m.note) for m in found.materials]
    lines += ["", *table(("WHAT WENT IN", "NAME", "DIGEST", "NOTE"), rows)]
    lines += ["", "training content, after Art. 53(1)(d) of the AI Act:"]
    lines += fields([(label, getattr(found.training, name)) for name, label in card.TRAINING.items()])
    out.result(found, lines)
    if not lineage.is_stated(folder):
        out.say("nobody has written down how this model was made: this is what its manifest says")
    return 0


def _papers(args: argparse.Namespace, out: Out) -> int:
    from allod.models import papers

    home = home_of(args)
    folder, manifest = store.find(home.models, args.name)
    found = papers.of(folder, manifest, trust.load(home.trust))
    made = papers.files(found, at=iso(SystemClock().now_us()))
    forms = papers.FORMS if args.form == "all" else (args.form,)
    if args.out is None:
        if len(forms) > 1:
            out.result({f: made[f].decode() for f in forms}, [made["card"].decode().rstrip()])
            out.say("this is the card; --form bom or lineage prints the others, --out DIR writes all of them")
        else:
            text = made[forms[0]].decode().rstrip()
            out.result({forms[0]: text}, [text])
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    written = []
    for form in forms:
        path = args.out / papers.FILE_NAMES[form]
        path.write_bytes(made[form])
        written.append(str(path))
    out.result({"written": written}, written)
    return 0
