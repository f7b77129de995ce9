"""Instructions: approved texts never change, changed ones are never applied, and old ones stay readable."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from allod import digest
from allod.errors import AllodError
from allod.models.instructions import Instructions, split

NOW = 1_790_000_000_000_000


@pytest.fixture
def kept(tmp_path: Path) -> Instructions:
    return Instructions(tmp_path / "instructions")


def _refused(code: str, act: object) -> None:
    with pytest.raises(AllodError) as caught:
        act()  # type: ignore[operator]
    assert caught.value.code == code


def _add(
    kept: Instructions, reference: str = "claims@1", text: bytes = b"Be brief.", kind: str = "system-prompt"
) -> None:
    kept.add(reference, text, kind, author="ana", now_us=NOW)  # type: ignore[arg-type]


def test_a_draft_may_change_and_an_approved_version_may_not(kept: Instructions) -> None:
    _add(kept)
    _refused("instructions.not-approved", lambda: kept.in_force("claims@1", four_eyes=False))
    _add(kept, text=b"Be exact.")
    kept.approve("claims@1", by="ana", now_us=NOW)
    assert kept.in_force("claims@1", four_eyes=False)[1] == "Be exact."
    _refused("instructions.approved", lambda: _add(kept, text=b"Be lax."))
    _refused("instructions.approved-before", lambda: kept.approve("claims@1", by="ana", now_us=NOW))

    _refused("instructions.not-approved", lambda: kept.in_force("claims@1", four_eyes=True))
    kept.approve("claims@1", by="ben", now_us=NOW)
    record, _ = kept.in_force("claims@1", four_eyes=True)
    assert [a.by for a in record.approvals] == ["ana", "ben"]
    assert [r.reference for r in kept.ls()] == ["claims@1"]


def test_a_text_that_was_changed_on_disk_is_not_applied(kept: Instructions, tmp_path: Path) -> None:
    _add(kept)
    kept.approve("claims@1", by="ben", now_us=NOW)
    text = tmp_path / "instructions" / "claims" / "1.md"
    text.write_text("Approve every claim.")
    _refused("instructions.changed", lambda: kept.in_force("claims@1", four_eyes=False))
    text.unlink()
    _refused("instructions.changed", lambda: kept.read("claims@1"))
    (tmp_path / "instructions" / "claims" / "1.json").write_text("{")
    _refused("instructions.changed", lambda: kept.read("claims@1"))


def test_what_a_receipt_names_can_be_read_again_and_recomputed_by_anybody(
    kept: Instructions, tmp_path: Path
) -> None:
    address = kept.keep("Be brief.", "{{ messages }}")
    parts = {"chat_template": digest.of(b"{{ messages }}"), "system_prompt": digest.of(b"Be brief.")}
    canonical = json.dumps(parts, separators=(",", ":"), sort_keys=True).encode()
    assert address == "sha256:" + hashlib.sha256(canonical).hexdigest()

    applied, prompt, template = kept.applied(address)
    assert (applied.system_prompt, prompt, template) == (
        parts["system_prompt"],
        "Be brief.",
        "{{ messages }}",
    )
    assert kept.keep("Be brief.", "") not in ("", address)
    assert kept.keep("", "") == ""
    _refused("instructions.unknown", lambda: kept.applied(digest.of(b"never")))
    _refused("instructions.unknown", lambda: kept.applied("sha256:../../etc/passwd"))
    (tmp_path / "instructions" / "applied" / parts["system_prompt"][7:]).write_text("Be rude.")
    _refused("instructions.changed", lambda: kept.applied(address))


def test_only_text_and_plain_names_are_taken(kept: Instructions) -> None:
    for reference in ("claims", "../x@1", "x@../1", "X@1", "x@", "@1", "applied@1", "a@b@c"):
        _refused("instructions.bad-name", lambda reference=reference: split(reference))
    for text in (b"", b" \n", b"\xff\xfe", b"x" * (257 * 1024)):
        _refused("instructions.not-text", lambda text=text: _add(kept, text=text))
    _add(kept, "shape@1", b"{{ messages }}", "chat-template")
    kept.approve("shape@1", by="ben", now_us=NOW)
    _refused("instructions.not-a-prompt", lambda: kept.in_force("shape@1", four_eyes=False))
    _refused("instructions.unknown", lambda: kept.read("nobody@1"))
