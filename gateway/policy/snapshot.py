"""Compare a document of terms with the digests of the text that was read.

What is cosmetic falls away first: markup, addresses of links, line breaks, case, quotes,
dashes, brackets, bullets and the style of numbering; no word and no number does. What is left
are the document's words. A clause is watched by the words it quotes: its passage is those
words and the hundred before and after them, wherever they stand, and is told by a digest, so
that no sentence of the terms is kept.

Not here: finding and reading files (`store/terms.py`).
"""

from __future__ import annotations

import difflib
import html
import itertools
import math
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, Literal

from gateway.canonical import sha256_hex
from gateway.ident import Sha256
from gateway.policy.model import Clause, Document, Policy, Snapshot

WORDS_NEAR: Final = 100
"""How many words on either side of the quoted ones are near: about ten lines of print."""

_DIFFERENCE_WORDS_MAX: Final = 4_000
_DIFFERENCE_CONTEXT: Final = 8
_CHANGES_WORDS_MAX: Final = 300
_ALIKE_MIN: Final = 0.5
"""A place that shares less of what is quoted is not worth showing."""

_UNSEEN: Final = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]"
)
_QUOTES: Final = str.maketrans(dict.fromkeys("“”„‟«»″", '"') | dict.fromkeys("‘’‚‛´′", "'"))
_DASHES: Final = str.maketrans(dict.fromkeys("‐‑‒–—―−", "-"))
_ADDRESS: Final = re.compile(
    r'\](?:\(\s*+<?([^\s<>()]*+(?:\([^\s()]*+\)[^\s<>()]*+)*+)>?(?:\s++"[^"\n]{0,500}")?\s*+\))'
)
_LINK_END: Final = "\ue000"
_LINK: Final = re.compile(rf"\[([^\[\]{_LINK_END}]{{0,1000}}){_LINK_END}")
_ADDRESS_LIKE: Final = re.compile(r"[/#:@]|www\.|\.[a-zA-Z]{2}")
_DEFINITION: Final = re.compile(r"\[[^\[\]]{1,200}\]:\s*<?(\S+?)>?(?:\s+\"[^\"]*\")?")
_IMAGE: Final = re.compile(r"!(?=\[[^\[\]]{0,1000}\]\()")
_AUTOLINK: Final = re.compile(r"<((?:https?://|mailto:|[^\s<>@]{1,100}@)[^\s<>]{1,2000})>")
_TAG_ATTRIBUTES: Final = r"(?:\s[^<>]{0,2000})?/?>"
_INLINE_TAG: Final = re.compile(
    r"</?(?:a|abbr|b|code|em|font|i|ins|mark|small|span|strong|sub|sup|u)" + _TAG_ATTRIBUTES,
    re.IGNORECASE,
)
_BLOCK_TAG: Final = re.compile(
    r"</?(?:blockquote|br|center|col|colgroup|dd|details|div|dl|dt|figure|h[1-6]|hr|img|li|ol|p"
    r"|pre|section|summary|table|tbody|td|tfoot|th|thead|tr|ul)" + _TAG_ATTRIBUTES,
    re.IGNORECASE,
)
_HEADING: Final = re.compile(r"#{1,6}(?=\s|$)")
_UNDERLINE: Final = re.compile(r"=+|-{2,}")
_RULE: Final = re.compile(r"(?:[-*_=~`]\s*){3,}|`{3,}\s*\w*")
_TABLE_RULE: Final = frozenset("|:- ")
_LEAD: Final = re.compile(r"(?:(?:>|[-+*]\s)\s*)+")
_LABEL: Final = (
    r"(?:(?:[a-zA-Z]\.)?\d{1,3}(?:\.\d{1,3})*|[a-zA-Z]|[ivxIVX]{2,5})"  # 3.3, D.4, e, ii
)
_LABELLED: Final = re.compile(
    rf"\({_LABEL}\)|(?<![^\s(]){_LABEL}[.)]+(?=\s|$)"
    r"|(?<![^\s(])\d{1,3}(?:\.\d{1,3})*\.(?=[A-Z])"
)
_ITEM: Final = re.compile(
    rf"(?:(?:\({_LABEL}\)|{_LABEL}[.)]+)\s+|\d{{1,3}}(?:\.\d{{1,3}})*\.(?=[A-Z])"
    r"|(?:[a-zA-Z]\.)?\d{1,3}(?:\.\d{1,3})+\s+(?=[A-Z][a-z])){1,3}(?=\S)"
)
"""What numbers an item, and is followed by what the item says."""
_ENDED: Final = re.compile(r"(?:[.;:,!?)]|\b(?:and|or))$", re.IGNORECASE)
_MARKS: Final = re.compile(r"[*`|\[\]\\\"•◦▪‣●○■□]|~~")
_ALONE: Final = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Thai, Lao, kana and Han are written without spaces; each sign counts as a word."""
_LETTERS: Final = rf"[^\W_{_ALONE}]+"
_WORD: Final = re.compile(
    rf"\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:\.\d+)+|[{_ALONE}]|{_LETTERS}(?:'{_LETTERS})*"
    r"|(?<![^\s(])-(?=\d)|[^\w\s'-]"
)

State = Literal[
    "unchanged",
    "cosmetic",
    "elsewhere",
    "changed",
    "lost",
    "missing",
    "unreadable",
    "unrecorded",
]
"""What became of a document, from best to worst; the three last could not be looked at."""

STALE: Final[frozenset[State]] = frozenset({"changed", "lost"})
UNWATCHED: Final[frozenset[State]] = frozenset({"missing", "unreadable", "unrecorded"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One line without its markup."""

    number: int
    text: str
    heading: bool
    label_end: int = 0
    """Where the number or letter ends that only says which item the line is."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A document of terms as its words, each of which knows where it stands."""

    text: str
    """What people see of it, in lines."""
    words: tuple[str, ...]
    """Words, numbers and punctuation, in lower case."""
    spans: tuple[tuple[int, int], ...]
    """Where in *text* each of them stands."""
    labels: frozenset[int]
    """Which of the words only number an item or a heading."""
    lines: tuple[tuple[int, int], ...]
    """Where in *text* each line begins, and its number in the file."""
    headings: tuple[tuple[int, str], ...]
    """Where in *text* each heading begins, and what it says."""

    @cached_property
    def sha256(self) -> Sha256:
        """Return the digest of everything that is not cosmetic."""
        return sha256_hex(" ".join(self.words).encode())

    @cached_property
    def spoken(self) -> tuple[int, ...]:
        """Return which of the words are no punctuation."""
        return tuple(at for at, word in enumerate(self.words) if word[0].isalnum())

    @cached_property
    def bare(self) -> tuple[int, ...]:
        """Return which of the words are neither punctuation nor labels."""
        return tuple(at for at in self.spoken if at not in self.labels)

    def line(self, at: int) -> int:
        """Return the number of the line in which the word at *at* stands."""
        offset = self.spans[at][0]
        return self.lines[bisect_right(self.lines, (offset, 1 << 60)) - 1][1]

    def heading(self, at: int) -> str:
        """Return the heading above the word at *at*, or nothing."""
        found = bisect_right(self.headings, (self.spans[at][0], "\U0010ffff")) - 1
        return self.headings[found][1] if found >= 0 else ""

    def shown(self, first: int, end: int) -> str:
        """Return the words from *first* to before *end* as they read in the document."""
        if first >= end:
            return ""
        return " ".join(self.text[self.spans[first][0] : self.spans[end - 1][1]].split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """The places where quoted words stand, and what is near them."""

    sha256: Sha256
    found: int
    """How often the quoted words stand in the document."""
    line: int
    heading: str
    """Of the first place."""
    stretches: tuple[tuple[int, int], ...]
    """The words that belong to it, as half-open ranges that do not touch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cited:
    """What became of one cited place."""

    section: str
    quoted: str | None
    clauses: tuple[str, ...]
    state: State
    note: str = ""
    line: int | None = None
    heading: str = ""
    shown: str = ""
    """The passage as it reads now, or if the words are gone the place most like them."""
    difference: str = ""
    """Word by word, where the version that was read is at hand as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What became of one document that one version of a policy was read from."""

    policy: str
    version: int
    document: str
    title: str
    state: State
    file: str = ""
    note: str = ""
    sha256: Sha256 | None = None
    """Of the words that the document has now."""
    file_sha256: Sha256 | None = None
    cited: tuple[Cited, ...] = field(default=())
    difference: str = ""
    """What changed where nothing is cited, if the version that was read is at hand."""

    @property
    def stale(self) -> bool:
        """Tell whether what was read there is no longer what it says."""
        return self.state in STALE

    @property
    def sections(self) -> tuple[str, ...]:
        """Return the cited sections whose passages changed or are gone."""
        found = (place.section for place in self.cited if place.state in STALE)
        return tuple(dict.fromkeys(found))


def read_terms(text: str) -> Reading:
    """Return *text*, plain or Markdown, as its words."""
    shown: list[str] = []
    words: list[str] = []
    spans: list[tuple[int, int]] = []
    labels: list[int] = []
    lines: list[tuple[int, int]] = []
    headings: list[tuple[int, str]] = []
    offset = 0
    for line in _lines(text):
        lines.append((offset, line.number))
        if line.heading:
            headings.append((offset, " ".join(line.text.split())))
        for match in _WORD.finditer(_without_style(line.text)):
            if match.end() <= line.label_end:
                labels.append(len(words))
            words.append(match[0].casefold())
            spans.append((offset + match.start(), offset + match.end()))
        shown.append(line.text)
        offset += len(line.text) + 1
    return Reading(
        text="\n".join(shown),
        words=tuple(words),
        spans=tuple(spans),
        labels=frozenset(labels),
        lines=tuple(lines),
        headings=tuple(headings),
    )


def passage_of(reading: Reading, quoted: str) -> Passage | None:
    """Return what stands at and near the words *quoted*, or `None` if they are not there."""
    found = _places(reading, quoted)
    if not found:
        return None
    stretches = tuple(_stretches(reading, found))
    near = (
        " ".join(reading.words[at] for at in range(*stretch) if at not in reading.labels)
        for stretch in stretches
    )
    return Passage(
        sha256=sha256_hex("\n".join(near).encode()),
        found=len(found),
        line=reading.line(found[0][0]),
        heading=reading.heading(found[0][0]),
        stretches=stretches,
    )


def changes(old: Reading, new: Reading) -> str:
    """Return the first of what changed in a whole document, word by word."""
    before, after = old.text.split("\n"), new.text.split("\n")
    keys = [
        [tuple(_without_style(line).casefold().split()) for line in side]
        for side in (before, after)
    ]
    parts: list[str] = []
    count = 0
    matcher = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            continue
        told = difference(" ".join(before[a:b]), " ".join(after[c:d]), whole=True).split()
        if not any(word.startswith(("[-", "{+")) for word in told):
            continue
        if count + len(told) > _CHANGES_WORDS_MAX:
            parts.append(" ".join([*told[: _CHANGES_WORDS_MAX - count], "…"]))
            break
        parts.append(" ".join(told))
        count += len(told)
    return " […] ".join(parts)


def difference(old: str, new: str, *, whole: bool = False) -> str:
    """Return what changed between two texts, word by word, with a few words around it.

    Unless they are *whole* they were cut out, and what a change pushes over an edge of them
    is not shown.
    """
    before, after = old.split(), new.split()
    if max(len(before), len(after)) > _DIFFERENCE_WORDS_MAX:
        return ""
    keys = [[word.casefold() for word in side] for side in (before, after)]
    matcher = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    steps = matcher.get_opcodes()
    inner = [
        step
        for step in steps
        if step[0] == "equal" or (step is not steps[0] and step is not steps[-1])
    ]
    if not whole and any(step[0] != "equal" for step in inner):
        steps = inner
    parts: list[str] = []
    for step in steps:
        kind, a, b, c, d = step
        if kind == "equal":
            parts += _shortened(after[c:d], first=step is steps[0], last=step is steps[-1])
            continue
        if a < b:
            parts.append(f"[-{' '.join(before[a:b])}-]")
        if c < d:
            parts.append(f"{{+{' '.join(after[c:d])}+}}")
    return " ".join(parts)


def snapshot_of(
    file: str, content: bytes, reading: Reading, quotes: Iterable[str]
) -> tuple[Snapshot, tuple[str, ...]]:
    """Return what to record of a text that was just read, and the quotes not found in it."""
    passages: dict[str, Sha256] = {}
    lost: list[str] = []
    for quoted in dict.fromkeys(quotes):
        passage = passage_of(reading, quoted)
        if passage is None:
            lost.append(quoted)
        else:
            passages[quoted] = passage.sha256
    snapshot = Snapshot(
        file=file, file_sha256=sha256_hex(content), sha256=reading.sha256, passages=passages
    )
    return snapshot, tuple(lost)


def compare(
    policy: Policy,
    document: Document,
    content: bytes,
    now: Reading,
    older: Iterable[Reading] = (),
) -> Watched:
    """Return what became of *document*, given its text of today and perhaps older ones.

    The document must have a snapshot with a digest; what has none can't be compared.
    """
    snapshot = document.snapshot
    assert snapshot is not None  # noqa: S101 # INVARIANT: the caller reports one without.
    digest = sha256_hex(content)
    same = snapshot.sha256 == now.sha256 or snapshot.file_sha256 == digest
    read = next((one for one in older if one.sha256 == snapshot.sha256), None)
    cited = tuple(
        _cited(snapshot, section, quoted, clauses, now, read, same=same)
        for (section, quoted), clauses in citations(policy.clauses, document.id).items()
    )
    state: State = "unchanged" if same else "elsewhere"
    if same and snapshot.file_sha256 not in (None, digest):
        state = "cosmetic"
    states = {place.state for place in cited}
    note = ""
    if "changed" in states:
        state = "changed"
    if "lost" in states:
        state = "lost"
        if states == {"lost"} and not same and not any(place.shown for place in cited):
            note = (
                f"none of the quoted words is among its {len(now.bare)} words;"
                " look first whether the file holds this document at all"
            )
    return Watched(
        policy=policy.id,
        version=policy.version,
        document=document.id,
        title=document.title,
        state=state,
        file=snapshot.file,
        note=note,
        sha256=now.sha256,
        file_sha256=digest,
        cited=cited,
        difference=changes(read, now) if read and state == "elsewhere" else "",
    )


def citations(
    clauses: Iterable[Clause], document: str
) -> Mapping[tuple[str, str | None], tuple[str, ...]]:
    """Return each place of *document* that *clauses* cite, and which of them do."""
    found: dict[tuple[str, str | None], tuple[str, ...]] = {}
    for clause in clauses:
        if clause.citation.document == document:
            place = (clause.citation.section, clause.citation.words)
            found[place] = (*found.get(place, ()), clause.id)
    return found


def most_like(reading: Reading, quoted: str) -> tuple[int, int] | None:
    """Return the words of the place that shares most with *quoted*, if any shares enough."""
    sought = Counter(_bare_words(quoted))
    size = sought.total() + 2
    bare = reading.bare
    often = Counter(reading.words[at] for at in bare if reading.words[at] in sought)
    # A rare word tells more about a place than one that stands everywhere.
    weight = {word: 1 / math.log2(2 + max(1, often[word])) for word in sought}
    window: Counter[str] = Counter()
    shared, best, best_at = 0.0, 0.0, 0
    for at, index in enumerate(bare):
        word = reading.words[index]
        window[word] += 1
        shared += weight[word] if window[word] <= sought[word] else 0
        if at >= size:
            left = reading.words[bare[at - size]]
            shared -= weight[left] if window[left] <= sought[left] else 0
            window[left] -= 1
        if shared > best + 1e-9:
            best, best_at = shared, at
    if best <= _ALIKE_MIN * sum(weight[word] * count for word, count in sought.items()):
        return None
    first, last = max(0, best_at - 2 * size), min(len(bare) - 1, best_at + size)
    return bare[first], bare[last] + 1


def _cited(
    snapshot: Snapshot,
    section: str,
    quoted: str | None,
    clauses: tuple[str, ...],
    now: Reading,
    read: Reading | None,
    *,
    same: bool,
) -> Cited:
    def place(state: State, note: str = "", at: Passage | None = None) -> Cited:
        shown, words = "", ""
        if at is not None and state == "changed":
            shown = " […] ".join(now.shown(*stretch) for stretch in at.stretches)
            before = passage_of(read, quoted) if read and quoted else None
            if read and before:
                old = " […] ".join(read.shown(*stretch) for stretch in before.stretches)
                words = difference(old, shown)
        if at and at.found > 1:
            note = "; ".join(filter(None, [note, f"the words stand in {at.found} places"]))
        return Cited(
            section=section,
            quoted=quoted,
            clauses=clauses,
            state=state,
            note=note,
            line=at.line if at else None,
            heading=at.heading if at else "",
            shown=shown,
            difference=words,
        )

    if quoted is None:
        if same:
            return place("unchanged")
        return place("changed", "it quotes no words, so any change may be to it")
    passage = passage_of(now, quoted)
    if passage is None:
        return _lost(section, quoted, clauses, now, same=same)
    recorded = snapshot.passages.get(quoted)
    if same or recorded == passage.sha256:
        return place("unchanged", "", passage)
    if recorded is None:
        before = passage_of(read, quoted) if read else None
        if before and before.sha256 == passage.sha256:
            return place("unchanged", "", passage)
        return place("changed", "its passage was never recorded", passage)
    return place("changed", "", passage)


def _lost(
    section: str, quoted: str, clauses: tuple[str, ...], now: Reading, *, same: bool
) -> Cited:
    like = most_like(now, quoted)
    middle = sum(like) // 2 if like else 0
    note = "the quoted words are no longer there"
    if same:
        note = "the quoted words are not in the text that was recorded"
    return Cited(
        section=section,
        quoted=quoted,
        clauses=clauses,
        state="lost",
        note=note,
        line=now.line(middle) if like else None,
        heading=now.heading(middle) if like else "",
        shown=now.shown(*like) if like else "",
    )


def _places(reading: Reading, quoted: str) -> list[tuple[int, int]]:
    """Return the first and last word of every place where the words *quoted* stand."""
    quote = read_terms(quoted)
    for words, sought in ((reading.spoken, quote.spoken), (reading.bare, quote.bare)):
        there = [reading.words[at] for at in words]
        wanted = [quote.words[at] for at in sought]
        size = len(wanted)
        found = [
            (words[at], words[at + size - 1])
            for at in range(len(there) - size + 1 if size else 0)
            if there[at] == wanted[0] and there[at : at + size] == wanted
        ]
        if found:
            return found
    return []


def _stretches(
    reading: Reading, places: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield the ranges of words at and near *places*, joined where they meet."""
    bare = reading.bare
    ranges = []
    for first, last in places:
        begin = max(0, bisect_left(bare, first) - WORDS_NEAR)
        ranges.append((begin, min(len(bare), bisect_right(bare, last) + WORDS_NEAR)))
    begin, end = ranges[0]
    for following, finish in itertools.chain(ranges[1:], [(len(bare) + 1, len(bare) + 1)]):
        if following <= end:
            end = max(end, finish)
            continue
        # Up to the next word, so that what ends the last one belongs to it.
        yield bare[begin], bare[end] if end < len(bare) else len(reading.words)
        begin, end = following, finish


def _bare_words(quoted: str) -> list[str]:
    quote = read_terms(quoted)
    return [quote.words[at] for at in quote.bare]


def _shortened(words: Sequence[str], *, first: bool, last: bool) -> list[str]:
    """Return unchanged *words* with only those kept that stand beside a change."""
    head = [] if first else list(words[:_DIFFERENCE_CONTEXT])
    rest = words[len(head) :]
    tail = [] if last else list(rest[-_DIFFERENCE_CONTEXT:])
    return [*head, "…", *tail] if len(tail) < len(rest) else [*head, *tail]


def _without_style(line: str) -> str:
    """Return *line* of the same length, blank where only the style of writing stands."""
    line = _LABELLED.sub(lambda match: re.sub(r"[()]|[.](?!\d)", " ", match[0]), line)
    return _MARKS.sub(lambda match: " " * len(match[0]), line)


def _lines(text: str) -> Iterator[_Line]:
    """Yield the lines that say something, each without what Markdown adds to it."""
    found: _Line | None = None
    opens = True  # whether this line can begin an item, and not only go on with a sentence
    for number, raw in enumerate(_without_markup(text).split("\n"), 1):
        line = _plain(raw)
        if found is not None:
            underlined = _UNDERLINE.fullmatch(line) is not None
            yield _labelled(replace(found, heading=True)) if underlined else found
            opens = opens or underlined
            found = None
            if underlined:
                continue
        if _TABLE_RULE.issuperset(line) or _RULE.fullmatch(line) or _is_definition(line):
            opens = True
            continue
        lead = _LEAD.match(line)
        line = line[lead.end() :] if lead else line
        heading = _HEADING.match(line)
        if heading:
            shown = _without_marks(line.strip(" #"))
            yield _labelled(_Line(number=number, text=shown, heading=True))
            opens = True
            continue
        found = _Line(number=number, text=_without_marks(line), heading=False)
        if opens or lead:
            found = _labelled(found)
        # An item may follow an item without a blank line, but not break its sentence.
        opens = found.label_end > 0 and _ENDED.search(found.text) is not None
    if found is not None:
        yield found


def _labelled(line: _Line) -> _Line:
    match = _ITEM.match(line.text)
    return replace(line, label_end=match.end()) if match else line


def _plain(line: str) -> str:
    """Return *line* in one way of writing signs."""
    line = _UNSEEN.sub("", " ".join(html.unescape(line).split())).translate(_QUOTES)
    return unicodedata.normalize("NFKC", line).translate(_DASHES).strip()


def _without_marks(line: str) -> str:
    """Return *line* without emphasis and escapes, which stand within words."""
    line = re.sub(r"\\(?=[^\w\s])|[*`]+|~~", "", line)
    return re.sub(r"(?<![^\W_])_+|_+(?![^\W_])", "", line)


def _is_definition(line: str) -> bool:
    match = _DEFINITION.fullmatch(line)
    return match is not None and _ADDRESS_LIKE.search(match[1]) is not None


def _without_markup(text: str) -> str:
    """Return *text* without comments, tags and the addresses of links; lines stay lines."""
    text = _without_comments("\n".join(text.splitlines()))
    text = _ADDRESS.sub(_link_text, _IMAGE.sub("", text))
    text = _LINK.sub(_apart, text).replace(_LINK_END, "")
    text = _INLINE_TAG.sub(_breaks, _AUTOLINK.sub(r"\1", text))
    return _BLOCK_TAG.sub(lambda match: " " + _breaks(match), text)


def _link_text(match: re.Match[str]) -> str:
    if match[1] and not _ADDRESS_LIKE.search(match[1]):
        return match[0]
    # Pages lose the space between a link and what follows it; words are kept apart.
    follows = match.string[match.end() : match.end() + 1]
    apart = " " if follows in {"[", "!"} or follows.isalnum() else ""
    return _LINK_END + apart + _breaks(match)


def _apart(match: re.Match[str]) -> str:
    before = match.string[match.start() - 1 : match.start()]
    return f" {match[1]}" if before.isalnum() else match[1]


def _breaks(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")


def _without_comments(text: str) -> str:
    parts: list[str] = []
    at = 0
    while (begin := text.find("<!--", at)) >= 0 and (end := text.find("-->", begin)) >= 0:
        parts += [text[at:begin], "\n" * text.count("\n", begin, end)]
        at = end + 3
    return "".join([*parts, text[at:]])
