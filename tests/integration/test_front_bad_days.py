"""Replicas die, clients leave, control is away, the worker is killed: nothing opens, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from front_home import KEY, Answer, Home, answers, drain, request, talk, wait_for

CHAT = {"model": "m", "messages": []}
STREAM = {**CHAT, "stream": True}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    home.service("m", home.replica("r1"), home.replica("r2"), home.replica("far1", site_name="far"))
    yield home
    home.stop()


def ask(home: Home, body: Any = CHAT, **kw: Any) -> Answer:
    (answer,) = answers(talk(home.port, request(body, **kw)))
    return answer


def receipt_of(home: Home, answer: Answer) -> Any:
    return home.receipts()[answer.headers["allod-receipt"]]


def test_failover_goes_to_the_next_allowed_replica_and_says_so(home: Home) -> None:
    home.spawn("r1", {"status": 503})
    home.spawn("far1")
    home.start()  # r2's socket does not exist
    answer = ask(home)
    assert (answer.status, answer.headers["allod-site"]) == (200, "far")
    tried = [(a.replica, a.outcome) for a in receipt_of(home, answer).attempts]
    assert sorted(tried[:2]) == [("r1", "status-503"), ("r2", "connect-failed")]
    assert tried[2:] == [("far1", "answered")]
    contacted = len(home.seen("far1"))
    refused = ask(home, allod_data_class="restricted")
    assert (refused.status, refused.code) == (503, "replica.unreachable")
    assert "retry-after" in refused.headers
    assert receipt_of(home, refused).outcome == "failed"
    assert len(home.seen("far1")) == contacted, "failover left the sites that the policy allows"


@pytest.mark.parametrize(
    "fault", [{"close": True}, {"garbage": "HTTP/9 what\r\n\r\n"}, {"cut": 30}, {"cut": 150}]
)
def test_a_replica_that_breaks_before_a_byte_was_relayed_is_failed_over(
    home: Home, fault: dict[str, Any]
) -> None:
    home.spawn("r1", fault)
    home.spawn("r2", fault)
    home.spawn("far1")
    home.start()
    answer = ask(home)
    assert (answer.status, answer.headers["allod-site"]) == (200, "far")
    assert len(receipt_of(home, answer).attempts) == 3


def test_the_circuit_opens_and_closes_again(home: Home) -> None:
    home.service("m", home.replica("r1"))
    home.start()
    for _ in range(7):
        assert ask(home).status == 503
    attempts = [len(r.attempts) for r in home.receipts().values()]
    assert attempts.count(1) == 5, "after five failures in a row the replica is left alone"
    home.spawn("r1")
    wait_for(lambda: ask(home).status == 200, 5)


def test_an_engines_500_is_its_answer_and_no_sign_of_its_health(home: Home) -> None:
    """llama.cpp answers a malformed tool with 500: one client's mistake must not close a replica to all."""
    home.spawn("r1", {"status": 500})
    home.spawn("r2", {"status": 500})
    home.spawn("far1")
    home.start()
    for _ in range(14):
        answer = ask(home)
        assert (answer.status, answer.headers["allod-site"]) == (500, "here")
    assert len(home.seen("r1")) == len(home.seen("r2")) == 7
    assert not home.seen("far1")
    receipt = receipt_of(home, answer)
    assert (receipt.outcome, [a.outcome for a in receipt.attempts]) == ("failed", ["status-500"])


def test_an_engine_that_dies_inside_a_stream_is_never_passed_off_as_done(home: Home) -> None:
    home.spawn("r1")
    home.spawn("r2")
    home.start()
    answer = ask(home, {**STREAM, "script": {"frames": 6, "die_after": 3}})
    assert answer.status == 200
    assert not answer.whole
    assert b"[DONE]" not in answer.body
    last = json.loads(answer.body.decode().split("\n\n")[-2][6:])
    assert last["error"]["code"] == "replica.lost"
    receipt = receipt_of(home, answer)
    assert (receipt.outcome, receipt.usage.source, receipt.usage.output_tokens) == ("failed", "estimated", 3)
    assert receipt.output_bytes == len(answer.body)


def test_a_stream_without_its_end_is_a_failure(home: Home) -> None:
    home.spawn("r1")
    home.spawn("r2")
    home.start()
    answer = ask(home, {**STREAM, "script": {"no_done": True}})
    assert b"replica.lost" in answer.body
    assert receipt_of(home, answer).outcome == "failed"


def test_a_client_that_leaves_stops_the_engine_and_is_still_metered(home: Home) -> None:
    home.service("m", home.replica("r1"))
    home.spawn("r1")
    home.start()
    with socket.create_connection(("127.0.0.1", home.port), timeout=5) as s:
        s.sendall(request({**STREAM, "script": {"frames": 500, "delay_s": 0.02}}))
        while s.recv(4096).count(b"data:") == 0:
            pass
    wait_for(lambda: any(line.get("gone") for line in home.seen("r1")), 3)
    wait_for(lambda: any(r.outcome == "cancelled" for r in home.receipts().values()), 3)
    (receipt,) = home.receipts().values()
    assert receipt.usage.source == "estimated"
    assert 1 <= receipt.usage.output_tokens < 500


def test_a_client_that_leaves_while_the_engine_thinks_stops_it_too(home: Home) -> None:
    home.service("m", home.replica("r1"))
    home.spawn("r1")
    home.start()
    with socket.create_connection(("127.0.0.1", home.port), timeout=5) as s:
        s.sendall(request({**CHAT, "script": {"before_s": 0.5}}))
        wait_for(lambda: len(home.seen("r1")) == 1)
    wait_for(lambda: any(line.get("gone") for line in home.seen("r1")), 3)
    wait_for(lambda: [r.outcome for r in home.receipts().values()] == ["cancelled"], 3)


def test_a_client_that_does_not_read_holds_the_engine_back(home: Home) -> None:
    home.service("m", home.replica("r1"))
    home.spawn("r1")
    home.start(timeouts={"client_stall_s": 1.0, "sweep_s": 0.05})
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", home.port))
        s.sendall(request({**STREAM, "script": {"frames": 4000, "size": 20_000}}))
        wait_for(lambda: any(r.outcome == "cancelled" for r in home.receipts().values()), 10)
    assert home.front is not None
    status = Path(f"/proc/{home.front.pid}/status").read_text()
    assert int(status.split("VmHWM:")[1].split()[0]) < 80_000, "an unread stream piled up in memory"


def test_an_idle_connection_that_the_engine_closed_costs_nothing(home: Home) -> None:
    home.service("m", home.replica("r1"))
    first = home.spawn("r1")
    home.start()
    assert ask(home).status == 200
    first.kill()
    first.wait()
    home.spawn("r1")
    answer = ask(home)
    assert answer.status == 200
    assert [a.outcome for a in receipt_of(home, answer).attempts] == ["answered"]


def test_five_hundred_and_twelve_streams_lose_no_frame(home: Home) -> None:
    home.spawn("r1")
    home.spawn("r2")
    home.start()

    async def one() -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", home.port)
        writer.write(request({**STREAM, "script": {"frames": 64}}))
        data = await reader.read(-1)
        writer.close()
        (answer,) = answers(data)
        return answer

    async def all_of_them() -> list[Answer]:
        return await asyncio.gather(*(one() for _ in range(512)))

    found = asyncio.run(asyncio.wait_for(all_of_them(), 60))
    expected = [f"t{n} " for n in range(64)]
    for answer in found:
        frames = answer.body.decode().split("\n\n")
        assert answer.whole
        assert [json.loads(f[6:])["choices"][0]["delta"]["content"] for f in frames[:64]] == expected
        assert frames[64:] == ["data: [DONE]", ""]
    receipts = home.receipts()
    assert all(receipts[a.headers["allod-receipt"]].usage.output_tokens == 64 for a in found)


def test_killed_under_load_no_completed_answer_lacks_its_receipt(home: Home) -> None:
    home.service("m", home.replica("r1"))
    home.spawn("r1")
    home.start()
    seen: list[str] = []
    stop = threading.Event()

    def client(stream: bool) -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError, IndexError, ValueError):
                found = answers(talk(home.port, request(STREAM if stream else CHAT), timeout_s=2))
                seen.extend(a.headers["allod-receipt"] for a in found if a.whole and a.status == 200)

    clients = [threading.Thread(target=client, args=(n % 2 == 0,)) for n in range(6)]
    for thread in clients:
        thread.start()
    for _ in range(3):
        time.sleep(0.7)
        assert home.front is not None
        home.front.send_signal(signal.SIGKILL)
        home.front.wait()
        home.start_front()
    time.sleep(0.5)
    stop.set()
    for thread in clients:
        thread.join()
    receipts = home.receipts()
    assert len(seen) > 50
    assert [r for r in seen if r not in receipts] == []


def test_a_drain_finishes_what_is_in_flight(home: Home) -> None:
    home.service("m", home.replica("r1"))
    home.spawn("r1")
    home.start()
    with (
        socket.create_connection(("127.0.0.1", home.port), timeout=10) as busy,
        socket.create_connection(("127.0.0.1", home.port), timeout=10) as idle,
    ):
        busy.sendall(request({**STREAM, "script": {"frames": 20, "delay_s": 0.03}}, close=False))
        wait_for(lambda: len(home.seen("r1")) == 1)
        assert home.front is not None
        home.front.send_signal(signal.SIGTERM)
        assert drain(idle) == b""
        (answer,) = answers(drain(busy))
    assert answer.whole
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert home.front.wait(5) == 0


class Control:
    """The fronts' channel and the control socket, spoken by a thread of the test."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.said: list[dict[str, Any]] = []
        self.asked: list[bytes] = []
        self._channel: list[asyncio.StreamWriter] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(5)

    async def _start(self) -> None:
        for name in ("fronts.sock", "control.sock"):
            (self.home.run / name).unlink(missing_ok=True)
        self._servers = [
            await asyncio.start_unix_server(self._converse, str(self.home.run / "fronts.sock")),
            await asyncio.start_unix_server(self._answer, str(self.home.run / "control.sock")),
        ]

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._channel.append(writer)
        while line := await reader.readline():
            self.said.append(json.loads(line))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = b""
        if b"chunked" in head:
            while not body.endswith(b"0\r\n\r\n"):
                body += await reader.read(65536)
        elif b"content-length: " in head:
            body = await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        self.asked.append(head + body)
        writer.write(
            b"HTTP/1.1 201 Created\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 2\r\n\r\nok"
        )
        await writer.drain()
        writer.close()

    def announce(self, version: int) -> None:
        async def tell() -> None:
            for writer in self._channel:
                writer.write(json.dumps({"snapshot": version}).encode() + b"\n")

        asyncio.run_coroutine_threadsafe(tell(), self._loop).result(5)

    def acked(self, version: int) -> bool:
        return any(m.get("ack") == version for m in self.said)

    def stop(self) -> None:
        async def close() -> None:
            for server in self._servers:
                server.close()
            for writer in self._channel:
                writer.close()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)


def test_a_revoked_key_is_refused_once_its_snapshot_is_confirmed(home: Home) -> None:
    home.spawn("r1")
    home.spawn("r2")
    home.start()
    control = Control(home)
    wait_for(lambda: control.acked(1))
    assert ask(home).status == 200
    del home.keys["develop22222"]
    home.publish()
    control.announce(2)
    wait_for(lambda: control.acked(2))
    assert ask(home).status == 401
    control.stop()
    again = Control(home)
    wait_for(lambda: again.acked(2))
    wait_for(lambda: any("counters" in m for m in again.said))
    again.stop()


def test_a_snapshot_that_cannot_be_read_leaves_the_old_one(home: Home) -> None:
    home.spawn("r1")
    home.spawn("r2")
    home.start()
    control = Control(home)
    wait_for(lambda: control.acked(1))
    (home.run / "snapshot.msgpack").write_bytes(b"\x00rubbish")
    control.announce(2)
    assert ask(home).status == 200
    home.policy = "permit(principal, action, resource"
    home.publish()
    control.announce(2)
    time.sleep(0.2)
    assert ask(home).status == 200
    assert not control.acked(2)
    control.stop()


def test_without_a_snapshot_nothing_opens_and_readiness_says_so(home: Home) -> None:
    home.publish()
    (home.run / "snapshot.msgpack").rename(home.run / "later")
    home.start_front()
    answer = ask(home)
    assert (answer.status, answer.code) == (503, "front.no-snapshot")
    ready = answers(talk(home.port, b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))[0]
    assert ready.status == 503
    live = answers(talk(home.port, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))[0]
    assert live.status == 200
    (home.run / "later").rename(home.run / "snapshot.msgpack")
    home.spawn("r1")
    home.spawn("r2")
    control = Control(home)
    wait_for(lambda: control.acked(1))
    assert ask(home).status == 200
    control.stop()


def test_everything_else_goes_to_control_with_its_caller_and_without_the_key(home: Home) -> None:
    home.start()
    control = Control(home)
    raw = request(
        b"x" * 100_000, path="/v1/files?a=b", Allod_Internal_Caller="forged", allod_internal_parent="forged",
        cookie="c=1",
    )  # fmt: skip
    (answer,) = answers(talk(home.port, raw.replace(b"Allod-Internal-Caller", b"aLLoD_internal_CALLER")))
    assert (answer.status, answer.body) == (201, b"ok")
    asked = control.asked[-1]
    assert asked.startswith(b"POST /v1/files?a=b HTTP/1.1\r\n")
    assert asked.endswith(b"x" * 100_000)
    assert b"forged" not in asked
    assert KEY.encode() not in asked
    assert asked.lower().count(b"allod-internal-caller: ") == 1
    assert b"cookie: c=1" in asked
    mistral = request(CHAT, user_agent="mistral-client-python/1.0")
    assert answers(talk(home.port, mistral))[0].status == 201
    chunked = (
        f"PUT /v1/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ntransfer-encoding: chunked\r\n"
        "connection: close\r\n\r\n"
    ).encode() + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert answers(talk(home.port, chunked))[0].status == 201
    assert control.asked[-1].endswith(b"0\r\n\r\n")
    bad = request(CHAT, path="/admin/v1/keys", key=KEY[:-1] + "_")
    assert answers(talk(home.port, bad))[0].status == 401
    control.stop()
    assert answers(talk(home.port, request(CHAT, path="/v1/files")))[0].code == "control.unreachable"


def test_an_inner_call_takes_the_same_path_and_names_its_parent(home: Home) -> None:
    home.spawn("r1")
    home.spawn("r2")
    home.start()
    caller = "eyJrZXlfaWQiOiJrMSIsIm9yZ2FuaXNhdGlvbiI6Im8xIiwicHJvamVjdCI6InAxIiwicm9sZSI6ImRldmVsb3BlciJ9"
    raw = request(CHAT, authorization="", allod_internal_caller=caller, allod_internal_parent="r-PARENT")
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(home.run / "front-0.sock"))
        s.sendall(raw)
        (answer,) = answers(drain(s))
    assert answer.status == 200
    assert receipt_of(home, answer).parent == "r-PARENT"
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(home.run / "front-0.sock"))
        s.sendall(request(CHAT))
        assert answers(drain(s))[0].status == 401


def test_no_room_for_receipts_is_a_503_with_retry_after_and_no_contact(home: Home) -> None:
    home.spawn("r1")
    home.spawn("r2")
    home.publish()
    blocked = home.root / "spool"
    blocked.write_text("a file where the folder has to be")
    home.start_front()
    answer = ask(home)
    assert answer.status == 503
    assert "retry-after" in answer.headers
    assert home.seen("r1") + home.seen("r2") == []
    blocked.unlink()
    wait_for(lambda: ask(home).status == 200, 5)
