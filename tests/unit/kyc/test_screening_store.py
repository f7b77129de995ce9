"""The lists of a node: what an import leaves behind, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from allod.clock import ManualClock
from allod.errors import Integrity, NotFound, Unprocessable
from allod.kyc.screening.entity import Entity, ListedName, Span
from allod.kyc.screening.lists.detect import Source, Taken
from allod.kyc.screening.score import BORN_OTHER
from allod.kyc.screening.screen import Question, Screener, explain
from allod.kyc.screening.store import Difference, Lists

CLOCK = ManualClock()


def entity(number: int, *names: str, **more: object) -> Entity:
    listed = tuple(ListedName(n) for n in names)
    return Entity(id=str(number), list="un", kind="person", names=listed, **more)  # type: ignore[arg-type]


def taken(*entities: Entity) -> Taken:
    return Taken(list="un", dated="", sources=(Source("un.xml", "sha256:00", 1),), entities=entities)


TEN = [entity(n, f"Ivan Specimen{'abcdefghij'[n]}") for n in range(10)]


def test_an_import_says_what_it_changed(tmp_path: Path) -> None:
    lists = Lists(tmp_path / "lists")
    assert lists.current() == []
    (first,) = lists.put([taken(*TEN)], CLOCK)
    assert (first.entities, first.names, len(first.difference.added)) == (10, 10, 10)
    changed = [*TEN[1:9], entity(9, "Igor Specimen"), entity(11, "Oleg Specimen")]
    (second,) = lists.put([taken(*changed)], CLOCK)
    assert second.difference == Difference(added=("11",), removed=("0",), changed=("9",))
    assert [i.digest for i in lists.history("un")] == [first.digest, second.digest]
    assert lists.entities(lists.current()[0]) == tuple(changed)
    assert lists.entities(first) == tuple(TEN)  # what a past screening used can still be shown


def test_a_list_that_lost_much_is_refused_and_the_last_good_one_stays(tmp_path: Path) -> None:
    lists = Lists(tmp_path)
    (good,) = lists.put([taken(*TEN)], CLOCK)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(Unprocessable) as e:
        lists.put([taken(*TEN[:5])], CLOCK)
    assert e.value.code == "kyc.list-shrunk"
    assert lists.current() == [good]
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    (asked_for,) = lists.put([taken(*TEN[:5])], CLOCK, may_shrink=True)
    assert asked_for.entities == 5


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    lists = Lists(tmp_path)
    (made,) = lists.put([taken(*TEN)], CLOCK)
    blob = tmp_path / "blobs" / made.digest.removeprefix("sha256:")
    blob.write_bytes(blob.read_bytes().replace(b"Specimena", b"Specimenz"))
    with pytest.raises(Integrity):
        lists.entities(made)
    (tmp_path / "un.json").write_text("[")
    with pytest.raises(Integrity):
        lists.current()
    with pytest.raises(NotFound):
        lists.history("eu")


def test_who_is_meant_is_found_once_and_explained() -> None:
    born = (Span("1970-02-03", "1970-02-03"),)
    screener = Screener(
        [
            entity(1, "Vladimir Specimenov", "Wladimir Spezimenow", births=born, countries=("RU",)),
            entity(2, "Anna Specimenova"),
            entity(3, "Pyotr Ilyich Otherman"),
        ]
    )
    for exhaustive in (False, True):
        found = screener.screen(Question(name="Specimenow, Wladimir"), exhaustive=exhaustive)
        assert [m.entity.id for m in found] == ["1"]
    same = screener.screen(Question(name="Vladimir Specimenov", born=born[0], country="RU"))[0]
    other = screener.screen(
        Question(name="Vladimir Specimenov", born=Span("1999-09-09", "1999-09-09")), threshold=0
    )[0]
    assert same.score > 0.98
    assert same.score > other.score
    assert [f.effect for f in other.comparison.factors if f.name == "birth"] == [BORN_OTHER]
    assert any("day of birth is the same" in line for line in explain(same))
    with pytest.raises(Unprocessable):
        screener.screen(Question(name="…"))


def test_who_is_known_by_a_title_alone_is_not_everybody() -> None:
    screener = Screener([entity(1, "Major"), entity(2, "La Señora")])
    assert screener.screen(Question(name="Heinrich Fischer"), exhaustive=True) == []
    assert [m.entity.id for m in screener.screen(Question(name="La Senora"))] == ["2"]
