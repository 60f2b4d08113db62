"""Drafts for regulators are filled from manifests, and say what nobody told the gateway."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.dataset.manifest import WrittenBy
from gateway.errors import NotFoundError
from gateway.ident import Sha256
from gateway.lineage.gathering import hold_log
from gateway.lineage.holdings import About
from gateway.lineage.regulators import FORMATS, report_of
from tests.support.chain import Chain, two_stages


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """Return a house with an empty chain."""
    chain = Chain(tmp_path / "house")
    yield chain
    chain.close()


def drafted(chain: Chain, form: str, about: Sha256 | About) -> str:
    """Return a draft about a stage."""
    named = about if isinstance(about, About) else chain.about(about)
    return report_of(form, named, hold_log(named, chain.sources_of_packs().log))


def test_the_eu_draft_follows_the_sections_of_the_template(chain: Chain) -> None:
    """General information, sources (synthetic data among them), processing: in that order."""
    _, reader = two_stages(chain)

    headings = re.findall(r"^#+ (.*)$", drafted(chain, "eu-ai-act", reader), re.MULTILINE)

    assert [
        "1. General information",
        "1.1 Provider identification",
        "1.2 Model identification",
        "1.3 Modalities, overall training data size and other characteristics",
        "2. List of data sources",
        "2.1 Publicly available datasets",
        "2.2 Private non-publicly available datasets obtained from third parties",
        "2.2.1 Datasets commercially licensed by rightsholders or their representatives",
        "2.2.2 Private datasets obtained from other third parties",
        "2.3 Data crawled and scraped from online sources",
        "2.4 User data",
        "2.5 Synthetic data",
        "2.6 Other sources of data",
        "3. Data processing aspects",
        (
            "3.1 Respect of reservation of rights from text and data mining exception or"
            " limitation"
        ),
        "3.2 Removal of illegal content",
        "3.3 Other information (optional)",
    ] == [one for one in headings if one[0].isdigit()]


def test_rows_from_outside_are_not_said_to_be_public(chain: Chain) -> None:
    """Whether they are public, licensed or users' nobody told the gateway; a person says it."""
    written = WrittenBy(by="ada", licence="CC0-1.0", source="our own staff", rows=4)
    dataset = chain.collect("first", chain.ask(1), written=[written])

    draft = drafted(chain, "eu-ai-act", chain.train("parser", dataset))

    public = draft.partition("### 2.1")[2].partition("### 2.2")[0]
    other = draft.partition("### 2.6")[2].partition("## 3.")[0]
    assert "our own staff" not in public
    assert "4 rows of `first` were written by people" in other
    assert "**Fill in:** which of 2.1, 2.2, 2.4 and 2.6" in other


def test_the_californian_draft_has_the_twelve_items(chain: Chain) -> None:
    """Each item of the statute stands there, in its order."""
    _, reader = two_stages(chain)

    found = re.findall(r"^## \((\d+)\)", drafted(chain, "ab-2013", reader), re.MULTILINE)

    assert [str(number) for number in range(1, 13)] == found


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_teacher_stands_there_with_its_figures(chain: Chain, form: str) -> None:
    """Teachers of every stage, the developer's own models too, with rows and share."""
    _, reader = two_stages(chain)

    draft = drafted(chain, form, reader)

    assert re.search(r"\| open \(open-1, .*\| first \| 3 of 3 \| 100 % \| 15 \|", draft)
    assert re.search(r"\| local \(local-1, .*\| second \| 2 of 3 \| 66.7 % \| 10 \|", draft)
    assert "`local` is the developer's own model `cleaner`" in draft


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_figure_says_where_it_is_from(chain: Chain, form: str) -> None:
    """Each mark is resolved to a manifest of the log by its whole digest."""
    _, reader = two_stages(chain)

    draft = drafted(chain, form, reader)

    marks = set(re.findall(r"\[([0-9a-f]{12})\]", draft)) - {"0123456789ab"}
    source = re.compile(r"^\| \[([0-9a-f]{12})\] .* `\1[0-9a-f]{52}` \|$", re.MULTILINE)
    listed = set(source.findall(draft))
    assert 4 == len(listed)
    assert marks == listed


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_a_draft_says_that_it_is_one(chain: Chain, form: str) -> None:
    """It is marked as a draft and no advice, and what is not known is to be filled in."""
    student = chain.train(
        "parser", chain.collect("first", chain.ask(1)), outside="acme/base-1b"
    )

    draft = drafted(chain, form, student)

    assert "A draft, not legal advice" in draft
    assert draft.count("**Fill in:**") >= 5
    assert "attack" not in draft.lower()


def test_a_base_from_outside_is_told(chain: Chain) -> None:
    """What the model began as is named, for its own provider's summary."""
    student = chain.train(
        "parser", chain.collect("first", chain.ask(1)), outside="acme/base-1b"
    )

    draft = drafted(chain, "eu-ai-act", student)

    assert (
        "it began as `acme/base-1b`, from outside (licence: **Fill in:** not stated)" in draft
    )


def test_judges_and_peoples_words_are_told_apart(chain: Chain) -> None:
    """A judge is no teacher, and rows of people are named with licence and source."""
    written = WrittenBy(by="ada", licence="CC0-1.0", source="our own staff", rows=4)
    judges = chain.ask(1, provider="watched")
    dataset = chain.collect("first", chain.ask(1), judges=judges, written=[written])

    draft = drafted(chain, "ab-2013", chain.train("parser", dataset))

    assert "judged 1 rows of `first`; its words were not learned" in draft
    assert "4 rows of `first` were written by people" in draft
    assert "| watched" not in draft


def test_words_of_others_stay_words(chain: Chain) -> None:
    """Nothing that somebody stated becomes markup of the draft."""
    odd = "<b>|`x`\n# no"
    written = WrittenBy(by=odd, licence=odd, source=odd, rows=1)
    student = chain.train("parser", chain.collect("first", chain.ask(1), written=[written]))

    draft = drafted(chain, "ab-2013", student)

    assert "<b>" not in draft.replace("\\<b\\>", "")
    assert "\n# no" not in draft


def test_there_is_nothing_to_draft_where_nothing_was_learned(chain: Chain) -> None:
    """An answer of a provider has no training data to summarise."""
    (receipt,) = chain.ask(1)
    about = About(kind="exchange", name=receipt.exchange, exchange=receipt.exchange)

    with pytest.raises(NotFoundError, match="no dataset"):
        drafted(chain, "eu-ai-act", about)
