"""`allod models`: what is installed in a home, what comes in, and what goes. Works without a node."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any, get_args

from allod import config
from allod.cli import model_papers, serving
from allod.cli.output import Out, as_mapping, fields, size, table
from allod.cli.parser import Parser, Verbs, home_of
from allod.cli.progress import Bar
from allod.config import Config, Home
from allod.errors import NotFound
from allod.models import keep, oms, papers, pull, push, sources, store, trust
from allod.models.blobs import Blobs
from allod.models.keep import Use
from allod.models.manifest import ModelKind
from allod.models.pull import Pulled, Rules, Wanted
from allod.models.reference import LATEST
from allod.models.sources import Access, Source

_DAY_US = 86_400_000_000
_FROM = "hf:ORG/REPO[@REVISION], oci:HOST/REPO:TAG, oci-layout:FOLDER:TAG, a folder or a file"


def register(verbs: Verbs) -> None:
    under = verbs.group("models", "models on this machine: pull, add, list, show, verify, push, remove")
    under.add("ls", "list the installed models", _ls)
    show = under.add("show", "what is known of a model", _show)
    show.add_argument("name", help="NAME, NAME:TAG or NAME@DIGEST")
    fetch = under.add("pull", "fetch a model, check it, sign it and install it", _pull)
    fetch.add_argument("source", help=_FROM)
    fetch.add_argument(
        "--file", action="append", default=[], metavar="PATTERN",
        help="which weights, where a repository has several, like '*q4_k_m.gguf'; may be repeated",
    )  # fmt: skip
    fetch.add_argument("--hub", default="", metavar="URL", help="the hub (default: the configured one)")
    _token(fetch)
    _described(fetch)
    add = under.add("add", "install a model that is on this machine", _add)
    add.add_argument("file", type=Path, help="a GGUF file, or a folder with safetensors or ONNX files")
    _described(add)
    give = under.add("push", "give a model away, with its papers", _push)
    give.add_argument("name")
    give.add_argument("target", help="oci:HOST/REPO:TAG or oci-layout:FOLDER:TAG")
    _token(give)
    verify = under.add("verify", "read every byte again and compare with what was registered", _verify)
    verify.add_argument("name", nargs="?", help="default: all of them")
    rm = under.add("rm", "remove a model, or one of its tags", _rm)
    rm.add_argument("name", help="NAME, NAME:TAG or NAME@DIGEST")
    under.add("prune", "remove what no tag means, and what was begun and left", _prune)
    under.add("du", "what the models take on the disk", _du)
    model_papers.extend(under)


def _token(parser: Parser) -> None:
    parser.add_argument(
        "--token", default="", metavar="REF", help="env:NAME or file:PATH; oci: user:password"
    )


def _described(parser: Parser) -> None:
    """What a person says about a model that comes in."""
    parser.add_argument(
        "--name", default="", help="what it is called here (default: what it is called there)"
    )
    parser.add_argument("--tag", default=LATEST, help=f"default: {LATEST}")
    parser.add_argument("--kind", choices=get_args(ModelKind), help="default: what the files say")
    parser.add_argument("--licence", default="unknown", help="SPDX identifier (default: what the files say)")
    parser.add_argument("--maker", default="unknown", help="who made it")
    parser.add_argument("--country", default="unknown", help="the maker's country, ISO 3166-1 alpha-2")
    parser.add_argument("--alias", action="append", default=[], help="another name; may be repeated")
    parser.add_argument("--replace", action="store_true", help="let the tag mean this model from now on")
    parser.add_argument(
        "--serve", action="store_true", help="add it to the configuration, and reload the node"
    )


# --- looking ------------------------------------------------------------------------------------------------


def _ls(args: argparse.Namespace, out: Out) -> int:
    models = home_of(args).models
    found = store.installed(models)
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
    one = store.look_up(home_of(args).models, args.name)
    m = one.manifest
    lines = fields(
        [
            ("model", m.name),
            ("tags", ", ".join(one.tags)),
            ("aliases", ", ".join(m.aliases)),
            ("kind", m.kind),
            ("test model", "yes: it shows that things work, not what models can do" if m.test_model else ""),
            ("format", f"{m.format}, {m.quantisation}"),
            ("context", f"{m.context_tokens} tokens" if m.context_tokens else "unknown"),
            ("size", size(one.file_bytes)),
            ("licence", m.licence),
            ("maker", f"{m.origin.maker} ({m.origin.country})"),
            ("source", m.origin.source),
            ("digest", m.digest),
            ("folder", one.folder),
        ]
    )
    lines += [f"file  {name}  {digest}" for name, digest in sorted(m.files.items())]
    out.result(as_mapping(m) | {"tags": one.tags}, [*lines, *(["", m.card] if m.card else [])])
    return 0


def _du(args: argparse.Namespace, out: Out) -> int:
    models = home_of(args).models
    found = store.installed(models)
    owners: dict[str, int] = {}
    for one in found:
        for address in set(one.manifest.files.values()):
            owners[address] = owners.get(address, 0) + 1
    sizes = dict(Blobs(models).all())
    rows: list[dict[str, Any]] = []
    for one in found:
        mine = set(one.manifest.files.values())
        alone = sum(sizes.get(address, 0) for address in mine if owners[address] == 1)
        tags = ", ".join(one.tags) or "-"
        rows.append({"model": one.manifest.name, "tags": tags, "bytes": one.file_bytes, "alone": alone})
    partial = keep.disk_bytes((models / "partial").rglob("*"))
    unused = sum(count for address, count in sizes.items() if address not in owners)
    free = shutil.disk_usage(next(p for p in (models, *models.parents) if p.exists())).free
    total = {"stored": sum(sizes.values()), "unused": unused, "partial": partial, "free": free}
    lines = table(
        ("MODEL", "TAGS", "SIZE", "NOT SHARED"),
        [(r["model"], r["tags"], size(r["bytes"]), size(r["alone"])) for r in rows],
    )
    words = {"stored": "on the disk", "unused": "of no model", "partial": "not finished", "free": "free"}
    lines += [*([""] if lines else []), *fields([(words[key], size(count)) for key, count in total.items()])]
    out.result({"models": rows, **total}, lines)
    if unused or partial:
        out.say("next: allod models prune")
    return 0


def _verify(args: argparse.Namespace, out: Out) -> int:
    home = home_of(args)
    known = trust.load(home.trust)
    chosen = [store.look_up(home.models, args.name)] if args.name else store.installed(home.models)
    rows = []
    for one in chosen:
        manifest = store.verify(one.folder)
        signed = papers.gate(one.folder, manifest, known)
        rows.append({"name": manifest.name, "digest": manifest.digest, "signed_by": signed.who})
    lines = [f"{out.mark(True)}{r['name']}  {r['digest']}  signed by {r['signed_by']}" for r in rows]
    out.result({"verified": rows}, lines)
    if not rows:
        out.say("no models installed")
    return 0


# --- coming in ----------------------------------------------------------------------------------------------


def _pull(args: argparse.Namespace, out: Out) -> int:
    home = home_of(args)
    loaded = config.load(home)
    token = args.token or (loaded.models.hub_token if args.source.startswith("hf:") else "")
    source = sources.open_source(args.source, Access(token=token, endpoint=args.hub or loaded.models.hub))
    return _admit(source, home, loaded, args, out)


def _add(args: argparse.Namespace, out: Out) -> int:
    home = home_of(args)
    if not args.file.exists():
        raise NotFound("model.file-not-found", f"there is no file or folder {args.file}")
    args.file = args.file.absolute()
    return _admit(sources.open_source(str(args.file)), home, config.load(home), args, out)


def _admit(source: Source, home: Home, loaded: Config, args: argparse.Namespace, out: Out) -> int:
    wanted = Wanted(
        name=args.name,
        tag=args.tag,
        files=tuple(getattr(args, "file", ())) if args.act is _pull else (),
        kind=args.kind,
        licence=args.licence,
        maker=args.maker,
        country=args.country,
        aliases=tuple(args.alias),
        replace=args.replace,
    )
    with Bar(shown=not out.as_json) as bar:
        done = pull.pull(home.models, source, wanted, _rules(home, loaded), bar)
        seconds = bar.seconds
    served = serving.serve(home, done.manifest, done.tag) if args.serve else None
    _tell(done, seconds, served, home, out)
    return 0


def _rules(home: Home, loaded: Config) -> Rules:
    """What this organisation demands of a model, and the key that signs what it admits."""
    known = trust.load(home.trust)
    return Rules(
        allowed_licences=loaded.models.allowed_licences,
        publisher=lambda raw, name: oms.verify_signature(raw, known, name=name).files,
        seal=papers.sealing(trust.organisation_key(home.keys)),
    )


def _tell(done: Pulled, seconds: float, served: serving.Served | None, home: Home, out: Out) -> None:
    m = done.manifest
    value = as_mapping(m) | {
        "tag": done.tag, "origin": done.origin, "moved": done.moved, "here": done.here,
        "left_out": done.left_out, "served": served is not None,
        "reloaded": served.version if served else None,
    }  # fmt: skip
    out.result(value, [f"{m.name}:{done.tag}  {m.digest}"])
    moved = f"{size(done.moved)} in {seconds:.0f} s" if done.moved else "nothing had to be moved"
    out.say(f"from {done.origin}: {moved}; licence {m.licence}; signed with this organisation's key")
    for name, why in done.left_out.items():
        out.say(f"  left out {name}: {why}")
    if served:
        out.say(served.said)
    elif block := serving.block(m, done.tag):
        out.say(f"next: serve it with --serve, or in {home.config_file}:\n\n{block}")


# --- going --------------------------------------------------------------------------------------------------


def _push(args: argparse.Namespace, out: Out) -> int:
    models = home_of(args).models
    one = store.look_up(models, args.name)
    digest = push.push(models, one, args.target, Access(token=args.token))
    value = {"pushed": one.manifest.name, "target": args.target, "manifest": digest}
    out.result(value, [f"{args.target}  {digest}"])
    return 0


def _rm(args: argparse.Namespace, out: Out) -> int:
    home = home_of(args)
    freed = keep.remove(home.models, args.name, _use(home))
    out.result({"removed": args.name, "bytes": freed}, [f"removed {args.name}, {size(freed)}"])
    return 0


def _prune(args: argparse.Namespace, out: Out) -> int:
    home = home_of(args)
    pruned = keep.prune(home.models, _use(home))
    lines = [f"removed {name}" for name in pruned.models]
    out.result(pruned, [*lines, f"freed {size(pruned.freed)}"])
    return 0


def _use(home: Home) -> Use:
    """What this home's configuration needs."""
    loaded = config.load(home)
    return Use(
        services=serving.served(loaded),
        ledger=home.ledger,
        since_us=time.time_ns() // 1000 - loaded.models.receipts_days * _DAY_US,
    )
