"""`python -m allod.models.testmodel --out DIR`: prints the folder of the model it made."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from allod.models.testmodel.build import build


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m allod.models.testmodel", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the models folder to put it in")
    parser.add_argument("--cache", type=Path, help="where made weights are kept (default: the user's cache)")
    parser.add_argument("--key", type=Path, help="sign it with this key: HOME/keys/models.ecdsa.key")
    given = parser.parse_args()
    folder = build(
        given.out, cache=given.cache, key=given.key, report=lambda line: print(line, file=sys.stderr)
    )
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
