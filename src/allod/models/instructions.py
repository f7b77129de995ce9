"""Instructions as versioned artefacts: what a model is told before anybody asks it something.

`<home>/instructions/NAME/VERSION.md` is a system prompt, `….jinja` a chat template; the record beside it has
its digest, author and approvals. Guarantees: a text never changes once it is approved; one whose bytes are
not those that were recorded is not used; and whatever was once in force can be read again by the digest that
receipts carry, because texts and combinations are kept by content under `applied/`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from allod import canonical, digest
from allod.clock import iso
from allod.errors import AwaitingApproval, Integrity, NotFound, Unprocessable, Usage
from allod.ledger.files import replace
from allod.limits import INSTRUCTIONS_BYTES_MAX
from allod.models import gguf_header
from allod.models.manifest import ModelManifest

Kind = Literal["system-prompt", "chat-template"]
_SUFFIXES: dict[Kind, str] = {"system-prompt": ".md", "chat-template": ".jinja"}
_PART = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_APPLIED = "applied"
_HEX = re.compile(r"sha256:[0-9a-f]{64}")


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    by: str
    at: str  # RFC 3339, UTC


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of one version."""

    name: str
    version: str
    kind: Kind
    digest: str  # of the text, "sha256:<hex>"
    author: str
    added: str  # RFC 3339, UTC
    approvals: tuple[Approval, ...] = ()

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def four_eyes(self) -> bool:
        """Whether somebody other than its author approved it."""
        return any(a.by != self.author for a in self.approvals)


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What was in force together. Its RFC 8785 form is what a receipt's `instructions` is the digest of."""

    system_prompt: str = ""  # digest of the text; empty where none was applied
    chat_template: str = ""  # digest of the model's own template; empty where it is not known

    @property
    def digest(self) -> str:
        """Empty where neither is known."""
        known = self.system_prompt or self.chat_template
        return digest.of(canonical.dumps(msgspec.to_builtins(self))) if known else ""


class Instructions:
    """The versions under one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    # --- versions -----------------------------------------------------------------------------------------

    def add(self, reference: str, text: bytes, kind: Kind, *, author: str, now_us: int) -> Record:
        """Records a new version, or a draft's new text.

        Raises Usage `instructions.approved` where the version is approved, Unprocessable
        `instructions.not-text`.
        """
        name, version = split(reference)
        known = self._find(name, version)
        if known is not None and known.approvals:
            raise Usage(
                "instructions.approved",
                f"{reference} is approved and does not change any more",
                hint="add the text under the next version",
            )
        _check_text(text)
        record = Record(
            name=name, version=version, kind=kind, digest=digest.of(text), author=author, added=iso(now_us)
        )
        (self._folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        replace(self._text_path(record), text)
        self._write(record)
        return record

    def approve(self, reference: str, *, by: str, now_us: int) -> Record:
        """Approves what lies there now. Raises as `read`, and Usage `instructions.approved-before`."""
        record, _text = self.read(reference)
        if any(a.by == by for a in record.approvals):
            raise Usage("instructions.approved-before", f"{by} has approved {reference} already")
        approval = Approval(by=by, at=iso(now_us))
        record = msgspec.structs.replace(record, approvals=(*record.approvals, approval))
        self._write(record)
        return record

    def read(self, reference: str) -> tuple[Record, str]:
        """A version and its text. Raises NotFound `instructions.unknown`; Integrity `instructions.changed`
        where the bytes are not those that were recorded."""
        name, version = split(reference)
        record = self._find(name, version)
        if record is None:
            raise NotFound(
                "instructions.unknown", f"there are no instructions {reference}", hint="allod instructions ls"
            )
        try:
            text = self._text_path(record).read_bytes()
        except FileNotFoundError:
            text = b""
        if digest.of(text) != record.digest:
            raise Integrity(
                "instructions.changed",
                f"the text of {reference} is not the one that was recorded",
                hint="bring the file back, or add the text under the next version",
                expected=record.digest,
                found=digest.of(text),
            )
        return record, text.decode()

    def in_force(self, reference: str, *, four_eyes: bool) -> tuple[Record, str]:
        """A system prompt that may be applied.

        Raises as `read`; Usage `instructions.not-a-prompt`; AwaitingApproval `instructions.not-approved`.
        """
        record, text = self.read(reference)
        if record.kind != "system-prompt":
            raise Usage(
                "instructions.not-a-prompt",
                f"{reference} is a chat template; engines use the one that the model carries",
            )
        if not record.approvals or (four_eyes and not record.four_eyes):
            who = f"somebody other than {record.author}" if four_eyes else "anybody"
            raise AwaitingApproval(
                "instructions.not-approved",
                f"{reference} has not been approved by {who}",
                hint=f"allod instructions approve {reference}",
            )
        return record, text

    def ls(self) -> list[Record]:
        """Every version, by name, oldest first."""
        found = [_decode(p) for p in self._folder.glob("*/*.json") if p.parent.name != _APPLIED]
        return sorted(found, key=lambda r: (r.name, r.added, r.version))

    # --- what was in force --------------------------------------------------------------------------------

    def keep(self, system_prompt: str, chat_template: str) -> str:
        """Remembers what is in force together, for as long as the home lives, and gives its digest."""
        applied = Applied(
            system_prompt=self._keep(system_prompt.encode()),
            chat_template=self._keep(chat_template.encode()),
        )
        if applied.digest:
            self._keep(canonical.dumps(msgspec.to_builtins(applied)))
        return applied.digest

    def applied(self, address: str) -> tuple[Applied, str, str]:
        """What a receipt's `instructions` stands for: the digests, the system prompt, the chat template.

        Raises NotFound `instructions.unknown`, Integrity `instructions.changed`.
        """
        try:
            found = msgspec.json.decode(self._kept(address), type=Applied)
        except msgspec.DecodeError as e:
            raise NotFound("instructions.unknown", f"{address} names a text, not instructions") from e
        prompt, template = (
            self._kept(a).decode() if a else "" for a in (found.system_prompt, found.chat_template)
        )
        return found, prompt, template

    def _keep(self, content: bytes) -> str:
        if not content:
            return ""
        address = digest.of(content)
        path = self._folder / _APPLIED / address.removeprefix("sha256:")
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace(path, content)
        return address

    def _kept(self, address: str) -> bytes:
        path = self._folder / _APPLIED / address.removeprefix("sha256:")
        if not _HEX.fullmatch(address) or not path.is_file():
            raise NotFound("instructions.unknown", f"no instructions {address[:80]} were in force here")
        content = path.read_bytes()
        if digest.of(content) != address:
            raise Integrity("instructions.changed", f"{path} was changed", found=digest.of(content))
        return content

    # --- files --------------------------------------------------------------------------------------------

    def _find(self, name: str, version: str) -> Record | None:
        path = self._folder / name / f"{version}.json"
        return _decode(path) if path.is_file() else None

    def _text_path(self, record: Record) -> Path:
        return self._folder / record.name / (record.version + _SUFFIXES[record.kind])

    def _write(self, record: Record) -> None:
        data = msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
        replace(self._folder / record.name / f"{record.version}.json", data)


def kind_of(path: Path) -> Kind:
    """By the file's suffix: .jinja is a chat template, anything else a system prompt."""
    return "chat-template" if path.suffix == ".jinja" else "system-prompt"


def split(reference: str) -> tuple[str, str]:
    """`name@version`. Raises Usage `instructions.bad-name`."""
    name, at, version = reference.partition("@")
    if not at or name == _APPLIED or not _PART.fullmatch(name) or not _PART.fullmatch(version):
        raise Usage(
            "instructions.bad-name",
            f"{reference[:140]!r} names no version of instructions",
            hint="NAME@VERSION, in lower-case letters, digits, '.', '_' and '-'",
        )
    return name, version


def template_of(folder: Path, manifest: ModelManifest) -> str:
    """The chat template that a model carries; empty where it carries none.

    Raises Unprocessable `model.gguf-malformed`.
    """
    return _template(folder, manifest.weights, manifest.digest)


@lru_cache(maxsize=256)  # a header with a large vocabulary takes a good part of a second
def _template(folder: Path, name: str, _digest: str) -> str:
    weights = folder / name
    if weights.suffix == ".gguf":
        return str(gguf_header.read(weights).scalars.get("tokenizer.chat_template", ""))
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8", errors="replace")
    try:
        config = msgspec.json.decode((folder / "tokenizer_config.json").read_bytes(), type=_TokenizerConfig)
    except (FileNotFoundError, msgspec.DecodeError):
        return ""
    return config.chat_template if isinstance(config.chat_template, str) else ""


class _TokenizerConfig(msgspec.Struct, frozen=True):
    chat_template: str | list[msgspec.Raw] | None = None  # a list: several by name, and the caller chooses


def _decode(path: Path) -> Record:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except msgspec.DecodeError as e:
        raise Integrity("instructions.changed", f"{path} is damaged: {e}") from e


def _check_text(text: bytes) -> None:
    if not text.strip() or len(text) > INSTRUCTIONS_BYTES_MAX:
        raise Unprocessable(
            "instructions.not-text",
            f"instructions are 1 to {INSTRUCTIONS_BYTES_MAX} bytes of text, these are {len(text)}",
        )
    try:
        text.decode()
    except UnicodeDecodeError as e:
        raise Unprocessable("instructions.not-text", f"the text is not UTF-8 at byte {e.start}") from e
