"""What may come in: every file of a model is opened as what it says it is, and refused otherwise.

Guarantees: only safetensors, GGUF, ONNX, tokenizer and configuration files pass; content that would run code
is refused whatever it is called; nothing a model brings is executed, but for its chat template, in
`templates`' bounds. Malformed files are refused with their own code, never a crash.
"""

from __future__ import annotations

import contextlib
import pickletools
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from allod.errors import TooLarge, Unprocessable
from allod.limits import MODEL_JSON_BYTES_MAX, MODEL_TEXT_BYTES_MAX
from allod.models import gguf_header, licence, onnx, safetensors
from allod.models.manifest import ModelKind, check_file_name

_VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "added_tokens.json",
    "tekken.json",
)  # words of any kind are keys
_RUNS = {"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD", "GLOBAL", "STACK_GLOBAL"}
_SNIFF_BYTES = 64 * 1024
_PROGRAMS = (b"\x7fELF", b"MZ", b"#!", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe")
_PRECISIONS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What the files say of the model. "unknown" and None where they do not."""

    format: str
    kind: ModelKind
    quantisation: str
    context_tokens: int | None
    licences: tuple[str, ...]  # SPDX, one for each file that names one


class Examination:
    """Takes a model's files one by one, the small ones best first: they tell most for the least bytes."""

    def __init__(self) -> None:
        self._formats: set[str] = set()
        self._gguf: gguf_header.GgufHeader | None = None
        self._config: dict[str, Any] = {}
        self._licences: list[str] = []

    def add(self, name: str, path: Path) -> None:
        """Raises Unprocessable or TooLarge, each `model.…`, if the file may not come in."""
        check_file_name(name)
        _sniff(name, path)
        suffix = Path(name).suffix
        if suffix == ".safetensors":
            safetensors.header(path)
        elif suffix == ".gguf":
            self._add_gguf(name, path)
        elif suffix == ".onnx":
            onnx.check(path)
        elif suffix == ".json":
            self._add_json(name, path)
        elif suffix == ".jinja":
            _check_template(name, _text(name, path))
        elif suffix in (".txt", ".md", ""):
            self._add_text(name, path)
        if suffix in (".safetensors", ".gguf", ".onnx"):
            self._formats.add(suffix[1:])

    @property
    def licences(self) -> tuple[str, ...]:
        """What the files seen so far say of the licence, as SPDX."""
        return tuple(dict.fromkeys(self._licences))

    def findings(self) -> Findings:
        """Raises Unprocessable `model.no-weights`, `model.mixed-formats`."""
        if len(self._formats) != 1:
            if not self._formats:
                raise Unprocessable("model.no-weights", "there are no weights of an allowed format")
            raise Unprocessable(
                "model.mixed-formats",
                f"there are weights as {' and '.join(sorted(self._formats))}",
                hint="choose one of them with --file",
            )
        text = self._config.get("text_config")
        inner = text if isinstance(text, dict) else {}
        quantisation = "unknown"
        context: object = None
        if self._gguf is not None:
            quantisation, context = self._gguf.quantisation or "unknown", self._gguf.context_tokens
        else:
            quantisation = _quantisation(self._config, inner)
            context = self._config.get("max_position_embeddings", inner.get("max_position_embeddings"))
        return Findings(
            format=next(iter(self._formats)),
            kind=self._kind(),
            quantisation=quantisation,
            context_tokens=context if isinstance(context, int) and context > 0 else None,
            licences=self.licences,
        )

    def _kind(self) -> ModelKind:
        if self._gguf is not None:
            return "embed" if self._gguf.embeds else "chat"
        names = self._config.get("architectures")
        first = str(names[0]) if isinstance(names, list) and names else ""
        return "chat" if not first or "For" in first or "LMHead" in first else "embed"

    def _add_gguf(self, name: str, path: Path) -> None:
        header = gguf_header.read(path)
        self._gguf = self._gguf or header  # of a split model, the first part has what matters
        for key, value in header.scalars.items():
            if key.startswith("tokenizer.chat_template") and isinstance(value, str):
                _check_template(f"{name}, {key}", value)
        if said := header.scalars.get("general.license"):
            self._licences.append(licence.spdx(str(said)))

    def _add_json(self, name: str, path: Path) -> None:
        if path.stat().st_size > MODEL_JSON_BYTES_MAX:
            raise TooLarge("model.file-too-large", f"{name} is larger than {MODEL_JSON_BYTES_MAX} bytes")
        try:
            value = msgspec.json.decode(path.read_bytes())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise Unprocessable("model.json-malformed", f"{name} is no JSON: {e}") from e
        if name in _VOCABULARIES or not isinstance(value, dict):
            return
        for key in _keys_that_ask_for_code(value):
            raise Unprocessable(
                "model.remote-code",
                f"{name} asks for code of its own to be run ({key})",
                hint="use a model that its engine knows by itself",
            )
        for label, template in _templates(value):
            _check_template(f"{name}{label}", template)
        if name == "config.json":
            self._config = value
            if isinstance(value.get("license"), str):
                self._licences.append(licence.spdx(value["license"]))

    def _add_text(self, name: str, path: Path) -> None:
        _text(name, path)
        if name == "README.md":
            self._licences.append(licence.of_card(path))


def _check_template(name: str, template: str) -> None:
    from allod.models import templates  # Jinja is slow to import, and most commands check no template

    templates.check(name, template)


def _sniff(name: str, path: Path) -> None:
    """Refuses what is dangerous to open, by content. A ZIP archive's end may lie behind anything, and
    PyTorch's own format is one with a pickle inside."""
    with path.open("rb") as f:
        head = f.read(_SNIFF_BYTES)
    if head.startswith(_PROGRAMS):
        raise Unprocessable("model.remote-code", f"{name} is a program, whatever it is called")
    if zipfile.is_zipfile(path) or _is_pickle(head):
        raise Unprocessable(
            "model.pickle",
            f"{name} can run code when it is opened, whatever it is called",
            hint="use the same model as safetensors, GGUF or ONNX",
        )


def _is_pickle(head: bytes) -> bool:
    """Protocol 2 and later begin with their number; older ones are text, told by what they would do."""
    if head[:1] == b"\x80" and head[1:2] and 2 <= head[1] <= 5:
        return True
    # The library raises many kinds on what is no pickle, and warns of escapes: then it is none.
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doing = False
        for opcode, _, _ in pickletools.genops(head):
            doing |= opcode.name in _RUNS
            if opcode.name == "STOP":
                return doing
    return False


def _text(name: str, path: Path) -> str:
    if path.stat().st_size > MODEL_TEXT_BYTES_MAX:
        raise TooLarge("model.file-too-large", f"{name} is larger than {MODEL_TEXT_BYTES_MAX} bytes")
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as e:
        raise Unprocessable("model.text-malformed", f"{name} is no UTF-8 text: {e}") from e


def _keys_that_ask_for_code(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if (key in ("auto_map", "custom_pipelines") and inner) or (
                key == "trust_remote_code" and inner not in (False, None)
            ):
                yield key
            else:
                yield from _keys_that_ask_for_code(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys_that_ask_for_code(inner)


def _templates(value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A configuration's chat template: one text, or several with names."""
    found = value.get("chat_template")
    if isinstance(found, str):
        yield "", found
    elif isinstance(found, dict):
        yield from ((f", {name}", text) for name, text in found.items() if isinstance(text, str))
    elif isinstance(found, list):
        for one in found:
            if isinstance(one, dict) and isinstance(one.get("template"), str):
                yield f", {one.get('name', 'unnamed')}", one["template"]


def _quantisation(config: dict[str, Any], inner: dict[str, Any]) -> str:
    done = config.get("quantization_config")
    if isinstance(done, dict):
        return str(done.get("quant_method", "unknown")).lower()
    said = config.get("torch_dtype") or config.get("dtype") or inner.get("torch_dtype") or inner.get("dtype")
    return _PRECISIONS.get(str(said), "unknown")
