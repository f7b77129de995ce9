"""`allod models`: the models installed in a home. Works without a node."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from allod.cli import model_papers
from allod.cli.output import Out, as_mapping, fields, size, table
from allod.cli.parser import Verbs, home_of
from allod.models import store
from allod.models.manifest import ModelKind, Origin


def register(verbs: Verbs) -> None:
    under = verbs.group("models", "models on this machine: add, list, show, verify, remove")
    under.add("ls", "list the installed models", _ls)
    show = under.add("show", "what is known of a model", _show)
    show.add_argument("name")
    add = under.add("add", "install a GGUF file that is on this machine", _add)
    add.add_argument("file", type=Path)
    add.add_argument("--name", help="what it is called here (default: from the file's name)")
    add.add_argument("--kind", choices=get_args(ModelKind), help="default: what the file says")
    add.add_argument("--licence", default="unknown", help="SPDX identifier (default: what the file says)")
    add.add_argument("--maker", default="unknown", help="who made it")
    add.add_argument("--country", default="unknown", help="the maker's country, ISO 3166-1 alpha-2")
    add.add_argument("--alias", action="append", default=[], help="another name; may be repeated")
    verify = under.add("verify", "read every byte again and compare with what was registered", _verify)
    verify.add_argument("name", nargs="?", help="default: all of them")
    rm = under.add("rm", "remove an installed model", _rm)
    rm.add_argument("name")
    model_papers.extend(under)


def _ls(args: argparse.Namespace, out: Out) -> int:
    found = store.installed(home_of(args).models)
    rows = [
        (
            m.name + (" (test model)" if m.test_model else ""), ", ".join(one.tags) or "-", m.kind,
            size(one.file_bytes), m.quantisation, m.context_tokens or "-", m.licence, m.origin.maker,
            m.digest[:19],
        )
        for one in found
        for m in (one.manifest,)
    ]  # fmt: skip
    header = ("MODEL", "TAGS", "KIND", "SIZE", "QUANTISATION", "CONTEXT", "LICENCE", "MAKER", "DIGEST")
    value = [as_mapping(one.manifest) | {"tags": one.tags, "bytes": one.file_bytes} for one in found]
    out.result({"models": value}, table(header, rows))
    if not found:
        out.say("no models installed: allod run names those that fit this machine")
    return 0


def _show(args: argparse.Namespace, out: Out) -> int:
    folder, m = store.find(home_of(args).models, args.name)
    lines = fields(
        [
            ("model", m.name),
            ("aliases", ", ".join(m.aliases)),
            ("kind", m.kind),
            ("test model", "yes: it shows that things work, not what models can do" if m.test_model else ""),
            ("format", f"{m.format}, {m.quantisation}"),
            ("context", f"{m.context_tokens} tokens" if m.context_tokens else "unknown"),
            ("licence", m.licence),
            ("maker", f"{m.origin.maker} ({m.origin.country})"),
            ("source", m.origin.source),
            ("digest", m.digest),
            ("folder", folder),
        ]
    )
    lines += [f"file  {name}  {digest}" for name, digest in sorted(m.files.items())]
    out.result(m, [*lines, *(["", m.card] if m.card else [])])
    return 0


def _add(args: argparse.Namespace, out: Out) -> int:
    home = home_of(args)
    name = args.name or args.file.stem.lower().replace(" ", "-")
    if args.file.is_file():
        out.say(f"reading {args.file} …")
    origin = Origin(maker=args.maker, country=args.country, source=f"file {args.file.name}")
    manifest = store.add_gguf(
        args.file, name, home.models,
        kind=args.kind, licence=args.licence, origin=origin, aliases=tuple(args.alias),
    )  # fmt: skip
    out.result(manifest, [f"{manifest.name}  {manifest.digest}"])
    engine = "embeddings" if manifest.kind == "embed" else "llm"
    out.say(f'next: serve it, in {home.config_file}:\n\n[[service]]\nmodel = "{name}"\nengine = "{engine}"\n')
    return 0


def _verify(args: argparse.Namespace, out: Out) -> int:
    models = home_of(args).models
    chosen = [store.look_up(models, args.name)] if args.name else store.installed(models)
    verified = [store.verify(one.folder) for one in chosen]
    value = {"verified": [{"name": m.name, "digest": m.digest} for m in verified]}
    out.result(value, [f"{out.mark(True)}{m.name}  {m.digest}" for m in verified])
    if not verified:
        out.say("no models installed")
    return 0


def _rm(args: argparse.Namespace, out: Out) -> int:
    models = home_of(args).models
    one = store.look_up(models, args.name)
    freed = one.file_bytes
    store.remove(models, one)
    name = one.manifest.name
    out.result({"removed": name, "bytes": freed}, [f"removed {name}, {size(freed)}"])
    return 0
