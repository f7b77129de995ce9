"""Small whole model files for tests, made here byte by byte, and the processes that offer them."""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMMIT = "c0ffee" + "0" * 34
CONFIG = {"architectures": ["MistralForCausalLM"], "torch_dtype": "bfloat16", "max_position_embeddings": 4096}
CARD = "---\nlicense: apache-2.0\nbase_model: acme/base\n---\n# A model\n"
TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"


def safetensors(seed: int = 1, floats: int = 64) -> bytes:
    """One F32 tensor."""
    head = json.dumps({"w": {"dtype": "F32", "shape": [floats], "data_offsets": [0, 4 * floats]}}).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + noise(seed, 4 * floats)


def noise(seed: int, count: int) -> bytes:
    """Bytes that do not repeat, quickly."""
    import hashlib

    return hashlib.shake_128(str(seed).encode()).digest(count)


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(floats: int = 8, **strings: str) -> bytes:
    """One F32 tensor; `strings` are further keys, with "__" for a dot."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 3 + len(strings))
    head += _text("general.architecture") + struct.pack("<I", 8) + _text("llama")
    head += _text("llama.context_length") + struct.pack("<II", 4, 2048)
    head += _text("general.file_type") + struct.pack("<II", 4, 7)
    for key, value in strings.items():
        head += _text(key.replace("__", ".")) + struct.pack("<I", 8) + _text(value)
    head += _text("t") + struct.pack("<IQIQ", 1, floats, 0, 0)
    head += b"\0" * (-len(head) % 32)
    return head + noise(2, 4 * floats)


def model_folder(folder: Path, *, seed: int = 1, floats: int = 64, **more: bytes) -> Path:
    """A safetensors model with configuration, tokenizer and card. `more`: further files, "__" for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(safetensors(seed, floats))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text('{"version":"1.0","model":{"vocab":{"auto_map":1}}}')
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (folder / "README.md").write_text(CARD)
    for name, raw in more.items():
        (folder / name.replace("__", ".")).write_bytes(raw)
    return folder


def repository(root: Path, name: str = "acme/tiny", commit: str = COMMIT, **options: Any) -> Path:
    """A hub repository with one commit, which `main` means; gives the commit's folder."""
    base = root / name
    base.mkdir(parents=True, exist_ok=True)
    (base / "main").write_text(commit)
    return model_folder(base / commit, **options)


class Served:
    """A running server: where it is, and what it was asked."""

    def __init__(self, address: str, log: Path) -> None:
        self.address = address
        self._log = log

    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    @property
    def sent(self) -> int:
        """Bytes of files that were sent."""
        return sum(line["sent"] for line in self.asked())

    def forget(self) -> None:
        self._log.write_text("")


@contextlib.contextmanager
def serving(program: str, root: Path, *options: str) -> Iterator[Served]:
    """Runs `hub` or `registry` over `root`; stopped by its own process handle."""
    root.mkdir(parents=True, exist_ok=True)
    log = root.parent / f"{root.name}.log.jsonl"
    path = Path(__file__).with_name(f"{program}.py")
    command = [sys.executable, str(path), "--root", str(root), "--log", str(log), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Served(process.stdout.readline().strip(), log)
    finally:
        process.kill()
        process.wait()
