"""How an OCR replica is launched: a description, from facts that `identity` gathered."""

from __future__ import annotations

import sys
from pathlib import Path

from allod.engines.launch import TELEMETRY_OFF, LaunchSpec
from allod.engines.ocr.identity import OcrIdentity, ocr_identity, python_paths
from allod.engines.ocr.tesseract import ENVIRONMENT

SERVICE = "allod-ocr"


def ocr_spec(
    *,
    id: str,
    run_dir: Path,
    languages: tuple[str, ...] = (),
    rapidocr: bool = True,
    workers: int = 1,
    service: str = SERVICE,
    identity: OcrIdentity | None = None,
) -> LaunchSpec:
    """The launch of one replica with its socket at `run_dir/http.sock`.

    Pure where `identity` is given; otherwise it is read from the installed files. The workers bound their own
    memory (limits.PAGE_MEMORY_BYTES_MAX each), so the process as a whole carries no address-space limit.
    """
    known = identity or ocr_identity(languages=languages, rapidocr=rapidocr)
    socket = run_dir / "http.sock"
    packages = next(path for path in python_paths() if (path / "allod").is_dir())
    return LaunchSpec(
        id=id,
        service=service,
        argv=(
            sys.executable,
            "-m",
            "allod.engines.ocr",
            f"--socket={socket}",
            f"--model-name={service}",
            f"--languages={','.join(languages)}",
            f"--rapidocr={'on' if rapidocr else 'off'}",
            f"--workers={workers}",
        ),
        socket=socket,
        env={**ENVIRONMENT, **TELEMETRY_OFF, "PYTHONPATH": str(packages), "PYTHONUNBUFFERED": "1"},
        read_only=(*python_paths(), known.tessdata),
        engine=known.engine,
        engine_digest=known.engine_digest,
        model_digest=known.model_digest,
    )
