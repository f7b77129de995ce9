"""A whole node for tests: really started by `allod up`, on a free loopback port, stopped by pid."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

ALLOD = [sys.executable, "-m", "allod"]


class RunningNode:
    """`with running_node(home) as node:` gives one that is ready."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.home = home
        self.arguments = arguments
        self.url = ""
        self.admin_key = ""
        self.process: subprocess.Popen[str] | None = None

    def start(self, *, timeout_s: float = 120.0) -> None:
        log = (self.home / "up.log").open("a")
        self.process = subprocess.Popen(
            [*ALLOD, "up", "--home", str(self.home), "--listen", "127.0.0.1:0", *self.arguments],
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout_s
        for line in self.process.stdout:
            if "admin key" in line:
                self.admin_key = line.split()[-1]
            if "allod is up" in line:
                self.url = line.split()[3]
                return
            assert time.monotonic() < deadline
        raise AssertionError(f"the node did not start:\n{(self.home / 'up.log').read_text()[-3000:]}")

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(60)
        subprocess.run(
            [*ALLOD, "down", "--home", str(self.home)], capture_output=True, timeout=60, check=False
        )
        return code

    def cli(self, *words: str, ok: bool = True) -> Any:
        """`allod WORDS --json`, decoded. With `ok` False the exit code is not checked."""
        command = [*ALLOD, *words, "--json", "--home", str(self.home)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert not ok or done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def key(self, role: str = "developer", project: str = "default") -> str:
        made = self.cli("key", "create", "--project", project, "--role", role, "--label", "test")
        return str(made["secret"])

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {"authorization": f"Bearer {key or self.admin_key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def pids(self, *, module: str) -> list[int]:
        """The node's own processes that run `-m MODULE` for this home."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if module.encode() in words and f"--home={self.home}".encode() in words:
                    found.append(int(entry.name))
        return found

    def kill(self, *, module: str) -> int:
        """kill -9 of all processes of one kind; returns how many there were."""
        pids = self.pids(module=module)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return len(pids)

    def wait_ready(self, *, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        last = ""
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.get(f"{self.url}/readyz", trust_env=False, timeout=5)
                last = answer.text
                if answer.status_code == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(f"not ready after {timeout_s} s: {last}")


@contextlib.contextmanager
def running_node(home: Path, *arguments: str) -> Iterator[RunningNode]:
    node = RunningNode(home, *arguments)
    try:
        node.start()
        yield node
    finally:
        if node.process is not None and node.process.poll() is None:
            node.stop()
