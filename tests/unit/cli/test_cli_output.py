"""How things are said: aligned without padding at the end, coloured only for a person who wants it."""

import io
import json

import pytest

from allod.api.ports import Check
from allod.cli.admin import failure, segment
from allod.cli.output import Out, fields, moment, size, table, wrapped
from allod.errors import Denied, Integrity, NotFound, NotReady, Unauthenticated


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_is_aligned_and_ends_where_its_text_ends() -> None:
    assert table(("NAME", "N", "NOTE"), [("a", 1, ""), ("longer", 22, "x")]) == [
        "NAME    N   NOTE",
        "a       1",
        "longer  22  x",
    ]
    assert table(("NAME",), []) == [], "no rows, no header"


def test_fields_leave_out_what_is_empty() -> None:
    assert fields([("a", 1), ("longer", "x"), ("none", None), ("empty", "")]) == ["a       1", "longer  x"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (500 * 2**20, "500 MiB"),
        (2**41, "2048 GiB"),
    ],
)
def test_sizes(count: float | None, text: str) -> None:
    assert size(count) == text


def test_times() -> None:
    assert moment(0) == "1970-01-01T00:00:00.000Z"
    assert moment(2**62) == "never"


def test_long_sentences_are_wrapped_and_lose_nothing() -> None:
    text = "word " * 80
    lines = list(wrapped(text, "    "))
    assert len(lines) > 1
    assert all(line.startswith("    ") and len(line) <= 120 for line in lines)
    assert " ".join(lines).split() == text.split()


def test_colour_is_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[31m" in Out(as_json=False, stdout=Terminal()).mark(False)
    assert Out(as_json=False, stdout=io.StringIO()).mark(False) == "FAIL "
    monkeypatch.setenv("NO_COLOR", "1")
    assert Out(as_json=False, stdout=Terminal()).mark(False) == "FAIL "
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert Out(as_json=False, stdout=Terminal()).mark(True) == "ok   "


def test_json_is_one_object_and_talk_is_silent() -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    out = Out(as_json=True, stdout=stdout, stderr=stderr)
    out.say("reading")
    out.result(Check(name="é", ok=True, detail="d"), ["never seen"])
    assert json.loads(stdout.getvalue()) == {"name": "é", "ok": True, "detail": "d", "hint": ""}
    assert stderr.getvalue() == ""


@pytest.mark.parametrize(
    ("status", "kind", "exit_code"),
    [
        (401, Unauthenticated, 4),
        (403, Denied, 4),
        (404, NotFound, 2),
        (503, NotReady, 3),
        (500, Integrity, 6),
    ],
)
def test_the_nodes_errors_keep_their_kind_and_so_their_exit_code(
    status: int, kind: type[Exception], exit_code: int
) -> None:
    body = {"error": {"code": "a.b", "message": "m", "hint": "h", "details": {"line": 3}}}
    error = failure(status, json.dumps(body).encode())
    assert type(error) is kind
    assert (error.code, error.message, error.hint, error.exit_code) == ("a.b", "m", "h", exit_code)
    assert error.details == {"line": 3}


def test_a_defect_of_the_node_is_no_integrity_failure() -> None:
    body = json.dumps({"error": {"code": "internal.unforeseen", "message": "m"}}).encode()
    assert failure(500, body).exit_code == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "x"}', b'{"error": {}}', b"\xff"])
def test_an_answer_that_is_no_error_object_is_still_an_error(body: bytes) -> None:
    assert failure(502, body).exit_code == 3


def test_what_is_typed_stays_one_path_segment() -> None:
    assert segment("../x?y=1#z") == "..%2Fx%3Fy%3D1%23z"
