"""Papers: the strict outside validator takes the bill of materials, and nothing unknown is made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from allod import digest
from allod.errors import Integrity, Unprocessable
from allod.models import bom, card, lineage, papers
from allod.models.lineage import Lineage, Material, TrainingContent
from allod.models.manifest import LINEAGE_NAME, ModelManifest, Origin, files_digest
from allod.models.oms import Signed

AT = "2026-11-21T11:00:00.000Z"
FILES = {"model.safetensors": digest.of(b"weights"), "tokenizer.json": digest.of(b"{}")}
VALIDATOR = JsonStrictValidator(SchemaVersion.V1_7)


def _manifest(**changes: object) -> ModelManifest:
    fields: dict[str, object] = {
        "name": "tiny", "kind": "chat", "files": FILES, "digest": files_digest(FILES),
        "format": "safetensors",
    }  # fmt: skip
    return ModelManifest(**(fields | changes))  # type: ignore[arg-type]


FULL = Lineage(
    files=FILES,
    how="fine-tuned",
    builder="allod 0.1.0",
    who="the claims team",
    finished=AT,
    parameters={"steps": 100, "rate": 0.5},
    materials=(
        Material(
            role="base-model", name="base", uri="https://models.example/base", digest=digest.of(b"base")
        ),
        Material(role="dataset", name="letters", digest=digest.of(b"croissant"), note="Croissant 1.1"),
        Material(role="source-file", name="weights", uri="pkg:pypi/some@1"),
        Material(role="code", name="train.py", digest=digest.of(b"code")),
        Material(role="environment", name="Python 3.11"),
    ),
    training=TrainingContent(languages="fr, de", crawled="none"),
)
SIGNED = Signed(who="organisation", key_id=digest.of(b"k"), digest=digest.of(b"r"), method="key", files=FILES)


def _valid(document: dict[str, object]) -> None:
    found = VALIDATOR.validate_str(json.dumps(document))
    assert found is None, found


def test_the_strict_validator_takes_full_and_empty_papers_and_refuses_others() -> None:
    origin = Origin(maker="Maker <b>", country="FR", source="hub")
    full = _manifest(licence="Apache-2.0 OR MIT", origin=origin, card="For letters.", context_tokens=4096)
    for manifest, told, signed in (
        (full, FULL, SIGNED),
        (_manifest(), Lineage(files=FILES), None),
        (_manifest(kind="embed", licence="llama 3.1 community"), Lineage(files=FILES), None),
        (_manifest(kind="ocr", test_model=True), FULL, SIGNED),
    ):
        _valid(bom.document(manifest, told, signed, at=AT, sizes={"model.safetensors": 7}))
    broken = bom.document(full, FULL, SIGNED, at=AT, sizes={})
    broken["components"][0]["kind"] = "nobody knows this field"
    assert VALIDATOR.validate_str(json.dumps(broken)) is not None


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_no_text_of_a_maker_makes_the_bom_invalid_or_the_card_lively(a: str, b: str, c: str) -> None:
    manifest = _manifest(licence=a, origin=Origin(maker=b, source=c), card=f"{a} <script> [x](http://y) |")
    told = Lineage(files=FILES, who=b, materials=(Material(role="dataset", name=a, uri=c, note=b),))
    _valid(bom.document(manifest, told, None, at=AT, sizes={}))
    text = card.markdown(manifest, told, signature="none", chat_template="", sizes={})
    assert "<script" not in text
    assert "[x](" not in text


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        ("Apache-2.0", [{"expression": "Apache-2.0"}]),
        ("MIT OR Apache-2.0", [{"expression": "MIT OR Apache-2.0"}]),
        ("llama3.1", [{"license": {"name": "llama3.1"}}]),
        ("unknown", []),
    ],
)
def test_a_licence_is_an_spdx_expression_only_where_it_is_one(stated: str, shown: list[object]) -> None:
    assert bom.licences(stated) == shown


def test_a_lineage_survives_being_written_and_says_unknown_where_nothing_was_said() -> None:
    assert lineage.parse(lineage.statement(FULL)) == FULL
    said = json.loads(lineage.statement(Lineage(files=FILES)))
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert set(said["predicate"]["allod_trainingContent"].values()) == {"unknown"}
    assert tuple(card.TRAINING) == TrainingContent.__struct_fields__
    text = card.markdown(_manifest(), Lineage(files=FILES), signature="none", chat_template="", sizes={})
    assert text.count("unknown") > len(card.TRAINING)


def test_a_lineage_of_other_files_is_not_this_models(tmp_path: Path) -> None:
    manifest = _manifest()
    assert lineage.of(tmp_path, manifest).how == "unknown"
    lineage.write(tmp_path, FULL)
    assert lineage.of(tmp_path, manifest) == FULL
    with pytest.raises(Integrity, match=r"lineage\.other-files"):
        lineage.of(tmp_path, _manifest(files=FILES | {"tokenizer.json": digest.of(b"other")}))
    lineage.write(tmp_path, Lineage(files=FILES | {"original.pt": digest.of(b"not taken")}, how="trained"))
    assert lineage.of(tmp_path, manifest).how == "trained"
    lineage.write(tmp_path, Lineage(files={"other.safetensors": digest.of(b"x")}))
    with pytest.raises(Integrity, match=r"lineage\.other-files"):
        lineage.of(tmp_path, manifest)
    (tmp_path / LINEAGE_NAME).write_text('{"_type":"https://in-toto.io/Statement/v0.1"}')
    with pytest.raises(Unprocessable, match=r"lineage\.malformed"):
        lineage.of(tmp_path, manifest)


def test_every_form_has_a_file_name() -> None:
    assert set(papers.FORMS) == set(papers.FILE_NAMES)
