"""Where a node keeps its things.

The only module that reads the environment, and it reads one name: ALLOD_HOME.
"""

from __future__ import annotations

import os
import secrets
from importlib import resources
from pathlib import Path

import msgspec

FILE_NAME = "allod.toml"


class Home(msgspec.Struct, frozen=True):
    """The folder that is a node. Mode 0700: whoever reads it can read keys."""

    root: Path

    @classmethod
    def of(cls, path: str | Path | None) -> Home:
        """`path`, else ALLOD_HOME, else ~/.allod; absolute, and not necessarily there yet."""
        chosen = path or os.environ.get("ALLOD_HOME") or Path.home() / ".allod"
        return cls(Path(chosen).expanduser().absolute())

    @property
    def config_file(self) -> Path:
        return self.root / FILE_NAME

    @property
    def policy(self) -> Path:
        return self.root / "policy"

    @property
    def sites(self) -> Path:
        return self.root / "sites"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def trust(self) -> Path:
        """Whose signatures on models count."""
        return self.root / "trust"

    @property
    def instructions(self) -> Path:
        return self.root / "instructions"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def folders(self) -> tuple[Path, ...]:
        return (
            self.policy, self.sites, self.keys, self.trust, self.ledger, self.spool, self.run, self.models,
            self.instructions, self.logs,
        )  # fmt: skip

    @property
    def admin_socket(self) -> Path:
        return self.run / "admin.sock"

    @property
    def ledger_ed25519_key(self) -> Path:
        return self.keys / "ledger.ed25519.key"

    @property
    def ledger_mldsa44_key(self) -> Path:
        return self.keys / "ledger.mldsa44.key"

    @property
    def ledger_pub(self) -> Path:
        """The log's verifier keys, one per line: all that a stranger needs."""
        return self.keys / "ledger.pub"


def write_default(home: Home) -> bool:
    """Writes the first configuration, with an origin of its own. False if there is one: it stays."""
    template = resources.files("allod.config").joinpath("default.toml").read_text(encoding="utf-8")
    text = template.replace("ORIGIN", f"allod.local/{secrets.token_hex(4)}")
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        fd = os.open(home.config_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(fd, "w", encoding="utf-8") as f:
        f.write(text)
    return True
