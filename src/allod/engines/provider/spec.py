"""How the egress process of a provider is launched. It is the only kind of replica with a network."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

import allod
from allod.engines.interpreter import python_env
from allod.engines.launch import LaunchSpec
from allod.engines.provider.config import ProviderConfig
from allod.errors import NotReady
from allod.sites.provider import KeyReference


def config_bytes(config: ProviderConfig) -> bytes:
    """The file that `provider_spec` expects at `config_path`; it holds a reference to the key, never the
    key.
    """
    return msgspec.json.encode(config)


def provider_spec(
    config: ProviderConfig,
    *,
    id: str,
    service: str,
    run_dir: Path,
    config_path: Path,
    environment: Mapping[str, str],
) -> LaunchSpec:
    """The egress process `id`, listening on `<run_dir>/http.sock`.

    `config_path` holds `config_bytes(config)`. Of `environment` only the variable that the key reference
    names is handed on. Raises NotReady `site.key-missing` if it, or the key's file, is not there.
    """
    env = python_env()
    read_only = [config_path]
    if config.key is not None and config.key.scheme == "env":
        if config.key.target not in environment:
            raise NotReady(
                "site.key-missing",
                f"there is no usable provider key at {config.key}",
                hint=f"export {config.key.target}=...",
            )
        env[config.key.target] = environment[config.key.target]
    elif config.key is not None:
        read_only.append(Path(config.key.target))
        env["ALLOD_KEY_FILE"] = _which_file(config.key)
    if config.ca_file:
        read_only.append(Path(config.ca_file))
    socket = run_dir / "http.sock"
    return LaunchSpec(
        id=id,
        service=service,
        argv=(
            sys.executable,
            "-m",
            "allod.engines.provider",
            f"--socket={socket}",
            f"--config={config_path}",
        ),
        socket=socket,
        env=env,
        read_only=tuple(read_only),
        network=True,
        engine=f"allod-egress {allod.__version__}",
    )


def _which_file(key: KeyReference) -> str:
    """Device and inode of a key's file. The sandbox shows that very file: one that was put in its place is
    another specification, and so another process.
    """
    try:
        found = Path(key.target).stat()
    except OSError as e:
        raise NotReady(
            "site.key-missing",
            f"there is no usable provider key at {key}",
            hint=f"write the key to {key.target}, mode 0600, then: allod policy reload",
        ) from e
    return f"{found.st_dev}:{found.st_ino}"
