"""`allod`: one command, a file per verb.

Exit codes are stable: 0 ok · 2 usage · 3 not ready · 4 denied · 5 awaiting approval · 6 integrity failure ·
130 interrupted · 1 a defect of allod itself.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from allod.cli import (
    bundle,
    completion,
    doctor,
    init,
    instructions,
    key,
    kyc,
    ledger,
    models,
    node,
    policy,
    project,
    receipt,
    run,
    sites,
    status,
    version,
)
from allod.cli.output import Out
from allod.cli.parser import Parser, Verbs, common_options
from allod.errors import AllodError

INTERRUPTED = 130
_VERBS = (
    init, node, status, doctor, run, models, instructions, bundle, key, project, policy, sites, receipt,
    ledger, kyc, completion, version,
)  # fmt: skip


def build_parser() -> Parser:
    """The whole grammar."""
    parser = Parser(
        prog="allod",
        description="The AI platform an organisation owns outright: its machines, its rules, "
        "a verifiable receipt for every answer.",
        epilog="exit codes: 0 ok, 2 usage, 3 not ready, 4 denied, 5 awaiting approval, 6 integrity failure",
    )
    verbs = Verbs(parser, common_options())
    for verb in _VERBS:
        verb.register(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    out = Out(as_json="--json" in words)
    os.umask(os.umask(0o022) | 0o022)  # whatever it was: nothing of a node is for others to write
    try:
        if not words:
            build_parser().print_help()
            return 0
        args = build_parser().parse_args(words)
        code: int = args.act(args, out)
        sys.stdout.flush()
        return code
    except AllodError as e:
        out.error(e)
        return e.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone, as `allod … | head` does; Python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as e:  # the last wall: a defect is still one message and one next step
        defect = AllodError(
            "internal.defect",
            f"this is a defect of allod ({type(e).__name__}: {e})",
            hint="please report it, with what you typed and the lines above",
        )
        if not out.as_json:
            traceback.print_exc()
        out.error(defect)
        return defect.exit_code
