"""What goes into a bundle: chosen parts of a home, each only after it was judged fit to leave it.

Guarantees: a model that its signature does not vouch for is not packed; files are taken by what they are
called, so keys, receipts, databases and logs are never even looked at; and a text in which a private key or
an API key stands is refused, whoever put it there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from allod import digest
from allod.errors import Denied, NotFound, TooLarge
from allod.limits import BUNDLE_TEXT_BYTES_MAX
from allod.models import oms, store, trust
from allod.models.blobs import Blobs
from allod.models.bundle import services
from allod.models.bundle.manifest import File, Kind, Model
from allod.models.bundle.places import Places
from allod.models.manifest import SIGNATURE_NAME
from allod.models.trust import Trust

# PEM and signed-note private keys, and keys that this software hands out.
_SECRETS = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY|PRIVATE\+KEY\+|allod_[a-z2-7]{12}_[A-Za-z0-9_-]{43}")


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One member, and where its content is: in a file, or here."""

    file: File
    source: Path | None = None
    data: bytes = b""


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """All members, each content once."""

    models: tuple[Model, ...]
    items: tuple[Item, ...]  # sorted by path


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for."""

    models: tuple[str, ...] = ()
    all_models: bool = False
    policy: bool = False
    sites: bool = False
    instructions: bool = False
    services: bool = False


def collect(places: Places, wanted: Wanted, more: Iterable[Item] = ()) -> Contents:
    """Reads manifests and texts, and every byte of the models' files.

    Raises NotFound `model.not-found`, `bundle.nothing-there`; Integrity as `oms.verify_folder` does; Denied
    `bundle.secret`; TooLarge `bundle.text-too-large`.
    """
    items: dict[str, Item] = {item.file.path: item for item in more}
    models: list[Model] = []

    def add(found: Iterable[Item]) -> None:
        items.update((item.file.path, item) for item in found)

    chosen = _chosen(places, wanted)
    known = trust.load(places.trust)
    for one in chosen:
        add(_model(places, one, known))
        models.append(_named(one))
    if chosen:
        add(_texts(places.trust, "trust", "trust", ("*.toml", "*.pem")))
    if wanted.policy:
        add(
            _some(_texts(places.policy, "policy", "policy", ("*.cedar", "schema.cedarschema")), places.policy)
        )
    if wanted.sites:
        add(_some(_texts(places.sites, "sites", "site", ("*.toml",)), places.sites))
    if wanted.instructions:
        add(_some(_instructions(places), places.instructions))
    if wanted.services:
        text = services.of(places.config_file.read_text(encoding="utf-8")).encode()
        add([text_item("config/services.toml", "services", text)])
    return Contents(
        models=tuple(sorted(models, key=lambda m: m.folder)),
        items=tuple(items[path] for path in sorted(items)),
    )


def text_item(path: str, kind: Kind, data: bytes) -> Item:
    """A small member. Raises Denied `bundle.secret`, TooLarge `bundle.text-too-large`."""
    check_text(path, data)
    return Item(file=File(path=path, size=len(data), sha256=digest.of(data), kind=kind), data=data)


def check_text(path: str, data: bytes) -> None:
    """Raises as `text_item`."""
    if len(data) > BUNDLE_TEXT_BYTES_MAX:
        raise TooLarge("bundle.text-too-large", f"{path} has {len(data)} bytes of {BUNDLE_TEXT_BYTES_MAX}")
    if _SECRETS.search(data):
        raise Denied(
            "bundle.secret",
            f"{path} holds a private key or an API key, which never travels",
            hint="take it out; sites name keys as env:NAME or file:PATH",
            path=path,
        )


def _chosen(places: Places, wanted: Wanted) -> list[store.Installed]:
    """Each once, however many names were given for it."""
    found = [one for one in store.installed(places.models) if one.tags] if wanted.all_models else []
    found += [store.look_up(places.models, name) for name in wanted.models]
    if wanted.all_models and not found:
        raise NotFound("bundle.nothing-there", "no models are installed here", hint="allod models ls")
    return list({one.folder: one for one in found}.values())


def _named(one: store.Installed) -> Model:
    """A model that no tag means gets the beginning of its digest as one."""
    address = one.manifest.digest
    return Model(name=one.manifest.name, digest=address, tags=one.tags or (address[7:19],))


def _model(places: Places, one: store.Installed, known: Trust) -> list[Item]:
    """Its files as blobs; its manifest, signature and papers as they lie in its folder."""
    manifest = one.manifest
    oms.verify_folder(one.folder, known, name=manifest.name)
    blobs, found = Blobs(places.models), []
    for name, address in manifest.files.items():
        path = f"blobs/sha256/{address.removeprefix('sha256:')}"
        source = blobs.path(address) if blobs.has(address) else one.folder / name
        file = File(path=path, size=source.stat().st_size, sha256=address, kind="blob")
        found.append(Item(file=file, source=source))
    folder = _named(one).folder
    papers = [name for name in (*oms.paths(one.folder), SIGNATURE_NAME) if name not in manifest.files]
    found += [text_item(f"{folder}/{name}", "model", (one.folder / name).read_bytes()) for name in papers]
    return found


def _texts(folder: Path, prefix: str, kind: Kind, patterns: tuple[str, ...]) -> list[Item]:
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.name[0] != "."]
    return [text_item(f"{prefix}/{path.name}", kind, path.read_bytes()) for path in paths]


def _instructions(places: Places) -> list[Item]:
    """Every version with its record; not what was in force here, which belongs to this node's receipts."""
    found = []
    for record in sorted(places.instructions.glob("*/*.json")):
        if record.parent.name == "applied":
            continue
        for path in sorted(record.parent.glob(f"{record.stem}.*")):
            if path.suffix in (".md", ".jinja", ".json"):
                name = f"instructions/{path.parent.name}/{path.name}"
                found.append(text_item(name, "instruction", path.read_bytes()))
    return found


def _some(items: list[Item], folder: Path) -> list[Item]:
    if not items:
        raise NotFound("bundle.nothing-there", f"{folder} has nothing that could be packed")
    return items
