"""The policy folder: bundled rules are copied there once, and from then on it belongs to the organisation.

`load` gives the combined text (files in name order, each behind a marker line, see `policy.text`) and the
schema. It reads, it does not judge: `Decider` does. Nothing is ever filled in from the bundled pack at load,
so that a rule which was removed stays removed.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import msgspec

from allod.errors import AllodError, NotFound, Unprocessable
from allod.policy.text import MARKER

SCHEMA_FILE = "schema.cedarschema"


class Pack(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly what `Decider` and the snapshot take."""

    text: str
    schema: str
    files: tuple[str, ...]


def install(folder: Path) -> tuple[Path, ...]:
    """Copies the bundled pack into an absent or empty folder; touches nothing that is there.

    Returns what was written. A folder that holds any rule or schema is left as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("*.cedar")) or (folder / SCHEMA_FILE).exists():
        return ()
    written = []
    for source in sorted(resources.files("allod.policy").joinpath("pack").iterdir(), key=lambda f: f.name):
        if source.name.endswith((".cedar", ".cedarschema")):
            target = folder / source.name
            target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
            written.append(target)
    return tuple(written)


def bundled() -> Pack:
    """The pack that comes with allod, as `load` would give it."""
    with resources.as_file(resources.files("allod.policy").joinpath("pack")) as folder:
        return load(folder)


def load(folder: Path) -> Pack:
    """Reads `<folder>/*.cedar` and the schema. NotFound `policy.missing`, Unprocessable `policy.invalid`."""
    schema = folder / SCHEMA_FILE
    rules = sorted(folder.glob("*.cedar"))
    if not rules or not schema.is_file():
        missing = "no *.cedar file" if not rules else f"no {SCHEMA_FILE}"
        raise NotFound(
            "policy.missing",
            f"{folder} has {missing}",
            hint="restore it, or write the bundled pack: allod init",
        )
    parts = [f"{MARKER}{path.name}\n{_read(path)}" for path in rules]
    text = "".join(part if part.endswith("\n") else part + "\n" for part in parts)
    return Pack(text=text, schema=_read(schema), files=tuple(path.name for path in rules))


def _read(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as e:
        raise Unprocessable(
            "policy.invalid",
            f"the policy was not accepted: {path.name} is not UTF-8 (byte {e.start})",
            hint="save it as UTF-8",
        ) from e
    except OSError as e:
        raise _unreadable(path, e) from e
    return text


def _unreadable(path: Path, cause: OSError) -> AllodError:
    return Unprocessable(
        "policy.invalid",
        f"the policy was not accepted: {path} cannot be read ({cause.strerror})",
        hint="check the file's owner and mode",
    )
