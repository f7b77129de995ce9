"""Keys and signed notes: one spelling, nothing unsigned believed, key files closed to others."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allod.errors import Integrity, NotFound, Usage
from allod.ledger.checkpoint import Checkpoint, verify
from allod.signing import (
    COSIGNATURE,
    ED25519,
    MLDSA44,
    FileSigner,
    Note,
    VKey,
    load_or_generate,
    parse_note,
    sign_note,
    verify_note,
)

NAME = "node.example/ledger"
TEXT = Checkpoint(NAME, 3, bytes(range(32))).text()
LOG = [FileSigner.generate(NAME, ED25519), FileSigner.generate(NAME, MLDSA44)]
WITNESS = FileSigner.generate("witness.example", COSIGNATURE)
SIGNED = sign_note(TEXT, [*LOG, WITNESS], 1_700_000_000)
VKEYS = [s.vkey for s in (*LOG, WITNESS)]


def test_each_signature_type_verifies_and_is_bound_to_its_type() -> None:
    note = parse_note(SIGNED.encode())
    assert verify_note(note, VKEYS) == tuple(VKEYS)
    assert [len(s.blob) for s in note.signatures] == [64, 8 + 2420, 8 + 64]
    seed = os.urandom(32)
    plain, witness = (FileSigner("x.example", t, seed) for t in (ED25519, COSIGNATURE))
    assert plain.vkey.key_id != witness.vkey.key_id
    assert not plain.vkey.verify(TEXT, witness.sign(TEXT, 5)[8:])
    assert not witness.vkey.verify(TEXT, bytes(8) + plain.sign(TEXT, 5))


@pytest.mark.parametrize("signer", [*LOG, WITNESS])
def test_a_changed_time_or_text_does_not_verify(signer: FileSigner) -> None:
    blob = signer.sign(TEXT, 1_700_000_000)
    assert signer.vkey.verify(TEXT, blob)
    assert not signer.vkey.verify(Checkpoint(NAME, 4, bytes(range(32))).text(), blob)
    assert not signer.vkey.verify(TEXT, bytes([blob[0] ^ 1]) + blob[1:])
    assert not signer.vkey.verify(TEXT, blob[:-1])
    assert not signer.vkey.verify(TEXT, b"")
    if signer.vkey.type != ED25519:
        assert not signer.vkey.verify(b"no checkpoint\n", blob)


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(SIGNED.encode()) - 1), mask=st.integers(1, 255))
def test_no_flip_makes_another_text_trusted(at: int, mask: int) -> None:
    data = bytearray(SIGNED.encode())
    data[at] ^= mask
    try:
        note = parse_note(bytes(data))
        verify_note(note, VKEYS)
    except Integrity:
        return
    assert note.text == TEXT, "a text that nobody signed was accepted"


def test_unknown_keys_are_ignored_and_wrong_signatures_refuse_the_note() -> None:
    with pytest.raises(Integrity, match=r"note\.unsigned"):
        verify_note(SIGNED, [FileSigner.generate(NAME, ED25519).vkey])
    first = SIGNED.signatures[0]
    forged = Note(TEXT, (first._replace(blob=bytes(64)), *SIGNED.signatures[1:]))
    with pytest.raises(Integrity, match=r"note\.bad-signature"):
        verify_note(forged, VKEYS)
    with pytest.raises(Integrity, match=r"note\.unsigned"):
        verify(Note(TEXT, SIGNED.signatures[2:]).encode(), tuple(VKEYS[:2]), (WITNESS.vkey,))
    other = sign_note(Checkpoint("other.example", 3, bytes(32)).text(), LOG, 1)
    with pytest.raises(Integrity, match=r"checkpoint\.origin"):
        verify(other.encode(), tuple(VKEYS[:2]))


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"text\n",
        TEXT,
        TEXT + b"\n",
        SIGNED.encode()[:-1],
        SIGNED.encode() + b"\n",
        SIGNED.encode().replace(b"\n", b"\r\n"),
        SIGNED.encode().replace("—".encode(), b"-"),
        b"\xff" + SIGNED.encode(),
        SIGNED.encode().replace(b"node", b"no\tde"),
        TEXT + b"\n" + SIGNED.signatures[0].line().encode() * 65,
        b"x" * 300_000 + b"\n\n" + SIGNED.signatures[0].line().encode(),
    ],
)
def test_malformed_notes_are_refused(broken: bytes) -> None:
    with pytest.raises(Integrity, match=r"note\.malformed"):
        parse_note(broken)


def test_vkeys_have_one_spelling() -> None:
    for vkey in VKEYS:
        text = str(vkey)
        assert VKey.parse(text) == vkey
        name, key_id, key = text.split("+", 2)
        for wrong in (
            "",
            text + " ",
            text[:-2],
            f"{name}+{key_id.upper()}x+{key}",
            f"{name}+00000000+{key}",
            f"other+{key_id}+{key}",
        ):
            with pytest.raises(Usage, match=r"vkey\.malformed"):
                VKey.parse(wrong)


def test_key_files_are_private_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    made = load_or_generate(path, NAME, MLDSA44)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert FileSigner.load(path).vkey == made.vkey
    with pytest.raises(Usage, match=r"skey\.exists"):
        made.save(path)
    with pytest.raises(Integrity, match=r"skey\.other"):
        load_or_generate(path, "other.example", MLDSA44)
    path.chmod(0o640)
    with pytest.raises(Integrity, match=r"skey\.exposed"):
        FileSigner.load(path)
    path.chmod(0o600)
    path.write_text(path.read_text().replace(NAME, "other.example"))
    with pytest.raises(Integrity, match=r"skey\.malformed"):
        FileSigner.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(Integrity, match=r"skey\.malformed"):
        FileSigner.load(path)
    with pytest.raises(NotFound, match=r"skey\.missing"):
        FileSigner.load(tmp_path / "none")
