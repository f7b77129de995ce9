"""Without the kernel's asynchronous sync a thread does it, with the same promise."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from allod.errors import NotReady
from allod.front import evidence as evidence_room
from allod.front.evidence import Evidence
from allod.front.problems import Problem
from allod.ledger import intent
from allod.ledger.commitment import RecordKey, new_key, receipt_id
from allod.ledger.intent import Intent
from allod.ledger.spool import Spool


@pytest.fixture(params=["refused at start", "refused later"])
async def evidence(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Evidence:
    class NoAio:
        eventfd = -1

        def __init__(self) -> None:
            if request.param == "refused at start":
                raise OSError("no native AIO")
            self.eventfd = os.eventfd(0)

        def submit(self, files: list[int]) -> None:
            raise OSError("no native AIO any more")

        def close(self) -> None:
            os.close(self.eventfd)

    monkeypatch.setattr(evidence_room, "Syncer", NoAio)
    return Evidence(lambda: Spool.open(tmp_path / "spool", "0"), asyncio.get_running_loop())


def begin(evidence: Evidence) -> None:
    id_, key = receipt_id(1_700_000_000_000_000), RecordKey(new_key())
    text = dict.fromkeys(
        ("action", "actor", "data_class", "endpoint", "input", "key_check", "model", "organisation", "origin",
         "policy", "project"), "x",
    )  # fmt: skip
    evidence.begin(
        intent.encode(Intent(id=id_, categories=(), input_bytes=0, key=key.key, started_us=1, **text))
    )


async def told(evidence: Evidence) -> bool:
    done = asyncio.get_running_loop().create_future()
    evidence.when_durable(done.set_result)
    return bool(await asyncio.wait_for(done, 5))


async def test_a_thread_syncs_where_the_kernel_does_not(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (synced.append(fd), real(fd)))
    for rounds in (1, 2):
        begin(evidence)
        assert await told(evidence)
        assert len(synced) == rounds
    await evidence.close()


async def test_a_disk_that_refuses_releases_nothing_and_admits_nothing(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(5, "Input/output error")

    begin(evidence)
    monkeypatch.setattr(os, "fdatasync", refuse)
    assert not await told(evidence)
    assert isinstance(evidence.failed, NotReady)
    monkeypatch.undo()
    assert not await told(evidence), "a second sync would report what the kernel has dropped"
    with pytest.raises(Problem):
        begin(evidence)
    await evidence.close()
