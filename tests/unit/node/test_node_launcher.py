"""What the launcher refuses before anything runs, and how it restarts what ended."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from allod.cli.init import lay_out
from allod.config import Home
from allod.errors import NotReady, Usage
from allod.node import launcher, processes, tls


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    lay_out(made)
    return made


def _up(home: Home, listen: str) -> int:
    return launcher.up(
        home, listen=listen, workers=None, tls_self_signed=False, detach=False, tell=lambda *_: None
    )


@pytest.mark.parametrize("listen", ["8080", "127.0.0.1", ":8080", "127.0.0.1:http", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_refused_by_name(home: Home, listen: str) -> None:
    with pytest.raises(Usage) as refused:
        _up(home, listen)
    assert refused.value.code == "listen.invalid"


def test_a_home_too_deep_for_its_sockets_is_refused_by_name(tmp_path: Path) -> None:
    deep = Home(tmp_path / ("d" * 90))
    lay_out(deep)
    with pytest.raises(Usage, match=r"http\.sock") as refused:
        _up(deep, "127.0.0.1:0")
    assert refused.value.code == "home.too-long"


def test_a_taken_port_is_said_before_anything_starts(home: Home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(NotReady) as refused:
            _up(home, f"127.0.0.1:{other.getsockname()[1]}")
    assert refused.value.code == "node.port-taken"
    assert launcher.running_pid(home) is None


def test_a_second_node_on_one_home_is_refused(home: Home) -> None:
    lock = launcher._lock(home)
    try:
        assert launcher.running_pid(home) is not None
        with pytest.raises(NotReady) as refused:
            _up(home, "127.0.0.1:0")
        assert refused.value.code == "node.running"
    finally:
        import os

        os.close(lock)
    assert launcher.running_pid(home) is None


def test_a_child_that_keeps_dying_is_started_ever_more_rarely(tmp_path: Path) -> None:
    said: list[str] = []
    child = processes.Child("short-lived", ["-c", "raise SystemExit(7)"], processes.environment())
    child.start(time.monotonic())
    starts = []
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        before = child.process
        processes.tend(child, time.monotonic(), said.append)
        if child.process is not before:
            starts.append(time.monotonic())
        time.sleep(0.01)
    processes.stop([child], grace_s=1)
    assert 2 <= len(starts) <= 8
    assert "exit status 7" in said[0]
    pauses = [processes.back_off(n) for n in range(1, 12)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == processes.BACKOFF_MAX_S


def test_stopping_kills_what_ignores_the_request(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    child = processes.Child("stubborn", ["-c", code], processes.environment())
    child.start(time.monotonic())
    time.sleep(0.5)
    processes.stop([child], grace_s=0.3)
    assert not child.alive


def test_the_self_signed_certificate_is_accepted_for_its_names_and_kept(tmp_path: Path) -> None:
    cert, key = tls.self_signed(tmp_path, "127.0.0.1")
    assert key.stat().st_mode & 0o077 == 0
    assert tls.self_signed(tmp_path, "127.0.0.1") == (cert, key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listening.accept()
        with server.wrap_socket(connection, server_side=True) as secure:
            secure.sendall(b"hello")

    thread = threading.Thread(target=answer)
    thread.start()
    client = ssl.create_default_context(cafile=str(cert))
    with (
        socket.create_connection(listening.getsockname()) as raw,
        client.wrap_socket(raw, server_hostname="localhost") as secure,
    ):
        assert secure.recv(5) == b"hello"
    thread.join()
    listening.close()
