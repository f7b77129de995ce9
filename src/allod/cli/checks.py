"""What `allod doctor` looks at: this machine, then this home. None changes anything."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import resource
import shutil
import socket
import stat
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
from cryptography import x509

from allod import config, limits
from allod.cli.receipt import read_keys
from allod.config import Config, Home, OcrService
from allod.engines.ocr import tesseract
from allod.errors import AllodError, Integrity
from allod.ledger import checkpoint as cp
from allod.ledger.store import CHECKPOINT, Store
from allod.models import store as models
from allod.policy import pack, rules
from allod.runtime import sandbox
from allod.sites.load import load_sites

_DISK_FREE_BYTES_MIN = 2 * limits.SPOOL_BYTES_MAX  # the spools of two workers while control is away
_FSYNC_MS_MAX = 50.0  # added to every answer
_FSYNC_ROUNDS = 16
_CERTIFICATE_DAYS_MIN = 21  # time to order another
_CLOCK_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
_PACKAGES = ("uvloop", "msgspec", "cedarpy", "cryptography", "sqlalchemy", "starlette", "pypdfium2", "httpx")
_EXTRAS = {"llm": "xllamacpp", "ocr": "rapidocr", "postgresql": "psycopg"}


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report. Where `needed` is false, a failure is worth knowing and stops nothing."""

    name: str
    ok: bool
    detail: str
    hint: str = ""
    needed: bool = True


def machine(home: Home) -> Iterator[Found]:
    """This machine, whatever is configured."""
    yield _sandbox()
    yield _packages()
    yield from _extras()
    yield _tesseract()
    yield _gpu()
    yield _disk(home)
    yield _fsync(home)
    yield _clock()
    yield _files()


def of_home(home: Home, *, running: bool) -> Iterator[Found]:
    """This home: configuration, rules, keys, ledger."""
    try:
        loaded = config.load(home)
    except AllodError as e:
        yield Found(name="configuration", ok=False, detail=e.message, hint=e.hint)
        return
    yield Found(name="configuration", ok=True, detail=str(home.config_file))
    yield _private(home)
    yield _said("policy", lambda: _rules(home))
    yield _said("sites", lambda: f"{len(load_sites(home.sites))} besides this machine")
    yield _said("models", lambda: f"{len(models.ls(home.models))} installed")
    yield from _languages(loaded)
    yield _port(loaded, running=running)
    yield from _certificate(loaded)
    yield _said("ledger", lambda: _ledger(home))


# --- the machine --------------------------------------------------------------------------------------------


def _sandbox() -> Found:
    report = sandbox.probe()
    detail = f"bubblewrap {report.version} seals replicas" if report.sealed else report.problem
    return Found(name="sandbox", ok=report.sealed, detail=detail, hint=report.hint)


def _packages() -> Found:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        detail, hint = f"missing: {', '.join(missing)}", "pip install --force-reinstall allod"
        return Found(name="python packages", ok=False, detail=detail, hint=hint)
    return Found(name="python packages", ok=True, detail="all that a node needs")


def _extras() -> Iterator[Found]:
    for extra, package in _EXTRAS.items():
        there = importlib.util.find_spec(package) is not None
        hint = "" if there else f"pip install 'allod[{extra}]'"
        detail = f"{package} is {'installed' if there else 'not installed'}"
        yield Found(name=f"extra {extra}", ok=there, detail=detail, hint=hint, needed=False)


def _tesseract() -> Found:
    try:
        _, languages = tesseract.installed()
        detail = f"{tesseract.version()}, languages: {', '.join(sorted(languages))}"
        return Found(name="tesseract", ok=True, detail=detail)
    except AllodError as e:
        return Found(name="tesseract", ok=False, detail=e.message, hint=e.hint, needed=False)


def _gpu() -> Found:
    program = shutil.which("nvidia-smi")
    if program is None:
        return Found(name="gpu", ok=True, detail="none with an NVIDIA driver: models run on the processor")
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as e:
        hint = "nvidia-smi has to answer by itself first"
        return Found(name="gpu", ok=False, detail=f"the driver does not answer: {e}", hint=hint, needed=False)
    return Found(name="gpu", ok=True, detail="; ".join(done.stdout.strip().splitlines()))


def _disk(home: Home) -> Found:
    free = shutil.disk_usage(_existing(home.root)).free
    detail = f"{free / 2**30:.1f} GiB free for {home.root}"
    hint = f"at least {_DISK_FREE_BYTES_MIN / 2**30:.0f} GiB: no room for receipts means no answers"
    ok = free >= _DISK_FREE_BYTES_MIN
    return Found(name="disk space", ok=ok, detail=detail, hint="" if ok else hint)


def _fsync(home: Home) -> Found:
    """The wait that every receipt adds to its answer, measured where the spool would be."""
    folder = _existing(home.root)
    path = folder / f".fsync-{os.getpid()}"
    took: list[float] = []
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as e:
        return Found(
            name="disk latency", ok=False, detail=f"{folder} cannot be written: {e.strerror}", hint="--home"
        )
    try:
        for _ in range(_FSYNC_ROUNDS):
            os.pwrite(fd, os.urandom(4096), 0)
            began = time.perf_counter()
            os.fdatasync(fd)
            took.append((time.perf_counter() - began) * 1000)
    finally:
        os.close(fd)
        path.unlink()
    median = statistics.median(took)
    ok = median <= _FSYNC_MS_MAX
    hint = "" if ok else "every answer waits for it once: put the home on a local SSD"
    detail = f"a durable write takes {median:.1f} ms (median of {_FSYNC_ROUNDS})"
    return Found(name="disk latency", ok=ok, detail=detail, hint=hint, needed=False)


def _clock() -> Found:
    now = datetime.now(UTC)
    built = datetime.fromtimestamp(Path(__file__).stat().st_mtime, UTC)
    if now < built:
        detail = f"it is {now:%Y-%m-%d %H:%M} UTC, before allod was installed here"
        return Found(name="clock", ok=False, detail=detail, hint="set the clock: timedatectl set-ntp true")
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # modes 0: reads, changes nothing
    synchronised = 0 <= state < _CLOCK_UNSYNCHRONISED
    detail = f"{now:%Y-%m-%d %H:%M:%S} UTC, {'' if synchronised else 'not '}synchronised says the kernel"
    hint = "" if synchronised else "receipts carry this time: apt-get install chrony"
    return Found(name="clock", ok=synchronised, detail=detail, hint=hint, needed=False)


def _files() -> Found:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * limits.CONNECTIONS_PER_WORKER_MAX  # one towards the client, one towards the engine
    ok = hard >= needed or hard == resource.RLIM_INFINITY
    hint = "" if ok else f"ulimit -n {needed}, or LimitNOFILE={needed} in the service unit"
    return Found(name="open files", ok=ok, detail=f"{soft} now, {hard} at most", hint=hint, needed=False)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


# --- the home -----------------------------------------------------------------------------------------------


def _said(name: str, check: Callable[[], str]) -> Found:
    """A check that says what it found, or raises what is wrong."""
    try:
        return Found(name=name, ok=True, detail=check())
    except AllodError as e:
        return Found(name=name, ok=False, detail=e.message, hint=e.hint)


def _private(home: Home) -> Found:
    """Nobody but this user may read what holds keys."""
    secret = [home.root, home.keys, home.run, *home.keys.glob("*.key")]
    for path in secret:
        if path.exists() and (found := path.stat()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = stat.S_IMODE(found.st_mode)
            hint = f"chmod go-rwx {path}"
            return Found(name="permissions", ok=False, detail=f"{path} has mode {mode:04o}", hint=hint)
        if path.exists() and path.stat().st_uid != os.geteuid():
            hint = f"chown -R {os.geteuid()} {home.root}, or run as its owner"
            return Found(name="permissions", ok=False, detail=f"{path} belongs to another user", hint=hint)
    return Found(name="permissions", ok=True, detail="keys are readable by this user alone")


def _rules(home: Home) -> str:
    found = pack.load(home.policy)
    return f"{len(rules.read(found.text, found.schema).rules)} rules are valid"


def _languages(loaded: Config) -> Iterator[Found]:
    for service in loaded.services:
        if isinstance(service, OcrService) and service.languages:
            wanted = service.languages
            yield _said(f"languages of {service.model}", partial(_packs, wanted))


def _packs(wanted: tuple[str, ...]) -> str:
    return ", ".join(tesseract.check_languages(wanted))


def _port(loaded: Config, *, running: bool) -> Found:
    listen = loaded.node.listen
    if running:
        return Found(name="address", ok=True, detail=f"{listen}: the node is running")
    host, _, port = listen.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), int(port)))
    except (OSError, ValueError) as e:
        hint = "see who has it: ss -ltnp; or change listen in allod.toml"
        return Found(name="address", ok=False, detail=f"{listen} cannot be used: {e}", hint=hint)
    return Found(name="address", ok=True, detail=f"{listen} is free")


def _certificate(loaded: Config) -> Iterator[Found]:
    if not loaded.node.tls_cert:
        return
    try:
        certificate = x509.load_pem_x509_certificate(Path(loaded.node.tls_cert).read_bytes())
    except (OSError, ValueError) as e:
        yield Found(
            name="certificate", ok=False, detail=f"{loaded.node.tls_cert}: {e}", hint="a PEM file, leaf first"
        )
        return
    left = (certificate.not_valid_after_utc - datetime.now(UTC)).days
    detail = f"{loaded.node.tls_cert} is valid until {certificate.not_valid_after_utc:%Y-%m-%d}"
    hint = "" if left >= _CERTIFICATE_DAYS_MIN else "renew it, then restart the node"
    yield Found(
        name="certificate", ok=left >= _CERTIFICATE_DAYS_MIN, detail=detail, hint=hint, needed=left < 0
    )


def _ledger(home: Home) -> str:
    """The head is signed by this node's keys, and the tree's right edge leads to it. Reads a few files."""
    if not (home.ledger / CHECKPOINT).exists():
        return "not begun yet"
    keys = tuple(read_keys([str(home.ledger_pub)]))
    head = cp.verify((home.ledger / CHECKPOINT).read_bytes(), keys).checkpoint
    if Store(home.ledger).edge(head.size).root() != head.root:
        raise Integrity(
            "ledger.wrong-root", "the tree does not lead to its signed head", hint="allod ledger fsck"
        )
    return f"{head.size} receipts under a signed head; every byte: allod ledger fsck"
