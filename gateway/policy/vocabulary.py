"""The closed vocabulary of conditions: every fact a clause may ask for, and its words.

`policies/vocabulary.yaml` is this table written out for people; a test keeps it fresh.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from gateway.intent.purpose import PURPOSES
from gateway.policy.obligation import OBLIGATIONS

Kind = Literal["purpose", "word", "yes-no", "text", "words"]
"""`purpose`: a node of the tree, covering what stands below. `word`: one of a closed list.
`yes-no`: true or false. `text`: any text, `any` for whatever is named, `none` for nothing.
`words`: a set; a condition asks whether one of its words is in it."""

Origin = Literal["declared", "request", "gateway", "derived"]
"""Who knows the fact: the declaration, the request itself, the gateway's own settings and
signs, or another fact it follows from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something about a use or an exchange that a condition may ask for."""

    name: str
    kind: Kind
    origin: Origin
    meaning: str
    words: Mapping[str, str] = field(default_factory=dict)
    """The closed list of values with their meanings, where there is one."""


ANY: Final = "any"
NONE: Final = "none"

_STUDENT_KINDS: Final = {
    "classifier": "puts inputs into given classes",
    "embedding": "turns inputs into vectors",
    "reranker": "orders given candidates",
    "extractor": "copies fields out of its input",
    "summariser": "shortens its input",
    "reward": "scores answers of another model",
    "chat": "holds conversations; generative",
    "generator": "writes open-ended text; generative",
    "image": "makes images; generative",
}
_AUDIENCES: Final = {
    "internal": "the organisation itself",
    "affiliates": "companies under common control",
    "customers": "customers of the organisation",
    "public": "anybody",
}
_VISIBILITIES: Final = {
    "internal": "kept inside",
    "service": "offered as a service; the weights stay inside",
    "weights": "the weights are handed over or released",
}
_OPERATIONS: Final = {
    "chat": "a conversation is continued",
    "opaque": "something the gateway forwards and can't read",
}
_FEATURES: Final = {
    "tools": "the model may call tools",
    "reasoning": "the model is asked to reason, or to show that it did",
    "images": "the request holds images",
    "logprobs": "token probabilities are asked for",
    "n": "more than one answer is asked for",
}
_REASONING: Final = {
    "none": "the answer shows no reasoning",
    "summary": "a summary that the provider chose to return",
    "visible": "reasoning that the provider returns as it is",
    "elicited": "signs were seen that hidden reasoning was drawn out of the model",
}
_TIERS: Final = {
    "free": "unpaid use",
    "paid": "paid by use or subscription of the API",
    "trial": "trial credits",
    "preview": "preview or beta features",
    "discounted": "cheaper in exchange for data",
    "enterprise": "under an order form",
}
_ROUTES: Final = {
    "first-party": "the provider's own API",
    "cloud": "a cloud's marketplace",
    "aggregator": "a reseller of several providers' models",
    "host": "a host of open weights",
    "self-hosted": "weights that the organisation runs itself",
    "consumer": "a consumer application",
    "subscription": "a coding plan or other interactive subscription",
}

FACTS: Final[dict[str, Fact]] = {
    one.name: one
    for one in (
        Fact(
            name="purpose",
            kind="purpose",
            origin="declared",
            meaning="what the output is for; a purpose covers those below it",
            words=PURPOSES,
        ),
        Fact(
            name="student-kind",
            kind="word",
            origin="declared",
            meaning="what the student does",
            words=_STUDENT_KINDS,
        ),
        Fact(
            name="generative",
            kind="yes-no",
            origin="derived",
            meaning="the student makes open-ended output; follows from `student-kind`",
        ),
        Fact(
            name="imitates-teacher",
            kind="yes-no",
            origin="declared",
            meaning="the student is meant to answer as its teacher would, in general",
        ),
        Fact(
            name="competes",
            kind="yes-no",
            origin="declared",
            meaning="the student, or what it serves, competes with the provider",
        ),
        Fact(
            name="competes-basis",
            kind="text",
            origin="declared",
            meaning="on what `competes` was assessed",
        ),
        Fact(
            name="competes-assessed-by",
            kind="text",
            origin="declared",
            meaning="the person who assessed `competes`",
        ),
        Fact(
            name="audience",
            kind="word",
            origin="declared",
            meaning="whom the student, or what it is made for, reaches",
            words=_AUDIENCES,
        ),
        Fact(
            name="visibility",
            kind="word",
            origin="declared",
            meaning="how the student is seen by that audience",
            words=_VISIBILITIES,
        ),
        Fact(
            name="commercial",
            kind="yes-no",
            origin="declared",
            meaning="money is made with the student or the data",
        ),
        Fact(
            name="base-model",
            kind="text",
            origin="declared",
            meaning="the model that the student starts from",
        ),
        Fact(
            name="agreement",
            kind="text",
            origin="declared",
            meaning="a written permission or order form; one that nobody names is `none`",
        ),
        Fact(
            name="jurisdiction",
            kind="text",
            origin="declared",
            meaning="country of the organisation, ISO 3166 two letters",
        ),
        Fact(
            name="provider",
            kind="text",
            origin="request",
            meaning="the provider's name in the gateway",
        ),
        Fact(
            name="operation",
            kind="word",
            origin="request",
            meaning="what is asked of the provider",
            words=_OPERATIONS,
        ),
        Fact(
            name="model",
            kind="text",
            origin="request",
            meaning="the exact model id that is asked for",
        ),
        Fact(
            name="streaming",
            kind="yes-no",
            origin="request",
            meaning="the answer comes as a stream",
        ),
        Fact(
            name="features",
            kind="words",
            origin="request",
            meaning="what else the request asks for",
            words=_FEATURES,
        ),
        Fact(
            name="reasoning-kind",
            kind="word",
            origin="gateway",
            meaning="what reasoning the answer holds and how it was come by",
            words=_REASONING,
        ),
        Fact(
            name="account-tier",
            kind="word",
            origin="gateway",
            meaning="under what sort of account the provider is called",
            words=_TIERS,
        ),
        Fact(
            name="access-route",
            kind="word",
            origin="gateway",
            meaning="by which way the model is reached",
            words=_ROUTES,
        ),
    )
}
"""Every fact by name."""


def vocabulary_yaml() -> str:
    """Return the whole vocabulary as YAML for people."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Generated by `gateway policy vocabulary`; a test keeps it fresh. Don't edit."
    yield "facts:"
    for fact in FACTS.values():
        yield f"  {fact.name}:"
        yield f"    kind: {fact.kind}"
        yield f"    known-from: {fact.origin}"
        yield f"    meaning: {_quoted(fact.meaning)}"
        if fact.words:
            yield "    words:"
            for word, meaning in fact.words.items():
                yield f"      {word}: {_quoted(meaning)}"
    yield "obligations:"
    for obligation in OBLIGATIONS.values():
        yield f"  {obligation.name}:"
        yield f"    discharged-by: {obligation.discharger}"
        yield f"    meaning: {_quoted(obligation.sentence)}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
