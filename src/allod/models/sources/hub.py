"""A model repository on a hub, through the `huggingface_hub` library, at one commit.

Guarantees: a branch or tag is resolved to a commit once, and everything is read from that commit; a token
goes to the hub alone and not to where it redirects; the library's telemetry and implicit tokens are off.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from allod.errors import Denied, NotFound, NotReady, Unprocessable, Usage
from allod.limits import SOURCE_CONNECT_TIMEOUT_S, SOURCE_READ_TIMEOUT_S
from allod.models.sources import Access, Listing, RemoteFile, as_name, cut, refused, secret, unreachable

_PIECE = 1 << 18


class Hub:
    def __init__(self, text: str, access: Access) -> None:
        """`text` is ORG/REPO or ORG/REPO@REVISION."""
        repo, _, revision = text.partition("@")
        if repo.count("/") != 1:
            raise Usage("source.unknown", f"hf:{text} is no repository", hint="hf:ORG/REPO[@REVISION]")
        self._repo, self._revision = repo, revision or None
        self._token = secret(access.token)
        self._library = _library()
        self._api = self._library.HfApi(
            endpoint=access.endpoint or None, token=self._token or False, library_name="allod"
        )
        self._commit = ""

    def listing(self) -> Listing:
        """Raises NotFound `source.not-found`, Denied `source.denied`, NotReady `source.unreachable`."""
        import httpx2

        errors = self._library.errors
        try:
            info = self._api.model_info(
                self._repo,
                revision=self._revision,
                files_metadata=True,
                timeout=SOURCE_READ_TIMEOUT_S,
            )
        except errors.GatedRepoError as e:
            raise Denied(
                "source.denied", f"{self._repo} wants its terms accepted by you", hint="--token env:NAME"
            ) from e
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as e:
            at = f" at {self._revision}" if self._revision else ""
            raise NotFound(
                "source.not-found",
                f"the hub has no {self._repo}{at}, or not for you",
                hint="check the name; a private repository needs --token env:NAME",
            ) from e
        except errors.HfHubHTTPError as e:
            raise refused(e.response.status_code, self._repo) from e
        except (httpx2.HTTPError, OSError) as e:
            raise unreachable(self._api.endpoint, e) from e
        if not info.sha:
            raise Unprocessable("source.bad-manifest", f"the hub names no commit for {self._repo}")
        self._commit = info.sha
        files = tuple(_file(sibling) for sibling in info.siblings or ())
        return Listing(
            origin=f"hf:{self._repo}@{info.sha}", name=as_name(self._repo.split("/")[1]), files=files
        )

    def read(self, file: RemoteFile, start: int, end: int) -> Iterator[bytes]:
        url = self._library.hf_hub_url(
            self._repo, file.name, revision=self._commit, endpoint=self._api.endpoint
        )
        headers = self._library.utils.build_hf_headers(token=self._token or False, library_name="allod")
        headers |= {"range": f"bytes={start}-{end - 1}", "accept-encoding": "identity"}
        import httpx2  # the library's own HTTP client

        timeout = httpx2.Timeout(SOURCE_READ_TIMEOUT_S, connect=SOURCE_CONNECT_TIMEOUT_S)
        try:
            with self._library.get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
                if response.status_code not in (200, 206):
                    raise refused(response.status_code, f"{self._repo}/{file.name}")
                whole = response.status_code == 200  # a server that knows no ranges begins at the beginning
                yield from cut(response.iter_raw(_PIECE), start if whole else 0, end - start)
        except httpx2.HTTPError as e:
            raise NotReady("source.broken-off", f"{file.name} broke off: {e}", hint="pull again") from e


def _file(sibling: Any) -> RemoteFile:
    """The hub knows the SHA-256 of large files and the Git blob id of the others."""
    if sibling.lfs is not None:
        return RemoteFile(
            name=sibling.rfilename, size=sibling.lfs.size, promise=f"sha256:{sibling.lfs.sha256}"
        )
    if sibling.size is None or not sibling.blob_id:
        raise Unprocessable("source.bad-manifest", f"the hub does not say what {sibling.rfilename} is")
    return RemoteFile(name=sibling.rfilename, size=sibling.size, promise=f"git:{sibling.blob_id}")


def _library() -> ModuleType:
    try:
        import huggingface_hub
        from huggingface_hub import constants
    except ImportError as e:
        raise NotReady(
            "source.not-installed", "the hub's client is not installed", hint="pip install 'allod[models]'"
        ) from e
    constants.HF_HUB_DISABLE_TELEMETRY = True
    constants.HF_HUB_DISABLE_IMPLICIT_TOKEN = True
    return huggingface_hub
