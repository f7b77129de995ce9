"""What it takes to start one replica. A pure description; `runtime` turns it into a sandboxed process."""

from __future__ import annotations

from pathlib import Path

import msgspec


class LaunchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One process that will speak HTTP/1.1 on `socket`.

    Every path is absolute. The process sees the system's programs and libraries read-only, `read_only`
    read-only, a private /tmp, and the folder of `socket` read-write; with `network` False it has no network
    at all.
    """

    id: str  # unique on the node; names its socket folder, its log and its record
    service: str
    argv: tuple[str, ...]
    socket: Path
    env: dict[str, str] = {}  # the whole environment: nothing is inherited
    read_only: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = ()  # device nodes it may open where they exist, e.g. /dev/nvidia0
    network: bool = False  # True only for an egress process of a remote provider
    health_path: str = "/health"  # 200 = ready
    ready_timeout_s: float = 60.0
    memory_bytes_max: int | None = None  # RLIMIT_AS where set; cgroup limits come with the serverless runtime
    engine: str = ""
    engine_digest: str = ""
    model_digest: str = ""


TELEMETRY_OFF: dict[str, str] = {
    # Dependencies that phone home unless told otherwise (measured with strace); set before any import.
    "ORT_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "ANONYMIZED_TELEMETRY": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
