"""Which endpoints of the OpenAI and Mistral APIs allod serves. `python -m allod.api.coverage > docs/api.md`.

One table: the documentation is printed from it, the 404 of an absent endpoint is answered from it, and a test
calls everything it says works.
"""

from __future__ import annotations

import re
import sys
from typing import Literal

import msgspec

State = Literal["works", "partly", "not yet"]
Api = Literal["OpenAI", "Mistral", "allod"]


class Entry(msgspec.Struct, frozen=True):
    api: Api
    method: str
    path: str
    state: State
    note: str = ""


def _later(api: Api, *operations: str) -> tuple[Entry, ...]:
    split = [operation.split(" ", 1) for operation in operations]
    return tuple(Entry(api, method, path, "not yet") for method, path in split)


TABLE: tuple[Entry, ...] = (
    Entry("OpenAI", "POST", "/v1/chat/completions", "works", "streaming, tools, structured output"),
    Entry("OpenAI", "POST", "/v1/completions", "partly", "`suffix` is up to the engine; most ignore it"),
    Entry("OpenAI", "POST", "/v1/embeddings", "works"),
    Entry("OpenAI", "GET", "/v1/models", "works"),
    Entry("OpenAI", "GET", "/v1/models/{model}", "works"),
    *_later(
        "OpenAI",
        "DELETE /v1/models/{model}",
        "GET /v1/chat/completions",
        "POST /v1/responses",
        "GET /v1/responses/{id}",
        "POST /v1/audio/speech",
        "POST /v1/audio/transcriptions",
        "POST /v1/audio/translations",
        "POST /v1/images/generations",
        "POST /v1/images/edits",
        "POST /v1/moderations",
        "POST /v1/files",
        "GET /v1/files",
        "GET /v1/files/{id}",
        "GET /v1/files/{id}/content",
        "POST /v1/uploads",
        "POST /v1/batches",
        "GET /v1/batches/{id}",
        "POST /v1/vector_stores",
        "POST /v1/fine_tuning/jobs",
        "POST /v1/conversations",
        "WS /v1/realtime",
    ),
    Entry(
        "Mistral",
        "POST",
        "/v1/chat/completions",
        "partly",
        "streaming, function tools, structured output, prefix, thinking, images for models that see. "
        "Refused by name (422): `guardrails`, built-in tools, `prompt_mode`, `min_tokens`, "
        "`prompt_logprobs`, audio, file and document chunks",
    ),
    Entry(
        "Mistral",
        "POST",
        "/v1/fim/completions",
        "partly",
        "for models that declare fill-in-the-middle tokens; refused (422) for others, and with `min_tokens`",
    ),
    Entry(
        "Mistral",
        "POST",
        "/v1/embeddings",
        "partly",
        "`output_dtype` float only; `output_dimension` where the model can be shortened",
    ),
    Entry("Mistral", "POST", "/v1/ocr", "partly", "what the OCR engine offers; annotations not yet"),
    Entry("Mistral", "GET", "/v1/models", "works"),
    Entry("Mistral", "GET", "/v1/models/{model}", "works"),
    *_later(
        "Mistral",
        "DELETE /v1/models/{model}",
        "POST /v1/audio/transcriptions",
        "WS /v1/audio/transcriptions/realtime",
        "POST /v1/audio/speech",
        "GET /v1/audio/voices",
        "POST /v1/moderations",
        "POST /v1/chat/moderations",
        "POST /v1/classifications",
        "POST /v1/chat/classifications",
        "POST /v1/agents",
        "POST /v1/agents/completions",
        "GET /v1/agents/{id}",
        "POST /v1/conversations",
        "GET /v1/conversations/{id}",
        "POST /v1/conversations/{id}/restart",
        "POST /v1/responses",
        "POST /v1/libraries",
        "POST /v1/libraries/{id}/documents",
        "POST /v1/rag/deployments",
        "GET /v1/connectors",
        "POST /v1/files",
        "GET /v1/files/{id}",
        "GET /v1/files/{id}/content",
        "GET /v1/files/{id}/url",
        "POST /v1/batch/jobs",
        "GET /v1/batch/jobs/{id}",
        "POST /v1/fine_tuning/jobs",
        "POST /v1/workflows/{name}/execute",
        "POST /v2/prompts",
        "POST /v2/skills",
    ),
    Entry(
        "allod", "GET", "/v1/receipts/{id}", "works", "own project; the whole organisation for its auditors"
    ),
    Entry("allod", "GET", "/v1/receipts/{id}/file", "works", "`form=` tlog-proof, cose, json"),
    Entry("allod", "GET", "/v1/checkpoint", "works", "auditors, admins, owners"),
    Entry(
        "allod",
        "GET",
        "/v1/ledger/{path}",
        "works",
        "C2SP tiles; entries where no other organisation shares them",
    ),
    Entry("allod", "GET", "/admin/v1/openapi.json", "works", "describes the administrative API"),
)

_INTRODUCTION = """# APIs

This page is printed by `python -m allod.api.coverage`; change the table there.

Clients of the OpenAI API use the node's address followed by `/v1` as their base URL. Mistral's own SDK is
recognised by its `user-agent`; any other client reaches the Mistral dialect under `/mistral/v1/…`. Every
answer of a model carries the headers `allod-receipt` and `allod-site`.

In the Mistral dialect a field that cannot be honoured is refused by its name; none is ignored in silence.
"""


def known(path: str) -> bool:
    """Whether one of the APIs has this endpoint, served here or not."""
    return any(pattern.fullmatch(path) for pattern in _PATTERNS)


def page() -> str:
    """The documentation page, Markdown."""
    parts = [_INTRODUCTION]
    for api, title in (("OpenAI", "OpenAI"), ("Mistral", "Mistral"), ("allod", "Receipts and ledger")):
        parts.append(f"\n## {title}\n\n| endpoint | state | |\n|---|---|---|\n")
        order: list[State] = ["works", "partly", "not yet"]
        entries = [entry for entry in TABLE if entry.api == api]
        parts += [
            f"| `{entry.method} {entry.path}` | {entry.state} | {entry.note} |\n"
            for entry in sorted(entries, key=lambda e: order.index(e.state))
        ]
    parts.append("\nAn endpoint of these APIs that is not listed is not served either.\n")
    return "".join(parts)


def _pattern(path: str) -> re.Pattern[str]:
    pieces = re.split(r"\{[^}]*\}", path)
    return re.compile(".+".join(re.escape(piece) for piece in pieces))


_PATTERNS = tuple(_pattern(entry.path) for entry in TABLE)

if __name__ == "__main__":
    sys.stdout.write(page())
