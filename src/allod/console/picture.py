"""The path of one exchange as a picture. Pure: a receipt's statement in, stations and lines out.

Nothing here is drawn that the statement does not say: a station whose value is missing is shown as unknown,
a station that was never reached as skipped. The statement carries two moments, the first and the last; no
time in between is invented.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from allod.console.i18n import N_, Catalogue
from allod.ledger.statement import Attempt, Statement
from allod.policy.explain import Explanation, RuleLine, SiteExplanation

State = Literal["done", "stopped", "skipped", "waiting", "failed"]
BranchState = Literal["used", "tried", "allowed", "refused"]
LineKind = Literal["taken", "open", "refused", "tried"]

BRANCHES_DRAWN_MAX = 6  # more do not fit; the list below the picture holds all of them
WIDTH = 1120
ROW = 52  # vertical distance of two site cards
CARD_WIDTH, CARD_HEIGHT = 172, 40
STATIONS_X = {
    "client": 50,
    "front": 150,
    "who": 250,
    "class": 350,
    "may": 470,
    "replica": 866,
    "receipt": 976,
    "ledger": 1070,
}
CARD_X = 612
TOP = 34

_KINDS: dict[BranchState, LineKind] = {
    "used": "taken",
    "tried": "tried",
    "allowed": "open",
    "refused": "refused",
}


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """One site at the fork: used, contacted without success, permitted, or refused by rules."""

    site: str
    state: BranchState
    rules: tuple[str, ...] = ()
    reasons: tuple[RuleLine, ...] = ()  # what those rules say; empty where nobody can tell any more
    attempts: tuple[Attempt, ...] = ()


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    title: str
    value: str  # one line, may be cut in the drawing; the list shows it whole
    detail: str  # one sentence
    state: State


class Dot(msgspec.Struct, frozen=True):
    stage: Stage
    x: int
    y: int
    label: str


class Card(msgspec.Struct, frozen=True):
    branch: Branch
    x: int
    y: int  # middle of the card
    label: str
    note: str


class Line(msgspec.Struct, frozen=True):
    d: str  # SVG path data
    kind: LineKind


class Drawing(msgspec.Struct, frozen=True):
    width: int
    height: int
    axis: int
    dots: tuple[Dot, ...]
    cards: tuple[Card, ...]
    lines: tuple[Line, ...]
    bars: tuple[tuple[int, int], ...]  # where a refused line ends at its barrier
    more: int  # sites that are only in the list


class Picture(msgspec.Struct, frozen=True):
    outcome: str
    summary: str  # the whole picture in one sentence
    stages: tuple[Stage, ...]
    branches: tuple[Branch, ...]
    drawing: Drawing


def branches_of(statement: Statement, told: Explanation | None) -> tuple[Branch, ...]:
    """The fork. `told` adds reasons and permitted sites, where it was made under the receipt's policy."""
    same_rules = told is not None and told.policy == statement.policy
    verdicts = {v.site: v for v in told.sites} if told and same_rules else {}
    found: dict[str, Branch] = {}
    for attempt in statement.attempts:
        before = found[attempt.site].attempts if attempt.site in found else ()
        used = attempt.site == statement.site
        verdict = verdicts.get(attempt.site)
        found[attempt.site] = Branch(
            site=attempt.site,
            state="used" if used else "tried",
            rules=statement.rules,
            reasons=verdict.rules if verdict and verdict.allowed else (),
            attempts=(*before, attempt),
        )
    if statement.site and statement.site not in found:
        found[statement.site] = Branch(site=statement.site, state="used", rules=statement.rules)
    for verdict in verdicts.values():
        if statement.decision == "allow" and verdict.allowed and verdict.site not in found:
            found[verdict.site] = Branch(
                site=verdict.site, state="allowed", rules=_names(verdict), reasons=verdict.rules
            )
    for refusal in statement.refused:
        if refusal.site not in found:
            verdict = verdicts.get(refusal.site)
            reasons = verdict.rules if verdict and not verdict.allowed else ()
            found[refusal.site] = Branch(
                site=refusal.site, state="refused", rules=refusal.rules, reasons=reasons
            )
    order = ("used", "tried", "allowed", "refused")
    return tuple(sorted(found.values(), key=lambda b: order.index(b.state)))


def _names(verdict: SiteExplanation) -> tuple[str, ...]:
    return tuple(rule.id for rule in verdict.rules)


def stages_of(statement: Statement, index: int | None, c: Catalogue) -> tuple[Stage, ...]:
    """The eight stations, in the reader's language."""
    s = statement
    denied = s.decision == "deny"
    reached = bool(s.attempts) or (s.outcome == "answered" and not denied)
    last = s.attempts[-1] if s.attempts else None
    labels = labels_of(s, c)
    usage = usage_text(s, c)
    replica_state: State = "skipped" if not reached else ("done" if s.outcome == "answered" else "failed")
    return (
        Stage(
            key="client",
            title=c(N_("Client")),
            value=c.size(s.input_bytes),
            state="done",
            detail=c(N_("The request left the client. Its content is committed to, not kept.")),
        ),
        Stage(
            key="front",
            title=c(N_("Front")),
            value=c.clock_time(s.started_us),
            state="done",
            detail=c(
                N_("Received at %(time)s on %(endpoint)s."), time=c.moment(s.started_us), endpoint=s.endpoint
            ),
        ),
        Stage(
            key="who",
            title=c(N_("Who")),
            value=s.project,
            state="done",
            detail=c(
                N_("A key of project %(project)s, organisation %(organisation)s."),
                project=s.project,
                organisation=s.organisation,
            ),
        ),
        Stage(
            key="class",
            title=c(N_("What class")),
            value=c(s.data_class),
            state="done",
            detail=c(N_("The data carried: %(labels)s."), labels=labels),
        ),
        Stage(
            key="may",
            title=c(N_("May it, and where")),
            value=c(N_("no")) if denied else c(N_("yes")),
            state="stopped" if denied else "done",
            detail=c(N_("The rules refuse every place that serves this model."))
            if denied
            else c(
                N_("The rules allow it. Decided by: %(rules)s."), rules=", ".join(s.rules) or c(N_("unknown"))
            ),
        ),
        Stage(
            key="replica",
            title=c(N_("Replica")),
            value=last.replica if last else c(N_("not reached")),
            state=replica_state,
            detail=_replica_detail(s, usage, c) if reached else c(N_("No replica was contacted.")),
        ),
        Stage(
            key="receipt",
            title=c(N_("Receipt")),
            value=c.clock_time(s.ended_us),
            state="done",
            detail=c(
                N_("On disk %(duration)s after the request arrived, before the last byte was sent."),
                duration=c.duration(s.ended_us - s.started_us),
            ),
        ),
        Stage(
            key="ledger",
            title=c(N_("Ledger")),
            value=c(N_("waiting")) if index is None else c(N_("entry %(number)s"), number=c.number(index)),
            state="waiting" if index is None else "done",
            detail=c(N_("On disk, waiting for its place in the tree."))
            if index is None
            else c(N_("Entry %(number)s of the append-only tree."), number=c.number(index)),
        ),
    )


def _replica_detail(s: Statement, usage: str, c: Catalogue) -> str:
    if s.outcome == "answered":
        return c(N_("Answered by %(engine)s: %(usage)s."), engine=s.engine or c(N_("unknown")), usage=usage)
    return c(N_("It ended as: %(outcome)s (HTTP %(status)s)."), outcome=c(s.outcome), status=s.status)


def labels_of(s: Statement, c: Catalogue) -> str:
    """`restricted (health, personal)`."""
    categories = ", ".join(c(x) for x in s.categories)
    return f"{c(s.data_class)} ({categories})" if categories else c(s.data_class)


def usage_text(s: Statement, c: Catalogue) -> str:
    """`12 tokens in, 40 out` or `3 pages`; says so where nothing was counted."""
    if s.usage.source == "none":
        return c(N_("nothing counted"))
    if s.usage.pages:
        return c.ngettext("%(num)s page", "%(num)s pages", s.usage.pages) % {"num": c.number(s.usage.pages)}
    return c(
        N_("%(input)s tokens in, %(output)s out"),
        input=c.number(s.usage.input_tokens),
        output=c.number(s.usage.output_tokens),
    )


def summary_of(s: Statement, c: Catalogue) -> str:
    took = c.duration(s.ended_us - s.started_us)
    match s.outcome:
        case "answered":
            return c(
                N_("Answered by %(model)s at site %(site)s in %(duration)s."),
                model=s.model,
                site=s.site or c(N_("unknown")),
                duration=took,
            )
        case "refused" if s.decision == "deny":
            return c(
                N_("Refused: %(labels)s data for %(model)s may go to none of its sites."),
                labels=labels_of(s, c),
                model=s.model,
            )
        case "refused":
            return c(N_("Refused before any replica was contacted (HTTP %(status)s)."), status=s.status)
        case "cancelled":
            return c(
                N_("Cancelled by the client after %(duration)s; what was produced is counted."), duration=took
            )
        case "interrupted":
            return c(N_("Interrupted: the node stopped before the end; the intent is on record."))
        case _:
            return c(N_("Failed after %(duration)s (HTTP %(status)s)."), duration=took, status=s.status)


def draw(statement: Statement, index: int | None, told: Explanation | None, c: Catalogue) -> Picture:
    """The whole picture of one exchange; `index` None while the receipt waits for its place in the ledger."""
    stages = stages_of(statement, index, c)
    branches = branches_of(statement, told)
    return Picture(
        outcome=statement.outcome,
        summary=summary_of(statement, c),
        stages=stages,
        branches=branches,
        drawing=_lay_out(stages, branches, c),
    )


def _lay_out(stages: tuple[Stage, ...], branches: tuple[Branch, ...], c: Catalogue) -> Drawing:
    drawn = branches[:BRANCHES_DRAWN_MAX]
    by_key = {s.key: s for s in stages}
    rows = max(len(drawn), 1)
    stopped = by_key["may"].state == "stopped"
    reached = by_key["replica"].state == "done" or any(b.state == "used" for b in drawn)
    height = TOP + max(rows * ROW, 120) + (16 if reached else 40)
    axis = TOP + max(rows * ROW, 120) // 2
    notes = {
        "used": c(N_("used")),
        "tried": c(N_("tried, did not answer")),
        "allowed": c(N_("allowed, not needed")),
        "refused": c(N_("refused")),
    }
    cards, lines, bars = [], [], []
    fork = STATIONS_X["may"]
    first = axis - (rows - 1) * ROW // 2
    for row, branch in enumerate(drawn):
        y = first + row * ROW
        cards.append(Card(branch, CARD_X, y, cut(branch.site, 22), notes[branch.state]))
        end = CARD_X - 22 if branch.state == "refused" else CARD_X
        lines.append(Line(_bend(fork + 15, axis, end, y), _KINDS[branch.state]))
        if branch.state == "refused":
            bars.append((end, y))
        if branch.state == "used":
            lines.append(Line(_bend(CARD_X + CARD_WIDTH, y, STATIONS_X["replica"] - 13, axis), "taken"))
    lines.append(Line(f"M{STATIONS_X['client']} {axis}H{fork - 15}", "taken"))
    if reached:
        lines.append(Line(f"M{STATIONS_X['replica'] + 13} {axis}H{STATIONS_X['receipt'] - 13}", "taken"))
    else:
        around = _around(fork, STATIONS_X["receipt"], axis, height - 12)
        lines.append(Line(around, "refused" if stopped else "tried"))
    ledger: LineKind = "taken" if by_key["ledger"].state == "done" else "open"
    lines.append(Line(f"M{STATIONS_X['receipt'] + 13} {axis}H{STATIONS_X['ledger'] - 13}", ledger))
    dots = tuple(Dot(s, STATIONS_X[s.key], axis, cut(s.value, 15)) for s in stages)
    return Drawing(
        WIDTH, height, axis, dots, tuple(cards), tuple(lines), tuple(bars), len(branches) - len(drawn)
    )


def _around(fork: int, receipt: int, axis: int, floor: int) -> str:
    """From the fork straight to the receipt, below everything that was not reached."""
    rise = receipt - 48
    down = f"M{fork} {axis + 17}V{floor - 16}Q{fork} {floor} {fork + 16} {floor}"
    up = f"H{rise - 16}Q{rise} {floor} {rise} {floor - 16}V{axis + 16}"
    return f"{down}{up}Q{rise} {axis} {rise + 16} {axis}H{receipt - 13}"


def _bend(x1: int, y1: int, x2: int, y2: int) -> str:
    if y1 == y2:
        return f"M{x1} {y1}H{x2}"
    middle = (x1 + x2) // 2
    return f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"


def cut(text: str, chars: int) -> str:
    """The text, or its beginning and an ellipsis, in at most `chars` characters."""
    return text if len(text) <= chars else text[: chars - 1] + "…"
