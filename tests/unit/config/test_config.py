"""The configuration is strict: every mistake is named with its line, and nothing is guessed."""

import re
import stat
from pathlib import Path

import pytest

import allod
from allod.config import Home, LlmService, OcrService, load, parse, write_default
from allod.errors import NotFound, Usage

NODE = '[node]\norigin = "a.example/1"\n'


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("wrokers = 2", "line 3 in [node]: unknown key 'wrokers'", "did you mean 'workers'?"),
        (
            'workers = "2"',
            "line 3 in [node]: workers: expected a whole number, got text",
            "docs/configuration",
        ),
        ("workers = 0", "line 3 in [node]: workers: expected a whole number >= 1", "docs/configuration"),
        ("workers = true", "expected a whole number, got true or false", ""),
        ("[nod]", "line 3 in [nod]: unknown key 'nod'", "did you mean 'node'?"),
        ('tls_key = "k.pem"', "line 3 in [node]: tls_key is set, its counterpart is not", "set both"),
        (
            '[database]\nurl = "postgresql://me:secret@db/x"',
            "line 4 in [database]: url holds a password",
            ".pgpass",
        ),
        ("[ledger]\nintegrate_interval_s = 0", "line 4 in [ledger]", ""),
        ('[[ledger.witness]]\nurl = "ftp://x"\nkey = "k"', "line 4 in [[ledger.witness]]: url", ""),
        ('[[ledger.witness]]\nulr = "http://x"', "unknown key 'ulr'", "did you mean 'url'?"),
        (
            '[site]\nopertor = "x"',
            "line 4 in [site]: has an unknown key 'opertor'",
            "did you mean 'operator'?",
        ),
        ('[site]\noperator = "x"', "says operator but not since when", "declared ="),
        ('[site]\ndeclared = 2026-11-21\nestablishment = "Germany"', "line 5 in [site]: establishment", ""),
        ("[site]\nactive_watts = -1", "line 4 in [site]: active_watts", ""),
        (
            '[[service]]\nmodel = "x"\nengine = "lm"',
            "line 5 in [[service]]: there is no engine 'lm'",
            "'llm'",
        ),
        ('[[service]]\nengine = "ocr"', "line 3 in [[service]]: model has to be given", ""),
        ('[[service]]\nmodel = "x"', "engine has to be given", ""),
        (
            '[[service]]\nmodel = "x"\nengine = "llm"\n[[service]]\nmodel = "y"\nengine = "ocr"\nctx = 1',
            "line 9 in [[service]]: unknown key 'ctx'",
            "known keys: engine, model, aliases",
        ),
        (
            '[[service]]\nmodel = "x"\nengine = "llm"\n[[service]]\nmodel = "x"\nengine = "ocr"',
            "line 7 in [[service]]: two services answer to 'x'",
            "",
        ),
        ("x = = 3", "is not TOML: Invalid value (at line 3, column 5)", "correct that line"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_nearest_key(text: str, message: str, hint: str) -> None:
    with pytest.raises(Usage) as e:
        parse(NODE + text)
    assert message in e.value.message
    assert hint in e.value.hint
    assert e.value.code == "config.invalid"


def test_an_empty_file_says_what_is_missing() -> None:
    with pytest.raises(Usage, match="node has to be given"):
        parse("")


def test_the_default_is_complete_private_and_never_overwritten(tmp_path: Path) -> None:
    home = Home.of(tmp_path / "node")
    assert write_default(home)
    config = load(home)
    assert config.node.origin.startswith("allod.local/")
    assert config.node.listen == "127.0.0.1:8080", "nothing is reachable from outside unless asked for"
    assert [type(s) for s in config.services] == [OcrService]
    assert config.site.site.operator.value is None, "nothing is claimed for the owner"
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.config_file.stat().st_mode) == 0o600
    before = home.config_file.read_bytes()
    assert not write_default(home)
    assert home.config_file.read_bytes() == before
    other = Home.of(tmp_path / "other")
    write_default(other)
    assert load(other).node.origin != config.node.origin


def test_what_is_commented_out_in_the_default_is_valid(tmp_path: Path) -> None:
    home = Home.of(tmp_path / "node")
    write_default(home)
    lines = [line.removeprefix("# ") for line in home.config_file.read_text().splitlines()]
    config = parse("\n".join(line for line in lines if "=" in line or line.startswith("[")))
    assert config.site.site.operator.value == "Klinikum Beispiel gGmbH"
    assert config.site.active_watts == 65.0
    assert isinstance(config.services[1], LlmService)


def test_a_folder_without_a_configuration_is_no_home(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as e:
        load(Home.of(tmp_path))
    assert e.value.code == "home.missing"
    assert "allod init" in e.value.hint


def test_where_the_home_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.delenv("ALLOD_HOME", raising=False)
    assert Home.of(None).root == Path("/h/.allod")
    monkeypatch.setenv("ALLOD_HOME", str(tmp_path))
    assert Home.of(None).root == tmp_path
    assert Home.of("~/x").root == Path("/h/x")


MAY_READ_THE_ENVIRONMENT = {
    "config/home.py": "ALLOD_HOME",
    "cli/output.py": "NO_COLOR and the shape of the terminal",
    "cli/run.py": "ALLOD_API_KEY, a secret reference of the person at the terminal",
    "app/services.py": "env: references to provider keys, for the processes that leave",
    "sites/provider.py": "env: references to provider keys",
    "node/processes.py": "hands it on to the node's own processes, which resolve those references",
    "models/sources/__init__.py": "env: references to tokens of hubs and registries",
    "models/testmodel/build.py": "XDG_CACHE_HOME, for a test model",
}


def test_nothing_else_reads_the_environment() -> None:
    root = Path(allod.__file__).parent
    readers = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"os\.environ(?!\.update)|getenv", path.read_text())
    }
    # Engines are programs of their own inside a sandbox: their environment is what their launch spec says.
    assert {r for r in readers if not r.startswith("engines/")} <= set(MAY_READ_THE_ENVIRONMENT)
