"""A student is known by its weights, in whatever files they are, by all who ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.ident import Sha256
from gateway.lineage.answer import Answer
from gateway.lineage.gathering import ask_log
from gateway.lineage.impact import Below
from gateway.lineage.nodes import ModelNode
from gateway.lineage.pack_verify import verify_pack
from gateway.lineage.question import parse_question
from gateway.lineage.tree import Sources, lineage_of_manifest
from tests.support.chain import VERSION, Chain
from tests.support.evidence import TRUST

WEIGHTS = "1f" * 32


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """Return a house that trained nothing yet."""
    chain = Chain(tmp_path)
    yield chain
    chain.close()


class Family:
    """A student, and one that began as its weights and calls them a model from outside."""

    def __init__(self, chain: Chain, *, elder_first: bool) -> None:
        self.chain = chain
        self.taught = chain.collect("first", chain.ask(3))
        self.own = chain.collect("own", chain.ask(2, provider="watched"))
        if elder_first:
            self.elder = self._elder()
        self.younger = chain.train("younger", self.own, outside="resaved", began=WEIGHTS)
        if not elder_first:
            assert chain.words.held(self.younger) is None
            self.elder = self._elder()

    def _elder(self) -> Sha256:
        return self.chain.train("elder", self.taught, weights=WEIGHTS)

    def answer(self, question: str, payload: Sha256 | None = None) -> Answer:
        """Return what is answered about the younger, or another."""
        about = self.chain.about(payload or self.younger)
        log = self.chain.sources_of_packs().log
        (answer,) = ask_log(about, [parse_question(question)], log)
        return answer


@pytest.fixture(params=[True, False], ids=["elder first", "elder later"])
def family(request: pytest.FixtureRequest, chain: Chain) -> Family:
    """Return a family in either order of the log."""
    return Family(chain, elder_first=request.param)


def test_whoever_taught_it_taught_what_began_as_its_weights(family: Family) -> None:
    """The answer is yes, a stage further away, and says by what the base is known."""
    found = family.answer("distilled-from:open")

    assert ("yes", [2]) == (found.says, [one.stages for one in found.findings])
    assert [f"manifest signs the same weights digest, {WEIGHTS}"] == [
        one[-len(f"manifest signs the same weights digest, {WEIGHTS}") :]
        for one in found.rests_on
    ]
    assert not [one for one in found.unknown if "from outside" in one]
    assert family.answer("distilled-from:nobody").says == "no"


def test_other_weights_are_nobodys(chain: Chain) -> None:
    """Of what matches nothing, nothing is known: neither yes nor no."""
    chain.train("elder", chain.collect("first", chain.ask(3)), weights=WEIGHTS)
    own = chain.collect("own", chain.ask(2, provider="watched"))
    student = chain.train("younger", own, outside="other", began="2e" * 32)
    (found,) = ask_log(
        chain.about(student),
        [parse_question("distilled-from:open")],
        chain.sources_of_packs().log,
    )

    assert ("can't tell", True) == (found.says, any("`other`" in one for one in found.unknown))


def test_a_withdrawal_holds_what_began_as_its_weights(family: Family) -> None:
    """Dataset or student: whatever began as those weights is held, in either order."""
    family.chain.withdraw(manifest=family.taught)
    held = family.chain.words.held(family.younger)

    assert held is not None
    assert family.taught == held.manifest


def test_what_came_of_it_counts_what_began_as_its_weights(family: Family) -> None:
    """Impact goes down through weights as through manifests."""
    family.chain.index.catch_up(family.chain.ledger)
    below = Below(family.chain.index, family.chain.register)
    impact = below.of_manifests("student", "elder", [family.elder])

    assert {"elder", "younger"} == {one.stage.name for one in impact.touched}


def test_a_tree_leads_on_through_weights(family: Family) -> None:
    """The student stands above it where the model from outside stood."""
    chain = family.chain
    node = lineage_of_manifest(
        family.younger,
        Sources(
            manifest=lambda payload: (
                None if (found := chain.manifest(payload)) is None else (0, found)
            ),
            words=chain.register,
            folder=lambda _: None,
            students=chain.students_with,
        ),
    )

    assert isinstance(node, ModelNode)
    assert ((), (("resaved", WEIGHTS),)) == (node.bases, node.recognised)
    assert ["own", "elder"] == [one.name for one in node.parents if not hasattr(one, "what")]


def test_a_pack_holds_who_was_known_by_weights(family: Family) -> None:
    """Whoever verifies a pack works out the same yes from what is in it."""
    family.chain.pack(family.younger, "distilled-from:open")
    packed = family.chain.folder / "packs" / "pack.zip"
    verified = verify_pack(packed, TRUST, VERSION)

    assert ["yes"] == [one.says for one in verified.facts.answers]


def test_a_student_is_not_its_own_base(chain: Chain) -> None:
    """Who learned nothing has the weights of its base, and leads no way back to itself."""
    own = chain.collect("own", chain.ask(2))
    still = chain.train("still", own, outside="resaved", began=WEIGHTS, weights=WEIGHTS)
    chain.index.catch_up(chain.ledger)
    stage = chain.index.lineage.stage(still)
    assert stage is not None

    assert ["own"] == [one.name for one in chain.index.lineage.parents(stage)]
    (found,) = ask_log(
        chain.about(still),
        [parse_question("distilled-from:nobody")],
        chain.sources_of_packs().log,
    )
    assert ("can't tell", True) == (
        found.says,
        any("`resaved`" in one for one in found.unknown),
    )
