"""Terms are read as words: what is cosmetic falls away, what is said does not."""

from __future__ import annotations

import pytest

from gateway.canonical import sha256_hex
from gateway.ident import Sha256
from gateway.policy.library import Library
from gateway.policy.model import Document, Policy, Snapshot
from gateway.policy.snapshot import (
    WORDS_NEAR,
    Watched,
    changes,
    citations,
    compare,
    difference,
    most_like,
    passage_of,
    read_terms,
    snapshot_of,
)
from tests.support.policies import DAY, POLICY, acme_files

FAR = " ".join(f"far{n}" for n in range(2 * WORDS_NEAR + 40))
"""More words than a passage reaches."""

TERMS = f"""\
Acme Terms
==========

1. **Use.** You may use the widgets as they come.

{FAR}

## 2. Limits

You will not:

* (a) hide that a widget is a widget;
* (b) build “rival widgets” with [Output](https://acme.example/output); or
* (c) sell widgets for more than 1,000.50 crowns.

{FAR}

3. Ending. Either side may leave with thirty (30) days’ notice.
"""

CLAUSES = POLICY.replace(
    'document: acme-terms, section: "1"',
    'document: acme-terms, section: "1", words: as they come',
).replace(
    'document: acme-terms, section: "2"',
    "document: acme-terms, section: 2(b), words: build rival widgets with Output",
)
"""Two clauses quote the text above, the third cites it without a word."""
QUOTING = CLAUSES.replace(
    'document: acme-terms, section: "3"',
    'document: acme-terms, section: "3", words: either side may leave',
)


def policy_of(text: str) -> Policy:
    """Return the policy that *text* spells."""
    found = Library.load(acme_files(text)).in_force("acme", DAY)
    assert found is not None
    return found


def document_of(snapshot: Snapshot | None) -> Document:
    """Return a document that was read from *snapshot*."""
    return Document(
        id="acme-terms",
        title="Acme Terms",
        url="https://acme.example",
        version="1",
        confidence="primary",
        snapshot=snapshot,
    )


def recorded(policy: Policy, text: str) -> Snapshot:
    """Return what would be recorded of *text* for *policy*."""
    quotes = [words for _, words in citations(policy.clauses, "acme-terms") if words]
    snapshot, lost = snapshot_of("Acme/Terms.md", text.encode(), read_terms(text), quotes)
    assert lost == ()
    return snapshot


def watched(
    now: str, read: str = TERMS, written: str = QUOTING, *, at_hand: bool = False
) -> Watched:
    """Return what became of the document that was *read* if it says *now* today."""
    policy = policy_of(written)
    document = document_of(recorded(policy, read))
    older = [read_terms(read)] if at_hand else []
    return compare(policy, document, now.encode(), read_terms(now), older)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("## 2. Limits", "2. Limits\n---------"),
        ("**bold** and _slanted_ and `code`", "bold and slanted and code"),
        ("see the [list](https://acme.example/list?visit=7)", "see the list"),
        ("see ![the list](list.png 'x')", "see ![the list](list.png 'x')"),
        ("<https://acme.example/list>", "https://acme.example/list"),
        ("you may\nuse\r\n\r\nit", "you may use it"),
        ("“Output”, don’t — ‘stop’", '"Output", don\'t - stop'),
        ("(a) one\n(b) two", "a. one\n\nb) two"),
        ("1\\. Use", "1. Use"),
        ("* one\n* two", "- one\n\n• two"),
        ("| one | two |\n|---|:-:|\n| three | four |", "one two three four"),
        ("> quoted\n> text", "quoted text"),
        ("ﬁle of ofﬁces", "file of offices"),
        ("ÜBER ALL", "über all"),
        ("soft\u00adly\u200b said", "softly said"),
        ("non‑exclusive, third–party", "non-exclusive, third-party"),
        ("AT&amp;T &ldquo;says&rdquo;&nbsp;so", 'AT&T "says" so'),
        ("<p>one<br/>two <b>t</b>hree</p>", "one\ntwo three"),
        ("one <!-- not\nseen --> two", "one two"),
        ("one , two ;three", "one, two; three"),
        ("one\n\n* * *\n\ntwo\n\n----", "one two"),
        ("thirty (30) days", "thirty 30 days"),
        ("[one]: https://acme.example\nword", "word"),
        ("of 2026[PDF](a.pdf)[Former](/b)text", "of 2026 PDF Former text"),
        ("2.4.Feedback is free", "2.4. Feedback is free"),
        ("~~gone~~ \\[sic\\]", "gone [sic]"),
    ],
)
def test_what_is_cosmetic_falls_away(one: str, other: str) -> None:
    """Two ways of writing the same words have the same digest."""
    assert read_terms(one).words == read_terms(other).words
    assert read_terms(one).sha256 == read_terms(other).sha256


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("you may use it", "you may not use it"),
        ("thirty (30) days", "thirty (60) days"),
        ("1,000 crowns", "1,0000 crowns"),
        ("section 3.3", "section 3.4"),
        ("3. Use", "4. Use"),
        ("3. Use", "(c) Use"),
        ("a fee of 1.5%", "a fee of 15%"),
        ("-5 degrees", "5 degrees"),
        ("one, two or three", "one two or three"),
        ("[x](see section 3)", "[x]"),
        ("[a](b)", "[a]"),
        ("model 4.5 or 3", "model 4.5 or 8"),
        ("you may &lt;b&gt; it", "you may it"),
        ("if x < 5 or y > 7", "if x"),
        ("<Customer> pays", "pays"),
        ("one <!-- two", "one"),
        ("# 5 widgets", "# 6 widgets"),
        ("third parties", "third-parties' 3"),
        ("不得训练模型", "不得训练他模型"),
    ],
)
def test_no_word_and_no_number_falls_away(one: str, other: str) -> None:
    """What somebody could be bound by makes another digest."""
    assert read_terms(one).sha256 != read_terms(other).sha256


def test_words_know_where_they_stand() -> None:
    """A passage names its line in the file and the heading above it."""
    found = passage_of(read_terms(TERMS), "rival widgets")

    assert found is not None
    assert TERMS.splitlines()[found.line - 1].startswith("* (b) build")
    assert (found.heading, found.found) == ("2. Limits", 1)


@pytest.mark.parametrize(
    "quoted",
    [
        "build rival widgets with Output",
        "BUILD “RIVAL\nWIDGETS”",
        "(b) build rival widgets",
        "is a widget (b) build rival",
        "is a widget; build rival",
        "widgets for more than 1,000.50",
        "thirty (30) days' notice",
    ],
)
def test_quoted_words_are_found_as_people_quote(quoted: str) -> None:
    """Case, quotes, line breaks, labels and punctuation don't hide the quoted words."""
    assert passage_of(read_terms(TERMS), quoted) is not None


@pytest.mark.parametrize(
    "quoted", ["", "…", "rival gadgets", "widgets rival", "rival widgets " * 99]
)
def test_other_words_are_not_found(quoted: str) -> None:
    """Words that don't stand there in this order, or no words at all, are not found."""
    assert passage_of(read_terms(TERMS), quoted) is None


def test_a_passage_reaches_a_hundred_words() -> None:
    """The hundredth word before and after belongs to it, the next one does not."""
    before = [f"b{n}" for n in range(150, 0, -1)]
    after = [f"a{n}" for n in range(1, 151)]

    def digest(left: list[str], right: list[str]) -> Sha256:
        found = passage_of(read_terms(" ".join([*left, "the words", *right])), "the words")
        assert found is not None
        return found.sha256

    changed = {
        distance: (
            digest([*before[:-distance], "x", *before[len(before) - distance + 1 :]], after),
            digest(before, [*after[: distance - 1], "x", *after[distance:]]),
        )
        for distance in (1, 100, 101)
    }

    same = digest(before, after)
    assert {d: (b == same, a == same) for d, (b, a) in changed.items()} == {
        1: (False, False),
        100: (False, False),
        101: (True, True),
    }


def test_words_in_several_places_are_watched_in_all() -> None:
    """One digest covers every place; a change near any of them is a change."""
    text = f"same words one\n\n{FAR}\n\nsame words two"
    first, last = (
        passage_of(read_terms(text.replace(*pair)), "same words")
        for pair in [("one", "uno"), ("two", "due")]
    )
    found = passage_of(read_terms(text), "same words")

    assert found is not None
    assert first is not None
    assert last is not None
    assert (found.found, len(found.stretches)) == (2, 2)
    assert len({found.sha256, first.sha256, last.sha256}) == 3


def test_the_same_bytes_are_unchanged() -> None:
    """What was read and what is there are one."""
    assert watched(TERMS).state == "unchanged"
    assert watched(TERMS).sections == ()


def test_another_layout_is_cosmetic() -> None:
    """Moved line breaks and followed links change bytes, and nothing that was read."""
    now = TERMS.replace("as they\n", "as they ").replace("/output)", "/output?visit=2)")

    assert (watched(now).state, watched(now).stale) == ("cosmetic", False)


def test_a_change_far_from_citations_is_not_stale() -> None:
    """It is told, and the policy stands."""
    seen = watched(TERMS.replace("far120 far121", "far120 new far121", 1))

    assert (seen.state, seen.stale, seen.sections) == ("elsewhere", False, ())
    assert {place.state for place in seen.cited} == {"unchanged"}


def test_with_the_text_that_was_read_other_changes_are_shown_too() -> None:
    """Legal may see at once whether what changed elsewhere matters; layout is left out."""
    now = TERMS.replace("Acme Terms\n", "Acme Terms of 2027\n").replace("come.\n", "\ncome.\n")
    now = now.replace("far120 far121", "far120 new far121", 1)

    seen = watched(
        now.replace("2027\n", "2027\n\n" + FAR),
        TERMS.replace("Terms\n", "Terms\n\n" + FAR),
        at_hand=True,
    )

    assert seen.state == "elsewhere"
    assert "Acme Terms {+of 2027+}" in seen.difference
    assert "far120 {+new+} far121" in seen.difference
    assert "come" not in seen.difference


def test_a_flood_of_changes_is_cut() -> None:
    """What is shown of a rewritten document ends where nobody would read on."""
    old = read_terms("\n\n".join(f"old{n} words" for n in range(500)))
    new = read_terms("\n\n".join(f"new{n} words" for n in range(500)))

    told = changes(old, new)

    assert told.endswith("…")
    assert len(told.split()) < 320


def test_numbers_of_items_are_not_near() -> None:
    """An item that moved to another number is told of; what it says did not change."""
    seen = watched(TERMS.replace("1. **Use.**", "D.1. **Use.**").replace("(b)", "(j)"))

    assert (seen.state, seen.stale) == ("elsewhere", False)


def test_a_number_that_goes_on_with_a_sentence_is_no_label() -> None:
    """A wrapped line that begins with a number is read as part of its sentence."""
    read = TERMS.replace("as they come.", "as they come, within\n30. Days count.")

    assert watched(read.replace("\n30.", "\n60."), read).state == "changed"


def test_a_change_near_a_citation_is_stale() -> None:
    """The section is named, its passage is shown, and the other sections are left out."""
    seen = watched(TERMS.replace("1,000.50", "2,000.50"))

    assert (seen.state, seen.stale, seen.sections) == ("changed", True, ("2(b)",))
    place = next(place for place in seen.cited if place.state == "changed")
    assert (place.clauses, place.quoted) == (("no-rivals",), "build rival widgets with Output")
    assert "more than 2,000.50 crowns" in place.shown
    assert place.difference == ""
    assert seen.sha256 == read_terms(TERMS.replace("1,000.50", "2,000.50")).sha256


def test_with_the_text_that_was_read_the_difference_is_shown() -> None:
    """An earlier version at hand gives the change word by word."""
    seen = watched(TERMS.replace("1,000.50", "2,000.50"), at_hand=True)

    told = [place.difference for place in seen.cited if place.difference]
    assert len(told) == 1
    assert "more than [-1,000.50-] {+2,000.50+} crowns" in told[0]


def test_lost_words_are_stale_and_the_nearest_place_is_shown() -> None:
    """If the quoted words are gone, what is most like them helps to find the place."""
    seen = watched(TERMS.replace("build “rival widgets” with", "make “rival widgets” with"))

    place = next(place for place in seen.cited if place.state == "lost")
    assert (seen.state, seen.sections, seen.note) == ("lost", ("2(b)",), "")
    assert 'make "rival widgets" with' in place.shown
    assert place.heading == "2. Limits"


def test_rare_words_tell_where_lost_words_went() -> None:
    """The place that shares the telling words is shown, not one that shares small ones."""
    small = "all of the one or the other of the rest of it " * 60
    text = f"{small}\n\n{FAR}\n\nNever train foundation models here."
    reading = read_terms(text)

    near = most_like(reading, "to train any of the foundation models")
    assert near is not None
    assert "Never train foundation models here" in reading.shown(*near)
    assert most_like(reading, "or of the distillation") is None


def test_a_heading_that_is_a_link_is_shown_as_people_see_it() -> None:
    """No bracket and no address is left of a link; brackets that are text stay."""
    reading = read_terms("[Terms [2]](#terms)\n=====\n\nPay [the price](x.html) [in crowns].")

    found = passage_of(reading, "the price")
    assert found is not None
    assert found.heading.replace("[", "").replace("]", "") == "Terms 2"
    assert reading.shown(*found.stretches[0]).endswith("Pay the price [in crowns].")


def test_another_document_is_suspected() -> None:
    """An archive may have caught an error page; the finding says so, and stays stale."""
    seen = watched("This page is not available.")

    assert (seen.state, seen.stale) == ("lost", True)
    assert "none of the quoted words is among its 5 words" in seen.note


def test_a_citation_without_words_is_touched_by_any_change() -> None:
    """Nobody can tell where it points, so it can't be said to have stayed."""
    far = TERMS.replace("far120 far121", "far120 new far121", 1)

    assert watched(far, written=CLAUSES).sections == ("3",)
    assert watched(TERMS + "\n\n***\n", written=CLAUSES).state == "cosmetic"


def test_a_passage_that_was_never_recorded_counts_as_changed() -> None:
    """A clause added after the text was recorded is only safe while the text is the same."""
    policy = policy_of(QUOTING)
    snapshot = Snapshot(
        file="Acme/Terms.md", sha256=read_terms(TERMS).sha256, file_sha256=None, passages={}
    )
    far = TERMS.replace("far120 far121", "far120 new far121", 1)

    def seen(now: str, *older: str) -> Watched:
        return compare(
            policy,
            document_of(snapshot),
            now.encode(),
            read_terms(now),
            [read_terms(text) for text in older],
        )

    assert seen(TERMS).state == "unchanged"
    assert (seen(far).state, seen(far).sections) == ("changed", ("1", "2(b)", "3"))
    assert seen(far, "another", TERMS).state == "elsewhere"


def test_words_that_were_never_there_are_lost_at_once() -> None:
    """A clause that quotes what the recorded text doesn't say is found without a change."""
    policy = policy_of(QUOTING)
    document = document_of(recorded(policy, TERMS))
    other = policy_of(QUOTING.replace("as they come", "as they stand"))

    seen = compare(other, document, TERMS.encode(), read_terms(TERMS))

    assert (seen.state, seen.sections) == ("lost", ("1",))
    assert seen.cited[0].note == "the quoted words are not in the text that was recorded"


def test_the_same_bytes_stand_for_themselves() -> None:
    """Digests of words made by another version of the reader don't make a policy stale."""
    policy = policy_of(QUOTING)
    snapshot = Snapshot(
        file="Acme/Terms.md",
        file_sha256=sha256_hex(TERMS.encode()),
        sha256=Sha256("0" * 64),
        passages={"as they come": Sha256("0" * 64)},
    )

    seen = compare(policy, document_of(snapshot), TERMS.encode(), read_terms(TERMS))

    assert seen.state == "unchanged"


def test_what_is_recorded_is_digests() -> None:
    """A snapshot holds no sentence of the terms, and names the quotes it did not find."""
    snapshot, lost = snapshot_of(
        "Acme/Terms.md", TERMS.encode(), read_terms(TERMS), ["as they come", "as they go"]
    )

    assert lost == ("as they go",)
    assert list(snapshot.passages) == ["as they come"]
    assert snapshot.file_sha256 == sha256_hex(TERMS.encode())
    assert {len(digest) for digest in snapshot.passages.values()} == {64}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("a b c", "a x c", "a [-b-] {+x+} c"),
        ("a b c", "a B c", "…"),
        ("edge a b c", "a x c more", "a [-b-] {+x+} c"),
        ("edge a b", "a b and more", "[-edge-] a b {+and more+}"),
        ("a b", "b a b", "{+b+} a b"),
        (
            " ".join("abcdefghijklmnopqrs") + " old " + " ".join("abcdefghijklmnopqrs"),
            " ".join("abcdefghijklmnopqrs") + " new " + " ".join("abcdefghijklmnopqrs"),
            "… l m n o p q r s [-old-] {+new+} a b c d e f g h …",
        ),
    ],
)
def test_differences_are_short(old: str, new: str, told: str) -> None:
    """Unchanged words stand only beside a change; what slid over an edge is left out."""
    assert difference(old, new) == told


def test_the_reader_reads_as_it_did() -> None:
    """Recorded digests outlive this code: a reader that reads otherwise makes them all old."""
    reading = read_terms(
        "# 1. Use\n\n* (a) You may **use** [it](https://a.example), “as it comes”;\n"
        "* (b) for thirty (30) days - no more.\n"
    )
    found = passage_of(reading, "as it comes")

    assert " ".join(reading.words) == (
        "1 use a you may use it , as it comes ; b for thirty 30 days no more ."
    )
    assert reading.sha256 == sha256_hex(" ".join(reading.words).encode())
    assert found is not None
    assert found.sha256 == sha256_hex(
        b"use you may use it , as it comes ; for thirty 30 days no more ."
    )
