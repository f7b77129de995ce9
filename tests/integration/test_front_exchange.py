"""One exchange through a real front process, a real model server on a Unix socket and a real spool."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest
from front_home import (
    AUDITOR_KEY,
    EXPIRED_KEY,
    KEY,
    SECRET,
    STRICT_KEY,
    Answer,
    Home,
    answers,
    request,
    spooled,
    talk,
)

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("front"))
    home.service("m", home.replica("r1", active_watts=100.0), aliases=("small",))
    home.service("provider", home.replica("far1", site_name="far", upstream_model="far-name"))
    home.service("several", home.replica("r1-several", choices_max=1), home.replica("r2", choices_max=4))
    home.service("scan", home.replica("ocr1"), kind="ocr")
    home.service("empty")
    home.spawn("r1")
    home.spawn("r2")
    home.spawn("far1")
    home.spawn("ocr1", {"ocr": True})
    home.start()
    yield home
    home.stop()


def ask(home: Home, body: Any, **kw: Any) -> Answer:
    (answer,) = answers(talk(home.port, request(body, **kw)))
    return answer


def test_an_answer_comes_with_its_receipt(home: Home) -> None:
    body = {**CHAT, "temperature": 0.5, "seed": 7}
    answer = ask(home, body)
    assert answer.status == 200
    assert answer.headers["allod-site"] == "here"
    assert answer.headers["allod-data-class"] == "internal"
    entry = next(e for e in spooled(home.root / "spool") if e.id == answer.headers["allod-receipt"])
    receipt = home.receipts()[entry.id]
    assert receipt.outcome == "answered"
    assert receipt.usage.input_tokens == 7
    assert receipt.usage.output_tokens == 11
    assert receipt.usage.source == "engine"
    assert receipt.sampling == {"temperature": "0.5", "seed": "7"}
    assert receipt.rules == ("everyone-everywhere",)
    assert receipt.energy.method == "estimate:active-watts-x-service-time"
    assert receipt.started_us <= receipt.ended_us
    sent = json.dumps(body).encode()

    def committed(label: bytes, data: bytes) -> str:
        return hmac.new(entry.key, b"allod-commitment/1 " + label + b"\n" + data, "sha256").hexdigest()

    assert receipt.input == committed(b"input", sent)
    assert receipt.output == committed(b"output", answer.body)
    assert receipt.actor == committed(b"actor", b"develop22222")
    assert receipt.key_check == hashlib.sha256(entry.key).hexdigest()
    assert SECRET.encode() not in entry.leaf


def test_the_body_reaches_the_engine_byte_for_byte(home: Home) -> None:
    odd = (
        b'{ "messages" : [ {"role":"user","content":"\\"model\\": \\u00e9 \xc3\xa9"}'
        b'] ,\n\t"model":"m", "x":1e2}'
    )
    assert ask(home, odd).status == 200
    assert home.seen("r1")[-1]["body"].encode() == odd


def test_an_alias_changes_the_model_and_nothing_else(home: Home) -> None:
    odd = b'{"a":{"model":"small"},  "model" :\t"small" ,"b":"\\"model\\":\\"small\\"","messages":[]}'
    assert ask(home, odd).status == 200
    assert home.seen("r1")[-1]["body"].encode() == odd.replace(b'\t"small"', b'\t"m"')


@pytest.mark.parametrize("pieces", [1, 7, 10_000])
def test_a_stream_is_metered_and_the_usage_frame_taken_out(home: Home, pieces: int) -> None:
    answer = ask(home, {**CHAT, "stream": True, "script": {"frames": 5, "pieces": pieces}})
    frames = answer.body.decode().split("\n\n")
    assert answer.whole
    assert [json.loads(f[6:])["choices"][0]["delta"]["content"] for f in frames[:5]] == [
        f"t{n} " for n in range(5)
    ]
    assert frames[5:] == ["data: [DONE]", ""]
    receipt = home.receipts()[answer.headers["allod-receipt"]]
    assert (receipt.usage.input_tokens, receipt.usage.output_tokens) == (5, 5)
    assert receipt.output_bytes == len(answer.body)


@pytest.mark.parametrize("options", [{"include_usage": True}, {"include_usage": True, "x": [1]}])
def test_a_usage_frame_that_was_asked_for_stays(home: Home, options: dict[str, Any]) -> None:
    answer = ask(home, {**CHAT, "stream": True, "stream_options": options})
    assert b'"completion_tokens": 4' in answer.body
    assert json.loads(home.seen("r1")[-1]["body"])["stream_options"] == options


@pytest.mark.parametrize("options", [None, {"include_usage": False}, {"x": 1}])
def test_stream_options_without_usage_are_completed(home: Home, options: Any) -> None:
    answer = ask(home, {**CHAT, "stream": True, "stream_options": options})
    assert b"completion_tokens" not in answer.body
    assert home.receipts()[answer.headers["allod-receipt"]].usage.source == "engine"
    seen = json.loads(home.seen("r1")[-1]["body"])["stream_options"]
    assert seen == {**(options or {}), "include_usage": True}


@pytest.mark.parametrize(
    "script",
    [
        {"size": 900_000},
        {"size": 900_000, "chunked": True},
        {"size": 900_000, "until_close": True},
        {"size": 3000, "pieces": 1},
        {"size": 3000, "chunked": True, "pieces": 13},
        {"until_close": True},
    ],
)
def test_an_answer_of_any_size_and_framing_arrives_whole(home: Home, script: dict[str, Any]) -> None:
    answer = ask(home, {**CHAT, "script": script})
    assert answer.whole
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "a" * script.get("size", 20)
    receipt = home.receipts()[answer.headers["allod-receipt"]]
    assert receipt.output_bytes == len(answer.body)
    assert receipt.usage.output_tokens == 11


def test_ocr_is_hot_in_mistrals_dialect_and_counts_pages(home: Home) -> None:
    answer = ask(
        home, {"model": "scan", "document": {}}, path="/v1/ocr", user_agent="mistral-client-python/1"
    )
    assert answer.status == 200
    assert home.receipts()[answer.headers["allod-receipt"]].usage.pages == 3


def test_an_engines_own_refusal_is_passed_on_and_receipted(home: Home) -> None:
    answer = ask(home, {**CHAT, "script": {"status": 422}})
    assert answer.status == 422
    receipt = home.receipts()[answer.headers["allod-receipt"]]
    assert (receipt.outcome, receipt.attempts[0].outcome, receipt.status) == ("failed", "status-422", 422)


def test_a_class_that_may_not_go_there_is_refused_with_a_receipt_and_no_contact(home: Home) -> None:
    before = len(home.seen("far1"))
    answer = ask(home, {**CHAT, "model": "provider"}, allod_data_class="restricted")
    assert answer.status == 403
    assert answer.code == "policy.denied"
    assert b"restricted-stays" in answer.body
    receipt = home.receipts()[answer.headers["allod-receipt"]]
    assert (receipt.outcome, receipt.decision, receipt.attempts) == ("refused", "deny", ())
    assert receipt.refused[0].site == "far"
    assert len(home.seen("far1")) == before


def test_a_provider_is_asked_under_its_own_name(home: Home) -> None:
    answer = ask(home, {**CHAT, "model": "provider"})
    assert (answer.status, answer.headers["allod-site"]) == (200, "far")
    assert home.seen("far1")[-1]["model"] == "far-name"


def test_the_header_never_lowers_the_projects_floor(home: Home) -> None:
    answer = ask(home, {**CHAT, "model": "provider"}, key=STRICT_KEY, allod_data_class="public")
    assert answer.status == 403
    assert answer.headers["allod-data-class"] == "restricted"


def test_an_auditor_calls_no_model(home: Home) -> None:
    answer = ask(home, CHAT, key=AUDITOR_KEY)
    assert (answer.status, answer.code) == (403, "policy.denied")
    assert home.receipts()[answer.headers["allod-receipt"]].rules == ("role-calls-no-model",)


@pytest.mark.parametrize(
    ("body", "fields", "status", "code"),
    [
        (b"", {}, 400, "body.empty"),
        (b"{", {}, 400, "body.not-json"),
        (b'{"model":"m","x":"\xff"}', {}, 400, "body.not-utf8"),
        (b"[]", {}, 400, "body.invalid-field"),
        (b"{}", {}, 400, "body.model-missing"),
        (b'{"model":7}', {}, 400, "body.invalid-field"),
        (b'{"model":"m","seed":"a patient"}', {}, 400, "body.invalid-field"),
        (b'{"model":"m","x":' + b"[" * 200_000, {}, 400, "body.not-json"),
        (CHAT, {"content_type": "text/plain"}, 415, "body.content-type"),
        (CHAT, {"content_encoding": "gzip"}, 415, "body.content-encoding"),
        ({**CHAT, "model": "provid"}, {}, 404, "model.unknown"),
        ({**CHAT, "model": "scan"}, {}, 400, "model.wrong-kind"),
        ({**CHAT, "model": "empty"}, {}, 503, "model.not-running"),
        (CHAT, {"allod_data_class": "secretest"}, 400, "class.unknown"),
        (CHAT, {"allod_data_categories": "health, gossip"}, 400, "category.unknown"),
        (CHAT, {"authorization": ""}, 401, "key.missing"),
        (CHAT, {"key": "allod_develop22222_short"}, 401, "key.malformed"),
        (CHAT, {"key": f"allod_nobody222222_{SECRET}"}, 401, "key.unknown"),
        (CHAT, {"key": KEY[:-1] + "x"}, 401, "key.unknown"),
        (CHAT, {"key": EXPIRED_KEY}, 401, "key.expired"),
        (CHAT, {"expect": "a miracle"}, 417, "http.expectation"),
    ],
)
def test_bad_input_has_a_clear_answer_in_both_dialects(
    home: Home, body: Any, fields: dict[str, str], status: int, code: str
) -> None:
    answer = ask(home, body, **fields)
    assert (answer.status, answer.code) == (status, code)
    assert json.loads(answer.body)["error"]["type"]
    if code == "model.wrong-kind" or status == 417:
        return
    mistral = ask(home, body, path="/v1/ocr", **fields)
    assert mistral.status in (status, 400)
    assert json.loads(mistral.body)["object"] == "error"


def test_more_choices_than_the_engine_counts_are_refused_before_it_is_asked(home: Home) -> None:
    before = len(home.seen("r1"))
    answer = ask(home, {**CHAT, "n": 2})
    assert (answer.status, answer.code, json.loads(answer.body)["error"]["param"]) == (
        400, "request.too-many-choices", "n",
    )  # fmt: skip
    assert b"at most 1 " in answer.body
    assert len(home.seen("r1")) == before
    assert ask(home, {**CHAT, "n": 1}).status == 200
    assert ask(home, {**CHAT, "model": "several", "n": 4}).status == 200
    assert ask(home, {**CHAT, "model": "several", "n": 5}).code == "request.too-many-choices"


def test_an_unknown_model_is_answered_with_the_nearest_name(home: Home) -> None:
    assert b"'provider'" in ask(home, {**CHAT, "model": "providr"}).body


def test_x_api_key_is_a_key_too(home: Home) -> None:
    assert ask(home, CHAT, authorization="", x_api_key=KEY).status == 200


def test_every_answer_that_was_seen_has_one_end_record(home: Home) -> None:
    ids = [e.id for e in spooled(home.root / "spool")]
    assert len(ids) == len(set(ids))
