"""How a model came to be, as a picture. Pure: its papers in, cards and lines out.

Nothing is drawn that the papers do not say. A line is solid where what it stands for is proven by a digest
or a signature, dotted where it is only said or not known, and ends at a barrier where the node refuses the
model.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from allod.api.ports import ModelPapersView
from allod.console.i18n import N_, Catalogue
from allod.console.picture import Line, LineKind, cut
from allod.models.lineage import UNKNOWN, Material, Role

CardState = Literal["used", "tried", "allowed", "refused"]

WIDTH = 1120
CARD_WIDTH, CARD_HEIGHT, ROW = 196, 44, 56
COLUMNS = (14, 320, 616, 912)  # what went in, how, the model, where it answers
SINGLE_MAX = 3  # more of one kind are drawn as one card; the list below has each
NAME_CHARS, NOTE_CHARS = 24, 30

ROLES: dict[Role, str] = {
    "base-model": N_("base model"),
    "dataset": N_("training data"),
    "code": N_("code"),
    "environment": N_("environment"),
    "source-file": N_("source file"),
}


class Card(msgspec.Struct, frozen=True):
    x: int
    y: int  # top
    state: CardState
    label: str
    note: str


class Input(msgspec.Struct, frozen=True):
    """One thing that went in, or several of one kind."""

    label: str
    note: str
    proven: bool


class Picture(msgspec.Struct, frozen=True):
    width: int
    height: int
    cards: tuple[Card, ...]
    lines: tuple[Line, ...]
    bars: tuple[tuple[int, int], ...]
    summary: str  # the whole picture in one sentence


def inputs(materials: tuple[Material, ...], c: Catalogue) -> tuple[Input, ...]:
    """The first column: a card each, or one for all of a kind where there are many."""
    found: list[Input] = []
    for role, words in ROLES.items():
        these = [m for m in materials if m.role == role]
        if len(these) > SINGLE_MAX:
            proven = all(m.digest != UNKNOWN for m in these)
            label = c(N_("%(count)s parts"), count=c.number(len(these)))
            found.append(Input(label, _note(c(words), proven, c), proven))
        else:
            found += [
                Input(m.name, _note(c(words), m.digest != UNKNOWN, c), m.digest != UNKNOWN) for m in these
            ]
    return tuple(found) or (Input(c(N_("unknown")), c(N_("what went in")), False),)


def _note(words: str, proven: bool, c: Catalogue) -> str:
    return f"{words}, {c(N_('by digest')) if proven else c(N_('only by name'))}"


def draw(view: ModelPapersView, c: Catalogue) -> Picture:
    """The picture, in the reader's language."""
    went_in = inputs(view.lineage.materials, c)
    rows = max(len(went_in), len(view.told), 1)
    height = rows * ROW + 8
    middle = (height - CARD_HEIGHT) // 2
    refused = view.signed is None
    cards = _column(
        COLUMNS[0], height, [(i.label, i.note, "used" if i.proven else "allowed") for i in went_in]
    )
    lines = [
        Line(
            _bend(card.x + CARD_WIDTH, _mid(card.y), COLUMNS[1], _mid(middle)),
            "taken" if i.proven else "open",
        )
        for card, i in zip(cards, went_in, strict=True)
    ]
    how = Card(
        COLUMNS[1],
        middle,
        "used" if view.lineage_stated else "allowed",
        cut(view.lineage.builder if view.lineage_stated else c(N_("unknown")), NAME_CHARS),
        c(N_("how it was made")),
    )
    signer = view.signed.who if view.signed else ""
    model = Card(
        COLUMNS[2],
        middle,
        "refused" if refused else "used",
        cut(view.manifest.name, NAME_CHARS),
        c(N_("not served")) if refused else cut(c(N_("signed by %(who)s"), who=signer), NOTE_CHARS),
    )
    lines.append(Line(_bend(how.x + CARD_WIDTH, _mid(middle), model.x, _mid(middle)), _said(view)))
    end = COLUMNS[3] - (24 if refused else 0)
    answers: list[tuple[str, str, CardState]] = [
        (t.service, t.reference or c(N_("no system prompt")), "used") for t in view.told
    ]
    served = _column(
        COLUMNS[3], height, answers or [(c(N_("nowhere")), c(N_("no service uses it")), "allowed")]
    )
    kind: LineKind = "refused" if refused else "taken" if answers else "open"
    lines += [Line(_bend(model.x + CARD_WIDTH, _mid(middle), end, _mid(card.y)), kind) for card in served]
    bars = tuple((end, _mid(card.y)) for card in served) if refused else ()
    return Picture(WIDTH, height, (*cards, how, model, *served), tuple(lines), bars, _summary(view, c))


def _said(view: ModelPapersView) -> Literal["taken", "open"]:
    return "taken" if view.lineage_stated else "open"


def _column(x: int, height: int, cells: list[tuple[str, str, CardState]]) -> list[Card]:
    top = (height - len(cells) * ROW + ROW - CARD_HEIGHT) // 2
    return [
        Card(x, top + row * ROW, state, cut(label, NAME_CHARS), cut(note, NOTE_CHARS))
        for row, (label, note, state) in enumerate(cells)
    ]


def _mid(top: int) -> int:
    return top + CARD_HEIGHT // 2


def _bend(x1: int, y1: int, x2: int, y2: int) -> str:
    middle = (x1 + x2) // 2
    return f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"


def _summary(view: ModelPapersView, c: Catalogue) -> str:
    materials = view.lineage.materials
    first = c(
        N_("%(proven)s of %(all)s things that went in are known by digest."),
        proven=c.number(sum(m.digest != UNKNOWN for m in materials)),
        all=c.number(len(materials)),
    )
    if not materials:
        first = c(N_("Nothing is known of what went in."))
    if view.signed is None:
        return f"{first} {c(N_('The model is not served: no signature on it counts.'))}"
    return f"{first} {c(N_('The model is signed by %(who)s.'), who=view.signed.who)}"
