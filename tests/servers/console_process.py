"""The console over the tests' own node (`console_node.py`), as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def console_process() -> Iterator[str]:
    """Starts it and yields its address."""
    program = [sys.executable, str(Path(__file__).with_name("console_node.py"))]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()
