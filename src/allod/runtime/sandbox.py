"""The sandbox of a replica: bubblewrap's command line, and whether this machine can carry it out.

A sealed replica sees the system's programs and libraries, its Python and what its spec names, all
read-only; a private /tmp and /dev/shm of bounded size; and one writable folder, that of its socket. It has
its own user, process, IPC, host-name and cgroup namespaces, no capabilities, no way to new privileges or new
user namespaces, a bound on its processes and on the size of a file, and, unless its spec says otherwise, no
network interface but an unconnected loopback.

Nothing here starts a replica; `probe` starts one harmless program, to find out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

import allod
from allod import limits
from allod.engines.launch import LaunchSpec

NOBODY = 65534  # inside; outside it is the user that runs the node
DEFAULT_ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 — the replica's own
    "USER": "replica",  # there is no /etc/passwd to ask
    "LANG": "C.UTF-8",
}
_PROBE_TIMEOUT_S = 10.0

# What programs look up in /etc without any of it being this machine's business.
_ETC = ("ld.so.cache", "alternatives", "fonts", "localtime", "mime.types", "magic", "OpenCL", "vulkan")
_ETC_NETWORK = ("resolv.conf", "hosts", "nsswitch.conf", "gai.conf", "ssl/certs", "ssl/openssl.cnf", "pki")


class SandboxReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `probe` found. `problem` and `hint` are empty where replicas can be sealed."""

    sealed: bool
    program: str = ""  # bubblewrap's path, where there is one
    version: str = ""
    problem: str = ""
    hint: str = ""


def python_paths() -> tuple[Path, ...]:
    """The folders that this very Python and this very allod are made of."""
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(allod.__file__).parent]
    return tuple(dict.fromkeys(f for f in folders if not f.is_relative_to("/usr")))


def arguments(spec: LaunchSpec, *, program: str, info_fd: int | None = None) -> list[str]:
    """The command line that runs `spec.argv` sealed. With `info_fd`, bubblewrap reports its child there.

    The environment is not in here: it is handed over by execve, so that `ps` shows no secret.
    """
    folder = str(spec.socket.parent)
    argv = [program, *_namespaces(spec.network), *_system(network=spec.network)]
    argv += ["--perms", "1777", "--size", str(limits.REPLICA_TMP_BYTES_MAX), "--tmpfs", "/tmp"]  # noqa: S108
    # After /tmp: what the spec names may lie below it.
    for path in (*python_paths(), *spec.read_only):
        argv += ["--ro-bind", str(path), str(path)]
    for device in spec.devices:
        argv += ["--dev-bind-try", str(device), str(device)]
    # Memory that a replica fills is the machine's: bubblewrap's own /dev would take half of it.
    argv += ["--perms", "1777", "--size", str(limits.REPLICA_TMP_BYTES_MAX), "--tmpfs", "/dev/shm"]  # noqa: S108
    argv += ["--bind", folder, folder, "--chdir", folder, "--remount-ro", "/dev", "--remount-ro", "/"]
    if info_fd is not None:
        argv += ["--info-fd", str(info_fd)]
    return [*argv, "--", *bounded(spec)]


def bounded(spec: LaunchSpec) -> list[str]:
    """The command with its limits, sealed or not.

    Inside a sandbox the kernel counts the processes of that sandbox (Linux 5.14 and later), of any user but
    root; the bound on a file's size is what stops a flood of the log between two looks at it.
    """
    bounds = [f"--nproc={limits.REPLICA_PROCESSES_MAX}", f"--fsize={limits.REPLICA_FILE_BYTES_MAX}"]
    if spec.memory_bytes_max is not None:
        bounds.append(f"--as={spec.memory_bytes_max}")
    return ["prlimit", *bounds, "--", *spec.argv]


def environment(spec: LaunchSpec) -> dict[str, str]:
    """The whole environment of the replica: the spec's, over a search path, a home and a locale."""
    return DEFAULT_ENV | spec.env


def probe(path: str | None = None) -> SandboxReport:
    """Whether this machine can seal a replica, found out by sealing `true`. Takes about 10 ms."""
    program = shutil.which("bwrap", path=path)
    if program is None:
        return SandboxReport(
            sealed=False,
            problem="bubblewrap is not installed",
            hint="apt-get install bubblewrap (Debian, Ubuntu) or dnf install bubblewrap (Fedora, RHEL)",
        )
    version = _run([program, "--version"])[1].removeprefix("bubblewrap ").strip()
    trial = [program, *_namespaces(network=False), *_system(network=False), "--", "true"]
    code, said = _run(trial)
    if code == 0:
        return SandboxReport(sealed=True, program=program, version=version)
    return SandboxReport(
        sealed=False,
        program=program,
        version=version,
        problem=f"the kernel refuses the sandbox: {said.strip() or f'bwrap ended with {code}'}",
        hint=_remedy(),
    )


def _namespaces(network: bool) -> list[str]:
    argv = [
        "--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY), "--disable-userns",
        "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--hostname", "replica", "--new-session", "--cap-drop", "ALL",
    ]  # fmt: skip
    return argv if network else [*argv, "--unshare-net"]


def _system(*, network: bool) -> list[str]:
    argv = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            argv += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            argv += ["--ro-bind", str(path), str(path)]
    for name in (*_ETC, *(_ETC_NETWORK if network else ())):
        if (path := Path("/etc", name)).exists():
            argv += ["--ro-bind", str(path), str(path)]
    return [*argv, "--proc", "/proc", "--dev", "/dev"]


def _run(argv: Sequence[str]) -> tuple[int, str]:
    """Exit status and what was said, on either stream."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=DEFAULT_ENV,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        return 127, str(e)
    return done.returncode, done.stdout.decode(errors="replace")


def _remedy() -> str:
    """The first switch of this kernel that forbids user namespaces, with the command that permits them."""
    switches = (
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for bwrap",
        ),
    )
    for name, bad, remedy in switches:
        try:
            if Path("/proc/sys", name).read_text().strip() == bad:
                return remedy
        except OSError:
            continue
    return (
        "in a container: permit user namespaces (podman run --security-opt seccomp=unconfined "
        "--security-opt unmask=/proc/*), or run the node on the host"
    )
