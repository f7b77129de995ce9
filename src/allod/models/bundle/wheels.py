"""The software itself in a bundle: the wheels that the lock pins, the lock, and this software's own wheel.

Guarantees: every wheel's SHA-256 stands in a lock that is packed with it; the installer itself says that the
wheels are enough, in a dry run that uses nothing else. The wheels are those of the kind of machine that they
were made for (processor, Python), as pip resolved them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from allod import __version__, digest
from allod.errors import NotFound, NotReady, Unprocessable
from allod.models.bundle.contents import Item, text_item
from allod.models.bundle.manifest import File

RUN_LOCK = "run.lock"
OWN_LOCK = "allod.lock"
_OWN = f"allod-{__version__}-"
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_PIP_S = 600.0
_EPOCH = "315532800"  # 1980-01-01, the first day that a zip file can name: the same source, the same wheel


def collect(folder: Path, scratch: Path) -> list[Item]:
    """The wheels of `folder` and their locks; what has to be built is built in `scratch`.

    Raises NotFound `bundle.no-lock`, `bundle.no-wheel`; Unprocessable `bundle.wheel-not-pinned`,
    `bundle.wheels-incomplete`; NotReady `bundle.pip`.
    """
    lock = _lock(folder)
    pinned = set(_HASH.findall(lock.decode()))
    found = []
    for path in sorted(folder.glob("*.whl")):
        if path.name.startswith("allod-"):
            continue
        item = _wheel(path)
        if item.file.sha256.removeprefix("sha256:") not in pinned:
            raise Unprocessable(
                "bundle.wheel-not-pinned",
                f"{path.name} is not one that {RUN_LOCK} pins",
                hint=f"take it out of {folder}, or fetch it anew, with --require-hashes",
            )
        found.append(item)
    own = _wheel(_own_wheel(folder, scratch))
    own_lock = f"allod=={__version__} --hash={own.file.sha256}\n".encode()
    (scratch / RUN_LOCK).write_bytes(lock)
    _enough(folder, scratch / RUN_LOCK)
    return [
        *found, own,
        text_item(f"wheels/{RUN_LOCK}", "lock", lock), text_item(f"wheels/{OWN_LOCK}", "lock", own_lock),
    ]  # fmt: skip


def _wheel(path: Path) -> Item:
    file = File(
        path=f"wheels/{path.name}", size=path.stat().st_size, sha256=digest.of_file(path), kind="wheel"
    )
    return Item(file=file, source=path)


def _source_tree() -> Path | None:
    """Where this software's source lies, if it runs from there."""
    root = Path(__file__).resolve().parents[4]
    return root if (root / "pyproject.toml").is_file() and (root / "src" / "allod").is_dir() else None


def _lock(folder: Path) -> bytes:
    tree = _source_tree()
    for path in (folder / RUN_LOCK, *([tree / "requirements" / RUN_LOCK] if tree else [])):
        if path.is_file():
            return path.read_bytes()
    raise NotFound(
        "bundle.no-lock", f"{folder} has no {RUN_LOCK}", hint=f"copy requirements/{RUN_LOCK} into it"
    )


def _own_wheel(folder: Path, scratch: Path) -> Path:
    tree = _source_tree()
    if tree is None:
        for path in sorted(folder.glob(f"{_OWN}*.whl")):
            return path
        raise NotFound(
            "bundle.no-wheel",
            f"{folder} has no wheel of allod {__version__}, and its source is not here",
            hint="put the wheel that it was installed from into the folder",
        )
    words = ["wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(scratch), str(tree)]
    done = _pip(*words)
    made = sorted(scratch.glob(f"{_OWN}*.whl"))
    if done.returncode or not made:
        raise NotReady("bundle.pip", f"allod's own wheel cannot be built: {done.stderr.strip()[-500:]}")
    return made[0]


def _enough(folder: Path, lock: Path) -> None:
    """Asks pip whether the lock can be installed from the folder alone."""
    with tempfile.TemporaryDirectory() as nowhere:
        done = _pip(
            "install", "--dry-run", "-q", "--ignore-installed", "--target", nowhere, "--no-deps",
            "--no-index", "--only-binary", ":all:", "--find-links", str(folder), "--require-hashes",
            "-r", str(lock),
        )  # fmt: skip
    if done.returncode:
        why = next((x for x in done.stderr.splitlines() if "No matching" in x or "ERROR" in x), done.stderr)
        raise Unprocessable(
            "bundle.wheels-incomplete",
            f"{folder} does not hold what {RUN_LOCK} pins: {why.removeprefix('ERROR: ').strip()[:300]}",
            hint=f"pip download --require-hashes --no-deps --only-binary :all: -d {folder} -r {RUN_LOCK}",
        )


def _pip(*words: str) -> subprocess.CompletedProcess[str]:
    epoch = f"SOURCE_DATE_EPOCH={_EPOCH}"
    command = ["env", epoch, sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_PIP_S, check=False)
    except subprocess.TimeoutExpired as e:
        raise NotReady("bundle.pip", f"pip took longer than {_PIP_S:.0f} s") from e
