"""Whole-node bad days under load: whatever dies, no answer that a client saw lacks its receipt, nothing is
receipted twice, nothing opens, and readiness tells the truth."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from identity_postgres import BIN, Postgres
from pages import ocr_body, text_pdf
from running_node import ALLOD, RunningNode, running_node

ELSEWHERE = "mistral-ocr-latest"


def _home(folder: Path, database: str = "") -> Path:
    home = folder / "home"
    subprocess.run([*ALLOD, "init", "--home", str(home)], check=True, capture_output=True)
    config = home / "allod.toml"
    text = config.read_text().replace(
        'engine = "ocr"', 'engine = "ocr"\nrapidocr = false\nlanguages = ["eng"]'
    )
    if database:
        text = text.replace("[site]", f'[database]\nurl = "{database}"\n\n[site]', 1)
    config.write_text(text)
    (home / "sites" / "mistral.toml").write_text(
        'catalogue = "mistral"\n[provider]\nkey = "env:ALLOD_TEST_NO_SUCH_KEY"\n'
        f'[provider.models."{ELSEWHERE}"]\nkind = "ocr"\n'
    )
    return home


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    with running_node(_home(tmp_path), "--workers", "2") as running:
        running.wait_ready()
        yield running


class Load:
    """Clients that ask in a loop: mostly what is allowed, now and then what is forbidden."""

    def __init__(self, node: RunningNode, clients: int = 4) -> None:
        self.node = node
        self.key = node.key()
        self.answered: list[str] = []
        self.refused: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.opened: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int, *, timeout_s: float = 60.0) -> None:
        """Until `count` more exchanges have been answered."""
        goal, deadline = len(self.answered) + count, time.monotonic() + timeout_s
        while len(self.answered) < goal:
            assert time.monotonic() < deadline, f"answers stopped coming: {self.statuses}"
            time.sleep(0.02)

    def _run(self) -> None:
        allowed, forbidden = ocr_body(text_pdf("load")), ocr_body(text_pdf("load"), model=ELSEWHERE)
        turn = 0
        while not self._stop.is_set():
            turn += 1
            wanted = forbidden if turn % 8 == 0 else allowed
            headers = {"authorization": f"Bearer {self.key}", "allod-data-class": "restricted"}
            try:
                answer = httpx.post(
                    f"{self.node.url}/v1/ocr", json=wanted, headers=headers, timeout=30, trust_env=False
                )
            except httpx.HTTPError:
                continue  # a killed worker closes its connections; what it had not finished does not count
            self.statuses[answer.status_code] += 1
            receipt = answer.headers.get("allod-receipt", "")
            if answer.status_code == 200:
                (self.opened if wanted is forbidden else self.answered).append(receipt)
            elif answer.status_code == 403:
                self.refused.append(receipt)


def _prove(load: Load) -> None:
    """Everything that was seen is in the ledger, once, as what it was."""
    node = load.node
    assert load.opened == []
    logged = _logged(node)
    ids = Counter(s["id"] for s in logged)
    assert [i for i, n in ids.items() if n > 1] == []
    outcomes = {s["id"]: s["outcome"] for s in logged}
    assert {outcomes.get(r) for r in load.answered} == {"answered"}
    assert {outcomes.get(r) for r in load.refused} <= {"refused"}
    reached = {a["site"] for s in logged for a in s["attempts"]}
    assert reached == {"local"}
    assert node.cli("ledger", "verify", str(node.home / "ledger"))["ok"]


def _logged(node: RunningNode) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    before: list[str] = []
    while True:
        page = node.cli("receipt", "ls", "--limit", "500", *before)["exchanges"]
        if not page:
            return found
        found += [view["statement"] for view in page]
        before = ["--before", str(page[-1]["index"])]
        if page[-1]["index"] == 0:
            return found


@pytest.mark.parametrize("module", ["allod.node.control", "allod.front", "allod.engines.ocr"])
def test_kill_9_under_load_loses_nothing_and_opens_nothing(node: RunningNode, module: str) -> None:
    with Load(node) as load:
        for _ in range(3):
            load.wait_for(12)
            if module == "allod.engines.ocr":
                assert _kill_replica(node)
            else:
                _eventually(lambda: node.kill(module=module))  # it may still be starting after the last one
        load.wait_for(12)
    _eventually(lambda: _settled(node))
    assert load.refused, "the forbidden place was never asked for"
    _prove(load)


def _settled(node: RunningNode) -> bool:
    """Ready, and every durable receipt has its place."""
    status = node.cli("status", ok=False)
    return bool(status.get("ready")) and status["spooled"] == 0


def _kill_replica(node: RunningNode) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        services = node.cli("status")["services"]
        pid = next(s for s in services if s["model"] == "allod-ocr")["replicas"][0]["pid"]
        if pid:
            os.kill(pid, signal.SIGKILL)
            return True
        time.sleep(0.1)
    return False


def test_the_replica_outlives_control_and_is_adopted(node: RunningNode) -> None:
    def replica() -> dict[str, object]:
        services = node.cli("status")["services"]
        return dict(next(s for s in services if s["model"] == "allod-ocr")["replicas"][0])

    before = _eventually(lambda: replica() if replica()["state"] == "ready" else None)
    node.kill(module="allod.node.control")
    after = _eventually(lambda: _or_none(replica), ready=lambda r: r["state"] == "ready")
    assert after["pid"] == before["pid"]


def test_kill_9_of_the_launcher_leaves_no_process_behind(node: RunningNode) -> None:
    assert node.process is not None
    node.process.kill()
    node.process.wait()
    for module in ("allod.node.control", "allod.front"):
        _eventually(lambda m=module: not node.pids(module=m))  # type: ignore[misc]
    done = subprocess.run([*ALLOD, "down", "--home", str(node.home)], capture_output=True, check=False)
    assert done.returncode == 0
    assert not node.pids(module="allod.engines.ocr")
    node.start()
    node.wait_ready()


def test_a_full_disk_is_a_503_and_never_an_unreceipted_answer(tmp_path: Path) -> None:
    """The spool on a small file system of its own; filled while the node runs, then freed."""
    home = _home(tmp_path)
    small = home / "spool"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        with running_node(home) as node:
            node.wait_ready()
            with node.client(node.key()) as client:
                body = ocr_body(text_pdf("disk"))
                assert client.post("/v1/ocr", json=body).status_code == 200
                filler = small / "filler"
                _fill(filler)
                statuses: Counter[int] = Counter()
                receipts = []
                for _ in range(20_000):
                    answer = client.post(
                        "/v1/ocr", content=b"{", headers={"content-type": "application/json"}
                    )
                    answer = client.post("/v1/ocr", json=ocr_body(b"%PDF-1.4", model=ELSEWHERE))
                    statuses[answer.status_code] += 1
                    receipts.append(answer.headers.get("allod-receipt", ""))
                    if answer.status_code == 503:
                        assert int(answer.headers["retry-after"]) >= 1
                        break
                assert statuses[503] == 1, statuses
                assert client.post("/v1/ocr", json=body).status_code == 503
                filler.unlink()
                _eventually(lambda: client.post("/v1/ocr", json=body).status_code == 200)
                last = receipts[-2]
                assert node.cli("receipt", "verify", last)["ok"]
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def _fill(path: Path) -> None:
    with path.open("wb") as f:
        while True:
            try:
                f.write(b"\0" * 65_536)
                f.flush()
            except OSError:
                return


def test_a_database_that_goes_away_neither_opens_nor_closes_access(tmp_path: Path) -> None:
    if not BIN.is_dir():
        pytest.skip("PostgreSQL is not installed")
    database = Postgres()
    database.start()
    with closing_database(database), running_node(_home(tmp_path, database.url)) as node:
        node.wait_ready()
        key = node.key()
        with node.client(key) as client:
            body = ocr_body(text_pdf("database"))
            assert client.post("/v1/ocr", json=body).status_code == 200

            database.kill()
            assert client.post("/v1/ocr", json=body).status_code == 200
            assert client.post("/v1/ocr", json=ocr_body(text_pdf("x"), model=ELSEWHERE),
                               headers={"allod-data-class": "restricted"}).status_code == 403  # fmt: skip
            refused = node.cli("key", "create", "--label", "x", ok=False)
            assert refused["error"]["code"] == "identity.database"
            _eventually(lambda: not _status_of_database(node))

            node.stop()  # and now it is gone at boot
            node.start()
            node.wait_ready()
        with node.client(key) as client:
            assert client.post("/v1/ocr", json=body).status_code == 200
            database.start()
            _eventually(lambda: _status_of_database(node))
            node.cli("key", "revoke", key.split("_")[1])
            assert client.post("/v1/ocr", json=body).status_code == 401


@contextlib.contextmanager
def closing_database(database: Postgres) -> Iterator[None]:
    try:
        yield
    finally:
        database.remove()


def _status_of_database(node: RunningNode) -> bool:
    checks = {c["name"]: c for c in node.cli("status", ok=False)["checks"]}
    return bool(checks["database"]["ok"])


def _or_none(question: Callable[[], dict[str, object]]) -> dict[str, object] | None:
    try:
        return question()
    except (AssertionError, StopIteration, KeyError):
        return None


def _eventually(
    question: Callable[[], object], *, ready: Callable[..., bool] = bool, timeout_s: float = 40.0
) -> dict[str, object]:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = question()
        if found and ready(found):
            return found  # type: ignore[return-value]
        time.sleep(0.1)
    raise AssertionError("it did not come to that")
