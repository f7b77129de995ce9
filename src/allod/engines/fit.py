"""Which open-weight models fit a machine: a pure choice over a bundled table, and the probe that reads the
machine.

Nothing is fetched. Memory is computed, not measured: weights at the quantisation's bits per parameter, plus
a tenth and half a gibibyte for context and buffers. Speed on a processor is bounded by how fast the active
weights are read from memory, so a model is called slow when that is many gibibytes per token.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tomllib
from importlib import resources
from pathlib import Path

import msgspec

GIB = 1024**3
_BITS = {"q4_k_m": 4.85, "q8_0": 8.5}  # llama.cpp's formats, scales included
_RAM_SHARE = 0.7  # the rest is for the system, the node and its other replicas
_SLOW_GIB_PER_TOKEN = 12.0  # at the 20-40 GiB/s of a small server: under three tokens a second
_PROBE_TIMEOUT_S = 5.0


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    memory_bytes: int


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """What `probe` found. No GPU in `gpus` means none that NVIDIA's driver knows of."""

    ram_bytes: int
    cores: int
    gpus: tuple[Gpu, ...] = ()


class OpenModel(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. `parameters` and `active` in thousand millions; `source` empty: not checked."""

    name: str
    parameters: float
    licence: str
    maker: str
    country: str
    good_for: str
    source: str
    active: float | None = None
    context: int | None = None
    date: str = ""


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """A model that fits, best first. `how` is the next step, for people."""

    model: OpenModel
    quantisation: str
    memory_bytes: int
    runs_on: str  # "gpu" or "cpu"
    slow: bool
    reason: str
    how: str


@functools.cache
def table() -> tuple[OpenModel, ...]:
    """The bundled models."""
    raw = resources.files("allod.engines").joinpath("open_models.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(raw)["model"]
    return tuple(msgspec.convert(row | {"date": str(row.get("date", ""))}, OpenModel) for row in rows)


def memory_needed(model: OpenModel, quantisation: str) -> int:
    """Bytes for weights, context and buffers."""
    weights = model.parameters * 1e9 * _BITS[quantisation] / 8
    return int(weights * 1.1 + GIB / 2)


def fit(hardware: Hardware, models: tuple[OpenModel, ...] | None = None) -> list[Suggestion]:
    """The models that fit, the largest that is not slow first; each at the best quantisation that fits."""
    found = [s for m in (table() if models is None else models) if (s := _place(m, hardware))]
    return sorted(found, key=lambda s: (s.slow, not s.model.source, -s.model.parameters, s.model.name))


def _place(model: OpenModel, hardware: Hardware) -> Suggestion | None:
    gpu = sum(g.memory_bytes for g in hardware.gpus)
    for where, memory in (("gpu", gpu), ("cpu", int(hardware.ram_bytes * _RAM_SHARE))):
        for quantisation in ("q8_0", "q4_k_m"):
            needed = memory_needed(model, quantisation)
            if needed <= memory:
                return _suggestion(model, quantisation, needed, where, memory)
    return None


def _suggestion(model: OpenModel, quantisation: str, needed: int, where: str, memory: int) -> Suggestion:
    read = (model.active or model.parameters) * 1e9 * _BITS[quantisation] / 8 / GIB
    slow = where == "cpu" and read > _SLOW_GIB_PER_TOKEN
    place = "GPU memory" if where == "gpu" else "memory (30 % kept free)"
    reason = f"needs about {needed / GIB:.1f} GiB as {quantisation}; {memory / GIB:.1f} GiB of {place}"
    if slow:
        reason += f"; slow here: {read:.0f} GiB are read for every token"
    stem = re.sub(r"[^a-z0-9]+", "-", model.name.lower()).strip("-")
    return Suggestion(
        model=model,
        quantisation=quantisation,
        memory_bytes=needed,
        runs_on=where,
        slow=slow,
        reason=reason,
        how=f"get {stem}*{quantisation}*.gguf from its maker, then: allod models add FILE.gguf --name {stem}",
    )


# --- the edge -----------------------------------------------------------------------------------------------


def probe() -> Hardware:
    """Reads this machine: /proc/meminfo, the cores this process may use, and nvidia-smi where it is
    installed.
    """
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    total = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return Hardware(
        ram_bytes=int(total[1]) * 1024 if total else 0,
        cores=len(os.sched_getaffinity(0)),
        gpus=_gpus(),
    )


def _gpus() -> tuple[Gpu, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        said = subprocess.run(
            [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):  # a driver that does not answer is no GPU
        return ()
    return parse_nvidia_smi(said)


def parse_nvidia_smi(said: str) -> tuple[Gpu, ...]:
    """Lines of "name, MiB"; others (a GPU that reports no memory) are left out."""
    rows = (line.rsplit(",", 1) for line in said.splitlines() if "," in line)
    return tuple(
        Gpu(name=name.strip(), memory_bytes=int(mib) * 1024**2) for name, mib in rows if mib.strip().isdigit()
    )
