"""Small homes whose models, rules and sites go into bundles; and bundles made without any check."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from pathlib import Path

from allod import digest
from allod.cli.init import lay_out
from allod.config import Home
from allod.models import store
from allod.models.bundle import signature
from allod.models.bundle.container import END, header, padding
from allod.models.bundle.contents import Contents, Item, Wanted, collect
from allod.models.bundle.create import create
from allod.models.bundle.manifest import File, Kind, Manifest, Model
from allod.models.bundle.places import Places
from allod.models.manifest import ModelManifest, files_digest
from allod.models.papers import sealing
from allod.models.trust import KEY_NAME

CREATED = "2026-01-31T12:00:00Z"
SITE = (
    'catalogue = "mistral"\n[provider]\nkey = "env:A_KEY"\n'
    '[provider.models."far-ocr"]\nkind = "ocr"\n'
)  # fmt: skip


def gguf(floats: int = 8, *, licence: str = "Apache-2.0") -> bytes:
    """A whole GGUF file with one float32 tensor."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 3)
    head += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    head += text("llama.context_length") + struct.pack("<II", 4, 2048)
    head += text("general.license") + struct.pack("<I", 8) + text(licence)
    head += text("t") + struct.pack("<IQIQ", 1, floats, 0, 0)
    head += b"\0" * (-len(head) % 32)
    return head + b"\1" * (4 * floats)


def new_home(folder: Path) -> Home:
    home = Home(folder)
    lay_out(home)
    return home


def add_model(home: Home, name: str, files: dict[str, bytes], *, licence: str = "Apache-2.0") -> Path:
    """Installs a model of these files and signs it, whatever they are; gives its folder."""
    scratch = home.root / "logs" / name
    scratch.mkdir()
    for file, data in files.items():
        (scratch / file).write_bytes(data)
    digests = {file: digest.of(data) for file, data in files.items()}
    manifest = ModelManifest(
        name=name, kind="chat", files=digests, digest=files_digest(digests), format="gguf", licence=licence
    )
    sources = {file: scratch / file for file in files}
    return store.place(home.models, manifest, sources, seal=sealing(home.keys / KEY_NAME))


def pack(
    home: Home, out: Path, wanted: Wanted, more: Iterable[Item] = (), *, created: str = CREATED
) -> Manifest:
    """As `allod bundle create`."""
    key = signature.load_key(home.keys / KEY_NAME)
    contents = collect(Places(home.root), wanted, more)
    return create(out, contents, key, origin="allod.test/a", version="0", created=created)


def item(path: str, kind: Kind, data: bytes) -> Item:
    """A member that nobody has looked at."""
    return Item(file=File(path=path, size=len(data), sha256=digest.of(data), kind=kind), data=data)


def forged(home: Home, items: Iterable[Item], models: tuple[Model, ...] = ()) -> bytes:
    """A bundle with a good signature, of whatever is given and in this order."""
    items = list(items)
    manifest = Manifest(
        version=1, created=CREATED, origin="allod.test/a", allod="0",
        signer=signature.signer_of(signature.load_key(home.keys / KEY_NAME)),
        models=models, files=tuple(i.file for i in items),
    )  # fmt: skip
    out = io.BytesIO(signature.head(manifest, signature.load_key(home.keys / KEY_NAME)))
    out.seek(0, io.SEEK_END)
    for one in items:
        data = one.source.read_bytes() if one.source else one.data
        out.write(header(one.file.path, len(data)) + data + padding(len(data)))
    out.write(END)
    return out.getvalue()


def contents(home: Home, wanted: Wanted) -> Contents:
    return collect(Places(home.root), wanted)
