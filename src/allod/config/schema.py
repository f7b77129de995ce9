"""The keys of `allod.toml`: their types, bounds, defaults and meaning. Frozen values; reads nothing.

Secrets are never written in it, only references to them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from allod import limits
from allod.config.home import Home
from allod.sites.facts import Site


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


_Count = Annotated[int, Meta(ge=1, le=4096)]
_Tokens = Annotated[int, Meta(ge=64)]
_Name = Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS_MAX)]


class NodeConfig(_Table, frozen=True):
    """What this node is called and where it listens."""

    origin: Annotated[
        str,
        Meta(
            description="The node's name in every receipt and checkpoint. Fixed once the ledger has begun.",
            pattern=r"^[^\s+]{1,200}$",
        ),
    ]
    listen: Annotated[str, Meta(description="Public address, HOST:PORT.")] = "127.0.0.1:8080"
    workers: Annotated[_Count, Meta(description="Front worker processes.")] = 1
    tls_cert: Annotated[str, Meta(description="Certificate chain, PEM file. Empty: plain HTTP.")] = ""
    tls_key: Annotated[str, Meta(description="Its private key, PEM file.")] = ""


class DatabaseConfig(_Table, frozen=True):
    """Where organisations, projects and key hashes are kept. Never on the path of a request."""

    url: Annotated[
        str,
        Meta(
            description="SQLAlchemy URL. Empty: SQLite in the home. PostgreSQL: postgresql+psycopg://… "
            "with the password in ~/.pgpass, not here."
        ),
    ] = ""


class WitnessConfig(_Table, frozen=True):
    """Someone else who cosigns this node's checkpoints (C2SP tlog-witness)."""

    url: Annotated[str, Meta(description="Where it is reached.", pattern=r"^https?://\S+$")]
    key: Annotated[str, Meta(description="Its verifier key, name+id+base64.")]


class LedgerConfig(_Table, frozen=True):
    """How receipts get their place in the ledger."""

    integrate_interval_s: Annotated[
        float, Meta(description="Longest wait of a durable receipt for its place, in seconds.", gt=0, le=60)
    ] = limits.INTEGRATE_INTERVAL_S
    witness: Annotated[
        tuple[WitnessConfig, ...], Meta(description="Witnesses that are asked to cosign.")
    ] = ()


class ModelsConfig(_Table, frozen=True):
    """Which models may come in, where from, and how long they stay."""

    allowed_licences: Annotated[
        tuple[str, ...],
        Meta(description="SPDX identifiers. Empty: every licence is admitted, and recorded."),
    ] = ()
    hub: Annotated[
        str,
        Meta(
            description="Hub that `hf:` means. Empty: the default of its client.",
            pattern=r"^(https?://\S+)?$",
        ),
    ] = ""
    hub_token: Annotated[
        str,
        Meta(description="Its token, as env:NAME or file:PATH. Empty: none.", pattern=r"^((env|file):.+)?$"),
    ] = ""
    receipts_days: Annotated[
        int,
        Meta(
            description="A model that receipts of the last so many days name is not removed.", ge=0, le=36_500
        ),
    ] = limits.MODEL_RECEIPTS_DAYS


class InstructionsConfig(_Table, frozen=True):
    """What system prompts need before they are applied."""

    four_eyes: Annotated[
        bool, Meta(description="Somebody other than the author has to have approved them.")
    ] = False


class _Service(_Table, frozen=True, tag_field="engine"):
    engine: ClassVar[str]

    model: Annotated[_Name, Meta(description="The name that clients ask for.")]
    aliases: Annotated[tuple[str, ...], Meta(description="Other names it answers to.")] = ()
    replicas: Annotated[_Count, Meta(description="Copies that run at the same time.")] = 1


_Instructions = Annotated[
    str,
    Meta(
        description="System prompt that comes before every conversation, NAME@VERSION "
        "(`allod instructions ls`). Empty: none.",
        pattern=r"^([a-z0-9][a-z0-9._-]*@[a-z0-9][a-z0-9._-]*)?$",
    ),
]


class _WithWeights(_Service, frozen=True):
    weights: Annotated[
        str, Meta(description="Installed model (`allod models ls`) to serve. Empty: the one called `model`.")
    ] = ""


class LlmService(_WithWeights, frozen=True, tag="llm"):
    """A GGUF model on this machine's processor, through llama.cpp."""

    engine: ClassVar[str] = "llm"
    kind: Annotated[Literal["chat"], Meta(description="What it answers.")] = "chat"
    context_tokens: Annotated[
        _Tokens | None, Meta(description="Context for each request. Unset: the model's own, at most 8192.")
    ] = None
    parallel: Annotated[_Count, Meta(description="Requests answered at the same time, in one batch.")] = 4
    threads: Annotated[
        _Count | None,
        Meta(description="Processor threads. Unset: all cores but one, shared by the replicas."),
    ] = None
    instructions: _Instructions = ""


class EmbeddingsService(_WithWeights, frozen=True, tag="embeddings"):
    """An embedding model on this machine's processor."""

    engine: ClassVar[str] = "embeddings"
    kind: Annotated[Literal["embed"], Meta(description="What it answers.")] = "embed"
    threads: Annotated[_Count | None, Meta(description="Processor threads. Unset: one per core.")] = None


class OcrService(_Service, frozen=True, tag="ocr"):
    """Documents to text on this machine: pypdfium2, Tesseract, and RapidOCR where Tesseract is unsure."""

    engine: ClassVar[str] = "ocr"
    kind: Annotated[Literal["ocr"], Meta(description="What it answers.")] = "ocr"
    languages: Annotated[
        tuple[str, ...],
        Meta(description="Tesseract language packs, in order. Empty: all that are installed."),
    ] = ()
    rapidocr: Annotated[
        bool,
        Meta(description="Ask RapidOCR (models made in China, run here, sealed) where Tesseract is unsure."),
    ] = True
    threads: Annotated[
        _Count | None, Meta(description="Pages read at the same time. Unset: one per core.")
    ] = None


class VllmService(_WithWeights, frozen=True, tag="vllm"):
    """A safetensors model on this machine's GPU, through an installed vLLM."""

    engine: ClassVar[str] = "vllm"
    kind: Annotated[Literal["chat", "embed"], Meta(description="What it answers.")] = "chat"
    program: Annotated[str, Meta(description="The vllm program of its own environment.")] = "vllm"
    context_tokens: Annotated[
        _Tokens | None, Meta(description="Longest context. Unset: the model's own.")
    ] = None
    parallel: Annotated[_Count | None, Meta(description="Requests in one batch. Unset: vLLM's choice.")] = (
        None
    )
    gpu_memory: Annotated[float, Meta(description="Share of the GPU's memory to take.", gt=0, le=1)] = 0.9
    tensor_parallel: Annotated[_Count, Meta(description="GPUs that one replica is spread over.")] = 1
    instructions: _Instructions = ""


Service = LlmService | EmbeddingsService | OcrService | VllmService
SERVICES: tuple[type[Service], ...] = (LlmService, EmbeddingsService, OcrService, VllmService)


class SiteConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner declares of this machine. What is not said is unknown and counts as the worst."""

    site: Site
    active_watts: float | None = None


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """`allod.toml`, read and checked."""

    node: NodeConfig
    database: DatabaseConfig
    site: SiteConfig
    ledger: LedgerConfig
    models: ModelsConfig
    instructions: InstructionsConfig
    services: tuple[Service, ...]

    def database_url(self, home: Home) -> str:
        return self.database.url or f"sqlite:///{home.root / 'state.sqlite3'}"


class File(_Table, frozen=True):
    """The file as written; `[site]` is checked by `sites.local`, which knows the facts."""

    node: NodeConfig
    database: DatabaseConfig = DatabaseConfig()
    site: dict[str, Any] = {}
    ledger: LedgerConfig = LedgerConfig()
    models: ModelsConfig = ModelsConfig()
    instructions: InstructionsConfig = InstructionsConfig()
    service: tuple[Service, ...] = ()
