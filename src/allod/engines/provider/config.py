"""What the egress process of one provider is told: a JSON file, strictly read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from allod.errors import Unprocessable
from allod.sites.provider import KeyReference


class ProviderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`models` maps this node's name of a model to the provider's; other names pass unchanged."""

    base_url: str  # ends in the API's version, e.g. https://api.mistral.ai/v1; no trailing slash
    api: Literal["openai", "mistral"]
    key: KeyReference | None = None
    models: dict[str, str] = {}
    ca_file: str = ""  # PEM file of the only authorities to trust; empty: those of the machine


def read(path: Path) -> ProviderConfig:
    """Raises Unprocessable `provider.bad-config`."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=ProviderConfig)
        url = urlsplit(config.base_url)
        local = url.hostname in {"127.0.0.1", "::1", "localhost"}
    except (OSError, ValueError) as e:
        raise Unprocessable("provider.bad-config", f"{path}: {e}") from e
    if url.scheme != "https" and not (url.scheme == "http" and local):
        raise Unprocessable("provider.bad-config", f"{path}: base_url has to be https")
    return config
