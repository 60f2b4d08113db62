"""The matrix of readings: for each provider and standard use, what the library rules.

A is permit, R is forbid, U is hold, C is permit or hold under its condition and never permit
without it. The cells are those of the reference on terms; where a cell says more than its
letter, the comment beside it does too.
"""

from __future__ import annotations

import datetime as dt
from functools import cache
from typing import Final

import msgspec
import pytest

from gateway.intent.model import IntendedUse
from gateway.policy.decide import decide, facts_of
from gateway.policy.library import Library
from gateway.policy.model import Effect
from gateway.provider.model import Operation, ProviderCall
from gateway.store.policies import builtin_policies, read_policy_files

DAY: Final = dt.date(2026, 11, 22)

BASIS: Final = "a memo on product overlap"
ASSESSOR: Final = "R. Osei"

USES: Final[dict[str, IntendedUse]] = {
    "train-competing": IntendedUse(
        purpose="train.sft",
        student_kind="chat",
        imitates_teacher=True,
        competes=True,
        audience="public",
        visibility="service",
        commercial=True,
        competes_basis=BASIS,
        competes_assessed_by=ASSESSOR,
    ),
    "train-internal": IntendedUse(
        purpose="train.sft",
        student_kind="chat",
        imitates_teacher=False,
        competes=False,
        audience="internal",
        visibility="internal",
        commercial=False,
        competes_basis=BASIS,
        competes_assessed_by=ASSESSOR,
    ),
    "train-classifier": IntendedUse(
        purpose="train.sft",
        student_kind="classifier",
        competes=False,
        audience="internal",
        visibility="internal",
        commercial=False,
        competes_basis=BASIS,
        competes_assessed_by=ASSESSOR,
    ),
    "publish-dataset": IntendedUse(
        purpose="publish.dataset",
        competes=False,
        audience="public",
        commercial=False,
        competes_basis=BASIS,
        competes_assessed_by=ASSESSOR,
    ),
    "release-competing": IntendedUse(
        purpose="train.sft",
        student_kind="chat",
        imitates_teacher=True,
        competes=True,
        audience="public",
        visibility="weights",
        commercial=True,
        competes_basis=BASIS,
        competes_assessed_by=ASSESSOR,
    ),
    "release-classifier": IntendedUse(
        purpose="train.sft",
        student_kind="classifier",
        competes=False,
        audience="public",
        visibility="weights",
        commercial=True,
        competes_basis=BASIS,
        competes_assessed_by=ASSESSOR,
    ),
    "release-other": IntendedUse(
        purpose="train.sft",
        student_kind="generator",
        imitates_teacher=False,
        competes=False,
        audience="public",
        visibility="weights",
        commercial=True,
        competes_basis=BASIS,
        competes_assessed_by=ASSESSOR,
    ),
    "judge": IntendedUse(
        purpose="verify",
        student_kind="chat",
        imitates_teacher=False,
        competes=False,
        audience="internal",
        visibility="internal",
        commercial=False,
        competes_basis=BASIS,
        competes_assessed_by=ASSESSOR,
    ),
    "reward": IntendedUse(
        purpose="train.reward",
        student_kind="chat",
        imitates_teacher=False,
        competes=False,
        audience="internal",
        visibility="internal",
        commercial=False,
        competes_basis=BASIS,
        competes_assessed_by=ASSESSOR,
    ),
    "evaluate": IntendedUse(purpose="evaluate.internal"),
    "benchmark": IntendedUse(purpose="evaluate.benchmark", audience="public"),
    "inference": IntendedUse(purpose="inference"),
}

MATRIX: Final[dict[str, dict[str, str]]] = {
    "openai": {
        "train-competing": "R",
        "train-internal": "A",
        "train-classifier": "A",  # C1, its conditions met
        "publish-dataset": "U",
        "release-competing": "R",
        "release-classifier": "R",
        "release-other": "U",
        "judge": "U",
        "reward": "U",
        "evaluate": "A",
        "benchmark": "A",
        "inference": "A",
    },
    "anthropic": {
        "train-competing": "R",
        "train-internal": "R",  # without written authorisation
        "train-classifier": "U",  # C2: legal signs off each
        "publish-dataset": "R",
        "release-competing": "R",
        "release-classifier": "R",
        "release-other": "R",
        "judge": "R",  # unclear, to be treated as restricted without authorisation
        "reward": "R",
        "evaluate": "A",
        "benchmark": "A",
        "inference": "A",
    },
    "deepseek": {
        "train-competing": "A",
        "train-internal": "A",
        "train-classifier": "A",
        "publish-dataset": "A",
        "release-competing": "A",
        "release-classifier": "A",
        "release-other": "A",
        "judge": "A",
        "reward": "A",
        "evaluate": "A",
        "benchmark": "A",
        "inference": "A",
    },
}
EFFECT: Final = {"A": Effect.PERMIT, "R": Effect.FORBID, "U": Effect.HOLD}


@cache
def library() -> Library:
    """Return the library that ships."""
    return Library.load(read_policy_files(builtin_policies()))


def effect_of(provider: str, use: IntendedUse) -> Effect:
    """Return the effect of a plain chat call for *use*."""
    policy = library().in_force(provider, DAY)
    assert policy is not None
    call = ProviderCall(provider=provider, operation=Operation.CHAT, model="some-model")
    return decide(facts_of(use, call), [policy], DAY).effect


@pytest.mark.parametrize(
    ("provider", "use", "cell"),
    [(provider, use, cell) for provider, row in MATRIX.items() for use, cell in row.items()],
)
def test_each_cell_is_ruled_as_read(provider: str, use: str, cell: str) -> None:
    """The library's ruling on the standard use equals the cell."""
    assert effect_of(provider, USES[use]) is EFFECT[cell]


def test_every_row_is_whole() -> None:
    """No cell of a row was left out."""
    assert all(row.keys() == USES.keys() for row in MATRIX.values())


@pytest.mark.parametrize(
    "lacking",
    [
        {"audience": None},
        {"audience": "affiliates"},
        {"audience": "customers"},
        {"audience": "public"},
        {"student_kind": None},
        {"student_kind": "extractor", "competes": None},
        {"student_kind": "chat", "competes": None},
        {"student_kind": "chat", "competes_basis": None},
        {"student_kind": "chat", "competes_assessed_by": None},
        {"student_kind": "chat", "imitates_teacher": None},
        {"purpose": "verify"},
        {"purpose": "train.logprobs"},
    ],
)
def test_openai_s_exception_needs_each_of_its_conditions(
    lacking: dict[str, str | None],
) -> None:
    """Without any one of its conditions, the permit is gone."""
    use = msgspec.structs.replace(USES["train-classifier"], **lacking)

    assert effect_of("openai", use) > Effect.PERMIT


@pytest.mark.parametrize(
    "kind", ["classifier", "embedding", "extractor", "summariser", "reranker"]
)
def test_anthropic_s_narrow_tools_are_held_and_not_permitted(kind: str) -> None:
    """Narrow students go to legal; with competes they are forbidden."""
    use = msgspec.structs.replace(USES["train-classifier"], student_kind=kind)

    assert effect_of("anthropic", use) is Effect.HOLD
    rival = msgspec.structs.replace(use, competes=True)
    assert effect_of("anthropic", rival) is Effect.FORBID


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize(
    "use", ["train-competing", "train-internal", "judge", "publish-dataset"]
)
def test_naming_an_agreement_reaches_legal_and_no_further(provider: str, use: str) -> None:
    """A written permission that a caller names lifts no bar on its own word."""
    named = msgspec.structs.replace(USES[use], agreement="permission-7")

    assert effect_of(provider, named) is Effect.HOLD


@pytest.mark.parametrize("provider", ["openai", "anthropic", "deepseek"])
@pytest.mark.parametrize("use", list(USES))
def test_elicited_reasoning_is_forbidden_everywhere(provider: str, use: str) -> None:
    """Where signs of drawing out hidden reasoning were seen, no purpose is permitted."""
    policy = library().in_force(provider, DAY)
    assert policy is not None
    call = ProviderCall(provider=provider, operation=Operation.CHAT)

    facts = facts_of(USES[use], call, reasoning_kind="elicited")

    assert decide(facts, [policy], DAY).effect is Effect.FORBID


@pytest.mark.parametrize(
    ("provider", "use", "obligations"),
    [
        ("openai", "inference", ()),
        ("openai", "train-internal", ("review-before-training",)),
        ("anthropic", "inference", ("disclose-ai", "no-human-claim", "verify-facts-notice")),
        ("deepseek", "inference", ("disclose-ai", "keep-ai-label")),
        ("deepseek", "train-competing", ("disclose-ai", "keep-ai-label")),
        ("deepseek", "publish-dataset", ("disclose-ai", "keep-ai-label")),
    ],
)
def test_obligations_are_those_of_the_row(
    provider: str, use: str, obligations: tuple[str, ...]
) -> None:
    """What must be done rides along with what is permitted."""
    policy = library().in_force(provider, DAY)
    assert policy is not None
    call = ProviderCall(provider=provider, operation=Operation.CHAT)

    assert decide(facts_of(USES[use], call), [policy], DAY).obligations == obligations


def test_a_student_inherits_its_teachers_terms_as_layers() -> None:
    """The organisation's own model is as free as the strictest of its teachers."""
    on = DAY
    own, strict, free = (
        library().in_force(name, on) for name in ("self-hosted", "anthropic", "deepseek")
    )
    assert own is not None
    assert strict is not None
    assert free is not None
    call = ProviderCall(provider="local", operation=Operation.CHAT)
    facts = facts_of(USES["train-internal"], call)

    assert decide(facts, [own], on).effect is Effect.PERMIT
    assert decide(facts, [own, free], on).effect is Effect.PERMIT
    assert decide(facts, [own, free, strict], on).effect is Effect.FORBID
