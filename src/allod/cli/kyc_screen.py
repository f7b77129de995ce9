"""`allod kyc lists` and `allod kyc screen`: the official lists of this node, and who is on them."""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allod.cli.output import Out, table
from allod.cli.parser import Verbs, home_of
from allod.cli.progress import Bar
from allod.clock import SystemClock
from allod.errors import AllodError, NotFound, NotReady, TooLarge, Usage
from allod.limits import LIST_CSV_FIELD_BYTES_MAX, SCREEN_NAMES_MAX

if TYPE_CHECKING:  # what screening needs is an extra, and takes a moment to import
    from allod.kyc.screening.screen import Match, Question, Screener
    from allod.kyc.screening.store import Import, Lists

_COLUMNS = ("id", "name", "born", "country", "kind")
_KINDS = ("person", "organisation", "vessel", "aircraft")
_CHANGES_SHOWN = 20
_COUNTRY = re.compile(r"[A-Za-z]{2}")


def register(verbs: Verbs) -> None:
    under = verbs.group("lists", "the official sanctions lists that names are screened against")
    take = under.add("import", "take lists in from their publishers' own files", _import)
    take.add_argument(
        "files", metavar="FILE", nargs="+", type=Path, help="EU XML, UN XML, OFAC CSV or FtM JSON lines"
    )
    take.add_argument(
        "--may-shrink",
        action="store_true",
        help="take a list though more than a fifth of its entries has gone",
    )
    under.add("ls", "list what was imported: from what, when, and how much", _ls)
    diff = under.add("diff", "what the last import of a list changed", _diff)
    diff.add_argument("list", help="the list, as `allod kyc lists ls` shows it")
    ask = verbs.add("screen", "look for a name on the imported lists, and say why it was found", _screen)
    ask.add_argument("name", nargs="?", help="the name, in any script")
    ask.add_argument("--file", metavar="CSV", type=Path, help=f"many names: columns {', '.join(_COLUMNS)}")
    ask.add_argument("--born", metavar="DATE", default="", help="2001-02-03, 2001-02 or 2001")
    ask.add_argument("--country", metavar="CC", default="", help="ISO 3166 code of nationality or residence")
    ask.add_argument("--kind", choices=_KINDS, default="", help="what the name is of")
    ask.add_argument("--threshold", metavar="SCORE", type=_score, help="0 to 1 (default: 0.5)")


def _score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _lists(args: argparse.Namespace) -> Lists:
    try:
        from allod.kyc.screening.store import Lists
    except ModuleNotFoundError as e:
        raise NotReady(
            "kyc.not-installed",
            f"screening needs {e.name}, which is not here",
            hint="pip install 'allod[kyc]'",
        ) from e
    return Lists(home_of(args).root / "kyc" / "lists")


def _import(args: argparse.Namespace, out: Out) -> int:
    lists = _lists(args)
    from allod.kyc.screening.lists import detect

    made = lists.put(detect.take(args.files), SystemClock(), may_shrink=args.may_shrink)
    out.result({"imports": [_summary(one) for one in made]}, [_told(one) for one in made])
    return 0


def _told(one: Import) -> str:
    change = one.difference
    changed = f"{len(change.added)} added, {len(change.removed)} removed, {len(change.changed)} changed"
    return f"{one.list}: {one.entities} entries with {one.names} names; {changed}"


def _summary(one: Import) -> dict[str, Any]:
    """An import without the ids of what it changed, which can be as many as the list has entries."""
    change = one.difference
    return {
        "list": one.list, "digest": one.digest, "dated": one.dated, "imported": one.imported,
        "entities": one.entities, "names": one.names,
        "sources": [{"file": s.file, "digest": s.digest, "bytes": s.bytes} for s in one.sources],
        "added": len(change.added), "removed": len(change.removed), "changed": len(change.changed),
    }  # fmt: skip


def _ls(args: argparse.Namespace, out: Out) -> int:
    current = _lists(args).current()
    rows = [(i.list, i.entities, i.names, i.dated or "unknown", i.imported, i.digest[7:19]) for i in current]
    header = ("LIST", "ENTRIES", "NAMES", "DATED", "IMPORTED", "DIGEST")
    out.result({"lists": [_summary(i) for i in current]}, table(header, rows))
    if not current:
        out.say("no list was imported yet; next: allod kyc lists import FILE…")
    return 0


def _diff(args: argparse.Namespace, out: Out) -> int:
    last = _lists(args).history(args.list)[-1]
    change = last.difference
    lines = []
    for what, ids in (("added", change.added), ("removed", change.removed), ("changed", change.changed)):
        more = f" and {len(ids) - _CHANGES_SHOWN} more (--json has all)" if len(ids) > _CHANGES_SHOWN else ""
        lines.append(f"{what:8} {len(ids):>6}  {' '.join(ids[:_CHANGES_SHOWN])}{more}".rstrip())
    out.result({"list": last.list, "imported": last.imported, "difference": change}, lines)
    return 0


# --- screening ----------------------------------------------------------------------------------------------


def _screen(args: argparse.Namespace, out: Out) -> int:
    if (args.name is None) == (args.file is None):
        raise Usage("usage.invalid", "either a name or --file is needed", hint="allod kyc screen 'Jane Doe'")
    lists = _lists(args)
    if args.file:
        if args.born or args.country or args.kind:
            raise Usage("usage.invalid", "with --file, birth date, country and kind are columns of the file")
        return _batch(args, lists, out)
    from allod.kyc.screening.screen import THRESHOLD, explain

    question = _question(args.name, args.born, args.country, args.kind)
    threshold = THRESHOLD if args.threshold is None else args.threshold
    screener, used = _screener(lists)
    found = screener.screen(question, threshold=threshold, exhaustive=True)
    lines = []
    for match in found:
        lines += [*_headline(match), *(f"    {line}" for line in explain(match))]
    value = {"question": question, "threshold": threshold, "lists": used, "names": screener.names}
    out.result(value | {"matches": [_shown(m) for m in found]}, lines)
    if not found:
        out.say(f"nobody among {screener.names} names reaches {threshold:g}")
    return 0


def _screener(lists: Lists) -> tuple[Screener, list[dict[str, str]]]:
    from allod.kyc.screening.screen import Screener

    current = lists.current()
    if not current:
        raise NotFound("kyc.no-lists", "no list was imported yet", hint="allod kyc lists import FILE…")
    used = [{"list": i.list, "digest": i.digest, "imported": i.imported} for i in current]
    return Screener(e for one in current for e in lists.entities(one)), used


def _question(name: str, born: str, country: str, kind: str) -> Question:
    from allod.kyc.screening.entity import KINDS, span
    from allod.kyc.screening.screen import Question

    when = span(born) if born else None
    if born and when is None:
        raise Usage("kyc.date-invalid", f"{born!r} is no birth date", hint="2001-02-03, 2001-02 or 2001")
    if country and not _COUNTRY.fullmatch(country):
        raise Usage("kyc.country-invalid", f"{country!r} is no ISO 3166 code", hint="two letters, such as FR")
    known = next((k for k in KINDS if k == (kind or "unknown")), None)
    if known is None:
        raise Usage("kyc.kind-invalid", f"{kind!r} is no kind", hint=f"one of {', '.join(_KINDS)}")
    return Question(name=name, born=when, country=country.upper(), kind=known)


def _headline(match: Match) -> list[str]:
    entity, by = match.entity, match.by
    main = entity.names[0].text
    also = f"  (by its {by.kind} name {by.text})" if by.text != main else ""
    births = ", ".join(b.first if b.exact else f"{b.first[:4]}-{b.last[:4]}" for b in entity.births)
    facts = [entity.kind, births, " ".join(entity.countries), " ".join(entity.programmes)]
    return [
        f"{match.score:.2f}  {main}{also}",
        f"    {entity.list} {entity.id}: {'; '.join(f for f in facts if f)}",
    ]


def _shown(match: Match) -> dict[str, Any]:
    from allod.kyc.screening.screen import explain

    return {
        "score": round(match.score, 4), "list": match.entity.list, "id": match.entity.id, "by": match.by,
        "entity": match.entity, "comparison": match.comparison, "words": explain(match),
    }  # fmt: skip


def _batch(args: argparse.Namespace, lists: Lists, out: Out) -> int:
    from allod.kyc.screening.screen import THRESHOLD

    threshold = THRESHOLD if args.threshold is None else args.threshold
    screener, used = _screener(lists)
    rows: list[dict[str, Any]] = []
    count = failed = 0
    with Bar(shown=not out.as_json) as bar:
        bar.total(args.file.stat().st_size if args.file.exists() else 0)
        for line, row, read in _rows(args.file):
            count += 1
            try:
                question = _question(row["name"], row["born"], row["country"], row["kind"])
                found = screener.screen(question, threshold=threshold)
            except AllodError as e:
                failed += 1
                rows.append({"line": line, "id": row["id"], "name": row["name"], "error": e.as_dict()})
            else:
                if found:
                    shown = [_shown(m) for m in found]
                    rows.append({"line": line, "id": row["id"], "name": row["name"], "matches": shown})
            bar.moved(read)
        seconds = bar.seconds
    matched = len(rows) - failed
    value = {"threshold": threshold, "lists": used, "screened": count, "matched": matched, "failed": failed}
    out.result(value | {"rows": rows}, _batch_lines(rows))
    rate = f", {count / seconds:.0f} a second" if seconds > 0 else ""
    out.say(f"{count} names screened{rate}; {matched} with matches, {failed} not readable")
    return 0


def _batch_lines(rows: list[dict[str, Any]]) -> list[str]:
    cells: list[tuple[Any, ...]] = []
    for row in rows:
        if "error" in row:
            cells.append((row["line"], row["id"], row["name"], "-", "-", row["error"]["message"]))
        for match in row.get("matches", ()):
            where = f"{match['list']} {match['id']}"
            score, by = f"{match['score']:.2f}", match["by"].text
            cells.append((row["line"], row["id"], row["name"], score, where, by))
    return table(("LINE", "ID", "NAME", "SCORE", "LISTED", "AS"), cells)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str], int]]:
    """Line, cells by column, and about how many bytes were read for them."""
    csv.field_size_limit(LIST_CSV_FIELD_BYTES_MAX)
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            reader = csv.DictReader(f, strict=True)
            known = [c for c in reader.fieldnames or () if c in _COLUMNS]
            if "name" not in known:
                hint = f"columns: {', '.join(_COLUMNS)}"
                raise Usage("kyc.column-missing", f"{path.name} has no column `name`", hint=hint)
            for number, row in enumerate(reader):
                if number >= SCREEN_NAMES_MAX:
                    raise TooLarge("kyc.too-many-names", f"{path.name} has more than {SCREEN_NAMES_MAX} rows")
                cells = {c: (row.get(c) or "").strip() for c in _COLUMNS}
                read = sum(len(c or "") + 1 for c in row.values() if isinstance(c, str))
                yield reader.line_num, cells, read
    except OSError as e:
        raise NotFound("kyc.file-unreadable", f"{path} cannot be read: {e.strerror}") from e
    except (csv.Error, UnicodeDecodeError) as e:
        raise Usage("kyc.file-invalid", f"{path.name} is no UTF-8 CSV file ({e})") from e
