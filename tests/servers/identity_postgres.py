"""A real PostgreSQL for the identity tests: its own cluster, on a Unix socket in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

BIN = Path("/usr/lib/postgresql/15/bin")


class Postgres:
    """Started by `start`, killed by `kill` (no goodbye, as a crash), removed by `remove`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="allod-pg-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        self._run("initdb", "-D", str(self.folder / "data"), "-A", "trust", "-U", "allod", "-N")

    @property
    def url(self) -> str:
        return f"postgresql://allod@/postgres?host={self.folder}"

    def start(self) -> None:
        arguments = ["-D", str(self.folder / "data"), "-k", str(self.folder), "-h", "", "-F"]
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [str(BIN / "postgres"), *arguments], stdout=log, stderr=log, **_as_postgres()
        )
        deadline = time.monotonic() + 20
        while self._run("pg_isready", "-h", str(self.folder), check=False).returncode:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGQUIT)  # PostgreSQL's immediate shutdown: as after a crash
        self._process.wait(20)
        self._process = None

    def remove(self) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [str(BIN / program), *arguments], check=check, capture_output=True, **_as_postgres()
        )


def _as_postgres() -> dict[str, object]:
    """The server refuses to run as root."""
    return {"user": "postgres", "group": "postgres", "cwd": "/"} if os.geteuid() == 0 else {}
