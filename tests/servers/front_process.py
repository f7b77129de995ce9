"""Runs one front worker with bounds that a test has shortened: `--timeouts` is JSON of `worker.Timeouts`."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import uvloop

from allod.front.worker import Settings, Timeouts, serve

parser = argparse.ArgumentParser()
parser.add_argument("--home", type=Path, required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--timeouts", default="{}")
parser.add_argument("--tls-cert", type=Path)
parser.add_argument("--tls-key", type=Path)
args = parser.parse_args()
uvloop.run(
    serve(
        Settings(
            home=args.home,
            worker=0,
            host="127.0.0.1",
            port=args.port,
            tls_cert=args.tls_cert,
            tls_key=args.tls_key,
            timeouts=msgspec.json.decode(args.timeouts, type=Timeouts),
        )
    )
)
