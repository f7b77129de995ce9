"""What may go and what has to stay: over real stores and a real ledger folder."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Any

import pytest
from model_files import model_folder

from allod import digest
from allod.errors import Denied, NotReady
from allod.models import keep, store
from allod.models.blobs import Blobs
from allod.models.keep import Use
from allod.models.pull import Pulled, Rules, Wanted, pull
from allod.models.sources.folder import Folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def add(models: Path, name: str, *, seed: int = 1, **said: Any) -> Pulled:
    folder = model_folder(models.parent / name, seed=seed)
    return pull(models, Folder(folder), Wanted(name=name, **said), Rules())


def use(tmp: Path, *services: str, since_us: int = 0) -> Use:
    return Use(services=services, ledger=tmp / "ledger", since_us=since_us)


def stored(models: Path) -> set[str]:
    return {address for address, _ in Blobs(models).all()}


def test_contents_go_with_their_last_model(tmp_path: Path, models: Path) -> None:
    one, two = add(models, "one"), add(models, "two", seed=2)
    shared = set(one.manifest.files.values()) & set(two.manifest.files.values())
    assert shared
    assert keep.remove(models, "one", use(tmp_path)) > 0
    assert stored(models) == set(two.manifest.files.values())
    store.verify(two.folder)
    keep.remove(models, "two", use(tmp_path))
    assert stored(models) == set()
    assert store.installed(models) == []


def test_of_two_tags_one_goes(tmp_path: Path, models: Path) -> None:
    add(models, "one")
    one = add(models, "one", tag="v1")
    assert keep.remove(models, "one:v1", use(tmp_path)) == 0
    assert store.look_up(models, "one").tags == ("latest",)
    store.verify(one.folder)


@pytest.mark.parametrize("service", ["one", "one:latest", "uno"])
def test_what_a_service_is_configured_to_serve_stays(tmp_path: Path, models: Path, service: str) -> None:
    one = add(models, "one", aliases=("uno",))
    for name in ("one", "one:latest", f"one@{one.manifest.digest}"):
        with pytest.raises(Denied) as e:
            keep.remove(models, name, use(tmp_path, service))
        assert e.value.code == "model.needed"
    store.untag(models, store.look_up(models, "one"), "latest")
    by_digest = f"one@{one.manifest.digest}"
    assert keep.prune(models, use(tmp_path, by_digest)).models == ()
    store.verify(one.folder)
    assert keep.prune(models, use(tmp_path)).models == (by_digest,)


def test_a_name_that_is_another_name_is_not_removed(tmp_path: Path, models: Path) -> None:
    add(models, "one", aliases=("uno",))
    with pytest.raises(Denied, match="another name of one"):
        keep.remove(models, "uno", use(tmp_path))


def test_prune_takes_what_no_tag_means_and_leaves_what_is_fetched(tmp_path: Path, models: Path) -> None:
    first, second = add(models, "one"), add(models, "one", seed=2, replace=True)
    blobs = Blobs(models)
    with blobs.making("ab" * 32) as fresh:
        (fresh / "data").write_bytes(b"x" * 4096)
    with blobs.making("cd" * 32) as old:
        (old / "data").write_bytes(b"x" * 8192)
    os.utime(old, (time.time() - 90_000,) * 2)
    (models / "partial" / "copy-1-x").write_bytes(b"x" * 4096)
    (models / "named" / "one" / ".half").mkdir()
    pruned = keep.prune(models, use(tmp_path))
    assert pruned.models == (f"one@{first.manifest.digest}",)
    assert pruned.blobs == 1
    assert pruned.freed > 8192 + 4096
    assert sorted(p.name for p in (models / "partial").iterdir()) == ["ab" * 32]
    assert sorted(p.name for p in (models / "named" / "one").iterdir()) == sorted(
        ["tags", second.folder.name]
    )
    store.verify(second.folder)


def test_nothing_goes_while_somebody_adds(tmp_path: Path, models: Path) -> None:
    add(models, "one")
    with store.in_use(models):
        for act in (
            lambda: keep.prune(models, use(tmp_path)),
            lambda: keep.remove(models, "one", use(tmp_path)),
        ):
            with pytest.raises(NotReady) as e:
                act()
            assert e.value.code == "model.busy"
    keep.prune(models, use(tmp_path))


def test_what_somebody_is_fetching_is_not_abandoned(models: Path) -> None:
    blobs = Blobs(models)
    with blobs.making("ab" * 32):
        assert list(blobs.abandoned()) == []
    assert [p.name for p in blobs.abandoned()] == ["ab" * 32]


def test_locks_are_the_kernels(models: Path) -> None:
    """A process that dies holding them leaves nothing behind."""
    pid = os.fork()
    if pid == 0:
        with store.in_use(models), Blobs(models).making("ab" * 32):
            os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    with store.alone(models), Blobs(models).making("ab" * 32):
        pass
    fd = os.open(models / "blobs", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_where_the_kernel_cannot_copy_it_is_done_here(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = os.urandom((3 << 20) + 17)
    (tmp_path / "f").write_bytes(raw)
    expected = digest.of(raw)
    assert Blobs(models).take(tmp_path / "f") == expected

    def cannot(*_: int) -> int:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "copy_file_range", cannot)
    moved: list[int] = []
    other = Blobs(tmp_path / "other")
    assert other.take(tmp_path / "f", moved.append) == expected
    assert sum(moved) == len(raw)
    assert other.path(expected).read_bytes() == raw
