"""An OCI registry as a source and a target, through the `oras` client.

Guarantees: what is read is addressed by digest from the manifest on; a token goes to the registry that asked
for it and not to where it redirects; the user's Docker credentials are not looked at. Registries are spoken
to over TLS; only this machine itself may be without.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from allod import digest
from allod.errors import AllodError, NotReady, Unprocessable, Usage
from allod.limits import SOURCE_CONNECT_TIMEOUT_S, SOURCE_MANIFEST_BYTES_MAX, SOURCE_READ_TIMEOUT_S
from allod.models.sources import Access, Listing, RemoteFile, as_name, cut, refused, secret, unreachable
from allod.models.sources.artefact import MANIFEST_TYPE, Artefact, Descriptor, files_of

_PIECE = 1 << 18


class RegistrySource:
    def __init__(self, text: str, access: Access) -> None:
        """`text` is HOST/REPO:TAG or HOST/REPO@DIGEST. A token is `user:password`, or a bearer token."""
        host, slash, _ = text.partition("/")
        if not slash or not (host == "localhost" or "." in host or ":" in host):
            raise Usage("source.unknown", f"oci:{text} names no registry", hint="oci:HOST/REPO:TAG")
        self._oras = _Client(host, secret(access.token))
        try:
            self._container = self._oras.registry.get_container(text)
        except ValueError as e:
            raise Usage("source.unknown", f"oci:{text} is no name: {e}", hint="oci:HOST/REPO:TAG") from e
        self._base = f"{self._oras.registry.prefix}://{host}/v2/{self._container.api_prefix}"

    def listing(self) -> Listing:
        """Raises NotFound `source.not-found`, Denied `source.denied`, NotReady `source.unreachable`,
        Unprocessable `source.bad-manifest`."""
        wanted = self._container.digest or self._container.tag
        with self._ask("GET", f"manifests/{wanted}", {"accept": MANIFEST_TYPE}) as response:
            raw = b"".join(cut_at(response.iter_content(_PIECE), SOURCE_MANIFEST_BYTES_MAX))
        files = files_of(raw, self._container.digest or "")
        name = self._container.repository
        origin = f"oci:{self._container.registry}/{self._container.api_prefix}@{digest.of(raw)}"
        return Listing(origin=origin, name=as_name(name), files=files, picked=True)

    def read(self, file: RemoteFile, start: int, end: int) -> Iterator[bytes]:
        import requests

        asked = {"range": f"bytes={start}-{end - 1}", "accept-encoding": "identity"}
        try:
            with self._ask("GET", f"blobs/{file.promise}", asked) as response:
                whole = response.status_code == 200
                yield from cut(response.iter_content(_PIECE), start if whole else 0, end - start)
        except requests.RequestException as e:
            raise NotReady("source.broken-off", f"{file.name} broke off: {e}", hint="pull again") from e

    def push(self, artefact: Artefact, files: dict[str, Path]) -> str:
        """Uploads what the registry does not have, the manifest last; gives the manifest's digest."""
        for name, layer in artefact.layers.items():
            self._upload(layer, files[name])
        config = Descriptor(media_type="", digest=digest.of(artefact.config), size=len(artefact.config))
        self._upload(config, artefact.config)
        kind = {"content-type": MANIFEST_TYPE}
        with self._ask("PUT", f"manifests/{self._container.tag}", kind, artefact.manifest):
            return digest.of(artefact.manifest)

    def _upload(self, layer: Descriptor, content: Path | bytes) -> None:
        """One blob, monolithically; nothing is sent that is there."""
        try:
            with self._ask("HEAD", f"blobs/{layer.digest}", {}):
                return
        except AllodError as e:
            if e.code != "source.not-found":
                raise
        with self._ask("POST", "blobs/uploads/", {"content-length": "0"}) as begun:
            where = begun.headers.get("location", "")
        if not where.startswith("http"):
            where = self._base.split("/v2/")[0] + where
        where += ("&" if "?" in where else "?") + f"digest={layer.digest}"
        kind = {"content-type": "application/octet-stream", "content-length": str(layer.size)}
        if isinstance(content, bytes):
            with self._ask("PUT", where, kind, content):
                return
        with content.open("rb") as f, self._ask("PUT", where, kind, f):
            return

    def _ask(self, method: str, path: str, headers: dict[str, str], data: Any = None) -> Any:
        import requests

        url = path if path.startswith("http") else f"{self._base}/{path}"
        try:
            response = self._oras.request(url, method, data=data, headers=dict(headers), stream=True)
            if response.status_code == 401 and self._oras.forget_token():
                response = self._oras.request(url, method, data=data, headers=dict(headers), stream=True)
        except requests.RequestException as e:
            raise unreachable(self._base, e) from e
        except ValueError as e:  # the client could not get a token
            raise refused(401, f"{self._container.api_prefix} at {self._container.registry}") from e
        if response.status_code >= 300:
            response.close()
            raise refused(response.status_code, f"{self._container.api_prefix} ({path[:80]})")
        return response


class _Client:
    """The oras client for one registry, with nothing taken from the user's files."""

    def __init__(self, host: str, token: str) -> None:
        try:
            import oras.logger  # type: ignore[import-untyped]
            import oras.provider  # type: ignore[import-untyped]
        except ImportError as e:
            raise NotReady(
                "source.not-installed",
                "the registry client is not installed",
                hint="pip install 'allod[models]'",
            ) from e
        oras.logger.logger.set_level(logging.CRITICAL)  # it would speak on the command's own streams
        self.registry: Any = oras.provider.Registry(host, insecure=_is_this_machine(host))
        self.registry.session.request = _patient(self.registry.session.request)
        # Without the client's own retries, which sleep for minutes, also over a refusal.
        self.request = functools.partial(oras.provider.Registry.do_request.__wrapped__, self.registry)
        user, colon, password = token.partition(":")
        self._given = bool(token and not colon)
        if colon:
            self.registry.auth.set_basic_auth(user, password)
        elif token:
            self.registry.auth.set_token_auth(token)

    def forget_token(self) -> bool:
        """Whether another token may be asked for: one that allows pulling need not allow pushing, and the
        client would present the old one for ever."""
        had = bool(self.registry.auth.token) and not self._given
        if had:
            self.registry.auth.token = None
        return had


def _patient(request: Any) -> Any:
    """The client sets no timeouts of its own: a silent registry would hold a pull for ever."""

    def asked(method: str, url: str, **options: Any) -> Any:
        return request(method, url, timeout=(SOURCE_CONNECT_TIMEOUT_S, SOURCE_READ_TIMEOUT_S), **options)

    return asked


def _is_this_machine(host: str) -> bool:
    name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def cut_at(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    """A stream that may not be longer than `most` bytes. Unprocessable `source.bad-manifest`."""
    for piece in pieces:
        most -= len(piece)
        if most < 0:
            raise Unprocessable("source.bad-manifest", "the manifest is unreasonably large")
        yield piece
