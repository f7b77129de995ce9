"""Every benchmark, one after the other, each in its own process: what `make bench` prints.

The documentation quotes these tables with date and conditions. Each compares with a peer or a physical limit
in the same run, so that a slow machine makes both sides slow.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ALL = ("ledger.py", "front.py", "ocr.py", "models.py", "screening.py", "mrz.py")


def main() -> int:
    worst = 0
    for name in ALL:
        print(f"\n=== {name} ===", flush=True)
        worst = max(worst, subprocess.run([sys.executable, str(HERE / name)], check=False).returncode)
    return worst


if __name__ == "__main__":
    raise SystemExit(main())
