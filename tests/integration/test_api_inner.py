"""Calls inside the node: a front that dies is reported and never asked twice; headers keep their meaning."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import small_node

from allod.api import wire
from allod.api.inner import InnerClient
from allod.api.ports import Inner
from allod.errors import NotReady, Unauthenticated, Usage
from allod.identity.caller import Caller, Role

CHAT = b'{"model": "tiny", "stream": true, "messages": [{"role": "user", "content": "slow"}]}'
INNER = Inner(caller=small_node.OPERATOR, path="/v1/chat/completions", body=CHAT)


async def test_a_front_that_dies_in_the_middle_is_an_error_and_no_second_try(tmp_path: Path) -> None:
    with (
        small_node.engine(tmp_path) as first,
        small_node.engine(_folder(tmp_path / "other")) as second,
    ):
        answer = await InnerClient(lambda: [first, second]).call(INNER)
        pieces = aiter(answer)
        await anext(pieces)
        small_node.end(first, signal.SIGKILL)
        with pytest.raises(NotReady) as caught:
            async for _ in pieces:
                pass
        await answer.aclose()
        assert caught.value.code == "front.broken"
        assert small_node.seen(second)["requests"] == []


@pytest.mark.parametrize("value", ["restricted\r\nallod-internal-caller: x", "é", "\x00"])
async def test_a_header_value_cannot_smuggle(tmp_path: Path, value: str) -> None:
    client = InnerClient(lambda: [tmp_path / "front-0.sock"])
    with pytest.raises(Usage):
        await client.call(Inner(caller=small_node.OPERATOR, path="/v1/ocr", body=b"", data_class=value))


def test_a_caller_survives_its_header_with_or_without_padding() -> None:
    for length in range(1, 9):
        caller = Caller(key_id="k" * length, organisation="Zürich", project="p", role=Role.AUDITOR)
        header = wire.encode_caller(caller)
        assert wire.decode_caller(header) == wire.decode_caller(header.rstrip("=")) == caller
    for broken in ("", "%", "bm8=", "e30="):
        with pytest.raises(Unauthenticated):
            wire.decode_caller(broken)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
