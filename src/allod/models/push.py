"""Gives a model away: to an OCI registry or an image layout, with its papers.

Guarantees: what is pushed was verified just before; nothing is sent that the other side has.
"""

from __future__ import annotations

from pathlib import Path

from allod import digest
from allod.errors import Usage
from allod.models import store
from allod.models.sources import Access
from allod.models.sources.artefact import manifest_of


def push(models: Path, one: store.Installed, target: str, access: Access | None = None) -> str:
    """Pushes a model and what lies beside it; gives the digest of the OCI manifest.

    `target` is oci:HOST/REPO:TAG or oci-layout:FOLDER:TAG. Raises Usage `source.unknown`, Integrity as
    `store.verify`, and what the other side raises.
    """
    scheme, _, rest = target.partition(":")
    if scheme not in ("oci", "oci-layout") or not rest:
        raise Usage(
            "source.unknown",
            f"{target!r} is nowhere a model can be pushed",
            hint="oci:HOST/REPO:TAG or oci-layout:FOLDER:TAG",
        )
    with store.in_use(models):
        manifest = store.verify(one.folder)
        names = [*manifest.files, *(n for n in store.BESIDE if (one.folder / n).is_file())]
        files = {name: one.folder / name for name in names}
        sizes = {name: path.stat().st_size for name, path in files.items()}
        digests = {name: manifest.files.get(name) or digest.of_file(path) for name, path in files.items()}
        artefact = manifest_of(manifest, sizes, digests)
        if scheme == "oci":
            from allod.models.sources.registry import RegistrySource

            return RegistrySource(rest, access or Access()).push(artefact, files)
        from allod.models.sources.layout import Layout

        return Layout(rest).push(artefact, files)
