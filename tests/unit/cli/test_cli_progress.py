"""The bar: what it says, and that it says nothing where nobody watches."""

from __future__ import annotations

import io
import os
import pty

import pytest

from allod.cli import progress
from allod.cli.progress import Bar, rate, text


def test_it_says_how_much_how_fast_and_how_long_yet() -> None:
    said = text(512 << 20, 1 << 30, 64 << 20, width=100)
    assert said.endswith(" 50%  512 MiB of 1.0 GiB, 64.0 MiB/s, 0:08 left")
    assert said.count("█") == said.count("░") == 15
    assert text(0, 1 << 40, 1 << 20, width=120).endswith("291 h 16 min left")
    assert "left" not in text(0, 100, 0, width=80)
    assert "100%" in text(0, 0, 0, width=80)


@pytest.mark.parametrize("width", [10, 40, 60, 80, 200])
def test_it_fits_its_line(width: int) -> None:
    assert len(text(10**9, 10**10, 10**6, width=width)) < width


def test_the_rate_is_of_the_last_marks() -> None:
    assert rate([(10.0, 100), (12.0, 300)]) == 100
    assert rate([(10.0, 100)]) == 0


def test_off_a_terminal_nothing_is_written() -> None:
    stream = io.StringIO()
    with Bar(shown=True, stream=stream) as bar:
        bar.total(10)
        bar.moved(10)
    assert stream.getvalue() == ""


def test_on_a_terminal_the_line_is_gone_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_REDRAW_S", 0.0)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream, Bar(shown=True, stream=stream) as bar:
        bar.total(100)
        bar.have(50)
        bar.moved(25)
        assert " 75%" in os.read(ours, 4096).decode()
    assert os.read(ours, 4096).endswith(b"\r\x1b[K")
    os.close(ours)
