"""Framing, splicing and metering do not depend on how the bytes are cut or how the JSON is written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allod import limits
from allod.front import body as bodies
from allod.front import http1, splice, usage
from allod.front.chunks import Chunks, chunk
from allod.front.http1 import FramingError, Repeated, RequestHead, incomplete_head, request_head
from allod.front.problems import Problem

values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8)
    | st.sampled_from(["model", '"model"', "a{[,"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
spaces = st.text(" \t\r\n", max_size=3)


def written(value: Any, draw: Any) -> str:
    """JSON of `value` with white space and escapes wherever they may stand."""
    s = lambda: draw(spaces)  # noqa: E731
    if isinstance(value, dict):
        members = [f"{s()}{written(k, draw)}{s()}:{s()}{written(v, draw)}{s()}" for k, v in value.items()]
        return "{" + ",".join(members) + s() + "}" if members else "{" + s() + "}"
    if isinstance(value, list):
        return "[" + ",".join(s() + written(v, draw) + s() for v in value) + "]"
    if isinstance(value, str) and value and draw(st.integers(0, 4)) == 0:
        return (
            '"' + f"\\u{ord(value[0]) & 0xFFFF:04x}" + json.dumps(value[1:])[1:]
            if ord(value[0]) < 0xD800
            else json.dumps(value)
        )
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


@settings(max_examples=300, deadline=None)
@given(st.data(), st.dictionaries(st.text(max_size=6).filter(lambda k: k not in {
    "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
    "seed",
    "random_seed", "n"}), values, max_size=5))  # fmt: skip
def test_a_spliced_body_means_the_same_but_for_the_edit(data: st.DataObject, extra: dict[str, Any]) -> None:
    options = data.draw(
        st.sampled_from(["absent", None, {}, {"include_usage": False}, {"include_usage": True, "y": 1}])
    )
    asked: dict[str, Any] = {**extra, "model": data.draw(st.sampled_from(["m", "alias", 'q"\\', "é"]))}
    if stream := data.draw(st.booleans()):
        asked["stream"] = True
    if options != "absent":
        asked["stream_options"] = options
    asked = dict(data.draw(st.permutations(list(asked.items()))))
    raw = (data.draw(spaces) + written(asked, data.draw) + data.draw(spaces)).encode("utf-8", "surrogatepass")
    target = data.draw(st.sampled_from(["m", "alias", 'other "name"']))
    out, strips = splice.prepare(raw, bodies.read(raw, b"application/json"), target)
    expected = {**json.loads(raw), "model": target}
    injects = stream and not (isinstance(options, dict) and options.get("include_usage") is True)
    if injects:
        given_options = options if isinstance(options, dict) else {}
        expected["stream_options"] = {**given_options, "include_usage": True}
    assert json.loads(out) == expected
    assert strips == injects
    if not injects and target == asked["model"]:
        assert out == raw


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{"model":"a","stream":true,"stream":true,"stream_options":null}',
    ],
)
def test_a_key_that_is_given_twice_is_refused_where_it_decides(raw: bytes) -> None:
    with pytest.raises(Problem, match="twice"):
        splice.prepare(raw, bodies.read(raw, b"application/json"), "c")


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    st.lists(st.integers(1, 9)),
    st.binary(max_size=9),
)
def test_a_chunked_body_is_the_same_however_it_is_cut(
    parts: list[bytes], cuts: list[int], after: bytes
) -> None:
    raw = b"".join(chunk(p) for p in parts) + b"0\r\n\r\n"
    reader, out, at = Chunks(), b"", 0
    for cut in [*cuts, len(raw)]:
        if reader.done:
            break
        piece = raw[at : at + cut] if at + cut < len(raw) else raw[at:] + after
        at += cut
        out += reader.feed(piece)
    assert reader.done
    assert out == b"".join(parts)
    assert reader.rest == after


@given(st.binary(max_size=200))
def test_any_bytes_are_one_head_or_an_error(noise: bytes) -> None:
    for data in (noise + b"\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n" + noise + b"\r\n\r\n"):
        end = data.find(b"\r\n\r\n")
        try:
            incomplete_head(data[:end])
            head = request_head(data, end + 2)
        except FramingError as e:
            assert 400 <= e.status <= 505  # noqa: PT017 — either outcome is right, each with its own check
        else:
            assert b"\n" not in b"".join(head.lines)
            assert b"\0" not in data[:end]


frames = st.sampled_from(
    [
        b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}\n\n',
        b'data: {"choices":[{"delta":{"content":"\\"usage\\":{ [DONE] "}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"b"}}]}\r\n\r\n',
        b": a comment\n\n",
        b'event: x\ndata: {"choices":[{}],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n',
    ]
)
USAGE = b'data: {"choices":[],"usage": {"prompt_tokens":3,"completion_tokens":9}}\n\n'
DONE = b"data: [DONE]\n\n"


@given(st.lists(frames, max_size=8), st.booleans(), st.lists(st.integers(1, 60)))
def test_a_stream_is_the_same_however_it_is_cut(parts: list[bytes], strip: bool, cuts: list[int]) -> None:
    raw = b"".join(parts) + USAGE + DONE
    events, out, at = usage.Events(strip_usage=strip), b"", 0
    for cut in [*cuts, len(raw)]:
        out += events.feed(raw[at : at + cut])
        at += cut
    assert out == b"".join(parts) + (b"" if strip else USAGE)
    assert events.held == DONE
    assert events.done
    assert (events.usage.input_tokens, events.usage.output_tokens) == (3, 9)


@pytest.mark.parametrize("pad", [0, 100, 50_000])
@pytest.mark.parametrize("first", [True, False])
def test_usage_is_found_wherever_an_answer_has_it(pad: int, first: bool) -> None:
    used = {"usage": {"prompt_tokens": 3, "completion_tokens": 4, "details": {"x": 1}}}
    rest = {"choices": [{"message": {"content": '"usage":{"prompt_tokens":99}' + "x" * pad}}]}
    answer = json.dumps({**used, **rest} if first else {**rest, **used}).encode()
    found = usage.of_answer(answer, whole=True)
    assert (found.input_tokens, found.output_tokens, found.source) == (3, 4, "engine")


@pytest.mark.parametrize(
    "answer", [b"", b"{", b"[]", b'{"usage":7}', b'{"usage":{"prompt_tokens":"x"}}', b"\xff"]
)
def test_an_answer_that_cannot_be_metered_is_still_an_answer(answer: bytes) -> None:
    assert usage.of_answer(answer, whole=True).source == "none"


lines = st.lists(
    st.sampled_from(
        ["Content-Length: 5", "content-length: 5", "content-length: 7", "CONTENT-LENGTH: 5",
         "content-length:5",
         "transfer-encoding: chunked", "host: x", "x: y", "Expect: 100-continue"]
    ),
    max_size=4,
)  # fmt: skip


def head_of(fields: list[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in ["POST /p HTTP/1.1", *fields]).encode() + b"\r\n"


@given(lines, lines, st.sampled_from(["", "9", "000000000000000000012", "1" * 18, "1" * 19, "+1", "5 "]))
def test_a_head_that_is_known_again_reads_the_same(before: list[str], after: list[str], length: str) -> None:
    first = head_of(before)
    second = head_of([line.replace("5", length) for line in before] if length else after) + b"body\r\n\r\n"
    end = second.find(b"\r\n\r\n") + 2
    try:
        head = request_head(first, len(first) - 2)
    except FramingError:
        return
    repeated: Repeated[RequestHead] | None = Repeated.of(head, first, len(first) - 2)
    if repeated is None or not repeated.again(second):
        return
    assert repeated.again(second) == end + 2
    if head.length > limits.BODY_BYTES_MAX:
        return  # no such body can be there whole
    assert vars_of(head) == vars_of(request_head(second, end))


def vars_of(head: http1.RequestHead) -> dict[str, Any]:
    return {
        n: getattr(head, n) for n in ("method", "path", "minor", "length", "chunked", "expects", "keep_alive")
    }
