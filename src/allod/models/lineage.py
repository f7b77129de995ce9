"""Where a model comes from: an in-toto Statement with SLSA provenance, `lineage.json` beside the model.

It names the files (subjects), what went in (base model, datasets, code, environment), who made it and when,
and, where anybody has said it, the summary of training content that Art. 53(1)(d) of the AI Act asks of
providers. What nobody has said is "unknown", in the statement as in every page made from it. The model's
signature covers the statement.

Sources: in-toto Attestation Framework, Statement v1; SLSA provenance v1 (slsa.dev/provenance/v1); the
European Commission's template for the public summary of training content, 24 July 2025.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from allod import canonical, digest
from allod.errors import Integrity, Unprocessable
from allod.ledger.files import replace
from allod.limits import LINEAGE_BYTES_MAX
from allod.models.manifest import LINEAGE_NAME, ModelManifest

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
UNKNOWN = "unknown"

Role = Literal["base-model", "dataset", "code", "environment", "source-file"]


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that went in. `digest` is "sha256:<hex>" or "unknown"; for a dataset, of its Croissant
    description where it has one."""

    role: Role
    name: str
    uri: str = UNKNOWN
    digest: str = UNKNOWN
    note: str = ""


class TrainingContent(msgspec.Struct, frozen=True, kw_only=True):
    """The sections of the Commission's template, in its order."""

    provider: str = UNKNOWN
    modalities: str = UNKNOWN
    size: str = UNKNOWN
    languages: str = UNKNOWN
    latest_data: str = UNKNOWN  # when the newest training data were collected
    public_datasets: str = UNKNOWN
    licensed_datasets: str = UNKNOWN
    other_private_datasets: str = UNKNOWN
    crawled: str = UNKNOWN
    user_data: str = UNKNOWN
    synthetic: str = UNKNOWN
    other_sources: str = UNKNOWN
    rights_reservations: str = UNKNOWN  # how opt-outs from text and data mining were respected
    illegal_content: str = UNKNOWN  # what was done to remove it


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of how a model came to be."""

    files: dict[str, str]  # name -> "sha256:<hex>"
    how: str = UNKNOWN  # a URI or words for the process
    builder: str = UNKNOWN  # the program, with its version
    who: str = UNKNOWN  # the person or organisation that ran it
    finished: str = UNKNOWN  # RFC 3339, UTC
    parameters: dict[str, Any] = {}
    materials: tuple[Material, ...] = ()
    training: TrainingContent = TrainingContent()


def statement(lineage: Lineage) -> bytes:
    """The in-toto Statement, in its RFC 8785 form."""
    unknown = {UNKNOWN, ""}
    run: dict[str, Any] = {"builder": {"id": lineage.builder}}
    if lineage.finished not in unknown:
        run["metadata"] = {"finishedOn": lineage.finished}
    return canonical.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": name, "digest": {"sha256": value.removeprefix("sha256:")}}
                for name, value in sorted(lineage.files.items())
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "buildDefinition": {
                    "buildType": lineage.how,
                    "externalParameters": lineage.parameters,
                    "internalParameters": {},
                    "resolvedDependencies": [_descriptor(m) for m in lineage.materials],
                },
                "runDetails": run,
                "allod_who": lineage.who,
                "allod_trainingContent": msgspec.to_builtins(lineage.training),
            },
        }
    )


def _descriptor(material: Material) -> dict[str, Any]:
    """An in-toto ResourceDescriptor; it has no field for "unknown", so what is unknown is absent."""
    found: dict[str, Any] = {"name": material.name, "annotations": {"role": material.role}}
    if material.uri != UNKNOWN:
        found["uri"] = material.uri
    if material.digest != UNKNOWN:
        found["digest"] = {"sha256": material.digest.removeprefix("sha256:")}
    if material.note:
        found["annotations"]["note"] = material.note
    return found


# --- reading ------------------------------------------------------------------------------------------------


class _Descriptor(msgspec.Struct, frozen=True, kw_only=True):
    name: str = UNKNOWN
    uri: str = UNKNOWN
    digest: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Definition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    build_type: str = UNKNOWN
    external_parameters: dict[str, Any] = {}
    resolved_dependencies: tuple[_Descriptor, ...] = ()


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    builder: dict[str, Any] = {}
    metadata: dict[str, Any] = {}


class _Predicate(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    build_definition: _Definition = _Definition()
    run_details: _Run = _Run()
    who: str = msgspec.field(name="allod_who", default=UNKNOWN)
    training: TrainingContent = msgspec.field(name="allod_trainingContent", default=TrainingContent())


class _Statement(msgspec.Struct, frozen=True, kw_only=True):
    type_: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: tuple[_Descriptor, ...]
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = msgspec.field(name="predicateType")
    predicate: _Predicate


def parse(raw: bytes) -> Lineage:
    """Reads a statement, also one that another builder wrote. Raises Unprocessable `lineage.malformed`."""
    try:
        said = msgspec.json.decode(raw, type=_Statement)
    except (msgspec.DecodeError, RecursionError) as e:
        raise Unprocessable(
            "lineage.malformed", f"{LINEAGE_NAME} is no in-toto statement of provenance: {e}"
        ) from e
    definition, run = said.predicate.build_definition, said.predicate.run_details
    return Lineage(
        files={s.name: _sha256(s) for s in said.subject},
        how=definition.build_type,
        builder=str(run.builder.get("id", UNKNOWN)),
        who=said.predicate.who,
        finished=str(run.metadata.get("finishedOn", UNKNOWN)),
        parameters=definition.external_parameters,
        materials=tuple(_material(d) for d in definition.resolved_dependencies),
        training=said.predicate.training,
    )


def _material(said: _Descriptor) -> Material:
    role = said.annotations.get("role")
    try:
        known = msgspec.convert(role, Role)
    except msgspec.ValidationError:
        known = "source-file"
    return Material(
        role=known, name=said.name, uri=said.uri, digest=_sha256(said), note=said.annotations.get("note", "")
    )


def _sha256(said: _Descriptor) -> str:
    value = said.digest.get("sha256")
    return f"sha256:{value}" if value else UNKNOWN


# --- in a model's folder ------------------------------------------------------------------------------------


def write(folder: Path, lineage: Lineage) -> Path:
    """Puts the statement beside the model; to be signed afterwards."""
    path = folder / LINEAGE_NAME
    replace(path, statement(lineage) + b"\n")
    return path


def of(folder: Path, manifest: ModelManifest) -> Lineage:
    """What is known of the model in `folder`: its statement, else no more than its manifest says.

    Raises Unprocessable `lineage.malformed`; Integrity `lineage.other-files` where the statement is about
    other files than the manifest. It may be about more of them: not all that a maker made has to be here.
    """
    try:
        with (folder / LINEAGE_NAME).open("rb") as f:
            raw = f.read(LINEAGE_BYTES_MAX + 1)
    except FileNotFoundError:
        source = Material(role="source-file", name=manifest.origin.source, note="as it was admitted")
        return Lineage(files=manifest.files, materials=(source,))
    if len(raw) > LINEAGE_BYTES_MAX:
        raise Unprocessable("lineage.malformed", f"{manifest.name}: {LINEAGE_NAME} is unreasonably large")
    found = parse(raw)
    here = found.files.keys() & manifest.files.keys()
    differing = sorted(name for name in here if found.files[name] != manifest.files[name])
    if differing or not here:
        raise Integrity(
            "lineage.other-files",
            f"{manifest.name}: {LINEAGE_NAME} is about another {differing[0] if differing else 'model'}",
            hint="fetch the model again from a source you trust",
        )
    return found


def is_stated(folder: Path) -> bool:
    """Whether somebody wrote down how the model in `folder` was made."""
    return (folder / LINEAGE_NAME).is_file()


def code(path: Path, name: str, *, note: str = "") -> Material:
    """A file of code that took part, by its content."""
    return Material(role="code", name=name, digest=digest.of_file(path), note=note)
