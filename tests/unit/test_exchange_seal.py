"""What a closing statement says of an exchange, and that it can always be written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.canonical import keyed_sha256, salted_sha256
from gateway.exchange.body import StreamedBody
from gateway.exchange.seal import Notary
from gateway.exchange.states import Abandoned, Answered, Asked, Forbidden, Permitted
from gateway.ident import Sha256
from gateway.intent.declare import parse_inline
from gateway.intent.model import IntendedUse
from gateway.limits import (
    AGREEMENTS_PER_CREDENTIAL_MAX,
    FOREIGN_TEXT_CHARS_MAX,
    OUTPUTS_PER_EXCHANGE_MAX,
    TAGS_MAX,
)
from gateway.provider.model import Answer, Choice, Shown, ToolCall, Usage
from gateway.provider.tokens import TokenCounter
from gateway.receipt.model import (
    Abandonment,
    Ended,
    OutputKind,
    Reason,
    Receipt,
    Refusal,
    Subject,
    UsageFacts,
)
from gateway.receipt.statement import read_leaf, statement_subjects
from tests.support.house import COMMITMENT_KEY, TRAINING, Rooms, rooms_at

SAID = Choice(index=0, text="good day", finish_reason="stop")
CALLED = Choice(
    index=1,
    text="let me see",
    reasoning=("first", "second"),
    tool_calls=(ToolCall(id="c1", name="look", arguments='{"at": 1}'),),
    finish_reason="tool_calls",
)
REFUSED = Choice(index=2, refusal="no", finish_reason="stop")


@pytest.fixture
async def rooms(tmp_path: Path) -> AsyncIterator[Rooms]:
    """Return rooms whose provider is never asked."""
    async with rooms_at(tmp_path) as opened:
        yield opened


def answered(
    rooms: Rooms, asked: Asked, *choices: Choice, usage: Usage | None = None, **more: Any
) -> Answered:
    """Return an answer of *choices* to *asked*; *more* are facts of the exchange."""
    read = Answer(
        readable=more.pop("readable", True),
        whole=True,
        model=more.pop("model", "open-1-0826"),
        choices=choices,
        usage=usage,
    )
    ruled = rooms.law.rule(asked, rooms.providers.named("open"))
    facts: dict[str, Any] = {
        "status": 200,
        "request_id": "req-1",
        "response_sha256": hashlib.sha256(b"body").hexdigest(),
        "response_bytes": 4,
        "ended": "complete",
        "error": None,
        "reason": b"OK",
        "headers": (),
        "sized": True,
        "held": b"body",
        "head_sent": False,
    }
    return Answered(
        permitted=Permitted(asked=asked, ruling=ruled.ruling, headers=(), opening=7),
        answer=read,
        **facts | more,
    )


async def sealed(rooms: Rooms, outcome: Answered) -> tuple[Receipt, tuple[Subject, ...]]:
    """Seal *outcome*; return the receipt that is durable, and its subjects."""
    place = await rooms.notary.seal(outcome)
    leaf = rooms.leaves()[place.index]
    receipt = read_leaf(leaf)
    assert isinstance(receipt, Receipt)
    return receipt, statement_subjects(leaf)


async def test_a_receipt_says_what_happened(rooms: Rooms) -> None:
    """Who, what for, whom, which model, how it ended: all of it is on the receipt."""
    asked = rooms.asked(use=TRAINING, n=2, tools=[{"type": "function"}])
    usage = Usage(input_tokens=3, output_tokens=5, cached_input_tokens=1, reasoning_tokens=2)
    receipt, subjects = await sealed(rooms, answered(rooms, asked, SAID, usage=usage))

    assert asked.exchange == receipt.exchange
    assert ("ada", "search") == (receipt.caller.principal, receipt.caller.project)
    assert (TRAINING, asked.declaration.id) == (
        receipt.declared.use,
        receipt.declared.declaration,
    )
    assert ("open", 200, "req-1") == (
        receipt.provider.name,
        receipt.provider.status,
        receipt.provider.request_id,
    )
    assert ("open-1", "open-1-0826") == (receipt.model.requested, receipt.model.reported)
    assert (("n", "tools"), ("stop",), 7, 4) == (
        receipt.features,
        receipt.finish_reasons,
        receipt.opening,
        receipt.response_bytes,
    )
    assert UsageFacts(
        input_tokens=3, output_tokens=5, cached_input_tokens=1, reasoning_tokens=2
    ) == (receipt.usage)
    assert "response.body" == subjects[0].name


async def test_what_may_be_learned_from_has_plain_digests(rooms: Rooms) -> None:
    """Each unit of a teaching answer is named by its digest, in receipt and subjects alike."""
    asked = rooms.asked(use=TRAINING)
    receipt, subjects = await sealed(rooms, answered(rooms, asked, SAID, CALLED, REFUSED))
    units = [(unit.choice, unit.kind, unit.bytes) for unit in receipt.outputs]

    assert [
        (0, "text", 8),
        (1, "text", 10),
        (1, "reasoning", 5),
        (1, "reasoning", 6),
        (1, "tool-call", len(b'["look","{\\"at\\": 1}"]')),
        (2, "refusal", 2),
    ] == units
    assert [unit.sha256 for unit in receipt.outputs] == [
        subject.digest["sha256"] for subject in subjects[1:]
    ]
    assert [
        "output/0",
        "output/1",
        "output/1/reasoning/0",
        "output/1/reasoning/1",
        "output/1/tool-call/0",
        "output/2/refusal/0",
    ] == [subject.name for subject in subjects[1:]]
    assert hashlib.sha256(b"good day").hexdigest() == receipt.outputs[0].sha256


@pytest.mark.parametrize("purpose", ["inference", "evaluate.internal", "publish.dataset"])
async def test_what_may_not_be_learned_from_is_committed_to(purpose: str, rooms: Rooms) -> None:
    """Of other answers only the installation's key opens the digests, and no text is kept."""
    asked = rooms.asked(use=IntendedUse(purpose=purpose))
    receipt, subjects = await sealed(rooms, answered(rooms, asked, SAID))
    (unit,) = receipt.outputs

    assert ["response.body"] == [subject.name for subject in subjects]
    assert unit.sha256 is None
    assert unit.row is None
    assert unit.commitment is not None
    opened = keyed_sha256(COMMITMENT_KEY, asked.exchange.encode() + b"good day")
    assert ("hmac-sha256", opened) == (unit.commitment.alg, unit.commitment.value)
    assert rooms.content.get(asked.exchange) is None


async def test_the_salt_that_is_kept_opens_request_and_rows(rooms: Rooms) -> None:
    """Request and training rows of a teaching answer verify against its receipt by one hash."""
    asked = rooms.asked(use=TRAINING)
    receipt, _ = await sealed(rooms, answered(rooms, asked, SAID))
    kept = rooms.content.get(asked.exchange)

    assert kept is not None
    assert asked.body == kept.request
    assert receipt.request.commitment is not None
    assert receipt.request.commitment.value == salted_sha256(kept.salt, kept.request)
    assert receipt.outputs[0].row is not None
    assert receipt.outputs[0].row.value == salted_sha256(kept.salt, kept.rows[0])
    assert "good day" == json.loads(kept.rows[0])["messages"][-1]["content"]


async def test_a_row_is_named_by_the_first_unit_of_its_choice(rooms: Rooms) -> None:
    """A choice of several units has its row on the first; one that teaches nothing has none."""
    asked = rooms.asked(use=TRAINING)
    outcome = answered(rooms, asked, CALLED, REFUSED, Choice(index=3))
    receipt, _ = await sealed(rooms, outcome)
    kept = rooms.content.get(asked.exchange)

    assert kept is not None
    assert {1} == set(kept.rows)
    assert [True, False, False, False, False] == [
        unit.row is not None for unit in receipt.outputs
    ]


@pytest.mark.parametrize(
    "more",
    [
        {"readable": False},
        {"ended": "cut-short-by-provider"},
        {"ended": "cut-short-by-caller"},
        {"status": 400},
        {"status": None, "ended": "provider-failed"},
    ],
)
async def test_only_a_whole_good_answer_is_kept(more: dict[str, Any], rooms: Rooms) -> None:
    """Nothing that was cut, refused or unreadable can be learned from later."""
    asked = rooms.asked(use=TRAINING)
    receipt, _ = await sealed(rooms, answered(rooms, asked, SAID, **more))

    assert rooms.content.get(asked.exchange) is None
    assert all(unit.sha256 is None and unit.row is None for unit in receipt.outputs)


async def test_two_equal_answers_share_no_commitment(rooms: Rooms) -> None:
    """Equal texts of two exchanges can't be told to be equal from their receipts."""
    first, _ = await sealed(rooms, answered(rooms, rooms.asked(), SAID))
    second, _ = await sealed(rooms, answered(rooms, rooms.asked(), SAID))

    assert first.outputs[0].commitment != second.outputs[0].commitment
    assert first.request.commitment != second.request.commitment


class Letters:
    """Counts every letter as a token."""

    def encode_ordinary(self, text: str) -> Sequence[int]:
        """Return one number a letter."""
        return [ord(letter) for letter in text]


@pytest.mark.parametrize(
    ("ended", "encoding", "usage", "expected"),
    [
        ("complete", Letters(), None, None),
        ("cut-short-by-provider", None, None, None),
        (
            "cut-short-by-provider",
            Letters(),
            None,
            UsageFacts(output_tokens=8, counted_by="tiktoken"),
        ),
        ("cut-short-by-caller", Letters(), Usage(output_tokens=2), UsageFacts(output_tokens=2)),
    ],
)
async def test_tokens_are_counted_or_left_out_never_guessed(
    ended: Ended,
    encoding: Letters | None,
    usage: Usage | None,
    expected: UsageFacts | None,
    rooms: Rooms,
) -> None:
    """The provider's count counts; ours only where it never came; else there is none."""
    notary = Notary(
        **{
            name: getattr(rooms.notary, name)
            for name in rooms.notary.__dataclass_fields__
            if name != "tokens"
        },
        tokens=TokenCounter(encoding),
    )
    place = await notary.seal(answered(rooms, rooms.asked(), SAID, usage=usage, ended=ended))
    receipt = rooms.statements()[place.index]

    assert isinstance(receipt, Receipt)
    assert expected == receipt.usage


async def test_more_units_than_are_listed_are_counted(rooms: Rooms) -> None:
    """Units beyond the limit are left out by number, whatever their choices are."""
    choices = [Choice(index=n, text=f"answer {n}", finish_reason="stop") for n in range(150)]
    asked = rooms.asked(use=TRAINING)
    receipt, subjects = await sealed(rooms, answered(rooms, asked, *choices))

    assert OUTPUTS_PER_EXCHANGE_MAX == len(receipt.outputs) == len(subjects) - 1
    assert 150 - OUTPUTS_PER_EXCHANGE_MAX == receipt.outputs_left_out


async def test_reasoning_that_was_shown_has_a_row_of_its_own(rooms: Rooms) -> None:
    """A choice commits to the row with what was shown, too; secret blocks have none."""
    shown = msgspec.structs.replace(
        SAID, reasoning=("why", "EmwK"), shown=Shown("why", is_summary=True)
    )
    secret = msgspec.structs.replace(SAID, index=1, reasoning=("EmwK",))
    asked = rooms.asked(use=TRAINING)
    receipt, _ = await sealed(rooms, answered(rooms, asked, shown, secret))
    kept = rooms.content.get(asked.exchange)

    assert kept is not None
    assert {0, 1} == kept.rows.keys()
    row, reasoned = msgspec.json.decode(kept.rows[0]), msgspec.json.decode(kept.reasoned[0])
    assert "why" == reasoned["messages"][-1].pop("reasoning_content")
    assert row == reasoned
    assert {0} == kept.reasoned.keys()
    first, *others = receipt.outputs
    assert first.reasoned is not None
    assert salted_sha256(kept.salt, kept.reasoned[0]) == first.reasoned.value
    assert "summary" == first.reasoning_kind
    assert {(None, None)} == {(unit.reasoned, unit.reasoning_kind) for unit in others}


async def test_nothing_of_reasoning_is_kept_for_plain_use(rooms: Rooms) -> None:
    """Where nothing may be learned, no row is made, with reasoning or without."""
    shown = msgspec.structs.replace(SAID, shown=Shown("why", is_summary=False))
    asked = rooms.asked()
    receipt, _ = await sealed(rooms, answered(rooms, asked, shown))

    assert rooms.content.get(asked.exchange) is None
    assert {(None, None)} == {(unit.row, unit.reasoned) for unit in receipt.outputs}


async def test_a_full_receipt_has_room_for_reasoning_and_tags(rooms: Rooms) -> None:
    """As many rows with reasoning as are listed, and all tags there may be, fit a leaf."""
    choices = [
        Choice(
            index=10**9 + n,
            text="a",
            reasoning=("why",),
            shown=Shown("why", is_summary=False),
            finish_reason="stop",
        )
        for n in range(OUTPUTS_PER_EXCHANGE_MAX // 2)
    ]
    word = "\U0001f600" * 100_000
    tags = tuple(f"{at:064}" for at in range(TAGS_MAX))
    asked = msgspec.structs.replace(
        rooms.asked(use=TRAINING), tags=tags, endpoint="POST https://open.example/" + word
    )
    outcome = answered(rooms, asked, *choices, model=word, request_id=word, error=word)
    agreements = tuple(
        f"{number:02}".ljust(64, "a") for number in range(AGREEMENTS_PER_CREDENTIAL_MAX)
    )
    ruling = msgspec.structs.replace(outcome.permitted.ruling, agreements=agreements)
    permitted = msgspec.structs.replace(outcome.permitted, ruling=ruling)
    receipt, _ = await sealed(rooms, msgspec.structs.replace(outcome, permitted=permitted))

    assert tags == receipt.tags
    assert len(choices) == sum(unit.reasoned is not None for unit in receipt.outputs)


LONG = {
    "plain": "x" * 100_000,
    "control": "\x00" * 100_000,
    "surrogates": "\ud800" * 100_000,
    "wide": "\U0001f600" * 100_000,
    "line ends": "\n" * 100_000,
    "quotes": '"' * 100_000,
}


@pytest.mark.parametrize("word", LONG.values(), ids=LONG)
@pytest.mark.parametrize("use", [None, TRAINING], ids=["inference", "training"])
async def test_no_strangers_words_keep_a_receipt_from_being_written(
    word: str, use: IntendedUse | None, rooms: Rooms
) -> None:
    """However long and odd a stranger's texts are, the exchange gets its receipt."""
    choices = [
        Choice(index=10**9 + n, reasoning=("why", "not"), finish_reason=word)
        for n in range(OUTPUTS_PER_EXCHANGE_MAX)
    ]
    if use is not None:
        basis = parse_inline(f'purpose=train.sft, competes-basis=%"{"%01" * 1350}"')
        use = basis if word.isascii() else use
    asked = rooms.asked(use=use, model="m")
    asked = Asked(
        **{name: getattr(asked, name) for name in asked.__struct_fields__}
        | {
            "endpoint": "POST https://open.example/" + word,
            "call": asked.call.__class__(
                provider="open",
                operation=asked.call.operation,
                model=word,
                features=asked.call.features,
                body=asked.call.body,
            ),
        }
    )
    outcome = answered(rooms, asked, *choices, model=word, request_id=word, error=word)
    agreements = tuple(
        f"{number:02}".ljust(64, "a") for number in range(AGREEMENTS_PER_CREDENTIAL_MAX)
    )
    ruling = msgspec.structs.replace(outcome.permitted.ruling, agreements=agreements)
    permitted = msgspec.structs.replace(outcome.permitted, ruling=ruling)
    receipt, _ = await sealed(rooms, msgspec.structs.replace(outcome, permitted=permitted))

    assert receipt.model.requested is not None
    assert 0 < len(receipt.model.requested) <= FOREIGN_TEXT_CHARS_MAX
    assert receipt.outputs_left_out == 2 * len(choices) - len(receipt.outputs)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.builds(
            Choice,
            index=st.integers(0, 5),
            text=st.text(max_size=40),
            reasoning=st.lists(st.text(max_size=9), max_size=3).map(tuple),
            tool_calls=st.lists(
                st.builds(ToolCall, id=st.text(), name=st.text(), arguments=st.text()),
                max_size=2,
            ).map(tuple),
            refusal=st.none() | st.text(),
            finish_reason=st.none() | st.text(),
        ),
        max_size=6,
        unique_by=lambda choice: choice.index,
    ),
    st.sampled_from([None, TRAINING]),
)
async def test_any_answer_can_be_sealed(
    rooms: Rooms, choices: list[Choice], use: IntendedUse | None
) -> None:
    """Whatever a dialect can read out of an answer, its receipt can be written and read."""
    outcome = answered(rooms, rooms.asked(use=use), *choices)
    receipt, _ = await sealed(rooms, outcome)

    assert {unit.kind for unit in receipt.outputs} <= set(get_args(OutputKind))
    assert all((unit.sha256 is None) is (use is None) for unit in receipt.outputs)


async def test_a_body_that_passed_is_committed_to_as_it_passed(rooms: Rooms) -> None:
    """A request that was never held has its length and commitment all the same."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"c"

    asked = rooms.asked(path="/v1/files", body=b"")
    body = StreamedBody(chunks(), None, asked.exchange, COMMITMENT_KEY)
    passed = [chunk async for chunk in body]
    fields = {name: getattr(asked, name) for name in asked.__struct_fields__}
    receipt, _ = await sealed(rooms, answered(rooms, Asked(**fields | {"body": body})))

    assert [b"ab", b"c"] == passed
    assert receipt.request.commitment is not None
    expected = keyed_sha256(COMMITMENT_KEY, asked.exchange.encode() + b"abc")
    assert (3, expected) == (receipt.request.bytes, receipt.request.commitment.value)


async def test_a_refusal_says_what_was_asked_and_why_not(rooms: Rooms) -> None:
    """That we said no is evidence too, with its reasons and without any text."""
    asked = rooms.asked("closed", TRAINING)
    ruled = rooms.law.rule(asked, rooms.providers.named("closed"))
    place = await rooms.notary.seal(Forbidden(asked=asked, ruling=ruled.ruling, opening=None))
    refusal = rooms.statements()[place.index]

    assert isinstance(refusal, Refusal)
    assert ("forbid", "open-1") == (refusal.ruling.effect, refusal.model.requested)
    assert (
        Reason(
            policy="closed",
            clause="training",
            effect="forbid",
            source="Words of the provider (effective 2026-01-01), 2",
        ),
    ) == refusal.ruling.reasons
    assert b"say something" not in rooms.leaves()[place.index]


async def test_an_abandonment_points_to_its_opening(rooms: Rooms) -> None:
    """What nobody saw the end of is closed by exchange, opening and why."""
    asked = rooms.asked()
    place = await rooms.notary.seal(
        Abandoned(exchange=asked.exchange, opening=3, why="process-ended")
    )
    closing = rooms.statements()[place.index]

    assert isinstance(closing, Abandonment)
    assert (asked.exchange, 3, "process-ended") == (
        closing.exchange,
        closing.opening,
        closing.why,
    )


async def test_a_students_receipts_name_its_manifest(rooms: Rooms) -> None:
    """An answer of a student of ours carries the digest of what it was trained by."""
    digest = Sha256("ab" * 32)

    class School:
        def manifest_of(self, provider: str) -> Sha256 | None:
            return digest

        def named_facts(self, provider: str) -> tuple[str | None, str | None, str | None]:
            return "self-hosted", None, None

        def dialect_of(self, provider: str) -> Any:
            return rooms.providers.dialect_of(provider)

    fields = {name: getattr(rooms.notary, name) for name in rooms.notary.__dataclass_fields__}
    notary = Notary(**fields | {"providers": School()})
    place = await notary.seal(answered(rooms, rooms.asked(), SAID))
    receipt = rooms.statements()[place.index]

    assert isinstance(receipt, Receipt)
    assert digest == receipt.model.manifest
    assert msgspec.to_builtins(receipt)["model"]["manifest"] == digest
