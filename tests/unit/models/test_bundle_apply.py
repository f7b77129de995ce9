"""Bundles between two homes: what travels, what never does, what is refused, what an interruption leaves."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import pickle
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from bundle_homes import SITE, add_model, contents, forged, gguf, item, new_home, pack

from allod import config
from allod.config import Home
from allod.errors import AllodError, Denied, Integrity, NotReady, Unprocessable, Usage
from allod.models import instructions, oms, store, trust
from allod.models.blobs import Blobs
from allod.models.bundle import services, signature
from allod.models.bundle.apply import Applied, apply
from allod.models.bundle.contents import Contents, Item, Wanted
from allod.models.bundle.judge import Checks
from allod.models.bundle.places import Places
from allod.models.manifest import files_digest
from allod.policy.pack import load as load_policy
from allod.policy.rules import read as read_rules
from allod.sites.load import load_sites

ALL = Wanted(all_models=True, policy=True, sites=True, instructions=True, services=True)


def _checks(allowed: tuple[str, ...] = ()) -> Checks:
    def policy(folder: Path) -> None:
        found = load_policy(folder)
        read_rules(found.text, found.schema)

    def sites(folder: Path) -> None:
        load_sites(folder)

    def text(new: str) -> None:
        config.parse(new)

    return Checks(
        policy=policy,
        sites=sites,
        config=text,
        allowed_licences=allowed,
    )


def put(raw: bytes, home: Home, *words: str, allowed: tuple[str, ...] = ()) -> Applied:
    opened, reader = signature.open_(io.BytesIO(raw), trust.load(home.trust), words)
    return apply(opened, reader, Places(home.root), _checks(allowed))


def state(home: Home, *, blobs: bool = True) -> dict[str, tuple[int, bytes]]:
    """Every file of a home with its mode and content."""
    return {
        str(p.relative_to(home.root)): (p.stat().st_mode, p.read_bytes())
        for p in sorted(home.root.rglob("*"))
        if p.is_file() and (blobs or "blobs" not in p.parts)
    }


@pytest.fixture
def a(tmp_path: Path) -> Home:
    home = new_home(tmp_path / "a")
    add_model(home, "m1", {"w.gguf": gguf(), "README.md": b"---\nlicense: apache-2.0\n---\n"})
    add_model(home, "m2", {"w.gguf": gguf(), "tokenizer.json": b"{}"})
    (home.sites / "far.toml").write_text(SITE)
    (home.policy / "60-own.cedar").write_text(
        '@id("own-1")\n@reason("Nobody asks m9.")\nforbid (principal, action, resource == Site::"nowhere");\n'
    )
    known = instructions.Instructions(home.instructions)
    known.add("clerk@1", b"You are a clerk.", "system-prompt", author="ann", now_us=0)
    known.approve("clerk@1", by="ben", now_us=1)
    known.keep("You are a clerk.", "")
    return home


@pytest.fixture
def b(tmp_path: Path) -> Home:
    return new_home(tmp_path / "b")


@pytest.fixture
def key(a: Home) -> str:
    return trust.load(a.trust).publishers[0].ids[0]


def _packed(a: Home, wanted: Wanted = ALL) -> bytes:
    out = a.root / "logs" / "x.bundle"
    out.unlink(missing_ok=True)
    pack(a, out, wanted)
    return out.read_bytes()


# --- what travels -------------------------------------------------------------------------------------------


def test_everything_arrives_and_a_second_time_changes_nothing(a: Home, b: Home, key: str) -> None:
    origin = config.load(b).node.origin
    raw = _packed(a)
    done = put(raw, b, key)
    assert "policy" in done.changed
    assert [m.digest for m in store.ls(b.models)] == [m.digest for m in store.ls(a.models)]
    for one in store.installed(b.models):
        assert oms.verify_folder(one.folder, trust.load(b.trust)).key_id == key
        store.verify(one.folder)
    assert (b.policy / "60-own.cedar").read_bytes() == (a.policy / "60-own.cedar").read_bytes()
    assert not (b.root / "policy.previous" / "60-own.cedar").exists()
    assert load_sites(b.sites)[0].site.name == "far"
    assert instructions.Instructions(b.instructions).read("clerk@1")[1] == "You are a clerk."
    assert config.load(b).node.origin == origin, "what a node is called stays its own"
    before = state(b)
    assert put(raw, b).changed == (), "the signer is known now"
    assert state(b) == before
    assert not (b.root / ".bundle").exists()


def test_content_that_two_models_share_travels_once_and_is_kept_once(a: Home, b: Home, key: str) -> None:
    raw = _packed(a, Wanted(all_models=True))
    assert raw.count(gguf()) == 1
    put(raw, b, key)
    one, two = (store.find(b.models, n)[0] / "w.gguf" for n in ("m1", "m2"))
    assert one.stat().st_ino == two.stat().st_ino


def test_a_manifest_arrives_in_the_bytes_that_were_signed(a: Home, b: Home, key: str) -> None:
    """Another version may have written it with other spaces, or without a field that is new here."""
    folder, said = store.find(a.models, "m1")
    path = folder / "model.json"
    raw = msgspec.json.encode({"name": said.name, "kind": "chat", "files": said.files, "digest": said.digest,
                               "format": "gguf", "licence": said.licence})  # fmt: skip
    path.unlink()
    path.write_bytes(raw)
    oms.sign_folder(folder, a.keys / trust.KEY_NAME)
    packed = _packed(a, Wanted(models=("m1",)))
    put(packed, b, key)
    arrived = store.find(b.models, "m1")[0]
    assert (arrived / "model.json").read_bytes() == raw
    oms.verify_folder(arrived, trust.load(b.trust))
    assert put(packed, b).changed == ()


def test_a_model_that_was_signed_anew_brings_its_new_signature(a: Home, b: Home, key: str) -> None:
    put(_packed(a, Wanted(models=("m1",))), b, key)
    folder = store.find(a.models, "m1")[0]
    trust.rotate_organisation(a.keys, a.trust, until=trust.today())
    oms.sign_folder(folder, a.keys / trust.KEY_NAME)
    packed = _packed(a, Wanted(models=("m1",)))
    with pytest.raises(Denied, match=r"bundle\.signer-unknown"):
        put(packed, b)
    new = trust.key_id(signature.load_key(a.keys / trust.KEY_NAME).public_key())
    assert put(packed, b, new).changed
    assert oms.verify_folder(store.find(b.models, "m1")[0], trust.load(b.trust)).key_id == new


def test_no_secret_of_the_node_is_in_a_bundle(a: Home) -> None:
    raw = _packed(a)
    for path in a.keys.glob("*.key"):
        assert path.read_bytes() not in raw
    for word in (b"PRIVATE KEY", b"PRIVATE+KEY", config.load(a).node.listen.encode()):
        assert word not in raw
    paths = [f.path for f in signature.open_(io.BytesIO(raw), trust.load(a.trust))[0].manifest.files]
    top = {path.partition("/")[0] for path in paths}
    assert top == {"blobs", "models", "trust", "policy", "sites", "instructions", "config"}
    assert not any("applied" in path for path in paths), "what was in force here belongs to this node"


@pytest.mark.parametrize(
    "secret", ["-----BEGIN EC PRIVATE KEY-----", "PRIVATE+KEY+x+1+y", f"allod_{'a' * 12}_{'b' * 43}"]
)
def test_a_secret_in_a_text_is_refused_on_both_ends(a: Home, b: Home, key: str, secret: str) -> None:
    path = a.policy / "70-note.cedar"
    path.write_text(f"// {secret}\n")
    with pytest.raises(Denied, match=r"bundle\.secret.*70-note"):
        _packed(a)
    before = state(b)
    with pytest.raises(Denied, match=r"bundle\.secret"):
        put(forged(a, [item("policy/70-note.cedar", "policy", path.read_bytes())]), b, key)
    assert _without_staging(state(b)) == before


def test_the_same_contents_give_the_same_bytes(a: Home, tmp_path: Path) -> None:
    one = _packed(a)
    for path in (a.policy / "60-own.cedar", a.sites / "far.toml"):
        path.write_bytes(path.read_bytes())  # touched, not changed
    assert _packed(a) == one
    later = tmp_path / "later"
    pack(a, later, ALL, created="2027-01-01T00:00:00Z")
    assert later.read_bytes()[-len(one) // 2 :] == one[-len(one) // 2 :]


def _without_staging(found: dict[str, tuple[int, bytes]]) -> dict[str, tuple[int, bytes]]:
    return {name: value for name, value in found.items() if not name.startswith(".bundle/")}


# --- what is refused ----------------------------------------------------------------------------------------


def _altered(a: Home, name: str, change: Callable[[Item], list[Item]]) -> bytes:
    """The bundle of m1, correctly signed, in which one member was exchanged before."""
    found: Contents = contents(a, Wanted(models=("m1",)))
    items = [new for old in found.items for new in (change(old) if old.file.path.endswith(name) else [old])]
    return forged(a, sorted(items, key=lambda i: i.file.path), found.models)


def _one_byte(old: Item) -> Item:
    assert old.source is not None
    raw = bytearray(old.source.read_bytes())
    raw[-1] ^= 1
    return item(f"blobs/sha256/{hashlib.sha256(raw).hexdigest()}", "blob", bytes(raw))


def _changed_weights(a: Home) -> bytes:
    """Another byte in the weights, and a manifest that says so; the model's signature stays as it was."""
    found = contents(a, Wanted(models=("m1",)))
    weights = f"blobs/sha256/{_blob_of(a)}"
    new = _one_byte(next(i for i in found.items if i.file.path == weights))
    said = store.find(a.models, "m1")[1]
    files = said.files | {"w.gguf": new.file.sha256}
    said = msgspec.structs.replace(said, files=files, digest=files_digest(files))
    model = msgspec.structs.replace(found.models[0], digest=said.digest)
    items = [new]
    for old in found.items:
        name = old.file.path.rpartition("/")[2]
        if old.file.kind == "model":
            data = store.encoded(said) if name == "model.json" else old.data
            items.append(item(f"{model.folder}/{name}", "model", data))
        elif old.file.path != weights:
            items.append(old)
    return forged(a, sorted(items, key=lambda i: i.file.path), (model,))


def _added(old: Item) -> list[Item]:
    return [old, item(old.file.path.replace("model.sig", "notes.json"), "model", b"{}")]


REFUSED: dict[str, tuple[Callable[[Home], bytes], str]] = {
    "one changed byte": (_changed_weights, "model.changed"),
    "a changed manifest": (lambda a: _altered(a, "model.json", _spaced), "model.changed"),
    "an added file": (lambda a: _altered(a, "model.sig", _added), "model.extra-file"),
    "no signature": (lambda a: _altered(a, "model.sig", lambda _: []), "model.unsigned"),
    "a bad signature": (lambda a: _altered(a, "model.sig", _resigned), "model.bad-signature"),
    "a signature that is none": (
        lambda a: _altered(a, "model.sig", lambda i: [item(i.file.path, "model", b"{}")]),
        "model.bad-signature",
    ),
    "a file that is not there": (lambda a: _altered(a, _blob_of(a), lambda _: []), "model.missing"),
    "a pickle inside": (lambda a: _of_one_file(a, pickle.dumps({"weights": 1})), "model.pickle"),
    "a malformed header": (lambda a: _of_one_file(a, gguf()[:60]), "model.gguf-malformed"),
}


def _spaced(old: Item) -> list[Item]:
    return [item(old.file.path, "model", old.data + b"\n")]


def _resigned(old: Item) -> list[Item]:
    sig = msgspec.json.decode(old.data)
    good = sig["dsseEnvelope"]["signatures"][0]["sig"]
    sig["dsseEnvelope"]["signatures"][0]["sig"] = good[:20] + ("A" if good[20] != "A" else "B") + good[21:]
    return [item(old.file.path, "model", msgspec.json.encode(sig))]


def _blob_of(a: Home) -> str:
    return store.find(a.models, "m1")[1].files["w.gguf"].removeprefix("sha256:")


def _of_one_file(a: Home, weights: bytes) -> bytes:
    add_model(a, "m3", {"w.gguf": weights})
    return _packed(a, Wanted(models=("m3",)))


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_not_come_in_is_refused_with_its_own_code(a: Home, b: Home, key: str, case: str) -> None:
    make, code = REFUSED[case]
    raw = make(a)
    before = state(b)
    with pytest.raises(AllodError) as e:
        put(raw, b, key)
    assert e.value.code == code
    assert _without_staging(state(b, blobs=False)) == before
    assert store.installed(b.models) == []


def test_a_licence_that_is_not_allowed_is_refused(a: Home, b: Home, key: str) -> None:
    licence = "CC-BY-NC-4.0"
    add_model(a, "m3", {"w.gguf": gguf(licence=licence)}, licence=licence)
    raw = _packed(a, Wanted(models=("m3",)))
    with pytest.raises(Denied, match=r"model\.licence-not-allowed"):
        put(raw, b, key, allowed=("Apache-2.0",))
    assert put(raw, b, key).changed


def test_what_is_not_vouched_for_here_is_not_packed(a: Home) -> None:
    folder = store.find(a.models, "m1")[0]
    (folder / "extra.json").write_text("{}")
    with pytest.raises(Integrity, match=r"model\.extra-file"):
        _packed(a)
    (folder / "extra.json").unlink()
    (folder / "model.sig").unlink()
    with pytest.raises(Integrity, match=r"model\.unsigned"):
        _packed(a)


@pytest.mark.parametrize(
    ("path", "text", "code"),
    [
        (
            "policy/60-own.cedar",
            "permit (principal, action, resource) when { resource.x };",
            "policy.invalid",
        ),
        ("sites/far.toml", "[provider]\nkey = 1\n", "site.invalid"),
        ("config/services.toml", "[node]\nlisten = '0.0.0.0:1'\n", "bundle.services"),
        ("config/services.toml", "[[service]]\nengine = 'none'\nmodel = 'x'\n", "config.invalid"),
    ],
)
def test_rules_that_the_node_would_not_take_change_nothing(
    a: Home, b: Home, key: str, path: str, text: str, code: str
) -> None:
    kept = [i for i in contents(a, ALL).items if i.file.path != path and i.file.kind not in ("blob", "model")]
    kind = {"policy": "policy", "sites": "site", "config": "services"}[path.split("/", maxsplit=1)[0]]
    new = item(path, kind, text.encode())  # type: ignore[arg-type]
    before = state(b)
    with pytest.raises(AllodError) as e:
        put(forged(a, sorted([*kept, new], key=lambda i: i.file.path)), b, key)
    assert e.value.code == code
    assert _without_staging(state(b)) == before


def test_an_approved_text_is_not_replaced_by_another(a: Home, b: Home, key: str) -> None:
    known = instructions.Instructions(b.instructions)
    known.add("clerk@1", b"You are somebody else.", "system-prompt", author="eve", now_us=0)
    put(_packed(a, Wanted(instructions=True)), b, key)  # a draft gives way
    assert known.read("clerk@1")[0].four_eyes
    other = instructions.Instructions(a.instructions)
    (a.instructions / "clerk" / "1.json").unlink()
    other.add("clerk@1", b"You are a pirate.", "system-prompt", author="ann", now_us=0)
    with pytest.raises(Usage, match=r"instructions\.approved"):
        put(_packed(a, Wanted(instructions=True)), b)
    assert known.read("clerk@1")[1] == "You are a clerk."


# --- whose word counts --------------------------------------------------------------------------------------


def test_trust_comes_along_and_never_widens_what_is_known(a: Home, b: Home, key: str, tmp_path: Path) -> None:
    maker = new_home(tmp_path / "maker")
    pem = (maker.trust / "organisation.pem").read_bytes()
    trust.add(a.trust, "maker", pem, ("m*",))
    own = trust.load(b.trust).publishers[0]
    put(_packed(a, Wanted(models=("m1",))), b, key)
    known = {p.name: p for p in trust.load(b.trust).publishers}
    assert known["organisation"] == own
    assert known["maker"].models == ("m*",)
    assert known[f"organisation-{key[7:15]}"].ids == (key,)
    trust.revoke(b.trust, "maker", reason="ours")
    put(_packed(a, Wanted(models=("m1",))), b)
    assert {p.name: p for p in trust.load(b.trust).publishers}["maker"].revoked, "revoked stays revoked"


def test_a_revocation_comes_along(a: Home, b: Home, key: str, tmp_path: Path) -> None:
    pem = (new_home(tmp_path / "maker").trust / "organisation.pem").read_bytes()
    trust.add(b.trust, "their-maker", pem, ("*",))
    trust.add(a.trust, "maker", pem, ("*",))
    trust.revoke(a.trust, "maker", reason="stolen")
    put(_packed(a, Wanted(models=("m1",))), b, key)
    assert {p.name: p for p in trust.load(b.trust).publishers}["their-maker"].revoked


def test_who_is_trusted_for_some_models_brings_those_and_nothing_else(a: Home, b: Home) -> None:
    trust.add(b.trust, "partner", (a.trust / "organisation.pem").read_bytes(), ("m1",))
    with pytest.raises(Denied, match=r"bundle\.beyond-trust"):
        put(_packed(a, Wanted(models=("m1",), policy=True)), b)
    with pytest.raises(Integrity, match=r"model\.key-unknown"):
        put(_packed(a, Wanted(models=("m2",))), b)
    put(_packed(a, Wanted(models=("m1",))), b)
    assert sorted(p.name for p in trust.load(b.trust).publishers) == ["organisation", "partner"]


# --- interruptions ------------------------------------------------------------------------------------------


def test_writing_goes_on_behind_what_is_whole_wherever_it_stopped(a: Home, tmp_path: Path) -> None:
    whole = _packed(a)
    half, out = tmp_path / "x.partial", tmp_path / "x"
    for length in [0, 1, 600, 3000, *range(4000, len(whole), 1777), len(whole) - 1]:
        half.write_bytes(whole[:length])
        pack(a, out, ALL, created="2030-01-01T00:00:00Z" if length > 6000 else "2026-01-31T12:00:00Z")
        assert out.read_bytes() == whole, length
        out.unlink()
    half.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 4))  # pages that never reached the disk
    pack(a, out, ALL)
    assert out.read_bytes() == whole
    with pytest.raises(Usage, match=r"bundle\.exists"):
        pack(a, out, ALL)


_STEPS = frozenset({"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "os.chmod"})


def _killed_at(step: int, raw: bytes, home: Home, key: str) -> bool:
    """Applies in a process that is killed before its `step`-th change to the disk; whether it came so far."""
    pid = os.fork()
    if pid == 0:
        left = step

        def count(event: str, _args: object) -> None:
            nonlocal left
            if event in _STEPS:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            put(raw, home, key)
            os._exit(0)
        except BaseException:  # whatever it is, it must not become a second pytest
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_a_process_killed_anywhere_leaves_a_home_that_applying_again_completes(
    a: Home, b: Home, key: str, tmp_path: Path
) -> None:
    old = _packed(a)
    put(old, b, key)
    (a.policy / "61-more.cedar").write_text((a.policy / "60-own.cedar").read_text().replace("own-1", "own-2"))
    (a.sites / "far.toml").write_text(SITE.replace("far-ocr", "farther-ocr"))
    add_model(a, "m3", {"w.gguf": gguf(64)})
    new = _packed(a)
    done = Home(shutil.copytree(b.root, tmp_path / "done"))
    put(new, done)
    wanted, before = state(done), {p.name: p.read_bytes() for p in (b.policy).iterdir()}
    for step in itertools.count(1, 5):  # one in five: each takes a process and a home
        home = Home(shutil.copytree(b.root, tmp_path / "killed"))
        killed = _killed_at(step, new, home, key)
        assert (home.policy / "schema.cedarschema").is_file(), "there is a policy at every moment"
        assert load_sites(home.sites)
        for one in store.installed(home.models):
            oms.verify_folder(one.folder, trust.load(home.trust))
        put(new, home)
        # A folder that was never shown is the store's to sweep away.
        assert {n: v for n, v in state(home).items() if "/." not in n} == wanted, step
        assert {p.name: p.read_bytes() for p in (home.root / "policy.previous").iterdir()} == before, step
        shutil.rmtree(home.root)
        if not killed:
            break
    assert step > 20


def test_a_half_written_blob_is_gone_on_with_and_a_damaged_half_is_not_believed(
    a: Home, b: Home, key: str
) -> None:
    raw = _packed(a, Wanted(models=("m1",)))
    address = store.find(a.models, "m1")[1].files["w.gguf"]
    blobs = Blobs(b.models)
    for begun in (gguf()[:100], b"\0" * 100, gguf() + b"more"):
        with blobs.making(address.removeprefix("sha256:")) as folder:
            (folder / "from-bundle").write_bytes(begun)
        put(raw, b, key)
        assert blobs.intact(address)
        assert list(blobs.abandoned()) == []
        one = store.look_up(b.models, "m1")
        store.remove(b.models, one)
        blobs.path(address).unlink()


def test_a_flipped_bit_in_a_blob_leaves_nothing_that_a_good_copy_would_not_repair(
    a: Home, b: Home, key: str
) -> None:
    raw = bytearray(_packed(a, Wanted(models=("m1",))))
    at = raw.index(gguf()) + 50
    raw[at] ^= 4
    with pytest.raises(Integrity, match=r"bundle\.changed"):
        put(bytes(raw), b, key)
    assert store.installed(b.models) == []
    raw[at] ^= 4
    put(bytes(raw), b, key)
    store.verify(store.find(b.models, "m1")[0])


def test_a_model_that_has_rotted_is_put_right(a: Home, b: Home, key: str) -> None:
    raw = _packed(a, Wanted(models=("m1",)))
    put(raw, b, key)
    folder, said = store.find(b.models, "m1")
    weights = folder / "w.gguf"
    weights.chmod(0o600)
    with weights.open("r+b") as f:
        f.seek(40)
        f.write(b"?")
    with pytest.raises(Integrity, match=r"model\.changed"):
        store.verify(folder)
    assert put(raw, b).changed == (f"model m1@{said.digest}",)
    store.verify(folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted([*said.files, "model.json", "model.sig"])
    weights.unlink()
    assert put(raw, b).changed
    store.verify(folder)
    assert put(raw, b).changed == ()


def test_a_bundle_can_come_through_a_pipe(a: Home, b: Home, key: str) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, offset: int, whence: int = 0) -> int:
            raise io.UnsupportedOperation

    raw = _packed(a)
    for expected in (True, False):
        opened, reader = signature.open_(Pipe(raw), trust.load(b.trust), (key,))
        assert bool(apply(opened, reader, Places(b.root), _checks()).changed) == expected


def test_two_applications_do_not_meet(a: Home, b: Home, key: str) -> None:
    raw = _packed(a)
    asked = []

    def meanwhile(_count: int) -> None:
        if not asked:
            asked.append(True)
            with pytest.raises(NotReady, match=r"bundle\.busy"):
                put(raw, b, key)

    opened, reader = signature.open_(io.BytesIO(raw), trust.load(b.trust), (key,))
    assert apply(opened, reader, Places(b.root), _checks(), moved=meanwhile).changed
    assert asked


# --- services -----------------------------------------------------------------------------------------------

NODE = '[node]\norigin = "o"\n\n[site]\n# facts\n'
SERVICE = '[[service]]\nmodel = "x"\nengine = "llm"\n'


def test_services_move_and_nothing_else_does() -> None:
    theirs = '[node]\norigin = "p"\nlisten = "0.0.0.0:1"\n\n' + SERVICE + '\n[site]\noperator = "P"\n'
    ours = NODE + '\n[[service]]\nmodel = "y"\nengine = "ocr"\n'
    taken = services.of(theirs)
    assert taken == SERVICE + "\n"
    put_in = services.put(ours, taken)
    assert put_in == NODE + "\n" + taken
    assert services.put(put_in, taken) == put_in
    assert services.put(NODE, "").rstrip() == NODE.rstrip()


@pytest.mark.parametrize(
    "text",
    [
        '[node]\nx = """\n[[service]]\n"""\n',
        "service = [{model='x'}]\n",
        "[[service]\n",
        '[[service]]\nx = [\n["a"]\n]\n',
    ],
)
def test_a_configuration_that_cannot_be_cut_apart_is_refused(text: str) -> None:
    with pytest.raises(Unprocessable, match=r"bundle\.services"):
        services.of(text)
