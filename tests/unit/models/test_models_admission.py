"""What may come in, and what is refused with which code."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from model_files import CARD, TEMPLATE, gguf
from model_files import safetensors as tensors

from allod.errors import AllodError, Denied, Usage
from allod.models import licence, onnx, templates
from allod.models.admission import Examination, Findings
from allod.models.safetensors import header


def examine(folder: Path, **files: bytes) -> Findings:
    """Writes the files and lets them be examined; "__" stands for a dot."""
    exam = Examination()
    for name, raw in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(raw)
        exam.add(path.name, path)
    return exam.findings()


def refusal(folder: Path, **files: bytes) -> str:
    with pytest.raises(AllodError) as e:
        examine(folder, **files)
    assert e.value.message
    return e.value.code


def test_an_honest_model_passes_and_says_what_it_is(tmp_path: Path) -> None:
    config = {"architectures": ["BertModel"], "max_position_embeddings": 512, "torch_dtype": "float16"}
    found = examine(
        tmp_path,
        config__json=json.dumps(config).encode(),
        README__md=CARD.encode(),
        model__safetensors=tensors(),
    )
    assert found == Findings(
        format="safetensors", kind="embed", quantisation="f16", context_tokens=512, licences=("Apache-2.0",)
    )
    found = examine(tmp_path, m__gguf=gguf(general__license="mit", tokenizer__chat_template=TEMPLATE))
    assert (found.kind, found.quantisation, found.context_tokens) == ("chat", "q8_0", 2048)
    assert found.licences == ("MIT",)


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("ran",))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "name", ["model__safetensors", "vocab__txt", "README__md", "LICENSE", "config__json"]
)
def test_a_pickle_is_known_whatever_it_is_called(
    tmp_path: Path, protocol: int, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = pickle.dumps(_Bomb(), protocol=protocol)
    assert refusal(tmp_path, **{name: raw}) == "model.pickle"
    assert "ran" not in capsys.readouterr().out


def test_a_pickle_behind_honest_weights_is_known(tmp_path: Path) -> None:
    """PyTorch reads an archive from its end: one file would be tensors to one reader, code to another."""
    for name, raw in (("a.safetensors", tensors()), ("a.gguf", gguf())):
        path = tmp_path / name
        path.write_bytes(raw)
        with zipfile.ZipFile(path, "a") as z:
            z.writestr("archive/data.pkl", pickle.dumps(_Bomb()))
        with pytest.raises(AllodError) as e:
            Examination().add(name, path)
        assert e.value.code == "model.pickle"


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"modeling__py": b"print()"}, "model.remote-code"),
        ({"vocab__txt": b"#!/bin/sh\n"}, "model.remote-code"),
        ({"tokenizer__model": b"\x7fELF\x02\x01"}, "model.remote-code"),
        ({"pytorch_model__bin": b""}, "model.pickle"),
        ({"MODEL__PT": b""}, "model.pickle"),
        ({"config__json": b'{"auto_map": {"AutoModel": "modeling.M"}}'}, "model.remote-code"),
        ({"config__json": b'{"text": [{"trust_remote_code": true}]}'}, "model.remote-code"),
        ({"config__json": b'{"a": '}, "model.json-malformed"),
        ({"config__json": b"[" * 100_000}, "model.json-malformed"),
        ({"README__md": b"\xff\xfe"}, "model.text-malformed"),
        ({"notes__html": b""}, "model.format"),
        ({"model__sig": b""}, "model.bad-file-name"),
        ({"README__md": b"# nothing else"}, "model.no-weights"),
        ({"a__gguf": gguf(), "a__safetensors": tensors()}, "model.mixed-formats"),
        ({"a__gguf": b"GGML" + gguf()[4:]}, "model.gguf-malformed"),
        ({"a__onnx": b""}, "model.onnx-malformed"),
        ({"a__safetensors": struct.pack("<Q", 1 << 40)}, "model.safetensors-malformed"),
        ({"a__safetensors": tensors() + b"x"}, "model.safetensors-malformed"),
    ],
)
def test_each_refusal_has_its_own_code(tmp_path: Path, files: dict[str, bytes], code: str) -> None:
    assert refusal(tmp_path, **files) == code


@pytest.mark.parametrize("name", ["a.safetensors", "a.gguf"])
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("wb") as f:
        if name.endswith("gguf"):
            f.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k")
            f.write(struct.pack("<IIQ", 9, 0, 300 << 20))  # an array of 300 MiB
        else:
            f.write(struct.pack("<Q", 200 << 20))
        f.truncate(1 << 30)  # sparse: the file is that long
    with pytest.raises(AllodError) as e:
        Examination().add(name, path)
    assert e.value.code == "model.header-too-large"


def test_a_vocabulary_may_have_any_words(tmp_path: Path) -> None:
    words = b'{"auto_map": 1, "trust_remote_code": 2}'
    examine(tmp_path, vocab__json=words, tokenizer__json=words, m__gguf=gguf())


# --- chat templates -----------------------------------------------------------------------------------------

_LOOP = "{% for a in range(99999) %}"
_NEVER = "{% if messages | length > 99 %}{{ X }}{% endif %}ok"


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ("{{ ''.__class__.__mro__ }}", "model.template-unsafe"),
        ("{{ messages['__class__'] }}", "model.template-unsafe"),
        ("{{ messages | attr('__class__') }}", "model.template-unsafe"),
        ("{{ messages | attr('__cla' ~ 'ss__') }}", "model.template-unsafe"),
        ("{{ messages | map(attribute='__class__') | list }}", "model.template-unsafe"),
        ("{{ messages | map(attribute='role.__class__') | list }}", "model.template-unsafe"),
        ("{{ messages | selectattr('__class__') | list }}", "model.template-unsafe"),
        ("{{ messages['__cla' ~ 'ss__'] }}ok", "model.template-unsafe"),
        ("{{ '{0.__class__}'.format(messages) }}", "model.template-unsafe"),
        ("{{ messages.append(1) }}", "model.template-unsafe"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "model.template-unsafe"),
        (_NEVER.replace("X", "''.__class__"), "model.template-unsafe"),
        ("{% include '/etc/passwd' %}", "model.template-unsafe"),
        ("{% import 'os' as os %}", "model.template-unsafe"),
        (_LOOP * 2 + "{% endfor %}" * 2, "model.template-endless"),
        ("{{ 'a' * 99999999999 }}", "model.template-endless"),
        ("{{ 9 ** (9 ** 9) }}", "model.template-endless"),
        ("{{ nothing.at.all }}", "model.template-fails"),
        ("{% for %}", "model.template-fails"),
        ("x" * 2_000_000, "model.template-too-large"),
    ],
)
def test_a_template_that_wants_more_is_refused(template: str, code: str) -> None:
    with pytest.raises(AllodError) as e:
        templates.check("tokenizer_config.json", template)
    assert e.value.code == code


@pytest.mark.parametrize(
    "template",
    [
        TEMPLATE,
        "{{ raise_exception('only with a system prompt') }}",
        "{% generation %}{{ messages[0].content.strip().split('x')[-1] }}{% endgeneration %}",
        "{% set n = namespace(a=0) %}{% for m in messages %}{% set n.a = 1 %}{% continue %}{% endfor %}",
        "{{ strftime_now('%Y') }}{{ tools | tojson(indent=4) if tools }}",
        "{{ messages | map(attribute='role') | list }}",
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    ],
)
def test_what_makers_write_passes(template: str) -> None:
    templates.check("chat_template.jinja", template)


# --- licences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "spdx"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("MIT", "MIT"),
        ("gpl-3.0", "GPL-3.0-only"),
        ("Apache-2.0 OR mit", "Apache-2.0 OR MIT"),
        ("Llama 3.1 Community", "LicenseRef-Llama-3.1-Community"),
        ("", "unknown"),
        ("none", "unknown"),
    ],
)
def test_licences_are_named_as_spdx_does(said: str, spdx: str) -> None:
    assert licence.spdx(said) == spdx


@pytest.mark.parametrize(
    ("front", "spdx"),
    [
        ("license: apache-2.0", "Apache-2.0"),
        ("license: other\nlicense_name: mrl\nlicense_link: LICENSE", "LicenseRef-mrl"),
        ("license:\n- mit\n- apache-2.0", "MIT OR Apache-2.0"),
        ("language: en", "unknown"),
    ],
)
def test_a_card_says_its_licence_in_its_front_matter(tmp_path: Path, front: str, spdx: str) -> None:
    card = tmp_path / "README.md"
    card.write_text(f"---\n{front}\n---\nlicense: mit\n")
    assert licence.of_card(card) == spdx


def test_an_organisation_allows_what_it_names() -> None:
    licence.check_allowed("m", "unknown", ())
    licence.check_allowed("m", "GPL-3.0-only OR MIT", ("MIT",))
    for not_allowed in ("unknown", "CC-BY-NC-4.0", "MIT AND CC-BY-NC-4.0", "LicenseRef-MIT"):
        with pytest.raises(Denied) as e:
            licence.check_allowed("m", not_allowed, ("MIT", "Apache-2.0"))
        assert e.value.code == "model.licence-not-allowed"


def test_a_person_cannot_overrule_what_the_files_say() -> None:
    assert licence.agreed(["unknown", "LicenseRef-other"], "mit") == "MIT"
    assert licence.agreed(["Apache-2.0"], "unknown") == "Apache-2.0"
    with pytest.raises(Usage) as e:
        licence.agreed(["CC-BY-NC-4.0"], "MIT")
    assert e.value.code == "model.licence-conflict"


# --- formats, with those who made them as judges ------------------------------------------------------------


def test_what_the_safetensors_library_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    arrays = {"a": np.ones((3, 4), np.float16), "b": np.zeros(0, np.float32), "c": np.arange(5)}
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})
    found = header(path)
    assert {name: e.shape for name, e in found.tensors.items()} == {"a": (3, 4), "b": (0,), "c": (5,)}


def _field(number: int, raw: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(raw)) + raw


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def test_onnx_is_walked_and_may_not_point_outside(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    tensor = _field(8, b"w") + _field(9, b"\0" * 8)
    path.write_bytes(b"\x08\x08" + _field(7, _field(5, tensor)))
    onnx.check(path)
    outside = tensor + _field(13, _field(1, b"location") + _field(2, b"../../etc/passwd"))
    nested = _field(7, _field(1, _field(5, _field(6, _field(5, outside)))))
    for graph in (_field(7, _field(5, outside)), nested):
        path.write_bytes(b"\x08\x08" + graph)
        with pytest.raises(AllodError) as e:
            onnx.check(path)
        assert e.value.code == "model.onnx-external"
