"""The bytes that the front writes for a statement are the ledger's own encoding, for any values."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from allod.front import body, receipt
from allod.ledger import statement
from allod.ledger.statement import Attempt, Energy, Refusal, Statement, Usage

text = st.text(max_size=12)
small = st.integers(0, 1 << 53)
statements = st.builds(
    Statement,
    action=text, actor=text, data_class=text, decision=st.sampled_from(["allow", "deny"]), ended_us=small,
    endpoint=text, id=text, input=text, input_bytes=small, key_check=text, model=text, origin=text,
    outcome=st.just("answered"),    output=text, output_bytes=small, organisation=text,
    policy=text, project=text,
    started_us=small, status=small,
    attempts=st.lists(st.builds(Attempt, outcome=text, replica=text, site=text), max_size=3).map(tuple),
    refused=st.lists(st.builds(Refusal, rules=st.lists(text).map(tuple), site=text), max_size=3).map(tuple),
    rules=st.lists(text, max_size=3).map(tuple), categories=st.lists(text, max_size=3).map(tuple),
    usage=st.builds(Usage, input_tokens=small, output_tokens=small, pages=small, source=st.just("engine")),
    energy=st.builds(Energy, method=text, microjoules=st.none() | small),
)  # fmt: skip
number = st.none() | st.integers(-(1 << 40), 1 << 40) | st.floats(allow_nan=False, allow_infinity=False)


@given(statements, st.builds(body.Asked, model=st.just("m"), seed=number, n=number, temperature=number,
       top_p=number,       max_tokens=number, random_seed=number, max_completion_tokens=number))  # fmt: skip
def test_statement_bytes_are_the_ledgers(value: Statement, asked: body.Asked) -> None:
    value = msgspec.structs.replace(value, sampling=body.sampling(asked))
    assert receipt._STATEMENT.encode(value) == statement.encode(value)
