"""The strict YAML reader keeps its docstring's promise."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

import msgspec
import pytest
import yaml

from gateway.errors import MalformedPolicyError
from gateway.limits import YAML_BYTES_MAX, YAML_DEPTH_MAX, YAML_NODES_MAX
from gateway.policy import source
from gateway.policy.source import convert, line_at, nearest, node_at, plain, read


class Room(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A small schema."""

    name: str
    kind: Literal["hall", "cellar"] = "hall"
    seats: int = 0
    height: float = 2.5
    open: bool = False
    since: dt.date | None = None
    doors: tuple[str, ...] = ()


class House(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another, with rooms by name and in order."""

    rooms: dict[str, Room] = {}
    floors: tuple[Room, ...] = ()
    first: Room | None = None
    owner: Annotated[str, msgspec.Meta(max_length=5)] = ""


class Loose(msgspec.Struct, frozen=True, kw_only=True):
    """A schema with a choice of shapes, open for other keys."""

    any: int | Room | None = None

    def __post_init__(self) -> None:
        if self.any == 13:
            raise ValueError("thirteen is no number of rooms")


def refused(text: str) -> MalformedPolicyError:
    """Return the one error that reading *text* as a house gives."""
    with pytest.raises(MalformedPolicyError) as caught:
        convert(read(text, "house.yaml"), House, "house.yaml")
    assert str(caught.value).count("\n") == 0
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: no", {"a": "no"}),
        ("a: yes", {"a": "yes"}),
        ("a: true", {"a": "true"}),
        ("a: 2026-01-01", {"a": "2026-01-01"}),
        ("a: 1.5", {"a": "1.5"}),
        ("a: 1", {"a": 1}),
        ("a: -7", {"a": -7}),
        ("a: 0", {"a": 0}),
        ("a: 010", {"a": "010"}),
        ("a: 0x1F", {"a": "0x1F"}),
        ("a: 1_000", {"a": "1_000"}),
        ("a: 12:30:45", {"a": "12:30:45"}),
        ("a: '1'", {"a": "1"}),
        ("a: ", {"a": None}),
        ("a: null", {"a": None}),
        ("a: ~", {"a": None}),
        ('a: "null"', {"a": "null"}),
        ("1: a", {"1": "a"}),
        ("- [a, {b: c}]", [["a", {"b": "c"}]]),
        ("a: >\n  one\n  two\n", {"a": "one two\n"}),
        ("", {}),
        ("# nothing\n", {}),
        ("---\n", {}),
        ("word", "word"),
        ('a: "\\U0001F600"', {"a": "\U0001f600"}),
    ],
)
def test_by_shape_there_are_strings_whole_numbers_and_null(text: str, value: object) -> None:
    """Nothing but a plain whole number or null is anything else than text."""
    assert value == plain(read(text, "f.yaml"))


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "key `a` twice"),
        ("a: &x 1\nb: *x\n", 1, "an anchor or alias (`&`, `*`)"),
        ("a: b\nc: *x\n", 2, "an anchor or alias (`&`, `*`)"),
        ("&x a: b\n", 1, "an anchor or alias (`&`, `*`)"),
        ("a: !!int 3\n", 1, "a tag (`!`)"),
        ("a: !x {}\n", 1, "a tag (`!`)"),
        ("a: 1\n<<: {b: 2}\n", 2, "a merge key `<<`"),
        ("a: 1\n---\nb: 2\n", 2, "a second document"),
        ("? [a, b]\n: c\n", 1, "a key that is not a word"),
        ("? {a: b}\n: c\n", 1, "a key that is not a word"),
        ('"": c\n', 1, "a key that is not a word"),
        ("a: [1, 2\n", 2, "did not find expected"),
        ("a: \x07\n", 1, "a character that YAML does not allow"),
        ("a: b\n\tc: d\n", 2, ""),
        ('a: "\\uD800"\n', 1, ""),
        ('a: "\\UFFFFFFFF"\n', 1, ""),
        ("%YAML 9.9\n--- a\n", 1, ""),
        ("a: b: c\n", 1, ""),
        ("a: \ud800\n", 1, "not YAML"),
    ],
)
def test_what_is_not_strict_yaml_is_one_error_with_its_line(
    text: str, line: int, message: str
) -> None:
    """Every way around the strict form is refused with file and line."""
    with pytest.raises(MalformedPolicyError) as caught:
        read(text, "f.yaml")

    assert ("f.yaml", line) == (caught.value.file, caught.value.line)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "a" * (YAML_BYTES_MAX + 1),
        "ä" * (YAML_BYTES_MAX // 2 + 1),
        "[" * (YAML_DEPTH_MAX + 1) + "]" * (YAML_DEPTH_MAX + 1),
        "[" * 500_000,
        "- a\n" * (YAML_NODES_MAX + 1),
        "{" + "a: " * 10 + "}",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
    ],
)
def test_a_bomb_is_refused_early(text: str) -> None:
    """Size, depth and number of values are bounded, and aliases can't multiply."""
    with pytest.raises(MalformedPolicyError):
        read(text, "bomb.yaml")


def test_half_a_surrogate_pair_is_no_text() -> None:
    """What could not be written back as UTF-8 is refused, whichever parser reads it."""
    with pytest.raises(MalformedPolicyError, match="half of a surrogate pair"):
        source._read_with(yaml.SafeLoader, 'a: "\\uD800"', "f.yaml")


def test_a_choice_of_types_is_searched_for_the_one_meant() -> None:
    """Where a key takes one of several shapes, the misfit inside the right one is named."""
    with pytest.raises(MalformedPolicyError, match="`seats` must be a whole number") as caught:
        convert(read("any:\n  name: x\n  seats: y\n", "f.yaml"), Loose, "f.yaml")

    assert caught.value.line == 3


def test_what_a_schema_refuses_by_itself_is_named_at_its_line() -> None:
    """A whole that does not hold together is an error, too; other keys are left alone."""
    with pytest.raises(MalformedPolicyError, match="thirteen is no number of rooms") as caught:
        convert(read("\nother: 1\nany: 13\n", "f.yaml"), Loose, "f.yaml")

    assert caught.value.line == 2


def test_the_deepest_allowed_document_is_read() -> None:
    """The bound on depth is the bound that is named."""
    text = "[" * YAML_DEPTH_MAX + "]" * YAML_DEPTH_MAX

    assert isinstance(plain(read(text, "f.yaml")), list)


def test_types_come_from_the_schema() -> None:
    """True, decimals and days exist where the schema asks for them."""
    text = "first: {name: attic, open: true, height: 3.25, since: 2026-02-03, doors: [a, b]}\n"

    house = convert(read(text, "house.yaml"), House, "house.yaml")

    assert house.first == Room(
        name="attic", open=True, height=3.25, since=dt.date(2026, 2, 3), doors=("a", "b")
    )


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("rooms:\n  a:\n    name: x\n    sets: 3\n", 4, "unknown key `sets`", "`seats`?"),
        ("zzz: 1\n", 1, "unknown key `zzz`", "known here: first, floors, owner, rooms"),
        ("rooms:\n  a: {name: x}\n  b: {seats: 2}\n", 3, "key `name` is missing in `b`", ""),
        ("floors:\n  - name: x\n  - name: 7\n", 3, "`name` must be text, not `7`", "quotes"),
        ("first:\n  name: x\n  kind: cellr\n", 3, "`kind` can't be `cellr`", "`cellar`?"),
        (
            "first:\n  name: x\n  kind: roof\n",
            3,
            "`kind` can't be `roof`",
            "one of hall, cellar",
        ),
        (
            "first:\n  name: x\n  open: no\n",
            3,
            "`open` must be `true` or `false`, not `no`",
            "",
        ),
        ("first:\n  name: x\n  seats: many\n", 3, "`seats` must be a whole number", ""),
        ("first:\n  name: x\n  since: 2026-02-30\n", 3, "`since` has a bad value", ""),
        ("first:\n  name: x\n  doors: a\n", 3, "`doors` must be a list, not `a`", ""),
        ("first:\n  name: x\n  doors:\n    - a\n    - [b]\n", 5, "`doors` must be text", ""),
        ("rooms: [a]\n", 1, "`rooms` must be a mapping", ""),
        ("rooms:\n  a:\n", 2, "`a` must be a mapping (`key: value`), not empty", ""),
        ("- a\n", 1, "the document must be a mapping (`key: value`), not a list", ""),
        ("owner: abcdefg\n", 1, "`owner` must be", ""),
        ("floors:\n  - name: x\n    seats: 1\n  - {}\n", 4, "key `name` is missing", ""),
        ("first: 3\n", 1, "`first` must be a mapping (`key: value`) or empty", ""),
    ],
)
def test_what_does_not_fit_the_schema_is_named_in_our_words(
    text: str, line: int, message: str, hint: str
) -> None:
    """The innermost misfit is named with its line, the key, and the nearest right word."""
    error = refused(text)

    assert line == error.line
    assert message in error.message
    assert hint in error.hint


def test_lines_are_found_by_path() -> None:
    """A path leads to the line of its key or item, or of the last one that exists."""
    node = read("a:\n  - b: 1\n  - b: 2\n    c: 3\n", "f.yaml")

    assert line_at(node, "a", 1, "c") == 4
    assert line_at(node, "a", 1, "zzz") == 3
    assert line_at(node, "a", 9) == 1
    assert line_at(node) == 1
    found = node_at(node, "a", 0, "b")
    assert found is not None
    assert plain(found) == 1
    assert node_at(node, "a", "b") is None
    assert node_at(node, "a", 5) is None


def test_the_nearest_word_is_offered() -> None:
    """A word that is close is suggested; otherwise the fallback is."""
    assert nearest("efect", ["effect", "when"]) == "did you mean `effect`?"
    assert nearest("zzz", ["effect"], "see the docs") == "see the docs"
