"""Every text of the console exists in every language, and says the same placeholders."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import jinja2
import pytest

import allod.console
from allod.console import i18n

ROOM = Path(allod.console.__file__).parent
TRANSLATED = [code for code in i18n.LANGUAGES if code != "en"]


def messages() -> dict[str, str | None]:
    """Message -> its plural, from the templates and from the code's N_() and ngettext() calls."""
    found: dict[str, str | None] = {}
    env = jinja2.Environment(
        extensions=["jinja2.ext.i18n"], trim_blocks=True, lstrip_blocks=True, autoescape=True
    )
    for path in sorted((ROOM / "templates").glob("*.html")):
        for _, name, text in env.extract_translations(path.read_text("utf-8")):  # type: ignore[attr-defined]
            match name, text:
                case "ngettext", (str(one), str(many), *_):
                    found[one] = many
                case _, str():
                    found.setdefault(text, None)
                case _, (str(only), *_):
                    found.setdefault(only, None)
    for path in sorted(ROOM.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                function = node.func
                if isinstance(function, ast.Name) and function.id == "N_":
                    found.setdefault(str(node.args[0].value), None)
                if isinstance(function, ast.Attribute) and function.attr == "ngettext":
                    found[str(node.args[0].value)] = str(ast.literal_eval(node.args[1]))
    return found


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"%\((\w+)\)s", text))


@pytest.mark.parametrize("language", TRANSLATED)
def test_each_message_is_translated_and_none_is_left_over(language: str) -> None:
    wanted = messages()
    have = i18n.load()[language].messages
    missing = [m for m in wanted if not have.get(m) or not all(have[m])]
    assert missing == []
    assert sorted(set(have) - set(wanted)) == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_each_translation_fills_in_what_the_source_fills_in(language: str) -> None:
    have = i18n.load()[language].messages
    for one, many in messages().items():
        for form in have.get(one, ()):
            assert placeholders(form) == placeholders(many or one), one
            assert form.replace("%%", "").count("%") == len(re.findall(r"%\(\w+\)s", form)), one


@pytest.mark.parametrize("language", TRANSLATED)
def test_plural_messages_have_both_forms(language: str) -> None:
    have = i18n.load()[language].messages
    for one, many in messages().items():
        assert len(have.get(one, ())) == (2 if many else 1), one


def test_a_broken_catalogue_is_named_with_its_line() -> None:
    with pytest.raises(ValueError, match=r"fr\.po, line 2"):
        i18n.parse_po('msgid "a"\nmsgtsr "b"\n', "fr.po")


@pytest.mark.parametrize(
    ("asked", "remembered", "accept", "expected"),
    [
        ("", "", "", "en"),
        ("", "", "fr-CH, fr;q=0.9, en;q=0.8", "fr"),
        ("", "", "pl, de;q=0.7, en;q=0.3", "de"),
        ("", "", "fr;q=0, de;q=0.1", "de"),
        ("", "", "fr;q=nonsense, de", "de"),
        ("de", "fr", "en", "de"),
        ("xx", "fr", "en", "fr"),
        ("../../etc", "", "it", "en"),
    ],
)
def test_the_language_is_what_the_reader_asks_for(
    asked: str, remembered: str, accept: str, expected: str
) -> None:
    assert i18n.choose(asked, remembered, accept) == expected


def test_numbers_and_days_read_as_the_language_writes_them() -> None:
    en, fr, de = (i18n.load()[code] for code in ("en", "fr", "de"))
    assert [c.number(12345.6, 1) for c in (en, fr, de)] == ["12,345.6", "12\u202f345,6", "12.345,6"]
    assert [c.day(1_763_700_000_000_000) for c in (en, fr, de)] == ["21 Nov 2025", "21/11/2025", "21.11.2025"]
    assert [en.duration(us) for us in (-5, 1_500, 412_000, 1_200_000)] == [
        "0.0 ms",
        "1.5 ms",
        "412 ms",
        "1.2 s",
    ]
    assert [c.ngettext("x", "xs", 0) for c in (en, fr)] == ["xs", "xs"]
