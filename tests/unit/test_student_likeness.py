"""Texts that are alike, and rows that were learned before they were asked."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gateway.student.likeness import Asked, chrf, label_of, labels_in, same, words_of

LONG = " ".join(f"word{number}" for number in range(60))
OTHER = " ".join(f"other{number}" for number in range(60))


def a_row(asked: str, answered: str, system: str | None = None) -> dict[str, Any]:
    """Return one conversation."""
    first = [{"role": "system", "content": system}] if system else []
    return {
        "messages": [
            *first,
            {"role": "user", "content": asked},
            {"role": "assistant", "content": answered},
        ]
    }


def seen(asked: dict[str, Any], *learned: dict[str, Any]) -> Asked:
    """Return what is found of *asked* among *learned*."""
    looking = Asked([asked])
    for row in learned:
        looking.see(row)
    return looking


def test_blanks_make_no_difference_and_words_do() -> None:
    """An answer is the same whatever stands around its words."""
    assert same("amber  delta\n", "amber delta")
    assert not same("amber delta", "Amber delta")
    assert label_of(" Spam! ") == label_of("spam")


def test_chrf_is_one_for_the_same_and_falls_with_distance() -> None:
    """The same text has 1, a like one less, another one next to nothing."""
    assert chrf("the amber door", "the amber door") == pytest.approx(1)
    assert 0.5 < chrf("the amber doors", "the amber door") < 1
    assert chrf("zzzz", "the amber door") == 0
    assert chrf("", "x") == 0
    assert chrf("", "") == 1


def test_chrf_is_that_of_its_paper() -> None:
    """Precision and recall over runs of up to six characters, recall counting double."""
    # By hand: runs of 1: 2 of 3 in both; of 2: 1 of 2 in both; of 3: none.
    precision = recall = (2 / 3 + 1 / 2 + 0) / 3
    assert chrf("abx", "aby") == pytest.approx(
        5 * precision * recall / (4 * precision + recall)
    )


def test_few_answers_that_come_often_are_labels() -> None:
    """A closed set is told from open answers."""
    assert labels_in(["spam", "Ham", "ham.", "spam"] * 5) == frozenset({"spam", "ham"})
    assert labels_in([f"answer {number}" for number in range(40)]) is None


def test_a_prompt_that_was_learned_is_found() -> None:
    """However short a row is, its prompt is looked for whole, its case and marks aside."""
    found = seen(a_row("What is it?", "amber"), a_row("what is it", "birch"))

    assert found.learned_too == {0}
    assert found.learned == 1


def test_a_prompt_that_is_spelt_alike_is_a_copy() -> None:
    """Blanks and case make no other prompt; marks of a sentence make it only alike."""
    asked = a_row("What is  it\n?", "amber", system="Be brief")

    assert seen(asked, a_row("WHAT is it ?", "birch", system="be brief")).copied == {0}
    assert seen(asked, a_row("What is it", "birch", system="Be brief")).copied == frozenset()
    assert seen(asked, a_row("What is it", "birch", system="Be brief")).learned_too == {0}
    assert seen(asked, a_row("What is it ?", "birch")).learned_too == frozenset()


@pytest.mark.parametrize(
    ("asked", "learned"), [("2 + 3", "2 - 3"), ("🙂", "🙁"), ("a<b", "a>b")]
)
def test_signs_that_mean_something_make_another_prompt(asked: str, learned: str) -> None:
    """What differs in a sign that is no mark of a sentence was not learned."""
    assert seen(a_row(asked, "x"), a_row(learned, "x")).learned_too == frozenset()


def test_a_text_that_was_learned_is_found_in_another_row() -> None:
    """A row most of which stands in a learned one was learned, whatever it was asked as."""
    found = seen(a_row("Say it.", LONG), a_row("Something else altogether.", f"Well: {LONG}"))

    assert found.learned_too == {0}
    assert found.share > 0.9


def test_a_few_words_in_common_are_no_copy() -> None:
    """Twelve words that stand in both don't make two rows one; thirteen are counted."""
    twelve = " ".join(LONG.split()[:12])
    thirteen = " ".join(LONG.split()[:13])

    assert seen(a_row("Say it.", LONG), a_row("x", f"{twelve} {OTHER}")).share == 0
    some = seen(a_row("Say it.", LONG), a_row("x", f"{thirteen} {OTHER}"))
    assert some.share > 0
    assert some.learned_too == frozenset()


def test_a_shared_system_prompt_is_no_copy() -> None:
    """What a whole project says before every question tells nothing about a row."""
    found = seen(a_row("one", "amber", system=LONG), a_row("two", "birch", system=LONG))

    assert (found.share, found.learned_too) == (0, frozenset())


def test_both_sides_of_a_pair_were_learned() -> None:
    """A row that stands in the rejected side of a pair was learned too."""
    pair = {
        "prompt": [{"role": "user", "content": "x"}],
        "chosen": [{"role": "assistant", "content": OTHER}],
        "rejected": [{"role": "assistant", "content": LONG}],
    }

    assert seen(a_row("Say it.", LONG), pair).learned_too == {0}


def test_what_is_found_is_what_a_slow_search_finds() -> None:
    """Leaving out words that nobody asked for loses no run that is shared."""
    chance = random.Random(7)
    words = [f"w{number}" for number in range(12)]
    text = [chance.choice(words) for _ in range(400)]
    asked = a_row("q", " ".join(text[100:140]))
    learned = a_row("p", " ".join(["zz", *text[90:125], "yy", *text[120:150], "zz"]))
    grams = {tuple(words_of("q") + text[100:140])[at : at + 13] for at in range(41 - 12)}
    own = words_of("p") + words_of(learned["messages"][1]["content"])
    held = {tuple(own[at : at + 13]) for at in range(len(own) - 12)}

    assert seen(asked, learned).share == pytest.approx(len(grams & held) / len(grams))


def test_signs_without_blanks_between_them_are_words() -> None:
    """A text in a script that writes no blanks is compared sign by sign."""
    assert words_of("中文字 and Ünïcode") == ["中", "文", "字", "and", "ünïcode"]
