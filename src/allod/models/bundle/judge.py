"""Whether what a bundle brought may be put in place: all of it is judged before any of it is.

Guarantees: a model passes only if somebody who is trusted here signed exactly its files, its papers and its
manifest, every file is what it says it is, and its licence is allowed; rules and sites pass only as the node
itself would read them. A signer who is trusted for some models brings those models and nothing else.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from allod import digest
from allod.errors import Denied, Integrity, Unprocessable
from allod.models import licence, oms, trust
from allod.models import manifest as model_manifests
from allod.models.admission import Examination
from allod.models.blobs import Blobs
from allod.models.bundle import services
from allod.models.bundle.manifest import Model
from allod.models.bundle.places import Places
from allod.models.bundle.signature import CONFIRMED, Opened
from allod.models.manifest import ALLOWED_SUFFIXES, MANIFEST_NAME, SIGNATURE_NAME, ModelManifest
from allod.models.trust import ORGANISATION, Publisher, Trust


class Checks(msgspec.Struct, frozen=True, kw_only=True):
    """How the rooms above read what is theirs; each raises what is wrong with it."""

    policy: Callable[[Path], None]  # a folder of rules with their schema
    sites: Callable[[Path], None]  # a folder of site files
    config: Callable[[str], None]  # the text of allod.toml
    allowed_licences: tuple[str, ...] = ()  # empty: every licence


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What may be put in place. `bytes` are a model's manifest, signature and papers by name."""

    models: tuple[tuple[Model, ModelManifest, dict[str, bytes]], ...]
    trust: Path  # the trust store as it will be
    config: str | None  # allod.toml as it will be; None: no services were brought


def judge(opened: Opened, places: Places, staged: Path, checks: Checks) -> Judged:
    """Raises Denied `bundle.beyond-trust`, `model.licence-not-allowed`; Integrity `model.…` as
    `oms.verify_folder`; Unprocessable `model.…` as `Examination`; and what `checks` raise."""
    manifest = opened.manifest
    _within_trust(opened)
    store = _trust(opened, places, staged)
    known = trust.load(store)
    blobs = Blobs(places.models)
    models = tuple(
        (model, *_model(model, staged / model.folder, blobs, known, checks)) for model in manifest.models
    )
    if manifest.of("policy"):
        checks.policy(staged / "policy")
    if manifest.of("site"):
        checks.sites(staged / "sites")
    config = None
    if brought := manifest.of("services"):
        text = (staged / brought[0].path).read_text(encoding="utf-8")
        config = services.put(places.config_file.read_text(encoding="utf-8"), text)
        checks.config(config)
    return Judged(models=models, trust=store, config=config)


def _within_trust(opened: Opened) -> None:
    signer = opened.signer
    if "*" in signer.models:
        return
    # Its trust store comes along with any model, and is not taken from such a signer.
    beyond = [f for f in opened.manifest.files if f.kind not in ("blob", "model", "trust")]
    if beyond:
        raise Denied(
            "bundle.beyond-trust",
            f"{signer.name} is trusted for models called {', '.join(signer.models)}, and this bundle brings"
            f" {beyond[0].path}",
            hint="ask for a bundle of models alone, or for one that somebody trusted for everything signed",
        )


# --- trust --------------------------------------------------------------------------------------------------


def _trust(opened: Opened, places: Places, staged: Path) -> Path:
    """The trust store as it is, with the signer whom a person confirmed and those whom the signer trusts."""
    made = staged / "trust.next"
    shutil.rmtree(made, ignore_errors=True)
    if places.trust.is_dir():
        shutil.copytree(places.trust, made)
    else:
        made.mkdir(mode=0o700)
    signer = opened.signer
    if signer.name == CONFIRMED:
        trust.carry_over(made, msgspec.structs.replace(signer, name=ORGANISATION))
    if "*" in signer.models:
        for publisher in trust.load(staged / "trust").publishers:
            _carry(made, publisher)
    return made


def _carry(made: Path, publisher: Publisher) -> None:
    known = next((p for p in trust.load(made).publishers if set(p.ids) & set(publisher.ids)), None)
    if known is None:
        trust.carry_over(made, publisher)
        return
    # Trust is only ever narrowed where it exists: a key that is revoked there is revoked here.
    if publisher.revoked is not None and known.revoked is None:
        trust.revoke(made, known.name, reason=publisher.reason, on=publisher.revoked)
    for one in sorted(set(publisher.revoked_certificates) - set(known.revoked_certificates)):
        trust.revoke(made, known.name, reason=publisher.reason, certificate=one)


# --- models -------------------------------------------------------------------------------------------------


def _model(
    model: Model, folder: Path, blobs: Blobs, known: Trust, checks: Checks
) -> tuple[ModelManifest, dict[str, bytes]]:
    beside = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    if SIGNATURE_NAME not in beside:
        raise Integrity("model.unsigned", f"{model.name} has no signature, so it is not served")
    said = _decoded(model, beside.get(MANIFEST_NAME, b""))
    signed = oms.verify_signature(beside[SIGNATURE_NAME], known, name=model.name)
    brought = {name: digest.of(data) for name, data in beside.items() if name != SIGNATURE_NAME}
    _same(model.name, signed, said.files | brought)
    exam = Examination()
    for name, address in sorted(said.files.items(), key=lambda f: (f[0].endswith(ALLOWED_SUFFIXES), f[0])):
        if not blobs.has(address):
            raise Integrity(
                "model.missing", f"{model.name}: {name} is neither in the bundle nor here", file=name
            )
        exam.add(name, blobs.path(address))
    findings = exam.findings()
    stated = licence.agreed(findings.licences, said.licence)
    licence.check_allowed(model.name, stated, checks.allowed_licences)
    return said, beside


def _decoded(model: Model, raw: bytes) -> ModelManifest:
    try:
        said = model_manifests.check(msgspec.json.decode(raw, type=ModelManifest))
    except msgspec.DecodeError as e:
        raise Unprocessable("model.bad-manifest", f"{model.name}/{MANIFEST_NAME}: {e}") from e
    if (said.name, said.digest) != (model.name, model.digest):
        raise Unprocessable(
            "model.bad-manifest", f"{model.folder}/{MANIFEST_NAME} is about {said.name}@{said.digest}"
        )
    return said


def _same(name: str, signed: oms.Signed, found: dict[str, str]) -> None:
    """As `oms.verify_folder`, of a folder that is not there yet."""
    for path in sorted(set(found) | set(signed.files)):
        if path not in signed.files:
            raise Integrity("model.extra-file", f"{name}: {path} came along and was not signed", file=path)
        if path not in found:
            raise Integrity("model.missing", f"{name}: {path} is not in the bundle", file=path)
        if found[path] != signed.files[path]:
            raise Integrity(
                "model.changed", f"{name}: {path} is not the file that {signed.who} signed", file=path
            )
