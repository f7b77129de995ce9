"""Which models have to stay, and what may go: the store's garbage collection.

Guarantees: nothing goes that a configured service would serve, or that a receipt younger than the retention
period names; nothing goes while somebody is adding a model; what may be gone on with stays for a day.

The ledger itself says which models receipts name, so the answer holds without a running node and whatever
was forgotten elsewhere. It is read backwards from its head, as far as the period reaches.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from allod.errors import Denied, NotFound
from allod.ledger.checkpoint import Checkpoint
from allod.ledger.store import CHECKPOINT, Store
from allod.ledger.tile import ENTRIES, WIDTH, Tile
from allod.limits import MODEL_PARTIAL_KEPT_S
from allod.models import reference, store
from allod.models.blobs import Blobs

_LATE_US = 3_600_000_000  # receipts are in the order of their ends, but for those of a long exchange


class _Leaf(msgspec.Struct):
    """What is looked at in a leaf, whatever its kind."""

    model_digest: str = ""
    ended_us: int = 0


_LEAF = msgspec.json.Decoder(_Leaf)


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What went."""

    models: tuple[str, ...]  # name@digest of models that no tag meant any more
    blobs: int
    freed: int  # bytes


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """Whose models have to stay. `services` are references as the configuration writes them; `since_us` is
    how far back receipts count, in microseconds since 1970."""

    services: tuple[str, ...]
    ledger: Path
    since_us: int


def needed(models: Path, use: Use) -> dict[str, str]:
    """Digests that have to stay, each with the reason. Raises Integrity where the ledger is damaged."""
    reasons = dict.fromkeys(named_by_receipts(use.ledger, use.since_us), "receipts that are kept name it")
    for name in use.services:
        try:
            one = store.look_up(models, name)
        except NotFound:
            continue
        reasons[one.manifest.digest] = f"the service {name} is configured to serve it"
    return reasons


def named_by_receipts(ledger: Path, since_us: int) -> set[str]:
    """Digests of the models that receipts since then name."""
    try:
        # Whose signature it bears is for verifiers; here it only says how far to read.
        size = Checkpoint.parse((ledger / CHECKPOINT).read_bytes()).size
    except FileNotFoundError:
        return set()
    found: set[str] = set()
    leaves = Store(ledger)
    for number in reversed(range(-(-size // WIDTH))):
        tile = Tile(ENTRIES, number, min(WIDTH, size - number * WIDTH))
        read = [_LEAF.decode(leaf) for leaf in leaves.leaves(tile)]
        found |= {leaf.model_digest for leaf in read if leaf.model_digest and leaf.ended_us >= since_us}
        if all(leaf.ended_us < since_us - _LATE_US for leaf in read):
            break
    return found


def remove(models: Path, name: str, use: Use) -> int:
    """Removes what `name` means: a tag, if the model has others, else the model. Gives the bytes freed.

    Raises NotFound `model.not-found`, Denied `model.needed`, NotReady `model.busy`.
    """
    with store.alone(models):
        one = store.look_up(models, name)
        wanted = reference.parse(name)
        if wanted.name in one.manifest.aliases:
            raise Denied(
                "model.alias",
                f"{name} is another name of {one.manifest.name}",
                hint=f"allod models rm {one.manifest.name}",
            )
        used = {reference.parse(service) for service in use.services}
        tag_alone = bool(wanted.tag) and len(one.tags) > 1
        why = needed(models, use).get(one.manifest.digest, "")
        if why and (not tag_alone or wanted in used):
            raise Denied("model.needed", f"{name} stays: {why}", hint="see allod models rm in docs/models.md")
        if tag_alone:
            store.untag(models, one, wanted.tag)
            return 0
        store.remove(models, one)
        return _collect(models)[1]


def prune(models: Path, use: Use) -> Pruned:
    """Removes models that no tag means, contents that no model has, and what was begun and left. Raises
    NotReady `model.busy`."""
    with store.alone(models):
        stays = needed(models, use)
        gone = []
        for one in store.installed(models):
            if not one.tags and one.manifest.digest not in stays:
                store.remove(models, one)
                gone.append(f"{one.manifest.name}@{one.manifest.digest}")
        store.tidy(models)
        count, freed = _collect(models)
        return Pruned(models=tuple(gone), blobs=count, freed=freed + _forget_partials(models))


def _collect(models: Path) -> tuple[int, int]:
    """Removes contents that no model has; how many, and how many bytes."""
    blobs = Blobs(models)
    kept = {address for one in store.installed(models) for address in one.manifest.files.values()}
    count = freed = 0
    for address, size in list(blobs.all()):
        if address not in kept:
            blobs.path(address).unlink()
            count, freed = count + 1, freed + size
    return count, freed


def _forget_partials(models: Path) -> int:
    freed = 0
    for path in Blobs(models).abandoned():
        if path.is_file():  # a copy that was not finished; a fetch has a folder, and can be gone on with
            freed += path.stat().st_size
            path.unlink()
        elif time.time() - path.stat().st_mtime > MODEL_PARTIAL_KEPT_S:
            freed += disk_bytes(path.iterdir())
            shutil.rmtree(path)
    return freed


def disk_bytes(paths: Iterable[Path]) -> int:
    """Bytes that files take on the disk, holes not counted."""
    return sum(path.stat().st_blocks * 512 for path in paths if path.is_file())
