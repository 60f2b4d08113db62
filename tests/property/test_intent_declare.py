"""Laws of the `x-intended-use` header."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MalformedDeclarationError
from gateway.intent.country import COUNTRIES
from gateway.intent.declare import format_inline, parse_inline, parse_use_header
from gateway.intent.model import (
    Audience,
    Automation,
    IntendedUse,
    Notice,
    StudentKind,
    Visibility,
)
from gateway.intent.purpose import PURPOSES

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
yes_no = st.none() | st.booleans()
uses = st.builds(
    IntendedUse,
    purpose=st.sampled_from(list(PURPOSES)),
    student=st.none() | st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True),
    student_kind=st.none() | st.sampled_from(get_args(StudentKind)),
    imitates_teacher=yes_no,
    competes=yes_no,
    competes_basis=st.none() | words,
    competes_assessed_by=st.none() | words,
    competes_assessed_on=st.none() | st.dates().map(str),
    similar=yes_no,
    audience=st.none() | st.sampled_from(get_args(Audience)),
    visibility=st.none() | st.sampled_from(get_args(Visibility)),
    commercial=yes_no,
    research=yes_no,
    notices=st.none()
    | st.frozensets(st.sampled_from(get_args(Notice))).map(lambda said: tuple(sorted(said))),
    automation=st.none() | st.sampled_from(get_args(Automation)),
    promotes_competitor=yes_no,
    replication_info=yes_no,
    base_model=st.none() | words,
    agreement=st.none() | words,
    jurisdiction=st.none() | st.sampled_from(sorted(COUNTRIES)),
)
PIECES = [
    "purpose=",
    "train.sft",
    "competes",
    "=?0",
    "=?1",
    ", ",
    ";x=1",
    '"',
    "(",
    ")",
    "%",
    "1",
]


@given(uses)
def test_what_is_written_is_read_back(use: IntendedUse) -> None:
    """A use that is written inline is the same use when it is read."""
    assert use == parse_inline(format_inline(use))
    assert use == parse_use_header(f" {format_inline(use)}\t")


@given(uses)
def test_writing_again_changes_nothing(use: IntendedUse) -> None:
    """What was read is written as it stood."""
    said = format_inline(use)

    assert said == format_inline(parse_inline(said))
    assert said.isascii()


@given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    """Any text is an id, a use, or one line that says what to change."""
    refused = None
    try:
        parse_use_header(text)
    except MalformedDeclarationError as exc:
        refused = exc

    assert refused is None or (refused.hint and str(refused).isprintable())
