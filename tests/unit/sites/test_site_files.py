"""Site files: read whole or refused whole, and never a key inside."""

from __future__ import annotations

import pytest

from allod.errors import AllodError, NotReady, Unprocessable
from allod.sites.facts import Fact
from allod.sites.load import load_sites
from allod.sites.local import local_site
from allod.sites.provider import KeyReference

GOOD = """
name = "example"
[site]
operator = { value = "Example SA", source = "RCS Paris 123", date = 2026-11-21, kind = "public-record" }
cloud_act = {value = false, source = "contract", date = "2026-11-20", kind = "contract", expires = 2027-11-20}
fisa_702 = { source = "asked the provider, no answer yet" }
[provider]
base_url = "https://api.example.eu/v1/"
api = "openai"
key = "env:EXAMPLE_KEY"
[provider.models."small"]
upstream = "example-small-2026"
kind = "chat"
context_tokens = 32000
price = { currency = "EUR", input_per_million_tokens = 0.15, output_per_million_tokens = 1 }
"""


def load(folder, text, name="example.toml"):
    (folder / name).write_text(text)
    return load_sites(folder)


def refused(folder, text) -> AllodError:
    with pytest.raises(Unprocessable) as caught:
        load(folder, text)
    assert "example.toml" in caught.value.message
    assert caught.value.hint
    return caught.value


def test_a_good_file_is_read_exactly(tmp_path):
    (found,) = load(tmp_path, GOOD)
    assert (found.site.name, found.site.local) == ("example", False)
    assert found.site.cloud_act == Fact(
        value=False, source="contract", date="2026-11-20", kind="contract", expires="2027-11-20"
    )
    assert found.site.fisa_702.value is None
    assert found.site.controllers == Fact(value=None)
    assert found.provider.base_url == "https://api.example.eu/v1"
    (model,) = found.provider.models
    assert (model.name, model.upstream, model.kind, model.context_tokens) == (
        "small",
        "example-small-2026",
        "chat",
        32000,
    )
    assert model.price is not None
    assert model.price.input_micro_per_million_tokens == 150_000
    assert model.price.output_micro_per_million_tokens == 1_000_000


def test_no_folder_holds_no_sites(tmp_path):
    assert load_sites(tmp_path / "absent") == ()


def test_a_catalogue_entry_is_the_start_and_the_file_has_the_last_word(tmp_path):
    (found,) = load(
        tmp_path,
        """
        catalogue = "scaleway"
        [site]
        retains_content = { value = false, source = "contract 7", date = 2026-11-21, kind = "contract" }
        [provider]
        key = "file:/run/secrets/scaleway"
        """,
        name="paris.toml",
    )
    assert found.site.name == "paris"
    assert found.site.retains_content.source == "contract 7"
    assert found.site.establishment.value == "FR"
    assert found.provider.base_url == "https://api.scaleway.ai/v1"
    assert found.provider.api == "openai"


@pytest.mark.parametrize(
    ("was", "becomes", "hint"),
    [
        ("cloud_act", "cloud_ac", "'cloud_act'"),
        ("base_url =", "base_ulr =", "'base_url'"),
        ("upstream", "upstrem", "'upstream'"),
        ("source =", "sorce =", "'source'"),
        ("[site]", "[sites]", "'site'"),
        ("input_per_million_tokens", "input_per_million_token", "'input_per_million_tokens'"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path, was, becomes, hint):
    assert hint in refused(tmp_path, GOOD.replace(was, becomes, 1)).hint


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ('source = "RCS Paris 123", ', ""),
        ('source = "RCS Paris 123"', 'source = "  "'),
        ("date = 2026-11-21, ", ""),
        ("2026-11-21", '"last week"'),
        ('kind = "public-record"', 'kind = "rumour"'),
        ("value = false", 'value = "no"'),
        ("value = false", "value = 0"),
        ('{ value = "Example SA"', "{ value = 3"),
        ('"openai"', '"grpc"'),
        ('kind = "chat"', 'kind = "video"'),
        ("32000", "-1"),
        ("0.15", "-0.15"),
        ("0.15", "0.1234567"),
        ('"EUR"', '"euro"'),
        ("https://api.example.eu/v1/", "http://api.example.eu/v1"),
        ("https://api.example.eu/v1/", "https://user:pass@api.example.eu/v1"),
        ("https://api.example.eu/v1/", "https://api.example.eu/v1?key=x"),
        ("https://api.example.eu/v1/", "https://"),
        ("https://api.example.eu/v1/", "https://api.example.eu:x/v1"),
        ('name = "example"', 'name = "local"'),
        ('name = "example"', 'name = "../etc"'),
        ("[provider]", "[provider"),
        ("[site]", "[[site]]"),
    ],
)
def test_what_is_refused(tmp_path, was, becomes):
    assert was in GOOD
    refused(tmp_path, GOOD.replace(was, becomes, 1))


@pytest.mark.parametrize("key", ["sk-live-123456", "Bearer abc", "env:A B", "file:relative"])
def test_a_key_in_the_file_is_refused_without_being_repeated(tmp_path, key):
    error = refused(tmp_path, GOOD.replace("env:EXAMPLE_KEY", key))
    assert error.code == "site.key-inline"
    assert key not in str(error.as_dict())


@pytest.mark.parametrize("key", ["", "env:", "file:", ":"])
def test_a_reference_to_nothing_is_refused(tmp_path, key):
    assert refused(tmp_path, GOOD.replace("env:EXAMPLE_KEY", key)).code == "site.key-inline"


def test_http_is_for_this_machine_only(tmp_path):
    text = GOOD.replace("https://api.example.eu/v1/", "http://127.0.0.1:9/v1")
    assert load(tmp_path, text)[0].provider.base_url == "http://127.0.0.1:9/v1"


def test_two_sites_of_one_name_are_refused(tmp_path):
    load(tmp_path, GOOD)
    with pytest.raises(Unprocessable, match="is taken by"):
        load(tmp_path, GOOD, name="second.toml")


def test_an_unknown_catalogue_entry_names_the_nearest(tmp_path):
    with pytest.raises(AllodError) as caught:
        load(tmp_path, 'catalogue = "scalway"')
    assert caught.value.code == "site.catalogue-unknown"
    assert "scaleway" in caught.value.hint


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "example.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(Unprocessable, match="UTF-8"):
        load_sites(tmp_path)


def test_a_key_is_read_when_it_is_asked_for(tmp_path):
    reference = KeyReference(scheme="env", target="EXAMPLE_KEY")
    assert reference.resolve({"EXAMPLE_KEY": " abc \n"}) == "abc"
    for environment in ({}, {"EXAMPLE_KEY": ""}, {"EXAMPLE_KEY": "a b"}, {"EXAMPLE_KEY": "a\r\nx: y"}):
        with pytest.raises(NotReady) as caught:
            reference.resolve(environment)
        assert caught.value.code == "site.key-missing"


def test_a_key_file_that_everyone_reads_is_not_used(tmp_path):
    path = tmp_path / "key"
    path.write_text("abc\n")
    path.chmod(0o600)
    reference = KeyReference(scheme="file", target=str(path))
    assert reference.resolve() == "abc"
    path.chmod(0o644)
    with pytest.raises(NotReady, match="everyone"):
        reference.resolve()
    path.unlink()
    with pytest.raises(NotReady, match="cannot be read"):
        reference.resolve()


def test_the_node_itself_is_local_and_otherwise_what_its_owner_declares():
    found = local_site({"declared": "2026-11-21", "operator": "Klinikum", "establishment": "DE"})
    assert found.local
    assert found.name == "local"
    assert found.establishment.value == "DE"
    assert found.establishment.date == "2026-11-21"
    assert "owner" in found.establishment.source
    assert found.cloud_act.value is None
    assert local_site({}).establishment.value is None


@pytest.mark.parametrize(
    "table", [{"operator": "K"}, {"declared": "2026-11-21", "establishment": "Germany"}, {"local": False}]
)
def test_a_declaration_without_a_day_or_form_is_refused(table):
    with pytest.raises(Unprocessable) as caught:
        local_site(table)
    assert caught.value.code == "site.invalid"
