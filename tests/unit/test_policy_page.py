"""The page is whole, accessible, and takes no word of a policy for markup."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Final

from gateway.policy.page import table_html
from gateway.policy.table import table_of
from tests.support.rulings import ACME, DAY, STANDARD, small_library, small_uses

_VOID: Final = {"meta"}


class Page(HTMLParser):
    """A page taken apart; it complains where tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember an element."""
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that the innermost element ends."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Remember a text."""
        self.words.append(data)

    def count(self, tag: str, **attrs: str) -> int:
        """Return how many elements have these attributes."""
        return sum(one == tag and attrs.items() <= found.items() for one, found in self.tags)


def page(standard: str = STANDARD, **texts: str) -> str:
    """Return the page of the small library, some of its texts replaced."""
    return table_html(table_of(small_library(**texts), small_uses(standard), DAY))


def test_the_table_is_a_table_with_scoped_headings() -> None:
    """Columns, rows and groups have headings that a reader's machine can find."""
    found = Page(page())

    assert found.count("th", scope="col") == 3
    assert found.count("th", scope="row") == 4
    assert found.count("th", scope="rowgroup", colspan="3") == 2
    assert (found.count("table"), found.count("caption"), found.count("main")) == (1, 1, 1)
    assert found.count("html", lang="en") == 1
    assert found.count("div", role="region", tabindex="0") == 1


def test_each_cell_has_a_word_and_its_clauses() -> None:
    """The effect is said in a word, and opening the cell shows clause, reason and citation."""
    html = page()
    found = Page(html)

    assert found.count("details") == found.count("summary") == 8
    cell = html.partition("Acme API")[2].partition("</td>")[0]
    assert re.findall(r"</span> (\w+)</span>", cell) == ["permit"]
    for said in ("acme / may-use", "Plain use is fine.", "Terms (1), 1", "an AI made it"):
        assert said in cell


def test_variants_that_are_ruled_alike_are_told_together() -> None:
    """A cell names each variant, and says a ruling that several share once."""
    html = page()
    mixed, same = (
        html.partition(title)[2].split("</td>")[1] for title in ("Acme API", "Free licence")
    )

    assert "forbid</span> <span" in mixed
    assert mixed.count("<dl>") == 2
    assert "Train on it; a rival" in same
    assert same.count("<dl>") == 1


def test_nothing_is_fetched_and_nothing_runs() -> None:
    """The page needs no script, no other file, and forbids itself both."""
    found = Page(page())

    assert found.count("script") == found.count("link") == found.count("img") == 0
    assert not any(key.startswith("on") for _, attrs in found.tags for key in attrs)
    policy = next(attrs["content"] or "" for _, attrs in found.tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'")


def test_whatever_stands_in_a_policy_is_text() -> None:
    """Titles, reasons and citations can't become markup."""
    evil = "<script>alert('x')</script>&amp;\\\""
    html = page(
        STANDARD.replace("Use it", "<b>use</b>").replace("Free weights", "<i>free</i>"),
        acme=ACME.replace("Acme API", f'"{evil}"').replace(
            "because: Plain use is fine.", f'because: "{evil}"'
        ),
    )
    found = Page(html)

    assert found.count("script") == found.count("b") == found.count("i") == 0
    assert "<script>alert('x')</script>&amp;\"" in found.words


def test_what_is_not_known_is_said() -> None:
    """A held cell names the facts that are missing."""
    html = page(STANDARD.replace(", competes: false}", "}"))

    assert "<dt>Not known</dt><dd>competes</dd>" in html


def test_a_law_that_is_silent_says_so() -> None:
    """A permit that no clause leads to is explained."""
    law = ACME.replace("policy: acme", "policy: law").replace("inference, evaluate", "data")

    assert "adds nothing here" in page(**{"overlays/law": law})


def test_it_prints_and_it_dims() -> None:
    """There are rules for paper and for the dark, and each effect has colours in both."""
    html = page()

    assert "@media print" in html
    assert "prefers-color-scheme: dark" in html
    for effect in ("permit", "hold", "forbid"):
        assert html.count(f"--{effect}: #") == html.count(f"--{effect}-ink: #") == 2


def test_the_colours_can_be_read() -> None:
    """Every pair of ink and ground has at least the contrast that WCAG asks of text."""
    style = page()
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in _schemes(style))

    for colours in (light, dark):
        for ground, ink in (
            ("permit", "permit-ink"),
            ("hold", "hold-ink"),
            ("forbid", "forbid-ink"),
            ("paper", "ink"),
            ("paper", "faint"),
            ("head", "ink"),
            ("head", "faint"),
        ):
            assert _contrast(colours[ground], colours[ink]) >= 4.5


def _schemes(style: str) -> tuple[str, str]:
    light, _, rest = style.partition("@media (prefers-color-scheme: dark)")
    return light, rest.partition("* { box-sizing")[0]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(c * weight for c, weight in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))
