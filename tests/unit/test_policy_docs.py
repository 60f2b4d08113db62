"""The pages on policies name every key, word and command of the language, and nothing else."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from gateway.cli import policy
from gateway.cli.main import GROUPS
from gateway.intent.purpose import PURPOSES
from gateway.policy.cases import WrittenCase, WrittenExpect, load_case
from gateway.policy.condition import _COMPARISONS, _DATE_KEYS, _NUMBER_KEYS, compile_condition
from gateway.policy.decide import RESERVED
from gateway.policy.facts import WrittenCall
from gateway.policy.library import Library
from gateway.policy.model import (
    Binds,
    Citation,
    Confidence,
    Document,
    Read,
    Snapshot,
    WrittenClause,
    WrittenModel,
    WrittenModels,
    WrittenPolicy,
    WrittenTerms,
)
from gateway.policy.obligation import OBLIGATIONS, Discharger
from gateway.policy.source import Listing, node_at, read
from gateway.policy.vocabulary import FACTS, REGIONS, Kind
from tests.support.policies import HEAD, acme_files

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "policy-language.md"
FOR_LEGAL = ROOT / "policies" / "README.md"


def page() -> str:
    """Return the page's text."""
    return PAGE.read_text(encoding="utf-8")


def examples() -> list[str]:
    """Return every YAML example of the page."""
    return [part.split("```", 1)[0] for part in page().split("```yaml\n")[1:]]


def actions() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each action of `gateway policy`."""
    parser = argparse.ArgumentParser()
    groups = parser.add_subparsers()
    policy.add(groups)
    (chosen,) = (
        action
        for action in groups.choices["policy"]._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return dict(chosen.choices)


@pytest.mark.parametrize(
    "struct",
    [
        WrittenPolicy,
        WrittenClause,
        Citation,
        WrittenTerms,
        Document,
        Read,
        Snapshot,
        WrittenModels,
        WrittenModel,
        WrittenCase,
        WrittenCall,
        WrittenExpect,
    ],
)
def test_every_key_is_explained(struct: type[msgspec.Struct]) -> None:
    """Each key of the files stands on the page as code."""
    keys = [field.encode_name for field in msgspec.structs.fields(struct)]

    assert [key for key in keys if f"`{key}`" not in page()] == []


def test_every_fact_has_its_row() -> None:
    """Each fact stands on the page with its kind and its meaning, word for word."""
    rows = [f"| `{fact.name}` | {fact.kind} | {fact.meaning} |" for fact in FACTS.values()]

    assert [row for row in rows if row not in page()] == []


def test_every_presumption_has_its_row() -> None:
    """What is taken for granted until somebody says otherwise is no secret."""
    where = {"always": "every use", "plain use": "inference and evaluation only"}
    rows = [
        f"| `{fact.name}` | {str(fact.presumed).lower()} | {where[fact.presumed_in]} |"
        for fact in FACTS.values()
        if fact.presumed is not None
    ]

    assert rows
    assert [row for row in rows if row not in page()] == []
    assert len(re.findall(r"\| (every use|inference and evaluation only) \|", page())) == len(
        rows
    )


def test_every_purpose_and_obligation_has_its_row() -> None:
    """Each purpose and each obligation stands on the page with its meaning, word for word."""
    rows = [f"| `{name}` | {meaning} |" for name, meaning in PURPOSES.items()]
    for one in OBLIGATIONS.values():
        takes = "" if one.takes == "nothing" else one.takes
        told = one.sentence.replace("{value}", "…")
        rows.append(f"| `{one.name}` | {takes} | {one.discharger} | {told} |")

    assert [row for row in rows if row not in page()] == []


def test_every_kind_and_operator_is_explained() -> None:
    """Each kind of fact has its row, and that row names every way to compare it."""
    ways = {"number": _NUMBER_KEYS, "date": _DATE_KEYS}
    table = page().partition("| kind | a condition says |")[2].partition("\n\n")[0]
    for kind in get_args(Kind):
        (row,) = (line for line in table.splitlines() if line.startswith(f"| {kind} | "))
        known = ways.get(kind, _COMPARISONS.get(kind, ("not",)))
        assert [way for way in known if f"{way}:" not in row] == []


def test_every_closed_list_is_on_the_page() -> None:
    """Effects, confidences, regions, dischargers and reserved reasons are all named."""
    words = ["permit", "hold", "forbid", *get_args(Confidence), *get_args(Binds), *REGIONS]

    assert [word for word in [*words, *RESERVED] if f"`{word}`" not in page()] == []
    assert [one for one in get_args(Discharger) if f"| {one} | " not in page()] == []


def test_every_command_is_explained() -> None:
    """Each action of `gateway policy` has its row, and `explain` each of its options."""
    known = actions()

    assert [name for name in known if f"| `gateway policy {name}" not in page()] == []
    options = {
        option for action in known["explain"]._actions for option in action.option_strings
    }
    told = set(re.findall(r"^\| `(--[a-z]+)", page(), re.MULTILINE))
    assert told == {option for option in options if len(option) > 2} - {"--help", "--use"}


def test_the_examples_on_the_page_are_read() -> None:
    """Every YAML example is one that the strict reader takes."""
    assert len(examples()) >= 6
    for example in examples():
        read(example, "docs/policy-language.md")


def test_the_example_clause_and_documents_load() -> None:
    """The clause, its documents, its model and its case are a library as they stand."""
    clause, condition, obligations, models, terms, case = examples()
    files = acme_files(
        HEAD.replace("[acme-terms, acme-faq, acme-order]", "[acme-terms]") + clause, terms
    )
    model = models.replace("elm-2]", "acme]")

    library = Library.load(files | {"models.yaml": model})

    node = read(condition, "p.yaml")
    assert compile_condition(node_at(node, "when"), node_at(node, "unless"), "p.yaml").unless
    assert isinstance(node_at(read(obligations, "p.yaml"), "obligations"), Listing)
    loaded = load_case(case, "acme/cases/forbid-rival.yaml", "acme")
    assert loaded.complaint(loaded.run(library.policies["acme"])) is None


def test_legal_s_page_names_commands_that_exist() -> None:
    """Whatever legal is told to type begins with a command there is."""
    text = FOR_LEGAL.read_text(encoding="utf-8")
    typed = re.findall(r"^gateway ([a-z]+) ([a-z]+)", text, re.MULTILINE)

    assert {group for group, _ in typed} <= GROUPS.keys()
    assert {action for group, action in typed if group == "policy"} <= actions().keys()
    assert len(typed) >= 6


def test_legal_s_page_names_options_that_exist() -> None:
    """Every option in a command line of `gateway policy` is one of that command."""
    text = FOR_LEGAL.read_text(encoding="utf-8").replace("\\\n", " ")
    known = actions()
    for action, rest in re.findall(r"^gateway policy ([a-z]+)(.*)$", text, re.MULTILINE):
        options = {one for entry in known[action]._actions for one in entry.option_strings}
        assert set(re.findall(r"(?<= )--[a-z-]+", rest)) <= options
