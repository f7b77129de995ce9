"""The command as people and scripts meet it: a real process, its two streams and its exit code."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import allod

SOURCE = Path(allod.__file__).parents[1]
VERBS = (
    "init", "up", "down", "status", "doctor", "run", "models", "instructions", "key", "project",
    "policy", "sites", "receipt", "ledger", "completion", "version",
)  # fmt: skip


class Ran:
    """One finished run of the command."""

    def __init__(self, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> None:
        base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "HOME": "/nonexistent"}
        done = subprocess.run(
            [sys.executable, "-m", "allod", *words],
            input=stdin, capture_output=True, text=True, timeout=60, env=base | (env or {}), check=False,
        )  # fmt: skip
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    assert Ran("init", "--home", str(tmp_path / "n")).code == 0
    return tmp_path / "n"


def test_without_words_it_helps() -> None:
    ran = Ran()
    assert ran.code == 0
    for verb in VERBS:
        assert re.search(rf"^    {verb}\b", ran.out, re.MULTILINE), verb


def test_version() -> None:
    assert Ran("version").out == f"allod {allod.__version__}\n"
    assert Ran("version", "--json").json["allod"] == allod.__version__


def test_init_makes_a_private_home_and_says_the_next_step(tmp_path: Path) -> None:
    home = tmp_path / "n"
    first = Ran("init", "--home", str(home))
    assert first.code == 0
    assert first.err == f"next: declare this machine in {home}/allod.toml, then `allod up --home {home}`\n"
    assert first.out.splitlines()[:2] == [f"{home} is ready.", "  made allod.toml"]
    assert "  made keys/ledger.pub" in first.out
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for key in (home / "keys").glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    public = (home / "keys/ledger.pub").read_text().splitlines()
    assert len(public) == 2, "Ed25519 and ML-DSA-44"
    assert "PRIVATE" not in (home / "keys/ledger.pub").read_text()


def test_init_again_changes_nothing(home: Path) -> None:
    (home / "policy/10-internal.cedar").unlink()
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    again = Ran("init", "--home", str(home), "--json")
    assert again.json["made"] == [], "a rule that was removed stays removed"
    assert before == {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}


def test_init_where_nothing_can_be_written() -> None:
    ran = Ran("init", "--home", "/proc/allod", "--json")
    assert ran.code == 3
    assert ran.json["error"]["code"] == "home.not-writable"
    assert "--home" in ran.json["error"]["hint"]


@pytest.mark.parametrize(
    ("words", "code", "error", "hint"),
    [
        (["stauts"], 2, "usage.invalid", "did you mean 'status'?"),
        (["key", "mkae"], 2, "usage.invalid", "one of: create, ls, revoke"),
        (["key", "create", "--rol", "admin"], 2, "usage.invalid", "did you mean --role?"),
        (["key", "create", "--role", "admni"], 2, "usage.invalid", "did you mean 'admin'?"),
        (["up", "--workers", "0"], 2, "usage.invalid", "allod up --help"),
        (["status"], 3, "node.not-running", "allod up"),
        (["key", "ls"], 3, "node.not-running", "allod up"),
        (["policy", "explain", "--model", "m", "--class", "internal"], 3, "node.not-running", "allod up"),
        (["receipt", "show", "r-x"], 3, "node.not-running", "allod up"),
        (["run", "m", "hello"], 3, "node.not-running", "allod up"),
        (["run", "m", "hello", "--key", "allod_abc_secret"], 2, "run.no-key", "--key file:PATH"),
        (["receipt", "verify", "absent.tlog-proof"], 2, "receipt.no-file", "allod receipt export"),
        (["receipt", "erase", "r-x"], 2, "receipt.erase-unconfirmed", "--yes"),
        (["ledger", "verify"], 2, "ledger.absent", "allod up"),
        (["models", "show", "nope"], 2, "model.not-found", "allod models ls"),
        (["models", "add", "nope.gguf"], 2, "model.file-not-found", ""),
        (["sites", "catalogue", "mistarl"], 2, "site.catalogue-unknown", "did you mean 'mistral'?"),
    ],
)
def test_every_error_has_a_code_a_cause_and_a_next_step(
    home: Path, words: list[str], code: int, error: str, hint: str
) -> None:
    spoken, written = Ran(*words, "--home", str(home)), Ran(*words, "--home", str(home), "--json")
    assert spoken.code == written.code == code
    assert spoken.out == "", "stdout is data"
    assert spoken.err.startswith(f"error[{error}]: ")
    assert written.err == "", "with --json there is one object and nothing else"
    assert set(written.json) == {"error"}
    assert written.json["error"]["code"] == error
    assert written.json["error"]["message"] in spoken.err
    assert hint in written.json["error"].get("hint", "")
    assert (f"  next: {written.json['error']['hint']}\n" in spoken.err) if hint else True


def test_a_broken_configuration_is_named_with_its_line(home: Path) -> None:
    with (home / "allod.toml").open("a") as f:
        f.write("\n[nod]\n")
    ran = Ran("up", "--home", str(home), "--json")
    assert ran.code == 2
    assert "unknown key 'nod'" in ran.json["error"]["message"]
    assert ran.json["error"]["details"]["line"] == len((home / "allod.toml").read_text().splitlines())


def test_a_broken_rule_is_named_with_its_file_and_line(home: Path) -> None:
    (home / "policy/50-own.cedar").write_text(
        '@id("x")\n@reason("y")\npermit (principal, action, resourc);\n'
    )
    ran = Ran("policy", "check", "--home", str(home))
    assert ran.code == 2
    assert "50-own.cedar" in ran.err


def test_the_bundled_rules_are_valid_and_listed(home: Path) -> None:
    assert "are valid against the schema" in Ran("policy", "check", "--home", str(home)).out
    listed = Ran("policy", "show", "--list", "--home", str(home), "--json").json["rules"]
    assert {"permit", "forbid"} == {rule["effect"] for rule in listed}
    assert all(rule["reason"] for rule in listed)


def test_the_catalogue_works_without_a_node_and_says_unknown(home: Path) -> None:
    entries = Ran("sites", "catalogue", "--json").json["entries"]
    assert "scaleway" in {e["name"] for e in entries}
    shown = Ran("sites", "catalogue", "scaleway")
    assert shown.code == 0
    assert re.search(r"^operator +Scaleway", shown.out, re.MULTILINE)
    assert 'catalogue = "scaleway"' in shown.out


def test_doctor_names_each_check_and_its_remedy(home: Path) -> None:
    ran = Ran("doctor", "--home", str(home), "--json")
    checks = {c["name"]: c for c in ran.json["checks"]}
    assert {"sandbox", "tesseract", "disk space", "disk latency", "clock", "gpu", "permissions"} <= set(
        checks
    )
    assert {"configuration", "policy", "sites", "models", "address", "ledger"} <= set(checks)
    assert all(c["ok"] or c["hint"] for c in ran.json["checks"]), "no trouble without a next step"
    assert ran.code == (0 if ran.json["ok"] else 3)
    (home / "keys/ledger.ed25519.key").chmod(0o644)
    worse = Ran("doctor", "--home", str(home))
    assert worse.code == 3
    assert "FAIL permissions: " in worse.out
    assert f"next: chmod go-rwx {home}/keys/ledger.ed25519.key" in worse.out


def test_doctor_without_bubblewrap(home: Path, tmp_path: Path) -> None:
    ran = Ran("doctor", "--home", str(home), "--json", env={"PATH": str(tmp_path)})
    sandbox = next(c for c in ran.json["checks"] if c["name"] == "sandbox")
    assert not sandbox["ok"]
    assert "apt-get install bubblewrap" in sandbox["hint"]
    assert ran.code == 3


def test_no_colour_without_a_terminal(home: Path) -> None:
    for words in (["doctor"], ["status"]):
        ran = Ran(*words, "--home", str(home), env={"TERM": "xterm-256color"})
        assert "\x1b" not in ran.out + ran.err


def test_a_reader_that_leaves_is_no_error(home: Path) -> None:
    command = f"{sys.executable} -m allod policy show --home {home} | head -1; echo ${{PIPESTATUS[0]}}"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def test_run_names_what_fits_this_machine_and_how_to_get_it(home: Path) -> None:
    ran = Ran("run", "--home", str(home))
    assert ran.code == 0
    assert ran.out.startswith("this machine: ")
    assert "Apache-2.0" in ran.out, "the licence is seen before anything is fetched"
    assert ran.err.startswith("next: get ")
    assert "allod models add" in ran.err
    suggested = Ran("run", "--home", str(home), "--json").json["suggested"]
    assert suggested
    assert all(s["memory_bytes"] > 0 and s["model"]["country"] for s in suggested)


def test_down_without_a_node_is_no_error(home: Path) -> None:
    assert Ran("down", "--home", str(home)).code == 0
    assert Ran("down", "--home", str(home), "--json").json == {"stopped": False}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_verb(shell: str) -> None:
    script = Ran("completion", shell).out
    for verb in (*VERBS, "--tls-self-signed" if shell != "fish" else "tls-self-signed"):
        assert verb in script


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("allod sta", ["status"]),
        ("allod key ", ["create", "ls", "revoke", "-h", "--help"]),
        ("allod key create --role aud", ["auditor"]),
        ("allod completion f", ["fish"]),
    ],
)
def test_bash_completes(line: str, expected: list[str]) -> None:
    words = line.split(" ")
    quoted = " ".join(f"'{w}'" for w in words)
    program = (
        f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _allod; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    script = Ran("completion", "bash").out.replace("complete -o default -F _allod allod", "")
    done = subprocess.run(["bash", "-c", script + program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


def test_the_reference_pages_are_not_stale() -> None:
    from allod.cli.reference import PAGES

    docs = Path(__file__).parents[2] / "docs"
    for name, page in PAGES.items():
        stale = f"docs/{name} is stale: python -m allod.cli.reference docs"
        assert (docs / name).read_text() == page(), stale
