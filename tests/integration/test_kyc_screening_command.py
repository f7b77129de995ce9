"""`allod kyc lists` and `allod kyc screen`, as a person and as a script use them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ALLOD = Path(sys.executable).with_name("allod")
REAL = Path(__file__).parents[3] / "shared" / "data" / "lists"
PEOPLE = {"1": "Ivan Specimen", "2": "Иван Образцов", "3": "Maria Muster-Beispiel"}


def line(number: str, name: str) -> str:
    said = {"id": number, "schema": "Person", "properties": {"name": [name], "birthDate": ["1970-02-03"]}}
    return json.dumps(said, ensure_ascii=False) + "\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    source = tmp_path / "peps.json"
    source.write_text("".join(line(n, name) for n, name in PEOPLE.items()), encoding="utf-8")
    assert run(tmp_path / "home", "lists", "import", str(source))["imports"][0]["entities"] == len(PEOPLE)
    return tmp_path / "home"


def run(home: Path, *words: str, code: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [ALLOD, "kyc", *words, "--home", home, "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def test_a_name_is_found_with_its_reasons(home: Path) -> None:
    found = run(home, "screen", "Obraztsov Ivan", "--born", "1970")
    (match,) = found["matches"]
    assert (match["list"], match["id"]) == ("ftm-peps", "2")
    assert match["comparison"]["scheme"]
    assert any("birth dates can be the same" in words for words in match["words"])
    assert found["lists"][0]["digest"].startswith("sha256:")
    assert run(home, "screen", "Heinrich Fischer")["matches"] == []


def test_a_batch_goes_on_behind_what_it_cannot_read(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "customers.csv"
    file.write_text(
        "id,name,born,country,kind\n"
        "a,Iwan Spezimen,1970-02-03,,person\n"
        "b,Heinrich Fischer,,DE,\n"
        "c,???,,,\n"
        "d,Maria Muster Beispiel,yesterday,,\n"
        'e,"Beispiel, Maria Muster",,,\n'
    )
    done = run(home, "screen", "--file", str(file))
    assert (done["screened"], done["matched"], done["failed"]) == (5, 2, 2)
    assert [(r["line"], r["id"]) for r in done["rows"]] == [(2, "a"), (4, "c"), (5, "d"), (6, "e")]
    assert done["rows"][1]["error"]["code"] == "kyc.name-empty"
    assert done["rows"][2]["error"]["code"] == "kyc.date-invalid"


def test_mistakes_name_the_next_step(tmp_path: Path, home: Path) -> None:
    assert run(tmp_path / "new", "screen", "X Y", code=2)["error"]["hint"].startswith(
        "allod kyc lists import"
    )
    assert run(home, "screen", code=2)["error"]["code"] == "usage.invalid"
    assert (
        run(home, "screen", "A B", "--country", "Germany", code=2)["error"]["code"] == "kyc.country-invalid"
    )
    assert run(home, "screen", "--file", str(tmp_path / "none.csv"), code=2)["error"]["code"] == (
        "kyc.file-unreadable"
    )
    assert run(home, "lists", "import", str(tmp_path / "none.xml"), code=2)["error"]["code"] == (
        "kyc.list-unreadable"
    )


def test_a_damaged_list_leaves_the_last_good_one_in_use(home: Path, tmp_path: Path) -> None:
    before = run(home, "lists", "ls")
    damaged = tmp_path / "peps.json"
    damaged.write_text(damaged.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    error = run(home, "lists", "import", str(damaged), code=2)["error"]
    assert error["code"] == "kyc.list-damaged"
    assert error["details"] == {"file": "peps.json", "line": 3}
    assert run(home, "lists", "ls") == before


def test_an_import_that_is_killed_leaves_a_whole_list(home: Path, tmp_path: Path) -> None:
    """Killed at different moments; afterwards either list is in use, and it is read back whole."""
    big = tmp_path / "peps.json"
    big.write_text("".join(line(str(n), f"Specimen Number {n}") for n in range(30_000)), encoding="utf-8")
    for pause in (0.15, 0.3, 0.45, 0.6):
        child = subprocess.Popen(
            [ALLOD, "kyc", "lists", "import", big, "--may-shrink", "--home", home],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(pause)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        (in_use,) = run(home, "lists", "ls")["lists"]
        assert in_use["entities"] in (len(PEOPLE), 30_000)
    assert run(home, "screen", "Specimen Ivan")["lists"]


@pytest.mark.skipif(not REAL.is_dir(), reason="no copies of the lists in ../shared/data/lists")
def test_the_real_lists_find_who_is_on_them(tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = run(home, "lists", "import", *(str(p) for p in sorted(REAL.iterdir())))
    assert sorted(i["list"] for i in made["imports"]) == ["ofac-sdn", "un"]
    found = run(home, "screen", "Аркадий Ротенберг", "--threshold", "0.7")["matches"]
    assert found[0]["by"]["text"] == "ROTENBERG, Arkady"
    again = run(home, "lists", "import", str(REAL / "UN_consolidated.xml"))["imports"][0]
    assert (again["added"], again["removed"], again["changed"]) == (0, 0, 0)
    assert run(home, "lists", "diff", "un")["difference"] == {"added": [], "removed": [], "changed": []}
