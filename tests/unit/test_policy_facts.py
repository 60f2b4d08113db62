"""What a use is is read from YAML in one way."""

from __future__ import annotations

import datetime as dt

import pytest

from gateway.errors import MalformedPolicyError
from gateway.intent.model import IntendedUse
from gateway.policy.facts import WrittenCall, check_call, check_purpose, check_use, facts_at
from gateway.policy.source import read
from gateway.provider.model import Operation

FILE = "acme/cases/c.yaml"


def test_facts_are_values_of_the_vocabulary() -> None:
    """Each fact is read as its kind asks."""
    text = "facts:\n  account-tier: paid\n  monthly-users: 5\n  region-supported: false\n"
    text += "  features: [tools, code]\n  generated-on: 2026-11-01\n"

    assert facts_at(read(text, FILE), FILE, "facts") == {
        "account-tier": "paid",
        "monthly-users": 5,
        "region-supported": False,
        "features": frozenset({"tools", "code"}),
        "generated-on": dt.date(2026, 11, 1),
    }


def test_no_facts_are_none() -> None:
    """A file that states no facts states none."""
    assert facts_at(read("note: x\n", FILE), FILE, "facts") == {}


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("facts: [a]\n", 1, "`facts` must be a mapping", ""),
        ("facts:\n  acount-tier: paid\n", 2, "unknown fact `acount-tier`", "`account-tier`"),
        ("facts:\n  generative: true\n", 2, "unknown fact `generative`", "known facts"),
        ("facts:\n  account-tier: gold\n", 2, "`account-tier` can't be `gold`", "one of"),
    ],
)
def test_a_fact_that_is_none_is_named_with_its_line(
    text: str, line: int, message: str, hint: str
) -> None:
    """A typo in a fact is an error and never an unknown fact."""
    with pytest.raises(MalformedPolicyError, match=message) as caught:
        facts_at(read(text, FILE), FILE, "facts")

    assert line == caught.value.line
    if hint != "known facts":
        assert hint in caught.value.hint


def test_a_use_has_a_purpose_of_the_tree() -> None:
    """A purpose that there isn't gets the nearest one that there is."""
    node = read("use:\n  purpose: train.sfd\n", FILE)
    check_use(node, IntendedUse(purpose="train.sft"), FILE, "use")

    with pytest.raises(MalformedPolicyError, match=r"unknown purpose `train\.sfd`") as caught:
        check_use(node, IntendedUse(purpose="train.sfd"), FILE, "use")

    assert (caught.value.line, caught.value.hint) == (2, "did you mean `train.sft`?")


def test_a_purpose_like_no_other_gets_the_whole_list() -> None:
    """Where nothing is near, all purposes are named."""
    with pytest.raises(MalformedPolicyError) as caught:
        check_purpose("xyzzy", FILE, 7)

    assert (7, True) == (caught.value.line, caught.value.hint.startswith("one of inference, "))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (WrittenCall(features=("tools", "tolls")), "unknown feature `tolls`"),
        (WrittenCall(modality=("txt",)), "unknown modality `txt`"),
    ],
)
def test_a_call_uses_words_of_the_vocabulary(call: WrittenCall, message: str) -> None:
    """Features and modalities that there aren't are errors."""
    check_call(read("call: {}\n", FILE), WrittenCall(features=("tools",)), FILE, "call")

    with pytest.raises(MalformedPolicyError, match=message):
        check_call(read("call: {}\n", FILE), call, FILE, "call")


def test_a_written_call_is_a_call_of_its_provider() -> None:
    """What the file says of the request is what the provider would be asked."""
    call = WrittenCall(operation="opaque", model="m", streaming=True, features=("n",))

    found = call.as_call("acme")

    assert (found.provider, found.operation) == ("acme", Operation.OPAQUE)
    assert (found.model, found.streaming, found.features) == ("m", True, frozenset({"n"}))
