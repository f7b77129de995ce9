"""What pulling files of this machine costs, against what it cannot cost less than: a hash and a copy.

`python bench/models.py [GIB]` writes a safetensors model of that size (default 5) beside where it is pulled
to, and prints the processor time of `sha256sum` plus `cp`, of `allod models add` (a whole command: reads,
hashes, copies, examines, signs, shows), and of adding it again. The page cache is warm for all of them;
rounds are interleaved and the median is taken. The ratio is what has to stay under 1.3; starting the
command costs 0.4 s, which a small model shows and a large one does not.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROUNDS = 3
_CHUNK = 1 << 24
_ALLOD = [sys.executable, "-m", "allod"]


def main() -> int:
    gib = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as scratch:
        folder = Path(scratch)
        source = folder / "model"
        size = write(source, int(gib * (1 << 30)))
        home = folder / "home"
        run([*_ALLOD, "init", "--home", str(home)])
        weights = source / "model.safetensors"
        floor, first, again = [], [], []
        for number in range(_ROUNDS):
            floor.append(run(["sha256sum", str(weights)]) + run(["cp", str(weights), str(folder / "copy")]))
            (folder / "copy").unlink()
            add = [*_ALLOD, "models", "add", str(source), "--name", "m", "--home", str(home), "--json"]
            began = time.monotonic()
            first.append(run(add, moved=size))
            wall = time.monotonic() - began
            again.append(run(add, moved=0))
            shutil.rmtree(home / "models")
            print(
                f"round {number + 1}: floor {floor[-1]:.2f} s, add {first[-1]:.2f} s"
                f" ({wall:.1f} s on the clock), again {again[-1]:.2f} s",
                file=sys.stderr,
            )
    floor_s, first_s, again_s = (statistics.median(found) for found in (floor, first, again))
    seconds = {"sha256sum_and_cp": round(floor_s, 2), "add": round(first_s, 2), "again": round(again_s, 2)}
    ratio = first_s / floor_s
    print(json.dumps({"bytes": size, "cpu_s": seconds, "ratio": round(ratio, 3), "again_moved_bytes": 0}))
    return 0 if ratio <= 1.3 else 1


def write(folder: Path, size: int) -> int:
    """A safetensors model of one tensor; its bytes do not repeat within a chunk. Gives all its bytes."""
    folder.mkdir()
    count = size // 4
    head = json.dumps({"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    left = 4 * count
    with (folder / "model.safetensors").open("wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        chunk = os.urandom(_CHUNK)
        while left:
            left -= f.write(chunk[: min(left, _CHUNK)])
    (folder / "config.json").write_text('{"architectures": ["XForCausalLM"]}')
    return sum(path.stat().st_size for path in folder.iterdir())


def run(command: list[str], moved: int | None = None) -> float:
    """Processor seconds, user and system, of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if moved is not None:
        assert json.loads(done.stdout)["moved"] == moved
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
