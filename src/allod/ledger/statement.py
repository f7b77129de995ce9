"""What a receipt states about one exchange. One JSON object per leaf; the leaf is these very bytes.

Numbers are integers and everything else is text, so that the bytes are RFC 8785 canonical as written.
Nothing of the content is in here: `input`, `output` and `actor` are HMAC-SHA256 commitments under a key that
belongs to this record alone and is kept outside the ledger; destroying that key is erasure.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Outcome = Literal["answered", "refused", "failed", "cancelled", "interrupted"]
UsageSource = Literal["engine", "estimated", "none"]

VERSION: Literal["allod-receipt/1"] = "allod-receipt/1"


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A site that was not used because the rules say no."""

    rules: tuple[str, ...]
    site: str


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that was really contacted, in order; the last one is where the answer came from."""

    outcome: str  # "answered", "connect-failed", "status-503", "timeout", "reset"
    replica: str
    site: str


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    input_tokens: int = 0
    output_tokens: int = 0
    pages: int = 0
    source: UsageSource = "none"


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Microjoules and how they were found. `microjoules` is None where nothing was measured or configured."""

    method: str  # "none" | "estimate:active-watts-x-service-time"
    microjoules: int | None = None


class Statement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Fields in alphabetical order: JSON written in this order is canonical."""

    action: str
    actor: str  # commitment (hex) to the API key id
    attempts: tuple[Attempt, ...] = ()
    attestation: str = ""  # digest of the site's attestation evidence; empty: none was offered
    categories: tuple[str, ...] = ()
    data_class: str
    decision: Literal["allow", "deny"]
    ended_us: int
    endpoint: str
    energy: Energy = Energy(method="none")
    engine: str = ""
    engine_digest: str = ""
    id: str  # "r-" + 26 characters of Crockford base32, sortable by time
    input: str  # commitment (hex) to the request body as received
    input_bytes: int
    instructions: str = ""  # digest of what the model was told: its system prompt and chat template
    key_check: str  # SHA-256 (hex) of the record key: shows that an opened key is the right one
    model: str
    model_digest: str = ""
    organisation: str
    origin: str
    outcome: Outcome
    output: str  # commitment (hex) to the answer body as sent
    output_bytes: int
    parent: str = ""  # receipt id of the exchange that made this one
    policy: str
    project: str
    quantisation: str = ""
    refused: tuple[Refusal, ...] = ()
    review: str = ""  # reference of a human review
    rules: tuple[str, ...] = ()
    sampling: dict[str, str] = {}
    site: str = ""
    site_facts: str = ""  # digest of the site's facts at that moment
    started_us: int
    status: int
    usage: Usage = Usage()
    v: Literal["allod-receipt/1"] = VERSION
    watermark: str = ""


def encode(statement: Statement) -> bytes:
    """The leaf bytes. Sorted keys; RFC 8785 canonical."""
    return _ENCODER.encode(statement)


def decode(leaf: bytes) -> Statement:
    """Raises msgspec.ValidationError / DecodeError on anything that is not a statement of this version."""
    return _DECODER.decode(leaf)


_ENCODER = msgspec.json.Encoder(order="sorted")
_DECODER = msgspec.json.Decoder(Statement)
