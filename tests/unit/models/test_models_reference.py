"""References: what parses is safe in a path, and prints as it was read."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allod.errors import Unprocessable
from allod.models import reference
from allod.models.reference import Reference

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m", Reference("m", tag="latest")),
        ("m.1-x_y:v2.0", Reference("m.1-x_y", tag="v2.0")),
        (f"m@sha256:{HEX}", Reference("m", digest=f"sha256:{HEX}")),
    ],
)
def test_what_is_written_is_understood(text: str, expected: Reference) -> None:
    assert reference.parse(text) == expected
    assert reference.parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "model.bad-name"),
        ("../m", "model.bad-name"),
        ("M", "model.bad-name"),
        ("m:.hidden", "model.bad-tag"),
        ("m:a/b", "model.bad-tag"),
        ("m:" + "x" * 129, "model.bad-tag"),
        (f"m:v1@sha256:{HEX}", "model.bad-tag"),
        ("m@sha256:abc", "model.bad-digest"),
        (f"m@sha512:{HEX}", "model.bad-digest"),
    ],
)
def test_what_could_mislead_is_refused(text: str, code: str) -> None:
    with pytest.raises(Unprocessable) as e:
        reference.parse(text)
    assert e.value.code == code


@given(st.text(max_size=80))
def test_no_reference_leaves_its_folder(text: str) -> None:
    with contextlib.suppress(Unprocessable):
        found = reference.parse(text)
        for part in (found.name, found.tag, found.digest):
            assert not part.startswith(".")
            assert "/" not in part
            assert "\0" not in part
