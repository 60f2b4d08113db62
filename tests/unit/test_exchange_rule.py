"""The law room: the ruling is a maximum, and what the gateway adds only tightens it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import msgspec
import pytest

from gateway.clock import FrozenClock, day_of
from gateway.errors import LedgerUnwellError
from gateway.exchange.forward import origin_of
from gateway.exchange.providers import Layer, Provider, Taught
from gateway.exchange.rule import Held, Law, strictest
from gateway.exchange.states import Asked, Principal
from gateway.ident import ExchangeId, Sha256
from gateway.intent.model import INFERENCE, Declaration, IntendedUse, declaration_id
from gateway.ledger.reading.register import Register
from gateway.limits import AGREEMENTS_PER_CREDENTIAL_MAX
from gateway.policy.decide import Decision, Reason
from gateway.policy.library import Library
from gateway.policy.model import Effect
from gateway.provider.catalogue import dialect_named
from gateway.provider.model import Operation, ProviderCall
from gateway.receipt.model import (
    AgreementFacts,
    OrganisationFacts,
    Scope,
    TermsChange,
    Withdrawal,
)
from tests.support.dataset import TERMS, a_library, a_policy
from tests.support.house import PROJECT, TRAINING, WRITER, verdict
from tests.support.store import an_exchange_id

AT = "2026-11-22T00:00:00.000Z"
FINGERPRINT = Sha256("fe" * 32)


def a_law(
    register: Register | None = None,
    *,
    clock: FrozenClock | None = None,
    library: Library | None = None,
    undeclared: bool = False,
    unreadable: bool = False,
    overlays: tuple[str, ...] = (),
    held: Held | None = None,
) -> Law:
    """Return a law room over the small library."""
    register = register or Register()
    return Law(
        library or a_library(),
        register,
        clock or FrozenClock(),
        held=held or register.held,
        undeclared=undeclared,
        unreadable=unreadable,
        overlays=overlays,
    )


def provider(*layers: str | Layer) -> Provider:
    """Return a provider that is bound by *layers*."""
    return Provider(
        id="-".join(map(str, layers)),
        dialect=dialect_named("openai"),
        origin=origin_of("http://x.example"),
        base_url="http://x.example",
        layers=tuple(one if isinstance(one, Layer) else Layer(policy=one) for one in layers),
    )


def asked(
    use: IntendedUse = TRAINING,
    *,
    expires: str | None = None,
    operation: Operation = Operation.CHAT,
    declared: bool = True,
    model: str | None = "m",
    fingerprint: Sha256 | None = None,
) -> Asked:
    """Return a request for *use*."""
    declaration = Declaration(
        id=declaration_id(PROJECT, use), project=PROJECT, use=use, expires=expires
    )
    return Asked(
        exchange=ExchangeId("x-1"),
        received_ms=0,
        principal=Principal(name="ada", project=PROJECT, fingerprint=fingerprint),
        declaration=declaration,
        declared=declared,
        call=ProviderCall(provider="x", operation=operation, model=model),
        endpoint="POST /",
        body=b"",
    )


def taught(model: str | None, **facts: Any) -> Taught:
    """Return what a teacher was asked when it taught a student."""
    call = ProviderCall(provider="teacher", operation=Operation.CHAT, model=model)
    return Taught(call=call, **facts)


def effect_and_clauses(law: Law, request: Asked, *layers: str | Layer) -> tuple[str, list[str]]:
    """Return the effect of the ruling and the clauses that led to it."""
    ruling = law.rule(request, provider(*layers)).ruling
    return ruling.effect, [f"{reason.policy}:{reason.clause}" for reason in ruling.reasons]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (("open",), ("permit", ["open:training"])),
        (("held",), ("hold", ["held:training"])),
        (("closed",), ("forbid", ["closed:training"])),
        (("open", "held"), ("hold", ["held:training"])),
        (("closed", "held", "open"), ("forbid", ["closed:training"])),
        (("open", "own"), ("permit", ["open:training", "own:training"])),
        (("nowhere",), ("forbid", ["nowhere:no-policy"])),
        (("open", "nowhere"), ("forbid", ["nowhere:no-policy"])),
    ],
)
def test_the_strictest_layer_rules(
    layers: tuple[str, ...], expected: tuple[str, list[str]]
) -> None:
    """Of several policies that bind an exchange the largest effect counts, in any order."""
    assert expected == effect_and_clauses(a_law(), asked(), *layers)
    assert expected == effect_and_clauses(a_law(), asked(), *reversed(layers))


def a_decision(effect: Effect, policy: str, obligations: tuple[str, ...] = ()) -> Decision:
    """Return a decision of one policy."""
    reason = Reason(policy=policy, clause="c", effect=effect, because="so")
    return Decision(
        effect=effect,
        reasons=(reason,),
        obligations=obligations,
        missing=(),
        policies=(),
        day=dt.date(2026, 1, 1),
    )


@pytest.mark.parametrize("first", Effect)
@pytest.mark.parametrize("second", Effect)
@pytest.mark.parametrize("third", Effect)
def test_strictest_is_a_maximum(first: Effect, second: Effect, third: Effect) -> None:
    """It depends on neither order nor grouping nor repetition, and is never below any."""
    a, b, c = (
        a_decision(effect, name, (name,))
        for effect, name in ((first, "a"), (second, "b"), (third, "c"))
    )
    together = strictest([a, b, c])

    assert max(first, second, third) is together.effect
    assert together == strictest([c, a, b]) == strictest([strictest([a, b]), c])
    assert together == strictest([a, a, b, c, c])
    assert ("a", "b", "c") == together.obligations
    assert all(reason.effect is together.effect for reason in together.reasons)


def test_a_teachers_layer_is_asked_about_the_teachers_model() -> None:
    """A student's lineage brings its teachers' policies, each for the model that taught."""
    only = a_policy("picky", "permit", when="purpose: train, model: teacher-1")
    law = a_law(library=Library.load({"picky/policy.yaml": only, "picky/terms.yaml": TERMS}))
    request = asked(model="student-1")

    assert "forbid" == effect_and_clauses(law, request, "picky")[0]
    assert (
        "permit"
        == effect_and_clauses(law, request, Layer(policy="picky", taught=taught("teacher-1")))[
            0
        ]
    )


def test_an_agreement_of_the_caller_lifts_no_teachers_clause() -> None:
    """What the key at the door is bound to says nothing of what a teacher gave to a student.

    Not even where nobody knows which of the teacher's models that was.
    """
    register = Register()
    bound_by(register)
    law = a_law(register)
    request = asked(fingerprint=FINGERPRINT)
    of_a_teacher = [Layer(policy="held", taught=taught(model)) for model in (None, "t-1")]
    under_it = Layer(policy="held", taught=taught(None, agreements=("order-7",)))

    assert "permit" == effect_and_clauses(law, request, "held")[0]
    assert ["hold", "hold"] == [
        effect_and_clauses(law, request, "own", layer)[0] for layer in of_a_teacher
    ]
    assert "permit" == effect_and_clauses(law, asked(), "own", under_it)[0]


def test_a_teachers_layer_knows_how_the_teacher_was_reached() -> None:
    """Its route, its tier and its provider are those of the teacher, not of the student."""
    when = "purpose: train, access-route: cloud, account-tier: paid, provider: teacher"
    files = {"picky/policy.yaml": a_policy("picky", "permit", when=when)}
    law = a_law(library=Library.load(files | {"picky/terms.yaml": TERMS}))
    known = Layer(policy="picky", taught=taught("t", route="cloud", account_tier="paid"))
    unknown = Layer(policy="picky", taught=taught("t"))

    assert ["permit", "hold"] == [
        effect_and_clauses(law, asked(), layer)[0] for layer in (known, unknown)
    ]


def test_only_what_is_declared_is_forwarded_where_the_settings_say_so() -> None:
    """`undeclared: forbid` refuses plain inference that nobody declared, and nothing else."""
    law = a_law(undeclared=True)

    assert ("forbid", ["gateway:undeclared"]) == effect_and_clauses(
        law, asked(INFERENCE, declared=False), "open"
    )
    assert "permit" == effect_and_clauses(law, asked(INFERENCE), "open")[0]
    assert "permit" == effect_and_clauses(a_law(), asked(INFERENCE, declared=False), "open")[0]


def test_only_what_can_be_read_is_forwarded_where_the_settings_say_so() -> None:
    """`unknown_operations: forbid` refuses what no dialect reads, and nothing else."""
    law = a_law(unreadable=True)
    opaque = asked(INFERENCE, operation=Operation.OPAQUE)

    assert ("forbid", ["gateway:unknown-operation"]) == effect_and_clauses(law, opaque, "open")
    assert "permit" == effect_and_clauses(law, asked(INFERENCE), "open")[0]
    assert "permit" == effect_and_clauses(a_law(), opaque, "open")[0]


@pytest.mark.parametrize("days", [-1, 0, 1])
def test_a_declaration_may_be_cited_until_its_last_day(days: int) -> None:
    """The day a declaration names is its last good one."""
    today = day_of(FrozenClock().now_ms())
    request = asked(expires=(today + dt.timedelta(days=days)).isoformat())

    assert ("forbid" if days < 0 else "permit") == effect_and_clauses(a_law(), request, "open")[
        0
    ]


def test_what_was_withdrawn_or_declined_is_forbidden() -> None:
    """A withdrawal or a no forbids even what the terms permit, and says whose it is."""
    request = asked()
    withdrawal = Withdrawal(
        by="grace", reason="r", declaration=request.declaration.id, at=AT, writer=WRITER
    )
    gone, declined = Register(), Register()
    gone.apply(0, withdrawal)
    declined.apply(0, verdict(request.declaration.id, approved=False))

    assert ("forbid", ["gateway:declaration-withdrawn"]) == effect_and_clauses(
        a_law(gone), request, "open"
    )
    assert ("forbid", ["gateway:declaration-declined"]) == effect_and_clauses(
        a_law(declined), request, "open"
    )
    assert "grace" in a_law(gone).rule(request, provider("open")).ruling.reasons[0].because


def test_a_student_that_came_from_something_withdrawn_answers_no_more() -> None:
    """Whatever of a student's past is withdrawn, the door says by whom, what, and why."""
    student = dataclasses.replace(provider("open"), manifest=Sha256("a" * 64))
    withdrawal = Withdrawal(
        by="grace", reason="asked to", exchange=an_exchange_id(7), at=AT, writer=WRITER
    )
    itself = msgspec.structs.replace(withdrawal, exchange=None, manifest=student.manifest)

    ruled = [
        a_law(held={student.manifest: one}.get).rule(asked(), student).ruling
        for one in (withdrawal, itself, None)
    ]

    assert ["forbid", "forbid", "permit"] == [ruling.effect for ruling in ruled]
    (reason,) = ruled[0].reasons
    assert ("gateway", "student-withdrawn") == (reason.policy, reason.clause)
    assert (
        f"grace withdrew {withdrawal.exchange}, which this student came from: asked to"
        == reason.because
    )
    assert "grace withdrew this student: asked to" == ruled[1].reasons[0].because


def test_what_can_not_be_looked_up_is_not_permitted_and_is_asked_again() -> None:
    """A student whose past can't be read is refused for the moment, and not for longer."""
    student = dataclasses.replace(provider("open"), manifest=Sha256("a" * 64))
    trouble = [LedgerUnwellError("the index is busy")]

    def held(_: Sha256) -> None:
        if trouble:
            raise trouble.pop()

    law, request = a_law(held=held), asked()

    first, second = law.rule(request, student).ruling, law.rule(request, student).ruling

    assert ["student-unknown"] == [reason.clause for reason in first.reasons]
    assert ("forbid", "permit") == (first.effect, second.effect)


def test_an_approval_lets_a_held_use_pass_and_nothing_more() -> None:
    """A yes turns a hold into a permit that names it; a forbid stays one."""
    request = asked()
    register = Register()
    register.apply(
        9, verdict(request.declaration.id, ("held", "training"), ("closed", "training"))
    )
    ruling = a_law(register).rule(request, provider("held")).ruling

    assert ("permit", 9) == (ruling.effect, ruling.verdict)
    assert "forbid" == effect_and_clauses(a_law(register), request, "closed")[0]
    assert "forbid" == effect_and_clauses(a_law(register), request, "held", "closed")[0]


def test_an_approval_of_one_layer_does_not_answer_the_other() -> None:
    """Where two policies hold, both of their clauses want an answer."""
    library = a_library(second=a_policy("second", "hold"))
    request = asked()
    register = Register()
    law = a_law(register, library=library)
    register.apply(0, verdict(request.declaration.id, ("held", "training")))
    before = effect_and_clauses(law, request, "held", "second")
    register.apply(1, verdict(request.declaration.id, ("second", "training")))
    after = effect_and_clauses(law, request, "held", "second")

    assert ("hold", ["held:training", "second:training"]) == before
    assert "permit" == after[0]


def test_an_approval_is_for_who_cites_it() -> None:
    """The same words undeclared are not covered by a verdict on the declaration."""
    request = asked(declared=False)
    register = Register()
    register.apply(0, verdict(request.declaration.id, ("held", "training")))

    assert "hold" == effect_and_clauses(a_law(register), request, "held")[0]


def test_no_answer_outlives_what_it_was_made_from() -> None:
    """A remembered ruling is made anew when the register, the library or the day changes."""
    clock, register = FrozenClock(), Register()
    law = a_law(register, clock=clock)
    request, held = asked(), provider("held")
    first = law.rule(request, held)
    again = law.rule(request, held)
    register.apply(0, verdict(request.declaration.id, ("held", "training")))
    approved = law.rule(request, held)
    law.adopt(a_library(held=a_policy("held", "forbid")))
    adopted = law.rule(request, held)
    clock.move_ms(86_400_000)
    next_day = law.rule(request, held)

    assert first is again
    assert ["hold", "permit", "forbid"] == [
        one.ruling.effect for one in (first, approved, adopted)
    ]
    assert next_day.ruling.day > adopted.ruling.day


def test_a_policy_that_ends_today_binds_today_and_not_tomorrow() -> None:
    """The day decides which version of a policy is asked, while the gateway runs."""
    today = day_of(FrozenClock().now_ms())
    clock = FrozenClock()
    library = a_library(
        **{
            "turns@1": a_policy("turns", "permit", until=today.isoformat()),
            "turns": a_policy(
                "turns", "forbid", version=2, since=(today + dt.timedelta(1)).isoformat()
            ),
        }
    )
    law = a_law(clock=clock, library=library)
    before = law.rule(asked(), provider("turns")).ruling
    clock.move_ms(86_400_000)
    after = law.rule(asked(), provider("turns")).ruling

    assert [("permit", 1), ("forbid", 2)] == [
        (ruling.effect, ruling.policies[0].version) for ruling in (before, after)
    ]


def test_obligations_ride_along_with_a_permit_only() -> None:
    """Duties are told where something is permitted."""
    permitted = a_law().rule(asked(), provider("open")).ruling
    held = a_law().rule(asked(), provider("open", "held")).ruling

    assert ("keep-ai-label",) == permitted.obligations
    assert () == held.obligations


def bound_by(register: Register, **changes: object) -> None:
    """Register an agreement that lifts `held`'s clause for the project's training."""
    facts = AgreementFacts(
        agreement="order-7",
        policy="held",
        lifts=("training",),
        scope=Scope(purposes=("train",), projects=(PROJECT,)),
        evidence=Sha256("ab" * 32),
        evidence_name="order.pdf",
        signer="S. Vendor",
        by="R. Osei",
        credentials=(FINGERPRINT,),
        starts="2020-01-01",
        expires="2099-12-31",
        at="2026-11-22T00:00:00.000Z",
        writer=WRITER,
    )
    register.apply(0, msgspec.structs.replace(facts, **changes))


def test_a_registered_agreement_lifts_its_clause_for_its_credential() -> None:
    """What an agreement names is permitted for calls with its credential, and for no others."""
    register = Register()
    bound_by(register)
    law = a_law(register)
    with_it = law.rule(asked(fingerprint=FINGERPRINT), provider("held")).ruling
    without = law.rule(asked(), provider("held")).ruling
    other = law.rule(asked(fingerprint=Sha256("0" * 64)), provider("held")).ruling

    assert ("permit", "hold", "hold") == (with_it.effect, without.effect, other.effect)
    assert ["order-7"] == [reason.agreement for reason in with_it.reasons]
    assert (("order-7",), ()) == (with_it.agreements, without.agreements)


def test_only_so_many_agreements_hold_for_a_key() -> None:
    """A receipt names them all, so that what is beyond the bound, or over, is not named."""
    register = Register()
    for number in range(AGREEMENTS_PER_CREDENTIAL_MAX + 9):
        bound_by(register, agreement=f"order-{number:03}")
    bound_by(register, agreement="a-past-one", expires="2020-12-31")
    ruling = a_law(register).rule(asked(fingerprint=FINGERPRINT), provider("held")).ruling

    assert AGREEMENTS_PER_CREDENTIAL_MAX == len(ruling.agreements)
    assert "order-000" == ruling.agreements[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": "closed"},
        {"lifts": ("other",)},
        {"scope": Scope(purposes=("evaluate",))},
        {"scope": Scope(purposes=("train",), projects=("elsewhere",))},
        {"scope": Scope(purposes=("train",), students=("somebody",))},
        {"scope": Scope(purposes=("train",), models=("another",))},
        {"starts": "2099-01-01"},
        {"expires": "2020-12-31"},
    ],
)
def test_an_agreement_lifts_nothing_outside_its_scope(changes: dict[str, object]) -> None:
    """Another policy, clause, purpose, project, student, model or day: nothing is lifted."""
    register = Register()
    bound_by(register, **changes)

    ruling = a_law(register).rule(asked(fingerprint=FINGERPRINT), provider("held")).ruling

    assert "hold" == ruling.effect


def test_a_withdrawn_agreement_lifts_nothing() -> None:
    """From its withdrawal on, an agreement is as if it had never been."""
    register = Register()
    bound_by(register)
    law = a_law(register)
    before = law.rule(asked(fingerprint=FINGERPRINT), provider("held")).ruling
    register.apply(
        1, Withdrawal(by="ada", reason="ended", agreement="order-7", at="", writer=WRITER)
    )
    after = law.rule(asked(fingerprint=FINGERPRINT), provider("held")).ruling

    assert ("permit", "hold") == (before.effect, after.effect)


def test_one_agreement_is_not_another_s_clause() -> None:
    """An agreement for one layer leaves the bars of the other layers standing."""
    register = Register()
    bound_by(register)

    ruling = (
        a_law(register).rule(asked(fingerprint=FINGERPRINT), provider("held", "closed")).ruling
    )

    assert "forbid" == ruling.effect


def test_a_caller_cannot_claim_an_agreement() -> None:
    """What a caller says of its agreement lifts no clause."""
    claimed = IntendedUse(purpose="train.sft", agreement="order-7")

    assert "hold" == effect_and_clauses(a_law(), asked(claimed), "held")[0]


def test_a_ruling_stands_until_the_law_moves() -> None:
    """Neither a statement nor a library that came since may be passed over."""
    register = Register()
    law = a_law(register)
    first = law.rule(asked(), provider("open"))
    stood = law.stands(first)
    register.apply(0, verdict(asked().declaration.id, approved=False))
    moved = law.stands(first)
    second = law.rule(asked(), provider("open"))
    stands = law.stands(second)
    law.adopt(a_library(open=a_policy("open", "forbid")))

    assert (True, False, True, False) == (stood, moved, stands, law.stands(second))


def test_terms_that_changed_hold_training_until_a_newer_policy() -> None:
    """A change of terms that was found holds permits for training, and not plain use."""
    register = Register()
    law = a_law(register)
    before = law.rule(asked(), provider("open")).ruling.effect
    register.apply(
        3,
        TermsChange(
            policy="open",
            version=1,
            document="words",
            sections=("1",),
            snapshot=Sha256("cd" * 32),
            by="ada",
            at="",
            writer=WRITER,
        ),
    )
    after = law.rule(asked(), provider("open")).ruling.effect
    plain = law.rule(asked(INFERENCE), provider("open")).ruling.effect
    law.adopt(a_library(other=a_policy("other", "permit")))
    reloaded = law.rule(asked(), provider("open")).ruling.effect
    law.adopt(a_library(open=a_policy("open", "permit", version=2)))
    newer = law.rule(asked(), provider("open")).ruling.effect

    assert ("permit", "hold") == (before, after)
    assert "hold" != plain
    assert ("hold", "permit") == (reloaded, newer)


def test_what_the_organisation_states_is_ruled_on() -> None:
    """A registered fact decides where terms ask for it; the newest word counts."""
    only = a_policy("big", "permit", when="purpose: train, monthly-users: {at-most: 100}")
    library = Library.load({"big/policy.yaml": only, "big/terms.yaml": TERMS})
    register = Register()
    law = a_law(register, library=library)

    def state(index: int, month: str, users: int) -> str:
        register.apply(
            index,
            OrganisationFacts(
                facts={"monthly-users": users},
                measured=month,
                basis="count",
                by="ada",
                at="",
                writer=WRITER,
            ),
        )
        return law.rule(asked(), provider("big")).ruling.effect

    assert "hold" == law.rule(asked(), provider("big")).ruling.effect
    assert "permit" == state(1, "2026-09", 90)
    assert "forbid" == state(2, "2026-10", 101)
    assert "forbid" == state(3, "2026-08", 10)


def test_every_ruling_names_the_library_in_force() -> None:
    """The digest changes with the library that is adopted."""
    law = a_law()
    before = law.rule(asked(), provider("open")).ruling.library
    other = Library.load(
        {"open/policy.yaml": a_policy("open", "hold"), "open/terms.yaml": TERMS}
    )
    law.adopt(other)
    after = law.rule(asked(), provider("open")).ruling.library

    assert a_library().digest == before != after == other.digest


def test_overlays_bind_every_provider_and_permit_nothing() -> None:
    """An overlay adds its bars and duties; a provider without a policy stays forbidden."""
    text = a_policy("extra", "hold", when="purpose: train")
    files = {
        "open/policy.yaml": a_policy("open", "permit"),
        "open/terms.yaml": TERMS,
        "overlays/extra/policy.yaml": text,
        "overlays/extra/terms.yaml": TERMS,
    }
    law = a_law(library=Library.load(files), overlays=("extra",))

    assert "hold" == effect_and_clauses(law, asked(), "open")[0]
    assert "forbid" == effect_and_clauses(law, asked(), "nobody")[0]


@pytest.mark.parametrize("effect", ["held", "closed"])
def test_every_refusal_can_be_explained(effect: str) -> None:
    """Each layer that led to a refusal says why and what comes next; others keep quiet."""
    told = a_law().explain(asked(), provider("open", effect))

    assert [effect] == [one.decision.reasons[0].policy for one in told]
    assert all(one.next_step() for one in told)


def test_the_memory_of_rulings_has_an_end() -> None:
    """Endless model names don't make the memory of rulings endless."""
    law = a_law()
    for number in range(5000):
        law.rule(asked(model=f"m{number}"), provider("open"))

    assert len(law._remembered) <= 4096


def test_a_rulings_digest_is_of_what_it_says() -> None:
    """Equal rulings have equal digests, others have others."""
    law = a_law()
    first = law.rule(asked(), provider("open"))
    same = a_law().rule(asked(), provider("open"))
    other = law.rule(asked(), provider("held"))

    assert first.sha256 == same.sha256 != other.sha256


def a_host() -> Law:
    """Return a law room over a host, whose models' own terms bind as well."""
    hosted = a_policy("host", "permit").replace(
        "terms: [words]", "with_model_terms: true\nterms: [words]"
    )
    files = {
        "host/policy.yaml": hosted,
        "host/terms.yaml": TERMS,
        "licences/free/policy.yaml": a_policy("free", "permit"),
        "licences/free/terms.yaml": TERMS,
        "licences/strict/policy.yaml": a_policy("strict", "forbid"),
        "licences/strict/terms.yaml": TERMS,
        "unlisted-model/policy.yaml": a_policy("unlisted-model", "hold"),
        "unlisted-model/terms.yaml": TERMS,
        "models.yaml": "models:\n"
        "  - {id: a, terms: [free], source: its card, confidence: primary}\n"
        "  - {id: b, terms: [strict], source: its card, confidence: primary}\n",
    }
    return a_law(library=Library.load(files))


@pytest.mark.parametrize(
    ("operation", "effect"),
    [
        (Operation.LISTING, "permit"),
        (Operation.BATCH, "permit"),
        (Operation.CHAT, "hold"),
        (Operation.OPAQUE, "hold"),
    ],
)
def test_where_no_model_makes_anything_none_binds(operation: Operation, effect: str) -> None:
    """A list of a host's models is under the host's terms alone."""
    request = asked()
    call = ProviderCall(provider="host", operation=operation)
    request = msgspec.structs.replace(request, call=call)

    assert effect == effect_and_clauses(a_host(), request, "host")[0]


def test_every_model_that_may_answer_binds() -> None:
    """Where the request lets other models step in, the terms of each of them bind."""
    law = a_host()

    def effect(*fallbacks: str | None) -> str:
        request = asked(model="a")
        call = msgspec.structs.replace(request.call, fallbacks=fallbacks)
        return effect_and_clauses(law, msgspec.structs.replace(request, call=call), "host")[0]

    assert ("permit", "permit", "forbid") == (effect(), effect("a"), effect("a", "b"))
    assert ("hold", "hold") == (effect("unheard-of"), effect(None))


def test_terms_that_changed_hold_what_an_agreement_lifts() -> None:
    """Changed terms may bar more than the agreement knew of: legal reads them first."""
    register = Register()
    bound_by(register)
    law = a_law(register)
    before = law.rule(asked(fingerprint=FINGERPRINT), provider("held")).ruling.effect
    change = TermsChange(
        policy="held",
        version=1,
        document="words",
        sections=("2",),
        snapshot=Sha256("cd" * 32),
        by="ada",
        at="",
        writer=WRITER,
    )
    register.apply(9, change)
    after = law.rule(asked(fingerprint=FINGERPRINT), provider("held")).ruling.effect

    assert ("permit", "hold") == (before, after)


def test_a_registered_country_counts_until_a_declaration_names_another() -> None:
    """What the organisation registered fills in for what a declaration leaves out."""
    only = a_policy("local", "permit", when="purpose: train, jurisdiction: [DE]")
    library = Library.load({"local/policy.yaml": only, "local/terms.yaml": TERMS})
    register = Register()
    law = a_law(register, library=library)
    unknown = law.rule(asked(), provider("local")).ruling.effect
    facts = OrganisationFacts(
        facts={"jurisdiction": "DE"}, basis="the register", by="ada", at="", writer=WRITER
    )
    register.apply(1, facts)
    filled = law.rule(asked(), provider("local")).ruling.effect
    elsewhere = asked(msgspec.structs.replace(TRAINING, jurisdiction="US"))
    declared = law.rule(elsewhere, provider("local")).ruling.effect

    assert ("hold", "permit", "forbid") == (unknown, filled, declared)
