"""No bytes in a signature or trust file do anything but be read or be refused by name."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allod.errors import Integrity, Unprocessable, Usage
from allod.models import oms_format, trust

STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "m", "digest": {"sha256": "0" * 64}}],
    "predicateType": "https://model_signing/signature/v1.0",
    "predicate": {
        "resources": [{"name": "w.gguf", "digest": "1" * 64, "algorithm": "sha256"}],
        "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
    },
}
BUNDLE = {
    "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
    "verificationMaterial": {"publicKey": {"hint": "2" * 64}, "tlogEntries": []},
    "dsseEnvelope": {
        "payload": "",
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": "AAAA", "keyid": ""}],
    },
}
DERS = st.binary(max_size=40).map(lambda b: base64.b64encode(b).decode())
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=6), st.just([]), st.just({}), DERS,
    DERS.map(lambda der: {"x509CertificateChain": {"certificates": [{"rawBytes": der}]}}),
    DERS.map(lambda der: {"certificate": {"rawBytes": der}, "tlogEntries": [{}]}),
)  # fmt: skip


def _bundle(statement: Any = STATEMENT) -> dict[str, Any]:
    built: dict[str, Any] = json.loads(json.dumps(BUNDLE))
    built["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    return built


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, inner in items for p in _places(inner, (*path, key)))] if path or items else []


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return copy


def _read(raw: bytes) -> None:
    with contextlib.suppress(Integrity):  # any other error ends the test
        said = oms_format.parse(raw)
        assert said.files is None or all(v.startswith("sha256:") for v in said.files.values())


def test_the_unchanged_form_is_read() -> None:
    said = oms_format.parse(json.dumps(_bundle()).encode())
    assert (said.method, said.files) == ("key", {"w.gguf": "sha256:" + "1" * 64})


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_one_odd_value_anywhere(data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        whole = _bundle()
        path = data.draw(st.sampled_from([p for p in _places(whole) if p]))
        _read(json.dumps(_with(whole, path, data.draw(ODD))).encode())
    else:
        path = data.draw(st.sampled_from([p for p in _places(STATEMENT) if p]))
        _read(json.dumps(_bundle(_with(STATEMENT, path, data.draw(ODD)))).encode())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    _read(raw)
    pem = b"-----BEGIN %b-----\n%b\n-----END %b-----\n"
    for kind in (b"PUBLIC KEY", b"CERTIFICATE"):
        with pytest.raises(Unprocessable, match=r"trust\.bad-pem"):
            trust.describe_pem(pem % (kind, base64.b64encode(raw), kind))
    with pytest.raises(Unprocessable, match=r"trust\.bad-pem"):
        trust.describe_pem(raw)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80))
def test_any_trust_file_is_read_or_named(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder: Path = tmp_path_factory.mktemp("trust")
    (folder / "maker.toml").write_bytes(raw)
    with pytest.raises(Usage, match=r"maker\.toml"):
        trust.load(folder)
