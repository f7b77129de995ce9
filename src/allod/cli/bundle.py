"""`allod bundle`: everything that a machine without any network needs, in one signed file."""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from allod import __version__, config
from allod.cli.admin import Admin
from allod.cli.init import lay_out
from allod.cli.output import Out, fields, size, table
from allod.cli.parser import Verbs, home_of
from allod.cli.progress import Bar
from allod.config import Home
from allod.errors import NotFound, Usage

if TYPE_CHECKING:  # what bundles need takes a tenth of a second to import; every other verb does without
    from allod.models.bundle.judge import Checks
    from allod.models.bundle.manifest import Manifest

_PARTS = ("--model", "--all-models", "--policy", "--sites", "--instructions", "--config", "--wheels")
_COUNTED = {
    "blob": "model files", "policy": "rules", "site": "sites", "instruction": "instructions",
    "trust": "trust anchors", "wheel": "wheels", "services": "services",
}  # fmt: skip


def register(verbs: Verbs) -> None:
    under = verbs.group(
        "bundle", "models, rules and software in one signed file, for a machine without a network"
    )
    make = under.add("create", "write a bundle from this home", _create)
    make.add_argument("--out", metavar="FILE", type=Path, required=True, help="the file to write")
    make.add_argument("--model", metavar="NAME", action="append", default=[], help="may be repeated")
    make.add_argument("--all-models", action="store_true", help="every model that a tag means")
    make.add_argument("--policy", action="store_true", help="the rules")
    make.add_argument("--sites", action="store_true", help="the sites with their facts; never their keys")
    make.add_argument("--instructions", action="store_true", help="system prompts and chat templates")
    make.add_argument("--config", action="store_true", help="the [[service]] tables of allod.toml, no more")
    make.add_argument(
        "--wheels", metavar="DIR", type=Path, help="this software, with the wheels in DIR that its lock pins"
    )
    check = under.add("verify", "read a bundle to its end and name what is wrong with it", _verify)
    check.add_argument("file", help="the bundle; - reads it from stdin")
    check.add_argument(
        "--key", metavar="KEY", action="append", default=[],
        help="whose bundle it has to be: PEM file or fingerprint (default: whom this home trusts)",
    )  # fmt: skip
    put = under.add("apply", "put a bundle into this home; what is in place already stays as it is", _apply)
    put.add_argument("file", help="the bundle; - reads it from stdin")
    put.add_argument(
        "--trust-key", metavar="KEY", action="append", default=[],
        help="trust this signer from now on: fingerprint or PEM file, compared with its owner before",
    )  # fmt: skip


def _create(args: argparse.Namespace, out: Out) -> int:
    from allod.models import trust
    from allod.models.bundle import signature, wheels
    from allod.models.bundle.contents import Wanted, collect
    from allod.models.bundle.create import create
    from allod.models.bundle.places import Places

    home = home_of(args)
    wanted = Wanted(
        models=tuple(args.model), all_models=args.all_models, policy=args.policy, sites=args.sites,
        instructions=args.instructions, services=args.config,
    )  # fmt: skip
    if wanted == Wanted() and args.wheels is None:
        raise Usage("bundle.empty", "nothing was chosen to be packed", hint=f"one of {', '.join(_PARTS)}")
    places = Places(home.root)
    origin = config.load(home).node.origin
    key = signature.load_key(trust.organisation_key(home.keys))
    with tempfile.TemporaryDirectory() as scratch:
        software = wheels.collect(args.wheels, Path(scratch)) if args.wheels else []
        contents = collect(places, wanted, software)
        with Bar(shown=not out.as_json) as bar:
            bar.total(sum(item.file.size for item in contents.items))
            made = create(
                args.out, contents, key, origin=origin, version=__version__, created=_now(), moved=bar.moved
            )
    lines = [*_described(made), f"file      {args.out}, {size(args.out.stat().st_size)}"]
    out.result(_value(made) | {"file": str(args.out), "bytes": args.out.stat().st_size}, lines)
    out.say(f"next, there: allod bundle apply {args.out.name} --trust-key {made.signer.key}")
    return 0


def _verify(args: argparse.Namespace, out: Out) -> int:
    from allod.models import trust
    from allod.models.bundle import signature
    from allod.models.bundle.places import Places

    known = trust.load(Places(home_of(args).root).trust)
    if args.key:  # who names a key means that one
        known = trust.Trust(publishers=(), today=known.today)
    with _file(args.file) as f, Bar(shown=not out.as_json) as bar:
        opened, reader = signature.open_(f, known, tuple(args.key))
        bar.total(opened.manifest.content_bytes)
        reader.through(opened.manifest.files, bar.moved)
    value = _value(opened.manifest) | {"digest": opened.digest, "ok": True}
    line = f"{out.mark(True)}every byte is as {opened.manifest.signer.key} signed it"
    out.result(value, [line, *_described(opened.manifest)])
    return 0


def _apply(args: argparse.Namespace, out: Out) -> int:
    from allod.models import trust
    from allod.models.bundle import signature
    from allod.models.bundle.apply import apply
    from allod.models.bundle.places import Places

    home = home_of(args)
    places = Places(home.root)
    with _file(args.file) as f:
        # Nothing is made here before it is known whose it is.
        opened, reader = signature.open_(f, trust.load(places.trust), tuple(args.trust_key))
        if made := lay_out(home):
            out.say(f"made {len(made)} files and folders in {home.root}")
        with Bar(shown=not out.as_json) as bar:
            bar.total(opened.manifest.content_bytes)
            done = apply(opened, reader, places, _checks(home), moved=bar.moved)
    lines = [f"applied  {name}" for name in done.changed] or ["everything was in place already"]
    value = _value(done.manifest) | {"digest": done.digest, "changed": done.changed, "reloaded": None}
    admin = Admin(home)
    if admin.running:  # also where nothing changed: an attempt before may have been killed at this point
        value["reloaded"] = admin.post("/admin/v1/reload", dict[str, int])["version"]
        lines.append(f"in force as snapshot {value['reloaded']}")
    out.result(value, lines)
    return 0


def _checks(home: Home) -> Checks:
    """How the node itself would read what a bundle brings."""
    from allod.models.bundle.judge import Checks
    from allod.policy import pack, rules
    from allod.sites.load import load_sites

    def policy(folder: Path) -> None:
        found = pack.load(folder)
        rules.read(found.text, found.schema)

    def sites(folder: Path) -> None:
        load_sites(folder)

    def text(new: str) -> None:
        config.parse(new)

    allowed = config.load(home).models.allowed_licences
    return Checks(policy=policy, sites=sites, config=text, allowed_licences=allowed)


def _file(name: str) -> BinaryIO:
    if name == "-":
        return sys.stdin.buffer
    try:
        return open(name, "rb")
    except OSError as e:
        raise NotFound("bundle.no-file", f"{name} cannot be read: {e.strerror}") from e


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- saying -------------------------------------------------------------------------------------------------


def _value(manifest: Manifest) -> dict[str, object]:
    return {
        "created": manifest.created,
        "origin": manifest.origin,
        "allod": manifest.allod,
        "signer": manifest.signer.key,
        "models": [{"name": m.name, "digest": m.digest, "tags": m.tags} for m in manifest.models],
        "files": len(manifest.files),
        "content_bytes": manifest.content_bytes,
    }


def _described(manifest: Manifest) -> list[str]:
    counts = {words: len(manifest.of(kind)) for kind, words in _COUNTED.items()}  # type: ignore[arg-type]
    lines = fields(
        [
            ("made", f"{manifest.created} by {manifest.origin}, allod {manifest.allod}"),
            ("signed by", manifest.signer.key),
            ("holds", ", ".join(f"{n} {words}" for words, n in counts.items() if n)),
        ]
    )
    rows = [(m.name, ", ".join(m.tags), m.digest) for m in manifest.models]
    return [*lines, *(["", *table(("MODEL", "TAGS", "DIGEST"), rows), ""] if rows else [])]
