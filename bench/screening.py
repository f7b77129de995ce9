"""Screening: how well pairs are judged, how fast names are screened, and the curve of every threshold.

    python bench/screening.py --pairs PAIRS.csv --lists DIR [--names N] [--seed N] [--write FILE] [--fit]

PAIRS.csv: labelled pairs in the columns of nomenklatura's name_bench. DIR: UN_consolidated.xml, sdn.csv,
alt.csv and add.csv. Everything runs in this one process; rates are by its CPU time, so they are per core.
Customers and mistakes are drawn by a seeded generator: customers are invented European names, mistakes are
single ones (a letter lost, swapped or replaced, parts shuffled, one part left out) in listed names. `--fit`
prints the costs for `score.SCHEME`.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from allod.kyc.screening import fit, names, score
from allod.kyc.screening.entity import Entity, Kind, ListedName
from allod.kyc.screening.lists import detect
from allod.kyc.screening.screen import Question, Screener

LISTED = 25_000
SEEDS = range(10)
ROUND = 1_000
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
RECALLS = (0.8, 0.85, 0.9, 0.95)
KINDS: dict[str, Kind] = {
    "Person": "person", "Company": "organisation", "Organization": "organisation", "Vessel": "vessel",
}  # fmt: skip


def _words(text: str) -> list[str]:
    return text.split()


FIRST = _words("""
    Anna Maria Peter Hans Jean Pierre Luca Giulia Marco Sofia Lukas Jonas Emma Paul Marie Claire Thomas
    Julia Stefan Petra Katarzyna Piotr Jan Ingrid Lars Erik Henrik Mette Carlos Ana Jose Miguel Joao
    Pedro Ines Dimitris Eleni Ivan Elena Georgi Milan Jana Tomas Eva Zoltan Andrea Lena Felix Noah Lea
    Louis Chloe
""")
LAST = _words("""
    Müller Schmidt Schneider Fischer Weber Meyer Wagner Becker Schulz Hoffmann Dubois Martin Bernard
    Petit Durand Leroy Moreau Rossi Russo Ferrari Esposito Bianchi Romano Kowalski Nowak Wiśniewski
    Wójcik Jansen Bakker Visser García Fernández López Martínez Silva Santos Ferreira Papadopoulos
    Nikolaidis Novák Svoboda Horváth Nagy Kovács Andersson Johansson Nielsen Hansen Larsen Virtanen
    Korhonen Ionescu Popescu Dimitrov
""")
SYLLABLES = _words("""
    ba be bi bo ra re ri ro la le li lo ma me mi mo na ne ni no sa se si ta te ti ka ke ko da de
""")
ENDINGS = _words("""
    ver ler ger sen mann ski ov ez ini eau
""")


def pairs_of(path: Path) -> list[fit.Pair]:
    with path.open(encoding="utf-8", newline="") as f:
        return [
            fit.Pair(r["name1"], r["name2"], KINDS.get(r["schema"], "unknown"), r["is_match"] == "true")
            for r in csv.DictReader(f)
        ]


def pair_quality(pairs: list[fit.Pair]) -> dict[str, Any]:
    """Cross-validated: every pair is judged by costs that were fitted without it."""
    found = [fit.cross_validated(pairs, seed=seed) for seed in SEEDS]
    seconds = []
    for _ in range(5):
        began = time.process_time()
        for p in pairs:
            score.score(names.parse(p.left), names.parse(p.right), p.kind)
        seconds.append(time.process_time() - began)
    return {
        "pairs": len(pairs),
        "folds": 5,
        "seeds": len(SEEDS),
        "f1": round(statistics.mean(q.f1 for q in found), 4),
        "f1_worst": round(min(q.f1 for q in found), 4),
        "false_positives_at_90_recall": round(statistics.mean(q.false_positives_at_90 for q in found), 4),
        "false_positives_at_90_recall_worst": round(max(q.false_positives_at_90 for q in found), 4),
        "us_per_pair": round(1e6 * statistics.median(seconds) / len(pairs), 1),
    }


def pair_curve(pairs: list[fit.Pair]) -> list[dict[str, float]]:
    """The shipped costs on the pairs they were fitted on: what a threshold means, a little too good."""
    scored = [(score.score(names.parse(p.left), names.parse(p.right), p.kind), p.same) for p in pairs]
    same = [s for s, y in scored if y]
    other = [s for s, y in scored if not y]
    rows = []
    for wanted in RECALLS:
        at = sorted(same, reverse=True)[int(wanted * len(same) + 0.9999) - 1]
        wrong = sum(s >= at for s in other) / len(other)
        rows.append({"recall": wanted, "threshold": round(at, 3), "false_positives": round(wrong, 4)})
    return rows


def customer(draw: random.Random) -> str:
    last = draw.choice(LAST)
    if draw.random() < 0.5:
        last = "".join(draw.choice(SYLLABLES) for _ in range(draw.randint(1, 3))) + draw.choice(ENDINGS)
    return f"{draw.choice(FIRST)} {last.title()}"


def mistaken(draw: random.Random, name: str) -> str:
    """The name with one mistake."""
    parts = name.split()
    what = draw.randint(0, 3)
    if what == 0 and len(parts) > 1:
        draw.shuffle(parts)
    elif what == 1 and len(parts) > 2:
        del parts[draw.randrange(len(parts))]
    else:
        at = draw.randrange(len(parts))
        word = parts[at]
        if len(word) > 3:
            k = draw.randrange(1, len(word) - 1)
            parts[at] = draw.choice(
                [
                    word[:k] + word[k + 1 :],
                    word[:k] + draw.choice("aeiourstln") + word[k + 1 :],
                    word[:k] + word[k + 1] + word[k] + word[k + 2 :],
                ]
            )
    return " ".join(parts)


def listed(folder: Path, draw: random.Random) -> list[Entity]:
    """The real lists, filled up to 25,000 names with invented ones."""
    files = [folder / n for n in ("UN_consolidated.xml", "sdn.csv", "alt.csv", "add.csv")]
    found = [e for taken in detect.take(files) for e in taken.entities]
    missing = LISTED - sum(len(e.names) for e in found)
    for n in range(max(0, missing)):
        word = "".join(draw.choice(SYLLABLES) for _ in range(3)) + draw.choice(ENDINGS)
        name = ListedName(f"{draw.choice(LAST)} {word.title()}")
        found.append(Entity(id=f"filler-{n}", list="filler", kind="person", names=(name,)))
    return found


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    result = action()
    return result, time.process_time() - began


def rates(screener: Screener, questions: list[Question]) -> dict[str, int]:
    """Names a second in rounds of new names; other work on the machine shows between median and best."""
    found = []
    for at in range(0, len(questions), ROUND):
        some = questions[at : at + ROUND]
        _, seconds = timed(lambda some=some: [screener.screen(q) for q in some])  # type: ignore[misc]
        found.append(len(some) / seconds)
    return {"median": round(statistics.median(found)), "best": round(max(found))}


def screening(entities: list[Entity], count: int, draw: random.Random) -> dict[str, Any]:
    screener, building = timed(lambda: Screener(entities))
    _, first = timed(lambda: screener.screen(Question(name="Erika Mustermann")))
    clean = [customer(draw) for _ in range(count)]
    real = [(e, n.text) for e in entities if e.list != "filler" for n in e.names]
    wrong = [(e, mistaken(draw, text)) for e, text in draw.sample(real, count)]
    wrong = [(e, name) for e, name in wrong if names.parse(name).parts]
    low = min(THRESHOLDS)

    def asked(name: str, entity: Entity | None = None) -> Question:
        return Question(name=name, kind=entity.kind if entity else "person")

    def best(name: str, entity: Entity | None = None) -> float:
        found = screener.screen(asked(name, entity), threshold=low)
        return max((m.score for m in found if entity is None or m.entity is entity), default=0.0)

    clean_rates = rates(screener, [asked(name) for name in clean])
    wrong_rates = rates(screener, [asked(name, e) for e, name in wrong])
    alarms = [best(name) for name in clean]
    hits = [best(name, e) for e, name in wrong]
    rows = [
        {
            "threshold": t,
            "listed_found": round(sum(s >= t for s in hits) / len(hits), 4),
            "customers_flagged": round(sum(s >= t for s in alarms) / len(alarms), 4),
        }
        for t in THRESHOLDS
    ]
    return {
        "listed_names": screener.names,
        "customers": count,
        "build_s": round(building + first, 2),
        "names_per_s": clean_rates,
        "names_per_s_listed_with_mistakes": wrong_rates,
        "curve": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--lists", type=Path)
    parser.add_argument("--names", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--fit", action="store_true")
    args = parser.parse_args()
    pairs = pairs_of(args.pairs)
    if args.fit:
        print(fit.fit(fit.measured(pairs), [p.same for p in pairs], score.SCHEME.version))
        return
    draw = random.Random(args.seed)
    value: dict[str, Any] = {
        "scheme": score.SCHEME.version,
        "measured": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, one core",
        "seed": args.seed,
        "pairs": pair_quality(pairs),
        "pair_curve": pair_curve(pairs),
    }
    if args.lists:
        value["screening"] = screening(listed(args.lists, draw), args.names, draw)
    text = json.dumps(value, indent=2) + "\n"
    print(text, end="")
    if args.write:
        args.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
