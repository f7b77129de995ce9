"""How engines that are Python modules of this very allod are started."""

from __future__ import annotations

from pathlib import Path

import allod
from allod.engines.launch import TELEMETRY_OFF


def python_env() -> dict[str, str]:
    """The environment of such a process: allod importable from where it is, telemetry off, output
    unbuffered.
    """
    where = Path(allod.__file__).resolve().parent.parent
    return {
        **TELEMETRY_OFF,
        "PYTHONPATH": str(where),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
