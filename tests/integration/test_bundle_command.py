"""`allod bundle` as a command: killed in the middle, through a pipe, with the software itself inside."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_homes import add_model, new_home
from model_files import gguf, noise
from running_node import ALLOD

from allod import __version__
from allod.models import store

FLOATS = 24 << 20  # 96 MiB: long enough to be killed in
WHEEL = "tiny_thing-1.0-py3-none-any.whl"


def run(*words: str | Path, ok: int = 0, **more: Any) -> Any:
    command = [*ALLOD, "bundle", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, **more)
    assert done.returncode == ok, (words, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return json.loads(done.stdout)


def killed_when(words: list[str | Path], reached: Callable[[], bool]) -> None:
    """Starts the command and kills it (-9) as soon as `reached`."""
    process = subprocess.Popen([*ALLOD, "bundle", *map(str, words)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not reached():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def home_hash(home: Path) -> str:
    sha = hashlib.sha256()
    for path in sorted(home.rglob("*")):
        info = path.lstat()
        sha.update(f"{path.relative_to(home)} {info.st_mode} {info.st_ino} {info.st_mtime_ns}\n".encode())
        sha.update(path.read_bytes() if path.is_file() else b"")
    return sha.hexdigest()


def larger_than(pattern: Callable[[], list[Path]], count: int) -> Callable[[], bool]:
    return lambda: any(p.stat().st_size > count for p in pattern())


def test_killed_while_it_is_written_and_while_it_is_applied(tmp_path: Path) -> None:
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "x.bundle"
    home = new_home(a)
    small = gguf(8)
    large = small[: -4 * 8].replace(  # the same header about a larger tensor
        (8).to_bytes(8, "little") + (0).to_bytes(4, "little"), FLOATS.to_bytes(8, "little") + bytes(4)
    ) + noise(1, 1 << 20) * (4 * FLOATS >> 20)
    add_model(home, "large", {"w.gguf": large})
    words: list[str | Path] = ["create", "--out", out, "--all-models", "--policy", "--home", a]
    half = out.with_name("x.bundle.partial")
    killed_when(words, larger_than(lambda: [half] if half.exists() else [], 20 << 20))
    assert not out.exists()
    made = run(*words)
    assert not half.exists()
    assert made["bytes"] > 4 * FLOATS

    apply: list[str | Path] = ["apply", out, "--home", b, "--trust-key", made["signer"]]
    partial = lambda: [*b.glob("models/partial/*/from-bundle")]  # noqa: E731
    killed_when(apply, larger_than(partial, 20 << 20))
    assert store.installed(b / "models") == []
    begun = partial()[0].stat()
    killed_when(apply, larger_than(partial, 60 << 20))
    assert partial()[0].stat().st_ino == begun.st_ino, "it went on with what was there"
    assert run(*apply)["changed"]
    assert partial() == []
    store.verify(store.find(b / "models", "large")[0])
    before = home_hash(b)
    assert run("apply", out, "--home", b)["changed"] == []
    assert home_hash(b) == before, "not even a time stamp"

    with out.open("rb") as f:
        assert run("verify", "-", "--home", b, stdin=f)["ok"]
    with out.open("r+b") as f:
        f.seek(50 << 20)
        byte = f.read(1)[0]
        f.seek(50 << 20)
        f.write(bytes([byte ^ 16]))
    refused = run("verify", out, "--home", b, ok=6)["error"]
    assert refused["code"] == "bundle.changed"
    assert refused["details"]["member"].startswith("blobs/sha256/")
    assert refused["details"]["begin"] <= 50 << 20 < refused["details"]["end"]


def test_exit_codes_and_hints(tmp_path: Path) -> None:
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "x.bundle"
    new_home(a)
    new_home(b)
    assert run("create", "--out", out, "--home", a, ok=2)["error"]["code"] == "bundle.empty"
    assert (
        run("create", "--out", out, "--model", "none", "--home", a, ok=2)["error"]["code"]
        == "model.not-found"
    )
    assert (
        run("create", "--out", out, "--sites", "--home", a, ok=2)["error"]["code"] == "bundle.nothing-there"
    )
    made = run("create", "--out", out, "--policy", "--home", a)
    assert run("create", "--out", out, "--policy", "--home", a, ok=2)["error"]["code"] == "bundle.exists"
    assert run("verify", tmp_path / "none", "--home", a, ok=2)["error"]["code"] == "bundle.no-file"
    assert run("verify", out, "--home", b, ok=4)["error"]["code"] == "bundle.signer-unknown"
    assert run("verify", out, "--key", a / "trust" / "organisation.pem", "--home", b)["ok"]
    other = "sha256:" + "0" * 64
    assert run("verify", out, "--key", other, "--home", a, ok=4)["error"]["details"]["key"] == made["signer"]
    assert run("verify", out, "--key", "nonsense", ok=2)["error"]["code"] == "bundle.bad-key"
    out.write_bytes(out.read_bytes()[:-1])
    assert run("verify", out, "--home", a, ok=6)["error"]["code"] == "bundle.truncated"


def test_what_may_not_leave_and_what_may_not_come_in(tmp_path: Path) -> None:
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "x.bundle"
    home = new_home(a)
    folder = add_model(home, "good", {"w.gguf": gguf()})
    add_model(home, "evil", {"w.gguf": b"\x80\x04}."})
    create = ("create", "--out", out, "--home", a, "--model")
    (folder / "note.json").write_text("{}")
    assert run(*create, "good", ok=6)["error"]["code"] == "model.extra-file"
    (folder / "note.json").unlink()
    signer = run(*create, "good")["signer"]
    raw = bytearray((folder / "w.gguf").read_bytes())
    raw[-1] ^= 1
    (folder / "w.gguf").unlink()
    (folder / "w.gguf").write_bytes(raw)
    out.rename(tmp_path / "good.bundle")
    assert run(*create, "good", ok=6)["error"]["code"] == "model.changed"
    run(*create, "evil")
    apply = ("apply", "--home", b, "--trust-key", signer)
    assert run(*apply, out, ok=2)["error"]["code"] == "model.pickle"
    config = b / "allod.toml"
    plain = config.read_text()
    config.write_text(plain + '\n[models]\nallowed_licences = ["MIT"]\n')
    refused = run(*apply, tmp_path / "good.bundle", ok=4)["error"]
    assert (refused["code"], refused["details"]["licence"]) == ("model.licence-not-allowed", "Apache-2.0")
    assert store.installed(b / "models") == []
    config.write_text(plain)
    assert run(*apply, tmp_path / "good.bundle")["changed"]


def test_a_disk_that_takes_no_more_is_no_defect(tmp_path: Path) -> None:
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "x.bundle"
    add_model(new_home(a), "m", {"w.gguf": gguf(1 << 19)})
    new_home(b)

    def limited() -> None:  # as a quota would
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    words = ("create", "--out", out, "--all-models", "--home", a)
    assert run(*words, ok=3, preexec_fn=limited)["error"]["code"] == "bundle.cannot-write"
    signer = run(*words)["signer"]
    words = ("apply", out, "--trust-key", signer, "--home", b)
    assert run(*words, ok=3, preexec_fn=limited)["error"]["code"] == "bundle.cannot-apply"
    assert store.installed(b / "models") == []
    assert run(*words)["changed"]
    nowhere = tmp_path / "none" / "x.bundle"
    refused = run("create", "--out", nowhere, "--all-models", "--home", a, ok=3)
    assert refused["error"]["code"] == "bundle.cannot-write"
    assert run("verify", tmp_path, "--home", a, ok=2)["error"]["code"] == "bundle.no-file"


# --- the software itself ------------------------------------------------------------------------------------


def _wheel(folder: Path, text: str = "ANSWER = 42\n") -> Path:
    """A whole wheel of one module, made here."""
    import base64
    import zipfile

    info = "tiny_thing-1.0.dist-info"
    files = {
        "tiny_thing.py": text,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {n: base64.urlsafe_b64encode(hashlib.sha256(t.encode()).digest()) for n, t in files.items()}
    record = "".join(f"{n},sha256={d.decode().rstrip('=')},{len(files[n])}\n" for n, d in digests.items())
    path = folder / WHEEL
    with zipfile.ZipFile(path, "w") as z:
        for name, content in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            z.writestr(name, content)
    return path


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    made = _wheel(folder)
    (folder / "run.lock").write_text(
        f"tiny-thing==1.0 --hash=sha256:{hashlib.sha256(made.read_bytes()).hexdigest()}\n"
    )
    return folder


def test_a_bare_machine_installs_the_software_from_the_bundle_alone(tmp_path: Path, wheels: Path) -> None:
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "x.bundle"
    new_home(a)
    made = run("create", "--out", out, "--wheels", wheels, "--home", a)
    bare = tmp_path / "bare"
    bare.mkdir()
    subprocess.run(["tar", "-xf", out, "-C", bare], check=True)
    key = str(a / "trust" / "organisation.pem")
    subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", key, "-signature", "manifest.json.sig", "manifest.json"],
        cwd=bare, check=True, capture_output=True,
    )  # fmt: skip
    venv.create(bare / "venv", with_pip=True)
    install = [bare / "venv/bin/pip", "install", "-q", "--no-index", "--no-deps", "--find-links", "wheels",
               "--require-hashes", "-r", "wheels/run.lock", "-r", "wheels/allod.lock"]  # fmt: skip
    offline = ["unshare", "--map-root-user", "--net", *map(str, install)]
    done = subprocess.run(offline, cwd=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = subprocess.run(
        [bare / "venv/bin/python", "-c", "import tiny_thing as t, allod; print(t.ANSWER, allod.__version__)"],
        capture_output=True, text=True, check=True, cwd=bare,
    )  # fmt: skip
    assert found.stdout.split() == ["42", __version__]

    run("apply", out, "--home", b, "--trust-key", made["signer"])
    assert {p.name for p in (b / "wheels").iterdir()} == {p.name for p in (bare / "wheels").iterdir()}
    before = home_hash(b)
    assert run("apply", out, "--home", b)["changed"] == []
    assert home_hash(b) == before
    # Where it was applied, a bundle can be made from again, and it is the same software.
    again = tmp_path / "again.bundle"
    run("create", "--out", again, "--wheels", b / "wheels", "--home", a)
    one, two = (p.read_bytes().partition(b"manifest.json.sig\0")[2][1024:] for p in (out, again))
    assert one == two


@pytest.mark.parametrize("case", ["another wheel", "a changed wheel", "a missing wheel"])
def test_only_what_the_lock_pins_is_packed_and_all_of_it(tmp_path: Path, wheels: Path, case: str) -> None:
    code = "bundle.wheel-not-pinned"
    if case == "another wheel":
        (wheels / "other-1.0-py3-none-any.whl").write_bytes(b"PK")
    elif case == "a changed wheel":
        _wheel(wheels, "ANSWER = 43\n")
    else:
        (wheels / WHEEL).unlink()
        code = "bundle.wheels-incomplete"
    new_home(tmp_path / "a")
    words = ("create", "--out", tmp_path / "x.bundle", "--wheels", wheels, "--home", tmp_path / "a")
    assert run(*words, ok=2)["error"]["code"] == code
    assert not (tmp_path / "x.bundle").exists()
