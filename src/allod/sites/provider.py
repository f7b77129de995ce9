"""How a remote site is reached: base URL, dialect, a reference to its key, and the models it serves.

A key is never written into a site file: `env:NAME` or `file:/path` says where it is found, and it is read
when it is needed, never at load. Raises Unprocessable `site.invalid` and `site.key-inline`, NotReady
`site.key-missing`. No message repeats a key.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import msgspec

from allod.errors import NotReady, Unprocessable
from allod.limits import PROVIDER_KEY_BYTES_MAX
from allod.sites.reading import invalid, known_keys

Api = Literal["openai", "mistral"]
ModelKind = Literal["chat", "embed", "ocr"]
_KINDS = ("chat", "embed", "ocr")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider asks for, in millionths of the currency unit. None: not stated."""

    currency: str  # ISO 4217
    input_micro_per_million_tokens: int | None = None
    output_micro_per_million_tokens: int | None = None
    micro_per_thousand_pages: int | None = None


class ProviderModel(msgspec.Struct, frozen=True, kw_only=True):
    name: str  # what clients of this node ask for
    upstream: str  # what the provider calls it
    kind: ModelKind
    context_tokens: int | None = None
    price: Price | None = None


class KeyReference(msgspec.Struct, frozen=True, kw_only=True):
    """Where the provider's key is found."""

    scheme: Literal["env", "file"]
    target: str  # a variable's name, or an absolute path

    def __str__(self) -> str:
        return f"{self.scheme}:{self.target}"

    def resolve(self, environment: Mapping[str, str] | None = None) -> str:
        """The key itself, read now. NotReady `site.key-missing` where there is none to read."""
        if self.scheme == "env":
            key = (os.environ if environment is None else environment).get(self.target, "").strip()
        else:
            key = self._read_file()
        if not key or any(c.isspace() or not c.isprintable() for c in key):
            raise NotReady(
                "site.key-missing",
                f"there is no usable provider key at {self}",
                hint=f"export {self.target}=..."
                if self.scheme == "env"
                else f"write the key to {self.target}",
            )
        return key

    def _read_file(self) -> str:
        path = Path(self.target)
        try:
            info = path.stat()
            if stat.S_IMODE(info.st_mode) & 0o007:
                raise NotReady(
                    "site.key-missing",
                    f"{path} can be read by everyone on this machine, so it is not used",
                    hint=f"chmod 600 {path}",
                )
            with path.open("rb") as f:
                return f.read(PROVIDER_KEY_BYTES_MAX).decode("utf-8").strip()
        except (OSError, UnicodeDecodeError) as e:
            raise NotReady(
                "site.key-missing", f"the provider key at {self} cannot be read", hint=f"check {path}"
            ) from e


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    base_url: str  # as the provider documents it, e.g. https://api.scaleway.ai/v1; no trailing slash
    api: Api
    key: KeyReference | None  # None: the endpoint asks for no key
    models: tuple[ProviderModel, ...]


PROVIDER_KEYS = ("base_url", "api", "key", "models")
_MODEL_KEYS = ("upstream", "kind", "context_tokens", "price")
_PRICE_KEYS = ("currency", "input_per_million_tokens", "output_per_million_tokens", "per_thousand_pages")


def read_provider(table: Mapping[str, Any], where: str) -> Provider:
    """A `[provider]` table. `where` is `file: [provider]`, for messages."""
    known_keys(table, PROVIDER_KEYS, where)
    api = table.get("api")
    if api not in ("openai", "mistral"):
        raise invalid(f"{where} api has to be a dialect that allod speaks", 'use "openai" or "mistral"')
    models = table.get("models", {})
    if not isinstance(models, Mapping):
        raise invalid(f"{where} models has to be a table", f'write [provider.models."name"] in {where}')
    return Provider(
        base_url=_base_url(table.get("base_url"), where),
        api=cast("Api", api),
        key=_key(table["key"], where) if "key" in table else None,
        models=tuple(_model(name, raw, f"{where} models.{name}") for name, raw in models.items()),
    )


def _base_url(raw: Any, where: str) -> str:
    hint = 'write it as base_url = "https://host/v1"'
    if not isinstance(raw, str) or not raw.isascii() or any(c.isspace() for c in raw):
        raise invalid(f"{where} base_url has to be an address", hint)
    try:
        url = urlsplit(raw)
        _ = url.port
    except ValueError as e:
        raise invalid(f"{where} base_url is not an address", hint) from e
    if not url.hostname or url.username or url.password or url.query or url.fragment:
        raise invalid(f"{where} base_url has to be a host and a path, nothing else", hint)
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOOPBACK):
        raise invalid(f"{where} base_url has to be https (http only to this machine)", hint)
    return raw.rstrip("/")


def _key(raw: Any, where: str) -> KeyReference:
    scheme, _, target = raw.partition(":") if isinstance(raw, str) else ("", "", "")
    if scheme == "env" and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", target):
        return KeyReference(scheme="env", target=target)
    if scheme == "file" and target.startswith("/"):
        return KeyReference(scheme="file", target=target)
    raise Unprocessable(
        "site.key-inline",
        f"{where} key has to be a reference, never the key itself",
        hint='use key = "env:NAME" or key = "file:/absolute/path"; if a key stood here, revoke it now',
    )


def _model(name: str, raw: Any, where: str) -> ProviderModel:
    if not isinstance(raw, Mapping):
        raise invalid(
            f"{where} has to be a table", f'write [provider.models."{name}"] with upstream and kind'
        )
    known_keys(raw, _MODEL_KEYS, where)
    upstream = raw.get("upstream", name)
    kind = raw.get("kind")
    context = raw.get("context_tokens")
    if not isinstance(upstream, str) or not upstream or not name:
        raise invalid(f"{where} upstream has to be the provider's name for the model", "use its model list")
    if kind not in _KINDS:
        raise invalid(f"{where} kind has to be one of {', '.join(_KINDS)}", 'for example kind = "chat"')
    if context is not None and (not isinstance(context, int) or isinstance(context, bool) or context < 1):
        raise invalid(f"{where} context_tokens has to be a number of tokens", "leave it out if unknown")
    return ProviderModel(
        name=name,
        upstream=upstream,
        kind=cast("ModelKind", kind),
        context_tokens=context,
        price=_price(raw["price"], f"{where} price") if "price" in raw else None,
    )


def _price(raw: Any, where: str) -> Price:
    if not isinstance(raw, Mapping):
        raise invalid(f"{where} has to be a table", 'write price = { currency = "EUR", ... }')
    known_keys(raw, _PRICE_KEYS, where)
    currency = raw.get("currency")
    if not isinstance(currency, str) or re.fullmatch(r"[A-Z]{3}", currency) is None:
        raise invalid(f"{where} needs a currency", 'for example currency = "EUR"')
    return Price(
        currency=currency,
        input_micro_per_million_tokens=_micro(raw.get("input_per_million_tokens"), where),
        output_micro_per_million_tokens=_micro(raw.get("output_per_million_tokens"), where),
        micro_per_thousand_pages=_micro(raw.get("per_thousand_pages"), where),
    )


def _micro(raw: Any, where: str) -> int | None:
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, int | Decimal) or not 0 <= raw < 1_000_000:
        raise invalid(f"{where} has to be an amount of money, not below 0", "write it as 0.15")
    micro = Decimal(raw) * 1_000_000
    if micro != micro.to_integral_value():
        raise invalid(f"{where} has more than six decimal places", "round it to six")
    return int(micro)
