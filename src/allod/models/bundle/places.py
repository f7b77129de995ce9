"""Where in a node's home the things lie that a bundle carries."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Places(msgspec.Struct, frozen=True):
    """`root` is the home."""

    root: Path

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def policy(self) -> Path:
        return self.root / "policy"

    @property
    def sites(self) -> Path:
        return self.root / "sites"

    @property
    def instructions(self) -> Path:
        return self.root / "instructions"

    @property
    def trust(self) -> Path:
        return self.root / "trust"

    @property
    def wheels(self) -> Path:
        return self.root / "wheels"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def config_file(self) -> Path:
        return self.root / "allod.toml"

    @property
    def staging(self) -> Path:
        """What an application has prepared and not yet put in place."""
        return self.root / ".bundle"
