"""Specimen documents through the machine's own reader, and the command on text, pictures and numbers."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ocr_replica import Replica, png, running
from PIL import Image
from running_node import ALLOD, running_node

from allod.clock import SystemClock
from allod.engines.ocr import rapid
from allod.engines.ocr.layout import render
from allod.kyc import mrz
from allod.kyc.mrz_find import find
from allod.kyc.specimen import Form, invented, picture, zone
from allod.kyc.specimen_wear import WEAR, worn


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with running(tmp_path_factory.mktemp("kyc") / "s.sock", "--languages=eng") as started:
        yield started


def strip(image: Image.Image) -> Image.Image:
    """The part of the page that the zone is on."""
    return image.crop((0, image.height * 7 // 10, image.width, image.height))


def by_rapidocr(image: Image.Image) -> str:
    """The reader that the machine's engine uses for pictures like this, without what goes before it."""
    return render(rapid.read(image)).markdown


def judged(text: str, form: Form, seed: int) -> mrz.Mrz:
    """The zone in it, after making sure that no value is wrong and looks right."""
    found = find(text, SystemClock())
    assert found is not None, text
    assert found.format == form
    true = {f.name: f.value for f in mrz.read(zone(invented(seed), form), SystemClock()).fields}
    for field in found.fields:
        if field.status in ("valid", "repaired"):
            assert field.value == true[field.name], (found.read, field)
    return found


@pytest.mark.parametrize(
    ("form", "wear", "seed"),
    [("TD3", "clean", 1), ("TD1", "scan", 2), ("TD3", "photo", 3), ("TD3", "glare", 4), ("TD1", "small", 5)],
)
def test_a_worn_specimen_is_read_and_nothing_is_wrong_and_looks_right(
    form: Form, wear: str, seed: int
) -> None:
    found = judged(by_rapidocr(worn(picture(invented(seed), form), WEAR[wear], seed)), form, seed)
    if wear in ("clean", "scan"):
        assert found.field("number").value == invented(seed).number


@pytest.mark.parametrize(("form", "seed"), [("TD3", 1), ("TD1", 2)])
def test_the_engine_reads_the_zone_of_a_small_picture(replica: Replica, form: Form, seed: int) -> None:
    text = replica.markdown(png(strip(worn(picture(invented(seed), form), WEAR["small"], seed))))
    assert judged(text, form, seed).lines == zone(invented(seed), form)


def test_the_engine_reads_a_whole_page(replica: Replica) -> None:
    text = replica.markdown(png(worn(picture(invented(1), "TD3"), WEAR["scan"], 1)))
    assert judged(text, "TD3", 1).lines == zone(invented(1), "TD3")


def test_a_specimen_is_the_same_every_time_and_says_what_it_is() -> None:
    once, again = (worn(picture(invented(9), "TD3"), WEAR["photo"], 9).tobytes() for _ in range(2))
    assert hashlib.sha256(once).digest() == hashlib.sha256(again).digest()
    assert worn(picture(invented(9), "TD3"), WEAR["photo"], 10).tobytes() != once
    assert "SPECIMEN" in by_rapidocr(picture(invented(9), "TD3")).upper()


def command(*words: str, given: str = "") -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "allod", "kyc", *words, "--json"],
        input=given.encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def test_the_command_reads_text_and_names_what_is_wrong(tmp_path: Path) -> None:
    lines = "\n".join(zone(invented(1), "TD3"))
    code, said = command("mrz", given=lines)
    assert (code, said["status"], said["mrz"]["format"]) == (0, "valid", "TD3")
    page = tmp_path / "page.txt"
    page.write_text("page\n" + lines.lower())
    assert command("mrz", str(page))[1]["mrz"]["lines"] == lines.splitlines()
    code, said = command("mrz", given="nothing here")
    assert (code, said["error"]["code"]) == (2, "kyc.no-mrz")
    code, said = command("mrz", str(tmp_path / "missing"))
    assert (code, said["error"]["code"]) == (2, "kyc.no-file")


def test_the_command_checks_identifiers() -> None:
    code, said = command("identifier", "DE89 3704 0044 0532 0130 00")
    assert (code, said["found"][0]["says"]["bank"]) == (0, "Commerzbank")
    code, said = command("identifier", "44051401358", "--kind", "person", "--country", "PL")
    assert (code, said["error"]["code"]) == (2, "kyc.identifier-invalid")
    code, said = command("identifier", "hello")
    assert (code, said["error"]["code"]) == (2, "kyc.identifier-unknown")


def test_a_picture_is_read_on_the_path_and_leaves_a_receipt(tmp_path: Path) -> None:
    scan = tmp_path / "scan.png"
    scan.write_bytes(png(strip(worn(picture(invented(1), "TD3"), WEAR["small"], 1))))
    home = tmp_path / "h"
    code, said = command("mrz", str(scan), "--home", str(home))
    assert (code, said["error"]["code"]) == (3, "node.not-running")
    subprocess.run([*ALLOD, "init", "--home", str(home)], check=True, capture_output=True)
    with running_node(home) as node:
        node.wait_ready()
        said = node.cli("kyc", "mrz", str(scan))
        assert tuple(said["mrz"]["lines"]) == zone(invented(1), "TD3")
        assert node.cli("receipt", "show", said["receipt"])
