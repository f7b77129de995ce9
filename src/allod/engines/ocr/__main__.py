"""`python -m allod.engines.ocr`: one OCR replica on a Unix socket, until SIGTERM."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import uvicorn

from allod.engines.launch import TELEMETRY_OFF
from allod.engines.ocr import rapid
from allod.engines.ocr.identity import ocr_identity
from allod.engines.ocr.recognise import Settings
from allod.engines.ocr.server import OcrServer
from allod.engines.ocr.tesseract import check_languages
from allod.errors import AllodError, NotReady


def main(argv: list[str]) -> int:
    os.environ.update(TELEMETRY_OFF)
    options = _options().parse_args(argv)
    try:
        server = _server(options)
    except AllodError as e:
        print(f"{e}\n{e.hint}".rstrip(), file=sys.stderr)
        return e.exit_code
    options.socket.unlink(missing_ok=True)  # of a replica that was killed
    uvicorn.run(
        server.app,
        uds=str(options.socket),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m allod.engines.ocr", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--model-name", default="allod-ocr")
    parser.add_argument("--languages", default="", help="eng,fra,deu; empty: every installed pack")
    parser.add_argument("--rapidocr", choices=("on", "off"), default="on")
    parser.add_argument("--workers", type=int, default=max(1, len(os.sched_getaffinity(0))))
    return parser


def _server(options: argparse.Namespace) -> OcrServer:
    languages = tuple(code for code in options.languages.split(",") if code)
    wants_rapidocr = options.rapidocr == "on"
    if wants_rapidocr and not rapid.installed():
        raise NotReady(
            "ocr.rapidocr-missing",
            "the package rapidocr is not installed",
            hint="pip install 'allod[ocr]', or start with --rapidocr off",
        )
    return OcrServer(
        model_name=options.model_name,
        identity=ocr_identity(languages=languages, rapidocr=wants_rapidocr),
        settings=Settings(check_languages(languages), wants_rapidocr),
        workers=options.workers,
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
