"""Laws of reading terms, for texts and layouts that nobody thought of."""

from __future__ import annotations

import string
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.snapshot import (
    WORDS_NEAR,
    difference,
    most_like,
    passage_of,
    read_terms,
    snapshot_of,
)

marks = st.text(
    st.sampled_from([*"#*_`|>[]()<>!\\-=~&;:.,'\"“’–—\n\r\t ", *"aZ09é中", "\u200b", "\u2028"]),
    max_size=120,
)
words = st.one_of(
    st.text(string.ascii_lowercase, min_size=4, max_size=8),  # too long for an item's label
    st.integers(1000, 10**6).map(str),
)
passages = st.lists(words, min_size=1, max_size=40)


@st.composite
def layouts(draw: st.DrawFn, said: list[str]) -> str:
    """Return *said* with markup around words and breaks between them, as pages have them."""
    parts: list[str] = []
    for word in said:
        dress = draw(
            st.sampled_from(
                [
                    "{}",
                    "**{}**",
                    "_{}_",
                    "“{}”",
                    "[{}](https://acme.example/x?y=(1)&z=2)",
                    "<b>{}</b>",
                    "`{}`",
                    "\u200b{}",
                ]
            )
        )
        space = draw(
            st.sampled_from(
                [
                    " ",
                    "\n",
                    "\r\n\r\n",
                    "\n\n## ",
                    "\n* ",
                    "\n\n> ",
                    " – ",
                    " | ",
                    "\u00a0",
                    "\n\n---\n\n",
                    " <!-- unseen --> ",
                    "<br>",
                ]
            )
        )
        shout = draw(st.booleans())
        parts += [dress.format(word.upper() if shout else word), space]
    return "".join(parts)


@given(text=st.text() | marks)
def test_any_text_can_be_read(text: str) -> None:
    """Whatever stands in a file, its words stand in order in what people see of it."""
    reading = read_terms(text)

    assert len(reading.words) == len(reading.spans)
    assert all(0 <= first < end <= len(reading.text) for first, end in reading.spans)
    assert all(one[1] <= other[0] for one, other in pairwise(reading.spans))
    assert reading.labels <= set(range(len(reading.words)))
    assert reading.sha256 == read_terms(text).sha256
    for at in range(len(reading.words)):
        assert 1 <= reading.line(at) <= len(text.splitlines())


@given(said=passages, drawn=st.data())
def test_a_layout_says_the_same_words(said: list[str], drawn: st.DataObject) -> None:
    """Markup, breaks, quotes, dashes, bullets and case make no other text of it."""
    assert read_terms(drawn.draw(layouts(said))).words == tuple(said)


@given(said=passages, other=words, drawn=st.data())
def test_another_word_is_another_text(
    said: list[str], other: str, drawn: st.DataObject
) -> None:
    """In any layout, a word that is exchanged, added or taken away changes the digest."""
    at = drawn.draw(st.integers(0, len(said) - 1))
    read = read_terms(drawn.draw(layouts(said))).sha256

    for changed in (
        [*said[:at], other, *said[at + 1 :]],
        [*said[:at], other, *said[at:]],
        [*said[:at], *said[at + 1 :]],
    ):
        now = read_terms(drawn.draw(layouts(changed))).sha256
        assert (now == read) == (changed == said)


@given(before=st.integers(0, 250), after=st.integers(0, 250), drawn=st.data())
def test_a_passage_changes_exactly_if_a_near_word_does(
    before: int, after: int, drawn: st.DataObject
) -> None:
    """Near is a hundred words on either side, whatever the layout."""
    said = [f"left{n:03}" for n in range(before)] + ["quoted", "words"]
    said += [f"right{n:03}" for n in range(after)]
    others = [n for n in range(len(said)) if n not in (before, before + 1)]
    if not others:
        return
    at = drawn.draw(st.sampled_from(others))
    changed = [*said[:at], "changed", *said[at + 1 :]]

    read = passage_of(read_terms("\n\n".join(said)), "quoted words")
    now = passage_of(read_terms(" ".join(changed)), "quoted words")

    near = before - WORDS_NEAR <= at <= before + 1 + WORDS_NEAR
    assert read is not None
    assert now is not None
    assert (read.sha256 != now.sha256) == near


@given(said=st.lists(words, min_size=12, max_size=60, unique=True), drawn=st.data())
def test_what_was_quoted_is_found_in_any_layout(said: list[str], drawn: st.DataObject) -> None:
    """Up to ten words that stand in a row are found, and their passage is the same."""
    at = drawn.draw(st.integers(0, len(said) - 10))
    quoted = " ".join(said[at : at + drawn.draw(st.integers(1, 10))])

    one, lost = snapshot_of("f", b"", read_terms(" ".join(said)), [quoted])
    other, none = snapshot_of("f", b"", read_terms(drawn.draw(layouts(said))), [quoted])

    assert (lost, none) == ((), ())
    assert one.passages == other.passages


@given(
    old=st.lists(st.sampled_from("abcde"), max_size=30),
    new=st.lists(st.sampled_from("abcde"), max_size=30),
)
def test_a_difference_is_shown_exactly_if_there_is_one(old: list[str], new: list[str]) -> None:
    """Equal texts show no change, others show one."""
    told = difference(" ".join(old), " ".join(new))

    assert (old != new) == ("[-" in told or "{+" in told)


@given(text=marks, quoted=marks)
def test_the_nearest_place_is_a_place(text: str, quoted: str) -> None:
    """What is shown for lost words is a stretch of the text, or nothing."""
    reading = read_terms(text)
    found = most_like(reading, quoted)

    assert found is None or 0 <= found[0] < found[1] <= len(reading.words)
