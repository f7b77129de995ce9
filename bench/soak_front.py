"""Memory stays flat: many requests and streams through one front, its own resident size looked at all along.

python bench/soak_front.py [--requests 1000000]       fails where memory grew by 15 % after it had settled
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from front import Bench

SETTLED = 0.2  # of the run: pools, caches and the allocator have their size by then
GROWTH_MAX = 1.15


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1_000_000)
    count = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            front = bench.start()[1]
            sizes, done = [], 0
            while done < count:
                rate, _ = bench.wrk(front, 64, 5, 100)
                bench.sse(front, 128)
                done += int(rate * 5) + 128
                bench.forget_receipts()
                sizes.append(front.own_mb())
                print(f"{done:>10} requests  {sizes[-1]:6.1f} MB", file=sys.stderr, flush=True)
        finally:
            bench.stop()
    settled = sizes[int(len(sizes) * SETTLED)]
    print(f"settled at {settled:.1f} MB, {sizes[-1]:.1f} MB after {done} requests")
    return 0 if sizes[-1] <= settled * GROWTH_MAX else 1


if __name__ == "__main__":
    raise SystemExit(main())
