"""Bundles as bytes: one right byte at every place, and whatever is wrong is named by member and place."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from bundle_homes import SITE, add_model, forged, gguf, item, new_home, pack
from hypothesis import given, settings
from hypothesis import strategies as st

from allod.config import Home
from allod.errors import AllodError, Denied, Integrity, Unprocessable
from allod.models import trust
from allod.models.bundle import signature
from allod.models.bundle.container import BLOCK, END, Reader, header, padding, span
from allod.models.bundle.contents import Item, Wanted
from allod.models.bundle.manifest import File, Kind, Manifest

Made = tuple[bytes, trust.Trust]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return new_home(tmp_path_factory.mktemp("bundle") / "a")


@pytest.fixture(scope="module")
def made(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A small bundle with members of several kinds, and who may sign one."""
    add_model(home, "m1", {"w.gguf": gguf()})
    (home.sites / "far.toml").write_text(SITE)
    out = tmp_path_factory.mktemp("out") / "x.bundle"
    pack(home, out, Wanted(models=("m1",), sites=True))
    return out.read_bytes(), trust.load(home.trust)


def read(raw: bytes, known: trust.Trust, *words: str) -> Manifest:
    opened, reader = signature.open_(io.BytesIO(raw), known, words)
    reader.through(opened.manifest.files, lambda _count: None)
    return opened.manifest


def member_at(raw: bytes, position: int) -> str:
    """Whose byte this is, as tarfile sees it."""
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        for info in tar:
            if position < info.offset_data + info.size + len(padding(info.size)):
                return info.name
    return "the end of the file"


def expect_named(made: Made, position: int, bit: int) -> None:
    raw, known = made
    changed = bytearray(raw)
    changed[position] ^= 1 << bit
    with pytest.raises(Integrity) as e:
        read(bytes(changed), known)
    details = e.value.details
    assert details["member"] == member_at(raw, position), (position, bit, e.value)
    assert details["begin"] <= position < details["end"], (position, bit, e.value)


def test_a_flip_in_any_byte_is_found_and_named(made: Made) -> None:
    read(*made)
    for position in range(len(made[0])):
        expect_named(made, position, position % 8)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_flip_of_any_bit_is_found_and_named(made: Made, data: st.DataObject) -> None:
    expect_named(made, data.draw(st.integers(0, len(made[0]) - 1)), data.draw(st.integers(0, 7)))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 40_000), st.integers(0, 700), st.binary(max_size=700)),
        min_size=1,
        max_size=3,
    )
)
def test_no_damage_does_more_than_be_refused(made: Made, edits: list[tuple[int, int, bytes]]) -> None:
    raw, known = made
    wrong = raw
    for at, count, new in edits:
        at %= len(wrong)
        wrong = wrong[:at] + new + wrong[at + count :]
    if wrong != raw:
        with pytest.raises((Integrity, Unprocessable)) as e:
            read(wrong, known)
        assert e.value.code.startswith("bundle.")


def test_a_file_that_was_cut_short_is_refused_wherever_it_was_cut(made: Made) -> None:
    raw, known = made
    for length in [*range(0, 700, 7), *range(700, len(raw), 61), len(raw) - 1]:
        with pytest.raises(Integrity, match=r"bundle\.truncated"):
            read(raw[:length], known)


def test_what_follows_the_end_is_refused(made: Made) -> None:
    with pytest.raises(Integrity, match=r"bundle\.extra-data"):
        read(made[0] + b"\0", made[1])


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6", b"x", b"L", b"0"])
def test_a_member_that_was_not_signed_is_refused_wherever_it_lies(made: Made, kind: bytes) -> None:
    raw, known = made
    info = tarfile.TarInfo("../../etc/cron.d/x")
    info.type, info.linkname = kind, "/etc/passwd"
    foreign = info.tobuf(tarfile.USTAR_FORMAT)
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        places = [i.offset for i in tar][3:]
    for at in (*places, len(raw) - len(END)):
        with pytest.raises(Integrity, match=r"bundle\.extra-member") as e:
            read(raw[:at] + foreign + raw[at:], known)
        assert e.value.details["begin"] == at


def test_members_cannot_change_places_or_come_twice(made: Made) -> None:
    raw, known = made
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        at = [i.offset for i in tar][3:6]
    one, two = raw[at[0] : at[1]], raw[at[1] : at[2]]
    for wrong in (raw[: at[0]] + two + one + raw[at[2] :], raw[: at[0]] + one + raw[at[0] :]):
        with pytest.raises(Integrity, match=r"bundle\.extra-member"):
            read(wrong, known)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("policy/../../keys/x.cedar", "policy"), ("/etc/passwd", "policy"), ("policy/..", "policy"),
        ("keys/models.ecdsa.key", "trust"), ("sites/a/b.toml", "site"), ("policy/.hidden.cedar", "policy"),
        ("trust/x.key", "trust"), ("instructions/../x/y.md", "instruction"), ("sites/x.toml\0", "site"),
        ("config/allod.toml", "services"), ("wheels/x.whl/../../y.whl", "wheel"),
        ("policy/x.cedar\n", "policy"),
    ],
)  # fmt: skip
def test_a_signed_path_that_leads_elsewhere_is_refused(home: Home, made: Made, path: str, kind: Kind) -> None:
    with pytest.raises(Unprocessable, match=r"bundle\.bad-path"):
        read(forged(home, [item(path, kind, b"x")]), made[1])


def test_a_signed_manifest_that_repeats_or_disorders_is_refused(home: Home, made: Made) -> None:
    one, two = item("policy/a.cedar", "policy", b"a"), item("policy/b.cedar", "policy", b"b")
    lying = Item(
        file=File(path=f"blobs/sha256/{'0' * 64}", size=1, sha256=one.file.sha256, kind="blob"), data=b"a"
    )
    for items in ([one, one], [two, one], [lying]):
        with pytest.raises(Unprocessable, match=r"bundle\.bad-manifest"):
            read(forged(home, items), made[1])


def test_only_who_is_trusted_or_named_may_sign(made: Made, home: Home, tmp_path: Path) -> None:
    raw, known = made
    nobody = trust.Trust(publishers=(), today=known.today)
    with pytest.raises(Denied, match=r"bundle\.signer-unknown") as e:
        read(raw, nobody)
    fingerprint = str(e.value.details["key"])
    assert fingerprint in e.value.message
    read(raw, nobody, fingerprint)
    read(raw, nobody, str(home.trust / "organisation.pem"))
    other = new_home(tmp_path / "other")
    with pytest.raises(Denied, match=r"bundle\.signer-unknown"):
        read(raw, nobody, str(other.trust / "organisation.pem"))
    stranger = forged(other, [item("policy/a.cedar", "policy", b"a")])
    with pytest.raises(Denied, match=r"bundle\.signer-unknown"):
        read(stranger, known)
    trust.revoke(other.trust, "organisation", reason="lost")
    with pytest.raises(Denied, match=r"bundle\.signer-revoked"):
        read(stranger, trust.load(other.trust))


def test_a_signature_of_something_else_is_bad(home: Home, made: Made) -> None:
    """The good signature of another bundle."""
    raw, known = made
    other = forged(home, [item("policy/a.cedar", "policy", b"a")])

    def signature_in(bundle: bytes) -> tuple[int, int]:
        begin = bundle.index(b"manifest.json.sig\0")
        return begin, begin + span(int(bundle[begin + 124 : begin + 135], 8), "manifest.json.sig")

    mine, foreign = signature_in(raw), signature_in(other)
    wrong = raw[: mine[0]] + other[foreign[0] : foreign[1]] + raw[mine[1] :]
    with pytest.raises(Integrity, match=r"bundle\.bad-signature"):
        read(wrong, known)


def test_what_is_no_bundle_is_said_to_be_none(made: Made) -> None:
    for raw in (b"#!/bin/sh\n" * 100, bytes(2048)):
        with pytest.raises(Unprocessable, match=r"bundle\.not-a-bundle"):
            read(raw, made[1])


def test_a_head_that_announces_too_much_is_not_read(made: Made) -> None:
    huge = header("manifest.json", 8**11 - 1) + b"{" * BLOCK
    with pytest.raises(Integrity, match="announces"):
        read(huge, made[1])


def test_other_programs_read_the_same(made: Made, tmp_path: Path, home: Home) -> None:
    raw, _ = made
    path = tmp_path / "x.bundle"
    path.write_bytes(raw)
    subprocess.run(["tar", "-xf", path, "-C", tmp_path], check=True)
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    for file in manifest["files"]:
        assert (tmp_path / file["path"]).stat().st_size == file["size"]
    sums = "".join(f"{f['sha256'].removeprefix('sha256:')}  {f['path']}\n" for f in manifest["files"])
    (tmp_path / "SUMS").write_text(sums)
    for listed in ("SUMS", "manifest.json.sha256"):
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", listed], cwd=tmp_path, check=True)
    check = ["openssl", "dgst", "-sha256", "-verify", str(home.trust / "organisation.pem"),
             "-signature", "manifest.json.sig", "manifest.json"]  # fmt: skip
    assert subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    (tmp_path / "manifest.json").write_bytes(b"{}")
    assert subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode != 0


@pytest.mark.parametrize("size", [0, 1, 512, 8**11 - 1, 8**11, 10**15])
@pytest.mark.parametrize(
    "path",
    [
        "blobs/sha256/" + "a" * 64,
        f"models/{'n' * 64}/{'a' * 64}/{'f' * 96}.txt",
        f"wheels/{'w' * 97}.whl",
        f"wheels/{'w' * 80}.{'w' * 99}.whl",
    ],
)
def test_headers_mean_to_tar_what_they_mean_here(path: str, size: int) -> None:
    class Endless(io.RawIOBase):
        """The header, and as many zeros as anybody wants."""

        def __init__(self) -> None:
            self.left = header(path, size)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            piece = self.left[: len(buffer)].ljust(len(buffer), b"\0")
            self.left = self.left[len(buffer) :]
            buffer[:] = piece
            return len(piece)

    with tarfile.open(fileobj=io.BufferedReader(Endless()), mode="r|") as tar:
        info = tar.next()
    assert info is not None
    assert (info.name, info.size, info.isreg(), info.mode) == (path, size, True, 0o644)


def test_a_member_of_more_than_eight_gibibytes_is_read(tmp_path: Path) -> None:
    """Its header has a pax record; the content is not read here, only passed over."""
    file = File(path="blobs/sha256/" + "a" * 64, size=8**11 + 5, sha256="sha256:" + "a" * 64, kind="blob")
    path = tmp_path / "sparse"
    with path.open("wb") as f:
        f.write(header(file.path, file.size))
        f.seek(span(file.size, file.path))
        f.write(END)
    with path.open("rb") as f:
        reader = Reader(f)
        reader.skip(file)
        reader.end()
    for at in (0, 300, 600, 1100):  # either block of the pair, and the record between them
        raw = bytearray(header(file.path, file.size))
        raw[at] ^= 1
        with pytest.raises(AllodError) as e:
            Reader(io.BytesIO(bytes(raw))).skip(file)
        assert e.value.details["begin"] == at
