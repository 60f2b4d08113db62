"""The closed vocabulary of conditions: every fact a clause may ask for, and its words.

`policies/vocabulary.yaml` is this table written out for people; a test keeps it fresh.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from gateway.intent.purpose import PURPOSES, covers
from gateway.policy.obligation import OBLIGATIONS

Kind = Literal["purpose", "word", "yes-no", "text", "country", "words", "number", "date"]
"""`purpose`: a node of the tree, covering what stands below. `word`: one of a closed list.
`yes-no`: true or false. `text`: any text, `any` for whatever is named, `none` for nothing.
`country`: two letters of ISO 3166, or one of `REGIONS` for its members. `words`: a set; a
condition asks whether one of its words is in it, or all. `number`: compared. `date`: a day in
an interval."""

Origin = Literal["declared", "request", "gateway", "registered", "derived"]
"""Who knows the fact: the declaration, the request itself, the gateway's own settings and
signs, what the organisation registered about itself, or another fact it follows from."""

Presumed = Literal["always", "plain use"]
"""Where a fact that nobody stated is taken to be the value that accounts usually have: in every
use, or in plain use only (inference and evaluation)."""

UNLISTED: Final = "unlisted-model"
"""The policy that binds where the terms of a model are not known, or only from hearsay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something about a use or an exchange that a condition may ask for."""

    name: str
    kind: Kind
    origin: Origin
    meaning: str
    words: Mapping[str, str] = field(default_factory=dict)
    """The closed list of values with their meanings, where there is one."""
    presumed: str | bool | int | None = None
    """What it is taken to be until somebody says otherwise; `None`: nothing, it is unknown."""
    presumed_in: Presumed = "always"


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
    "completion": "a text is continued",
    "embedding": "texts are turned into vectors",
    "moderation": "texts or images are judged by the provider's filter",
    "image": "images are made or changed",
    "speech": "a text is spoken",
    "transcription": "speech is written down, or translated",
    "token-count": "tokens are counted",
    "file": "something is kept with the provider, listed, read or deleted there",
    "batch": "many things are asked at once, to be answered later",
    "retrieval": "an answer that was made before is read",
    "fine-tuning": "a model of the provider is customised inside its own service",
    "session": "both sides talk over one connection",
    "listing": "the provider tells what there is",
    "opaque": "something the gateway forwards and can't read",
}
_FEATURES: Final = {
    "tools": "the model may call tools",
    "reasoning": "the model is asked to reason, or to show that it did",
    "images": "the request holds images",
    "logprobs": "token probabilities are asked for",
    "n": "more than one answer is asked for",
    "grounding": "the answer rests on a search of the provider's",
    "voice": "speech is asked for",
    "image-output": "images are asked for beside text",
    "code": "a feature made for writing programs is used",
}
_MODALITIES: Final = {
    "text": "the answer is text",
    "image": "the answer holds images",
    "audio": "the answer holds sound",
    "embedding": "the answer is vectors",
}
_NOTICES: Final = {
    "licence-copy": "a copy of the licence goes with it",
    "notice-file": "the licence's notice file goes with it",
    "attribution": "the words of attribution that the licence asks for stand in it",
    "display": "the words that the licence wants shown are shown prominently",
    "changes-marked": "what was changed is marked as changed",
    "flow-down": "its recipients are bound to the same restrictions",
}
_AUTOMATION: Final = {
    "interactive": "a person at a keyboard asks",
    "scripted": "a program asks",
    "batch": "requests are handed in together",
}
_ROLES: Final = {
    "internal": "an internal pass-through for the organisation's own people and programs",
    "reseller": "access is sold on",
    "aggregator": "access to several providers is offered to others",
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


def _measure(name: str, what: str) -> Fact:
    return Fact(
        name=name,
        kind="number",
        origin="registered",
        meaning=f"{what} of the organisation and its affiliates together, as of a month",
        presumed=0,
        presumed_in="plain use",
    )


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
            name="student",
            kind="text",
            origin="declared",
            meaning="the student's name",
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
            name="competes-assessed-on",
            kind="date",
            origin="declared",
            meaning="the day on which `competes` was assessed",
        ),
        Fact(
            name="similar",
            kind="yes-no",
            origin="declared",
            meaning="the student is similar to a product of the provider, or replaces it",
        ),
        Fact(
            name="audience",
            kind="word",
            origin="declared",
            meaning="the distribution: whom the student, or what it is made for, reaches",
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
            name="research",
            kind="yes-no",
            origin="declared",
            meaning="it is done for research, and nothing made of it goes into production",
        ),
        Fact(
            name="notices",
            kind="words",
            origin="declared",
            meaning="what goes out with the student or the data",
            words=_NOTICES,
        ),
        Fact(
            name="jurisdiction",
            kind="country",
            origin="declared",
            meaning="country of the organisation, ISO 3166 two letters; one that is declared"
            " goes before one that the organisation registered",
        ),
        Fact(
            name="automation",
            kind="word",
            origin="declared",
            meaning="how the requests come about",
            words=_AUTOMATION,
        ),
        Fact(
            name="promotes-competitor",
            kind="yes-no",
            origin="declared",
            meaning="the published measurement promotes a product that competes",
        ),
        Fact(
            name="replication-info",
            kind="yes-no",
            origin="declared",
            meaning="what others need to replicate a measurement is published with it",
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
            name="modality",
            kind="words",
            origin="request",
            meaning="what the answer is made of",
            words=_MODALITIES,
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
        Fact(
            name="generated-for",
            kind="purpose",
            origin="gateway",
            meaning="what the output was declared for when it was generated; `purpose` may be"
            " a later use of it",
            words=PURPOSES,
        ),
        Fact(
            name="generated-on",
            kind="date",
            origin="gateway",
            meaning="the day on which the output was generated",
        ),
        Fact(
            name="headquarters",
            kind="country",
            origin="registered",
            meaning="country of the ultimate parent's headquarters",
        ),
        Fact(
            name="restricted-ownership",
            kind="number",
            origin="registered",
            meaning="whole percent, rounded up, of the organisation that is held, directly or"
            " not, from places that providers restrict",
            presumed=0,
        ),
        Fact(
            name="region-supported",
            kind="yes-no",
            origin="registered",
            meaning="the organisation and its users are where providers offer their service",
            presumed=True,
        ),
        Fact(
            name="gateway-role",
            kind="word",
            origin="registered",
            meaning="what this gateway is to those who use it",
            words=_ROLES,
            presumed="internal",
            presumed_in="plain use",
        ),
        _measure("monthly-users", "monthly active users"),
        _measure("revenue-monthly", "revenue in a month, whole US dollars,"),
        _measure("revenue-annual", "revenue in twelve months, whole US dollars,"),
        _measure(
            "maas-revenue-annual",
            "revenue in twelve months from offering models as a service, whole US dollars,",
        ),
    )
}
"""Every fact by name."""

REGISTRABLE: Final = (
    *(name for name, fact in FACTS.items() if fact.origin == "registered"),
    "jurisdiction",
)
"""What can be stated of the organisation once, instead of in each declaration."""

_EU: Final = frozenset(
    "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split()  # noqa: SIM905 # a list of 27 lines says no more
)
REGIONS: Final[Mapping[str, frozenset[str]]] = {"EU": _EU, "EEA": _EU | {"IS", "LI", "NO"}}
"""Words that stand for several countries."""


def is_plain_use(purpose: object) -> bool:
    """Tell whether *purpose* is inference or evaluation: nothing is trained or passed on."""
    return isinstance(purpose, str) and (
        covers("inference", purpose) or covers("evaluate", purpose)
    )


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
        if fact.presumed is not None:
            yield f"    presumed: {json.dumps(fact.presumed)}"
            yield f"    presumed-in: {fact.presumed_in}"
        if fact.words:
            yield "    words:"
            for word, meaning in fact.words.items():
                yield f"      {word}: {_quoted(meaning)}"
    yield "obligations:"
    for obligation in OBLIGATIONS.values():
        yield f"  {obligation.name}:"
        yield f"    discharged-by: {obligation.discharger}"
        if obligation.takes != "nothing":
            yield f"    takes: {obligation.takes}"
        yield f"    meaning: {_quoted(obligation.sentence)}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
