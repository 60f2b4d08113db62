"""`gateway policy watch`: tell legal what changed in the terms since they were read.

DIR holds texts as Open Terms Archive lays them out (`store/terms.py`). With `--mark`, what is
stale is stated in the ledger: permits for training hold until a newer policy is in force.

Exit codes: 0 nothing stale; 1 something stale, or a document that could not be watched;
2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import itertools
import json
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.cli.arguments import day
from gateway.clock import SystemClock, day_of, rfc3339
from gateway.errors import CallerError, MalformedPolicyError, NotFoundError, SettingError
from gateway.policy.library import Library
from gateway.policy.model import Clause, Document, Policy
from gateway.policy.recording import check_snapshot, with_snapshot
from gateway.policy.snapshot import (
    STALE,
    UNWATCHED,
    Cited,
    Reading,
    State,
    Watched,
    citations,
    compare,
    passage_of,
    snapshot_of,
)
from gateway.policy.source import nearest
from gateway.receipt.model import TermsChange
from gateway.receipt.statement import write_statement
from gateway.store.files import write_durably
from gateway.store.policies import builtin_policies, read_policy_files
from gateway.store.terms import SUFFIXES, Archive, Version

_OLDER_MAX: Final = 200
"""So many earlier versions are looked through for the one that was read."""
_READ_AT: Final = re.compile(
    r"(?:\S+/)?(?P<collection>[^\s/@,]+)\s*(?:@\s*[^\s,]+)?,\s*"
    r"(?P<path>.+?\.(?:md|txt)|[^,;()]+)(?:[\s,;(].*)?"
)
"""`OpenTermsArchive/genai-eu-versions @ 4812532, ChatGPT/Commercial Terms.md`."""
_WIDTH: Final = 96

_SAID: Final[Mapping[State, str]] = {
    "unchanged": "unchanged",
    "cosmetic": "cosmetic changes only",
    "elsewhere": "changed, but near no cited place",
    "changed": "stale: changed near a cited place",
    "lost": "stale: quoted words are gone",
    "missing": "not watched: the file is missing",
    "unreadable": "not watched: the file can't be read",
    "unrecorded": "not watched: no text is recorded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What `--record` did about one document."""

    policy: str
    document: str
    file: str = ""
    passages: int = 0
    problems: tuple[str, ...] = field(default=())


def add(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `watch` to the actions of `gateway policy`."""
    parser = actions.add_parser(
        "watch",
        help="compare a folder of terms with the texts that the policies were read from",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "archive", metavar="DIR", type=Path, help="texts, as Open Terms Archive lays them out"
    )
    parser.add_argument(
        "--policies", dest="folder", type=Path, help="a folder of policies (the built-in ones)"
    )
    parser.add_argument(
        "--only", action="append", metavar="POLICY", help="look at this policy (repeatable)"
    )
    parser.add_argument(
        "--before",
        metavar="DIR",
        type=Path,
        help="texts as they were read, laid out alike, to show what changed word by word",
    )
    parser.add_argument("--on", type=day, help="the day to look at (today)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--record",
        action="store_true",
        help="write the digests of these texts into terms.yaml: I have just read them",
    )
    parser.add_argument(
        "--mark",
        action="store_true",
        help="state in the ledger what is stale: its permits for training hold from then on",
    )
    parser.add_argument("--by", metavar="NAME", help="with --mark: who states it")
    parser.add_argument(
        "--allow-unwatched",
        action="store_true",
        help="tell of documents that can't be watched, but do not fail for them",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    on = args.on or day_of(SystemClock().now_ms())
    archive = Archive(args.archive, on)
    if args.record and args.folder is None:
        raise CallerError(
            "`--record` writes into a folder of policies", hint="add --policies FOLDER"
        )
    if args.mark and not (args.by or "").strip():
        raise CallerError("`--mark` is somebody's word", hint="add --by NAME")
    files = read_policy_files(args.folder or builtin_policies())
    if args.record:
        return _record(files, args, archive, on)
    before = Archive(args.before, on) if args.before else None
    found = watch(files, archive, on, args.only, before)
    if args.json:
        print(json.dumps([_as_json(one) for one in found], indent=2, ensure_ascii=False))
    else:
        print("\n".join(report(found)))
    if args.mark:
        for line in _mark(found, args):
            print(line, file=sys.stderr if args.json else sys.stdout)
    bad = STALE if args.allow_unwatched else STALE | UNWATCHED
    return 1 if any(one.state in bad for one in found) else 0


def watch(
    files: Mapping[str, str],
    archive: Archive,
    on: dt.date,
    only: Sequence[str] | None = None,
    before: Archive | None = None,
) -> list[Watched]:
    """Return what became of every document that the policies were read from.

    Policies whose last day has passed are left out; those to come are looked at as well.
    *before* may hold the texts as they were read; it helps to show what changed, no more.

    Raises:
        MalformedPolicyError: the policies don't load, or a snapshot in them is malformed.
        NotFoundError: there is no policy of one of the names in *only*.
    """
    found = []
    for policy, document in _watched_documents(Library.load(files), on, only):
        terms = _terms_file(policy)
        if document.snapshot is not None:
            check_snapshot(files[terms], terms, document.id, document.snapshot)
        found.append(_look(policy, document, archive, before))
    return found


def _mark(found: Sequence[Watched], args: argparse.Namespace) -> Iterator[str]:
    """State each stale document in the ledger, once; yield what was done."""
    from gateway.app.installation import open_installation  # noqa: PLC0415  # only to mark: it loads the server

    with contextlib.closing(open_installation(args)) as house:
        for one in found:
            if not one.stale or one.sha256 is None:
                continue
            if (one.policy, one.version) in house.register.stale:
                yield f"{one.policy} {one.version} is marked stale already"
                continue
            change = TermsChange(
                policy=one.policy,
                version=one.version,
                document=one.document,
                sections=one.sections,
                snapshot=one.sha256,
                by=args.by.strip(),
                at=rfc3339(house.clock.now_ms()),
                writer=house.writer,
            )
            leaf = write_statement(change, (), house.keyring.receipt)
            index = house.sequencer.append_and_wait(leaf).index
            house.register.apply(index, change)
            yield f"marked {one.policy} {one.version} as stale (leaf {index})"


def report(found: Sequence[Watched]) -> Iterator[str]:
    """Yield *found* as lines for people."""
    for one in found:
        yield (
            f"{one.policy} {one.version}, {one.document} ({one.title}): {_SAID[one.state]}"
            + (f"; {one.note}" if one.note else "")
        )
        if one.difference:
            yield _quoted(one.difference)
        touched = [place for place in one.cited if place.state in STALE]
        for _, group in itertools.groupby(sorted(touched, key=_line_of), key=_line_of):
            yield from _report_places(list(group))
    counts = Counter(_SAID[one.state].split(":")[0].split(",")[0] for one in found)
    parts = ", ".join(f"{count} {said}" for said, count in counts.items())
    yield f"{len(found)} document{'s' if len(found) != 1 else ''}: {parts or 'none'}"


def _report_places(places: Sequence[Cited]) -> Iterator[str]:
    """Yield cited places that stand in one line of the file, and once what stands there."""
    for place in places:
        where = f"line {place.line}" if place.line else ""
        if where and place.heading:
            where += f", under `{place.heading[:80]}`"
        if where:
            where = f"see {where}" if place.state == "lost" else f"now in {where}"
        quoted = f" `{place.quoted}`" if place.quoted else ""
        what = "; ".join(filter(None, [place.note or "the text near it changed", where]))
        yield f"  {place.section}{quoted} ({', '.join(place.clauses)}): {what}"
    longest = max(places, key=lambda place: len(place.difference or place.shown))
    shown = longest.difference or longest.shown
    if shown:
        yield _quoted(shown)


def _quoted(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="    | ", subsequent_indent="    | ")


def _line_of(place: Cited) -> int:
    return place.line or 0


def _as_json(one: Watched) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(one)
    return plain | {"stale": one.stale, "sections": list(one.sections)}


def _look(
    policy: Policy, document: Document, archive: Archive, before: Archive | None
) -> Watched:
    snapshot = document.snapshot
    if snapshot is None or snapshot.sha256 is None:
        note = "" if document.confidence == "primary" else "its own text was not read"
        return _unwatched(policy, document, "unrecorded", note)
    try:
        versions = archive.versions(snapshot.file)
        if not versions:
            return _unwatched(policy, document, "missing", f"DIR has no `{snapshot.file}`")
        content, reading = archive.read(versions[0])
    except SettingError as error:
        return _unwatched(policy, document, "unreadable", error.message)
    older = _older(archive, versions[1:])
    if before is not None:
        older = itertools.chain(_older(before, before.versions(snapshot.file)), older)
    return compare(policy, document, content, reading, older)


def _older(archive: Archive, versions: Sequence[Version]) -> Iterator[Reading]:
    for version in versions[:_OLDER_MAX]:
        try:
            yield archive.read(version)[1]
        except SettingError:
            continue  # an earlier version only helps to show what changed


def _unwatched(policy: Policy, document: Document, state: State, note: str) -> Watched:
    return Watched(
        policy=policy.id,
        version=policy.version,
        document=document.id,
        title=document.title,
        state=state,
        file=document.snapshot.file if document.snapshot else "",
        note=note,
    )


def _watched_documents(
    library: Library, on: dt.date, only: Sequence[str] | None
) -> Iterator[tuple[Policy, Document]]:
    """Yield each document with each policy that has it, unless the policy's time is over."""
    for name in only or ():
        if name not in library.policies:
            hint = nearest(name, library.policies, "`gateway policy lint` lists them")
            raise NotFoundError(f"there is no policy `{name}`", hint=hint)
    for policy_id, versions in library.policies.items():
        if only and policy_id not in only:
            continue
        left = [one for one in versions if not one.in_force_until or one.in_force_until >= on]
        cited = [{clause.citation.document for clause in one.clauses} for one in versions]
        uncited = {document.id for document in library.terms[policy_id]}.difference(*cited)
        for policy in left:
            mine = {clause.citation.document for clause in policy.clauses}
            if policy is left[0]:
                mine |= uncited
            for document in library.terms[policy_id]:
                if document.id in mine:
                    yield policy, document


def _record(
    files: Mapping[str, str], args: argparse.Namespace, archive: Archive, on: dt.date
) -> int:
    library = Library.load(files)
    clauses: dict[tuple[str, str], list[Clause]] = {}
    documents: dict[tuple[str, str], Document] = {}
    terms: dict[str, str] = {}
    for policy, document in _watched_documents(library, on, args.only):
        key = (policy.id, document.id)
        documents[key] = document
        clauses.setdefault(key, []).extend(policy.clauses)
        terms[policy.id] = _terms_file(policy)
    changed: dict[str, str] = {}
    done = []
    for key, document in documents.items():
        file = terms[key[0]]
        text = changed.get(file, files[file])
        result, text = _record_one(key[0], document, clauses[key], archive, file, text)
        done.append(result)
        if text != files[file]:
            changed[file] = text
    for file, text in changed.items():
        _write(args.folder / file, files[file], text)
    if args.json:
        print(json.dumps(msgspec.to_builtins(done), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_report_recorded(done)))
    return 1 if any(one.problems for one in done) and not args.allow_unwatched else 0


def _write(path: Path, read: str, text: str) -> None:
    try:
        if path.read_bytes() != read.encode():
            raise SettingError(f"`{path}` changed meanwhile", hint="record once more")
        write_durably(path, text.encode(), mode=path.stat().st_mode & 0o777)
    except OSError as error:
        raise SettingError(f"`{path}` can't be written: {error.strerror}") from error


def _record_one(
    policy: str,
    document: Document,
    clauses: Iterable[Clause],
    archive: Archive,
    file: str,
    text: str,
) -> tuple[Recorded, str]:
    def refused(*problems: str, at: str = "") -> tuple[Recorded, str]:
        return (
            Recorded(policy=policy, document=document.id, file=at, problems=problems),
            text,
        )

    if document.confidence != "primary":
        return refused("its own text was not read; read it, then set `confidence: primary`")
    if document.snapshot is not None:
        check_snapshot(text, file, document.id, document.snapshot)
    places = list(citations(clauses, document.id))
    quotes = [quoted for _, quoted in places if quoted]
    found = ""
    try:
        found = _file_of(document, quotes, archive)
        versions = archive.versions(found) if found else []
        if not versions:
            hint = f"`{found}` is not in DIR" if found else "nothing says which file it is"
            return refused(f"{hint}; write `snapshot: {{file: …}}` into terms.yaml", at=found)
        content, reading = archive.read(versions[0])
    except SettingError as error:
        return refused(error.message, at=found)
    snapshot, lost = snapshot_of(found, content, reading, quotes)
    if lost:
        sections = {quoted: section for section, quoted in places}
        return refused(*(f"`{one}` ({sections[one]}) is not in it" for one in lost), at=found)
    try:
        text = with_snapshot(text, file, document.id, snapshot)
    except MalformedPolicyError as error:
        return refused(str(error), at=found)
    done = Recorded(
        policy=policy, document=document.id, file=found, passages=len(snapshot.passages)
    )
    return done, text


def _file_of(document: Document, quotes: Sequence[str], archive: Archive) -> str:
    """Return where the document's text lies, as recorded or as `read` tells, or nothing."""
    if document.snapshot is not None:
        return document.snapshot.file
    told = document.read and _READ_AT.fullmatch(" ".join(document.read.where.split()))
    path = f"{told['collection']}/{told['path'].strip().strip('/')}" if told else ""
    if not told or {"", ".", ".."} & set(path.split("/")):
        return ""
    if path.endswith(SUFFIXES) or archive.versions(path):
        return path
    holding = []
    for file in archive.files(path) if quotes else ():
        try:
            _, reading = archive.read(archive.versions(file)[0])
        except (SettingError, IndexError):
            continue
        if all(passage_of(reading, quoted) for quoted in quotes):
            holding.append(file)
    return holding[0] if len(holding) == 1 else ""


def _report_recorded(done: Iterable[Recorded]) -> Iterator[str]:
    for one in done:
        if one.problems:
            yield f"{one.policy}, {one.document}: not recorded: {'; '.join(one.problems)}"
        else:
            passages = f"{one.passages} passage{'s' if one.passages != 1 else ''}"
            yield f"{one.policy}, {one.document}: recorded `{one.file}`, {passages}"


def _terms_file(policy: Policy) -> str:
    return f"{policy.file.rpartition('/')[0]}/terms.yaml"
