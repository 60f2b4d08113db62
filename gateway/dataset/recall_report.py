"""What a recall found, for people and for programs: a folder that a signature covers.

`changes.jsonl` has a line for everything that changes, `report.json` the counts and who must
act, `report.txt` the same in sentences; `report.dsse.json` is a signed statement that names the
three by digest. The same ledger, libraries and day give the same bytes: no clock is in them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from gateway.canonical import canonical_json, sha256_hex
from gateway.dataset.recall import Change, Recall
from gateway.errors import BadDigestError, MalformedReceiptError
from gateway.ident import Sha256
from gateway.limits import LEAF_BYTES_MAX
from gateway.policy.model import Effect
from gateway.policy.question import Place
from gateway.policy.replay import Pair
from gateway.receipt.envelope import Signer, seal_statement, verify_envelope
from gateway.receipt.keys import Trust
from gateway.receipt.model import PREDICATES, STATEMENT_TYPE
from gateway.receipt.verify import document_keys

REPLAY_TYPE: Final = PREDICATES + "replay-report/v1"

CHANGES: Final = "changes.jsonl"
REPORT: Final = "report.json"
TEXT: Final = "report.txt"
STATEMENT: Final = "report.dsse.json"
FILES: Final = (CHANGES, REPORT, TEXT)
"""What the signed statement names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What was ruled on again, and under what."""

    on: str
    origin: str
    size: int
    root: str
    in_force: Sha256
    changed: Sha256
    overlays: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Who has something to do because of the change."""

    who: str
    what: str
    must: bool = True
    """False: nobody needs to, somebody may."""


class Report:
    """Takes changes as they are found; keeps counts and what each calls for."""

    def __init__(self, about: About, out: BinaryIO | None = None) -> None:
        self._about = about
        self._out = out
        self._digest = hashlib.sha256()
        self._actions: list[Action] = []
        self._groups: Counter[tuple[str, ...]] = Counter()
        self.changed: Counter[str] = Counter()
        """How many of each kind change."""

    def take(self, change: Change) -> None:
        """Write one change down, and note who must act."""
        line = canonical_json(change.as_json()) + b"\n"
        self._digest.update(line)
        if self._out is not None:
            self._out.write(line)
        self.changed[change.kind] += 1
        if change.kind == "exchange":
            self._groups[_group_of(change)] += 1
        else:
            self._actions += actions_of(change)

    def document(self, recall: Recall) -> dict[str, Any]:
        """Return `report.json`; *recall* has come to its end."""
        about = self._about
        return {
            "on": about.on,
            "ledger": {"origin": about.origin, "size": about.size, "root": about.root},
            "libraries": {
                "inForce": about.in_force,
                "changed": about.changed,
                "ruledUnder": dict(sorted(recall.ruled_under.items())),
                "notKept": sorted(recall.not_kept),
            },
            "overlays": list(about.overlays),
            "asked": {
                "exchangesAsOfTheCall": recall.at_call.as_json(),
                "exchangesAsOfToday": recall.today.as_json(),
                "declarations": recall.declarations.as_json(),
                "datasets": recall.datasets.as_json(),
                "students": recall.students.as_json(),
            },
            "notAsked": {
                "exchangesRefusedByTheGateway": recall.own_refusals,
                "declarationsThatEnded": recall.ended,
                "unreadable": recall.unreadable,
            },
            "changed": dict(sorted(self.changed.items())),
            "exchanges": [
                dict(zip(_GROUP, group, strict=True)) | {"count": count}
                for group, count in sorted(self._groups.items())
            ],
            "actions": [asdict(action) for action in self.actions()],
            "changesSha256": self._digest.hexdigest(),
        }

    def actions(self) -> list[Action]:
        """Return what is to be done, what must be first."""
        found = [*self._actions, *self._of_undeclared()]
        return sorted(dict.fromkeys(found), key=lambda one: not one.must)

    def _of_undeclared(self) -> Iterator[Action]:
        """Yield what undeclared exchanges call for: nobody owns them but their project."""
        counted: Counter[tuple[str, str, str, str]] = Counter()
        for group, count in self._groups.items():
            said = dict(zip(_GROUP, group, strict=True))
            before, _, after = said["asOfToday"].partition(" to ")
            if not said["declaration"] and before != after:
                counted[said["project"], said["provider"], after, said["now"]] += count
        for (project, provider, after, now), count in sorted(counted.items()):
            yield Action(
                who=f"project {project}",
                what=f"{count} undeclared exchanges with {provider} would be ruled {after}"
                f" today, by {now}",
                must=after != Effect.PERMIT.word,
            )


def actions_of(change: Change) -> Iterator[Action]:
    """Yield who must act because of a declaration, dataset or student, and what to do."""
    pair, what = change.pair, f"{change.kind} {change.name}"
    if change.kind != "declaration":
        what += f" ({change.manifest[:12]}…)"
    owner = change.owner or f"project {change.project}"
    if pair is not None and pair.changes:
        by = _listed(pair.causes)
        match pair.after.effect:
            case Effect.PERMIT:
                yield Action(
                    who=owner, what=f"{what} would be permitted: {by} decides", must=False
                )
            case Effect.HOLD:
                yield Action(
                    who="legal",
                    what=f"rule on {what} of {owner}: it would be held, by {by}",
                    must=pair.tightens,
                )
            case Effect.FORBID:
                yield Action(who=_who_stops(change, owner), what=_to_stop(change, what, by))
    if change.below:
        above = ", ".join(f"{one[:12]}…" for one in change.below)
        yield Action(
            who=_who_stops(change, owner),
            what=f"look again at {what}: it came from {above}, whose ruling changes",
        )


def _who_stops(change: Change, owner: str) -> str:
    return "operator" if change.kind == "student" else owner


def _to_stop(change: Change, what: str, by: str) -> str:
    match change.kind:
        case "declaration":
            return f"end or change {what}: it would be forbidden, by {by}"
        case "dataset":
            return f"learn no more from {what}: it would be forbidden, by {by}"
        case _:
            return f"serve {what} no longer: its use would be forbidden, by {by}"


def text_of(document: Mapping[str, Any]) -> str:
    """Return `report.txt`: *document* in sentences."""
    return "\n".join(_lines(document)) + "\n"


def write_signed(folder: Path, document: Mapping[str, Any], signer: Signer) -> None:
    """Write what stands beside `changes.jsonl` into *folder*, signed.

    Raises:
        OSError: it can't be written.
    """
    files = {REPORT: canonical_json(document) + b"\n", TEXT: text_of(document).encode()}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    digests = {name: sha256_hex(content) for name, content in files.items()}
    digests[CHANGES] = Sha256(document["changesSha256"])
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digests[name]}} for name in FILES],
        "predicateType": REPLAY_TYPE,
        "predicate": {name: document[name] for name in _SIGNED},
    }
    (folder / STATEMENT).write_bytes(seal_statement(canonical_json(statement), signer))


def verify_report(folder: Path, trust: Trust) -> dict[str, Any]:
    """Return the signed summary after checking its signature and every file it names.

    Raises:
        EvidenceError: something does not verify; the message names what.
        OSError: a file can't be read.
    """
    with (folder / STATEMENT).open("rb") as file:
        payload = verify_envelope(file.read(LEAF_BYTES_MAX + 1), document_keys(trust))
    try:
        statement = msgspec.json.decode(payload, type=dict[str, Any])
        named = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
        kind, predicate = statement["predicateType"], dict(statement["predicate"])
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        raise MalformedReceiptError(f"{STATEMENT}: not a statement") from error
    if kind != REPLAY_TYPE or sorted(named) != sorted(FILES):
        raise MalformedReceiptError(f"{STATEMENT}: not the report of a replay")
    # A report laid into a dataset or a model must not speak for what else is there.
    plain = {entry.name: entry.is_file() for entry in folder.iterdir()}
    for name in sorted(n for n in plain if not plain[n] or n not in {*FILES, STATEMENT}):
        raise BadDigestError(f"{name}: the report names no such file", hint="take it out")
    for name in FILES:
        if _file_sha256(folder / name) != named[name]:
            raise BadDigestError(f"{name}: it is not the file that was signed")
    return predicate


_SIGNED: Final = ("on", "ledger", "libraries", "overlays", "asked", "notAsked", "changed")
"""What the statement says itself; the rest is named by digest, for it may be long."""

_GROUP: Final = (
    "project",
    "declaration",
    "provider",
    "model",
    "purpose",
    "asOfTheCall",
    "asOfToday",
    "now",
)


def _group_of(change: Change) -> tuple[str, ...]:
    pair = change.pair
    return (
        change.project,
        change.declaration,
        change.about.get("provider", ""),
        change.about.get("model", ""),
        change.about.get("purpose", ""),
        _step(change.at_call),
        _step(change.today),
        "" if pair is None else _listed(pair.causes),
    )


def _step(pair: Pair | None) -> str:
    return "" if pair is None else f"{pair.before.effect.word} to {pair.after.effect.word}"


def _listed(places: Sequence[Place]) -> str:
    return ", ".join(f"{policy}:{clause}" for policy, clause in places)


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    ledger, libraries = document["ledger"], document["libraries"]
    yield f"Ruled again on {document['on']}: {ledger['size']} leaves of {ledger['origin']}."
    yield f"Library in force {libraries['inForce']}; changed library {libraries['changed']}."
    yield f"Root of the ledger {ledger['root']}."
    yield ""
    for name, counts in document["asked"].items():
        changed = sum(n for step, n in counts.items() if len(set(step.split(" to "))) > 1)
        told = "; ".join(f"{count} {step}" for step, count in counts.items()) or "none"
        yield f"{_SPOKEN[name]}: {changed} change. {told}."
    for name, count in document["notAsked"].items():
        if count:
            yield f"Not asked about: {count} {_SPOKEN[name]}."
    for digest in libraries["notKept"]:
        yield f"Library {digest[:12]}… was not kept: its exchanges are compared with today's."
    yield ""
    if document["exchanges"]:
        yield "Exchanges that change:"
        for group in document["exchanges"]:
            whose = group["declaration"] or f"undeclared, of project {group['project']}"
            when = f"{group['asOfTheCall']} as of the call"
            if group["asOfToday"]:
                when += f", {group['asOfToday']} as of today"
            model = f" {group['model']}" if group["model"] else ""
            yield (
                f"  {group['count']} with {group['provider']}{model} for {group['purpose']}"
                f" ({whose}): {when}; {group['now']}"
            )
        yield ""
    if not document["changed"]:
        yield "Nothing changes, and nobody must act."
    for must, heading in ((True, "Who must act:"), (False, "Who may act:")):
        found = [one for one in document["actions"] if one["must"] is must]
        if found:
            yield heading
            yield from (f"  {one['who']}: {one['what']}" for one in found)


_SPOKEN: Final = {
    "exchangesAsOfTheCall": "Exchanges, as of the call",
    "exchangesAsOfToday": "Exchanges, as of today",
    "declarations": "Declarations",
    "datasets": "Datasets",
    "students": "Students",
    "exchangesRefusedByTheGateway": "exchanges that the gateway refused for its own reasons",
    "declarationsThatEnded": "declarations that have ended",
    "unreadable": "leaves that can't be read",
}


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
