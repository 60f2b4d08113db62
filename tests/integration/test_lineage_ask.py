"""Questions are answered yes, no or can't tell, with the evidence and its limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.dataset.manifest import WrittenBy
from gateway.errors import BadDigestError
from gateway.ident import Sha256
from gateway.lineage.answer import Answer, as_json, share
from gateway.lineage.gathering import ask_log
from gateway.lineage.holdings import About
from gateway.lineage.question import MalformedQuestionError, parse_question
from gateway.receipt.model import ModelFacts, PolicyPin
from tests.support.chain import Chain, two_stages


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """Return a house with an empty chain."""
    chain = Chain(tmp_path / "house")
    yield chain
    chain.close()


def ask(chain: Chain, question: str, about: Sha256 | About) -> Answer:
    """Answer one question from the ledger."""
    named = about if isinstance(about, About) else chain.about(about)
    (found,) = ask_log(named, [parse_question(question)], chain.sources_of_packs().log)
    return found


def test_a_yes_says_how_much_how_far_under_which_terms_and_by_whom(chain: Chain) -> None:
    """The finding names rows, share, tokens, stages, policy, clause, declaration and owner."""
    _, reader = two_stages(chain)

    found = ask(chain, "distilled-from:open", reader)

    assert "yes" == found.says
    (one,) = found.findings
    assert (3, 3, 15, 15, 2) == (one.rows, one.of_rows, one.tokens, one.of_tokens, one.stages)
    assert (("open v1",), ("open:training",)) == (one.policies, one.clauses)
    assert (chain.use.id, "ada", "train.sft") == (one.declaration, one.owner, one.purpose)
    assert "2 stages away" in found.sentences[1]


def test_the_nearest_teacher_comes_first(chain: Chain) -> None:
    """Asked for everybody, the answer lists the nearest stage before those above it."""
    _, reader = two_stages(chain)

    found = ask(chain, "distilled-from:*", reader)

    assert [("local", 1), ("watched", 1), ("open", 2)] == [
        (one.provider, one.stages) for one in found.findings
    ]


def test_a_no_needs_that_nothing_is_unknown(chain: Chain) -> None:
    """A base from outside, or a manifest that is not there, turns no into can't tell."""
    dataset = chain.collect("first", chain.ask(2))
    known = chain.train("known", dataset)
    outside = chain.train("outside", dataset, outside="acme/base-1b")
    torn = chain.train("torn", dataset, Sha256("c" * 64))

    assert "no" == ask(chain, "distilled-from:openai", known).says
    assert "can't tell" == ask(chain, "distilled-from:openai", outside).says
    assert "acme/base-1b" in ask(chain, "distilled-from:openai", outside).unknown[0]
    assert "can't tell" == ask(chain, "distilled-from:openai", torn).says
    assert {"yes"} == {
        ask(chain, "distilled-from:open", one).says for one in (known, outside, torn)
    }


def test_a_model_is_asked_for_by_its_names_and_with_stars(chain: Chain) -> None:
    """Provider, provider and model, and patterns of them are all names, in any case."""
    student = chain.train("parser", chain.collect("first", chain.ask(1)))

    for name in ("open", "OPEN", "open/open-1", "open/*", "o?en", "open/open-1-08*"):
        assert "yes" == ask(chain, f"distilled-from:{name}", student).says
    for name in ("ope", "open/open-2", "closed/*"):
        assert "no" == ask(chain, f"distilled-from:{name}", student).says


def test_who_only_judged_did_not_teach(chain: Chain) -> None:
    """Judgement is told as its own: no to words, yes to judgement."""
    judges = chain.ask(2, provider="watched")
    dataset = chain.collect("first", chain.ask(2), judges=judges)
    student = chain.train("parser", dataset)

    words, judged = (
        ask(chain, f"{kind}:watched", student) for kind in ("distilled-from", "judged-by")
    )

    assert ("no", "yes") == (words.says, judged.says)
    assert "Judged, not trained on its words: " in words.sentences[1]
    assert "no" == ask(chain, "judged-by:open", student).says


def test_whatever_stands_above_a_judge_only_judged(chain: Chain) -> None:
    """The teachers of a student that judged did not teach with their words either."""
    judge = chain.train("judge", chain.collect("first", chain.ask(2, provider="watched")))
    verdicts = chain.ask(2, provider="local", manifest=judge, policies=("own",))
    student = chain.train("parser", chain.collect("second", chain.ask(2), judges=verdicts))

    assert "no" == ask(chain, "distilled-from:watched", student).says
    assert "yes" == ask(chain, "judged-by:watched", student).says


def test_terms_and_declarations_can_be_asked_for(chain: Chain) -> None:
    """Policies with and without a version, clauses and declared uses are found."""
    student = chain.train("parser", chain.collect("first", chain.ask(1)))

    for question, says in {
        "policy:open": "yes",
        "policy:open@1": "yes",
        "policy:open@2": "no",
        "clause:open:training": "yes",
        "clause:open:plain-use": "no",
        f"declared:{chain.use.id}": "yes",
        "declared:use-00000000000000000000": "no",
        "agreement:order-7": "no",
    }.items():
        assert says == ask(chain, question, student).says, question


def test_a_host_that_spells_out_whose_a_model_is_answers_for_its_maker(chain: Chain) -> None:
    """An aggregator's `maker/model` is the maker's and the model, whatever hosts call it."""
    answers = chain.ask(1, model=ModelFacts(requested="openai/gpt-4o:free"))
    student = chain.train("parser", chain.collect("first", answers))

    for name in ("openai", "gpt-4o", "gpt-*", "openai/gpt-4o", "openai/*"):
        assert "yes" == ask(chain, f"distilled-from:{name}", student).says, name
    assert "no" == ask(chain, "distilled-from:anthropic", student).says


def test_who_may_be_meant_by_another_name_is_no_no(chain: Chain) -> None:
    """A maker's name in a host's or a model's leaves open whose answers they are."""
    answers = chain.ask(1, model=ModelFacts(requested="us.anthropic.claude-3"))
    dataset = chain.collect("first", answers, judges=chain.ask(1, provider="watched"))
    student = chain.train("parser", dataset)

    found = ask(chain, "distilled-from:anthropic", student)

    assert "can't tell" == found.says
    assert "us.anthropic.claude-3" in found.unknown[0]
    assert "can't tell" == ask(chain, "distilled-from:anthropic/*claude*", student).says
    for sure in (
        "distilled-from:anthropic/opus*",
        "judged-by:anthropic",
        "distilled-from:us-x",
    ):
        assert "no" == ask(chain, sure, student).says, sure


def test_an_own_model_without_a_manifest_is_unknown(chain: Chain) -> None:
    """What is served as one's own and names no manifest may come from anybody."""
    (answer,) = chain.ask(1)
    pins = (PolicyPin(policy="self-hosted", version=1, sha256=Sha256("0" * 64)),)
    own = msgspec.structs.replace(answer.ruling, policies=pins)
    student = chain.train("parser", chain.collect("first", chain.ask(1, ruling=own)))

    found = ask(chain, "distilled-from:openai", student)

    assert "can't tell" == found.says
    assert "name no training manifest" in found.unknown[0]
    assert "yes" == ask(chain, "distilled-from:open", student).says


def test_brackets_in_a_name_are_letters(chain: Chain) -> None:
    """Only `*` and `?` stand for anything else."""
    answers = chain.ask(1, model=ModelFacts(requested="m[fp8]"))
    student = chain.train("parser", chain.collect("first", answers))

    assert "yes" == ask(chain, "distilled-from:m[fp8]", student).says
    assert "no" == ask(chain, "distilled-from:[o]pen", student).says


def test_a_dataset_that_nobody_taught_was_built_for_its_declaration(chain: Chain) -> None:
    """People's rows alone are asked for by their declaration; pipelines' are not all known."""
    written = WrittenBy(by="ada", licence="CC0-1.0", source="our own staff", rows=4)
    dataset = chain.collect("first", [], written=[written])

    found = ask(chain, f"declared:{chain.use.id}", chain.train("parser", dataset))
    other = ask(chain, "declared:use-00000000000000000000", dataset)

    assert "yes" == found.says
    assert "was built for it" in found.sentences[1]
    assert "can't tell" == other.says


def test_who_approved_is_named_with_the_leaf(chain: Chain) -> None:
    """A held use that passed says who said yes, where, and why."""
    verdict = chain.approve(chain.use, ("held", "training"))
    student = chain.train("parser", chain.collect("first", chain.ask(1, provider="held")))

    (one,) = ask(chain, "distilled-from:held", student).findings

    assert [(verdict, "grace", "read it")] == [
        (yes.leaf, yes.by, yes.reason) for yes in one.approved
    ]


def test_what_was_withdrawn_says_so(chain: Chain) -> None:
    """A withdrawal since then stands in the answer."""
    dataset = chain.collect("first", chain.ask(1))
    student = chain.train("parser", dataset)
    chain.withdraw(manifest=dataset)

    assert "WITHDRAWN by grace" in ask(chain, "distilled-from:open", student).sentences[1]


def test_a_withdrawal_anywhere_above_is_told(chain: Chain) -> None:
    """An answer that was withdrawn two stages up stands in the answer, with who and where."""
    (gone,) = chain.ask(1)
    first = chain.train("first", chain.collect("first", [gone, *chain.ask(1)]))
    answers = chain.ask(1, provider="local", manifest=first, policies=("own",))
    second = chain.train("second", chain.collect("second", answers))
    (other,) = chain.ask(1)
    leaf = chain.withdraw(exchange=gone.exchange)
    chain.withdraw(exchange=other.exchange)

    found = ask(chain, "distilled-from:open", second)

    assert (f"{gone.exchange} by grace in leaf {leaf} (asked to)",) == found.withdrawn


def test_rows_of_people_rest_on_somebodys_word(chain: Chain) -> None:
    """Where no receipt speaks for rows, the answer names whose word it rests on."""
    written = WrittenBy(by="ada", licence="CC0-1.0", source="our own staff", rows=4)
    student = chain.train("parser", chain.collect("first", chain.ask(1), written=[written]))

    found = ask(chain, "distilled-from:openai", student)

    assert "no" == found.says
    assert any("4 rows" in one and "ada" in one for one in found.rests_on)


def test_an_account_is_found_where_its_answers_went(chain: Chain) -> None:
    """Datasets with receipts of the account are named, all others are shown to be clear."""
    _, reader = two_stages(chain)

    ada, bob, eve = (ask(chain, f"principal:{who}", reader) for who in ("ada", "bob", "eve"))

    assert ["first"] == [one.dataset for one in ada.findings]
    assert ["second"] == [one.dataset for one in ada.clear]
    assert ["second"] == [one.dataset for one in bob.findings]
    assert ("no", 2) == (eve.says, len(eve.clear))


def test_an_account_is_looked_for_in_the_whole_log(chain: Chain) -> None:
    """Asked for all stages, each dataset is named or shown to be clear."""
    two_stages(chain)
    chain.collect("third", chain.ask(2, account="eve"))

    found = ask(chain, "principal:eve", About(kind="log", name="all"))

    assert (["third"], 2) == ([one.dataset for one in found.findings], len(found.clear))


def test_a_base_from_outside_holds_no_receipts(chain: Chain) -> None:
    """An account's outputs are receipts of this log; where a base came from is told apart."""
    dataset = chain.collect("first", chain.ask(1))
    student = chain.train("parser", dataset, outside="acme/base-1b")

    found = ask(chain, "principal:eve", student)

    assert ("no", ()) == (found.says, found.unknown)
    assert any("acme/base-1b" in one for one in found.rests_on)


def test_without_a_list_of_leaves_nobody_can_tell(chain: Chain) -> None:
    """A dataset that signed no list shows of no account that it isn't in it."""
    student = chain.train("parser", chain.collect("first", chain.ask(1), lists=False))

    assert "can't tell" == ask(chain, "principal:eve", student).says


def test_a_list_that_is_not_the_manifests_is_refused(chain: Chain) -> None:
    """A list that leaves a leaf out answers nothing."""
    receipts = chain.ask(3)
    short = chain.places(receipts)[:2]
    dataset = chain.collect("first", receipts, list_of=short)

    with pytest.raises(BadDigestError, match="2 leaves"):
        ask(chain, "principal:team", dataset)


def test_an_answer_can_be_asked_about(chain: Chain) -> None:
    """An answer of a student leads to the student's teachers; one of a teacher to itself."""
    first, _ = two_stages(chain)
    (receipt,) = chain.ask(1, provider="local", manifest=first, policies=("own",))
    about = About(kind="exchange", name=receipt.exchange, exchange=receipt.exchange)

    assert "yes" == ask(chain, "distilled-from:open", about).says
    assert "yes" == ask(chain, "distilled-from:local", about).says
    assert "no" == ask(chain, "distilled-from:openai", about).says
    assert "yes" == ask(chain, "principal:team", about).says


def test_every_answer_is_json(chain: Chain) -> None:
    """Machines get the same answer, its sentences beside it."""
    _, reader = two_stages(chain)

    told = json.loads(json.dumps(as_json(ask(chain, "distilled-from:open", reader))))

    assert ("yes", 2) == (told["says"], told["findings"][0]["stages"])
    assert told["sentences"][0].startswith("Yes: ")


@pytest.mark.parametrize("text", ["", "openai", "distilled-from:", "who:x", "policy:a b"])
def test_what_asks_nothing_is_refused(text: str) -> None:
    """One line says which kinds of questions there are."""
    with pytest.raises(MalformedQuestionError, match="asks nothing"):
        parse_question(text)


def test_a_small_share_is_never_told_as_nothing() -> None:
    """What is there is told, however little it is."""
    assert ["0 %", "< 0.1 %", "33.3 %", "100 %"] == [
        share(0, 9),
        share(1, 10_000),
        share(1, 3),
        share(3, 3),
    ]
