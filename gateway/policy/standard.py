"""The standard uses that every policy is asked about, and the rows they are asked of, as data.

`policies/standard-uses.yaml` holds what a careful organisation would declare for each. A use
may have variants; they share its column in a table.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from gateway.errors import MalformedPolicyError
from gateway.intent.model import NAME, IntendedUse
from gateway.intent.purpose import covers
from gateway.policy.condition import Value
from gateway.policy.decide import Facts, facts_of
from gateway.policy.facts import check_purpose, check_use, facts_at
from gateway.policy.library import Binding, Library
from gateway.policy.model import Kind
from gateway.policy.source import Keyed, Node, convert, line_at, nearest, node_at, read
from gateway.provider.model import Operation, ProviderCall

STANDARD_USES_FILE: Final = "standard-uses.yaml"


class _Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the structs of the file share: unknown keys are refused."""


class WrittenCommon(_Written, frozen=True, kw_only=True):
    """What every use says unless it says otherwise."""

    use: Any = None
    facts: Any = None


class WrittenVariant(_Written, frozen=True, kw_only=True):
    """A use that shares the column of another, and how it differs from that."""

    name: str
    title: str
    use: Any = None
    facts: Any = None


class WrittenStandardUse(_Written, frozen=True, kw_only=True):
    """A standard use as the file writes it."""

    name: str
    title: str
    use: Any
    facts: Any = None
    variants: tuple[WrittenVariant, ...] = ()


class WrittenRow(_Written, frozen=True, kw_only=True):
    """One way of coming under a policy, as the file writes it."""

    id: str
    title: str
    policy: str
    model: str | None = None
    facts: Any = None
    purposes: dict[str, str] = {}


class WrittenStandardUses(_Written, frozen=True, kw_only=True):
    """A whole `standard-uses.yaml`."""

    uses: tuple[WrittenStandardUse, ...]
    common: WrittenCommon = WrittenCommon()
    rows: tuple[WrittenRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardUse:
    """A use that every policy is asked about; *facts* are those that nobody declares."""

    name: str
    title: str
    use: IntendedUse
    facts: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A standard use with its variants, the plain one first."""

    name: str
    title: str
    uses: tuple[StandardUse, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way of coming under a policy: an account's tier, a model, a service of its own."""

    id: str
    title: str
    policy: str
    model: str | None = None
    facts: Mapping[str, Value]
    """What is otherwise than the use says."""
    purposes: Mapping[str, str]
    """The purpose that takes the place of another and of those below it."""

    def binding(self, library: Library, on: dt.date) -> Binding:
        """Return what binds in this row; a law that only adds to others is asked by itself."""
        found = library.binding([self.policy], self.model, on)
        if any(policy.kind != "overlay" for policy in found.policies):
            return found
        return Binding(policies=found.policies, absent=())

    def asks(self, use: StandardUse) -> Facts:
        """Return the facts of *use* in this row."""
        purpose = use.use.purpose
        for general, instead in self.purposes.items():
            if covers(general, purpose):
                purpose = instead
                break
        call = ProviderCall(provider=self.policy, operation=Operation.CHAT, model=self.model)
        known = facts_of(msgspec.structs.replace(use.use, purpose=purpose), call)
        return Facts({**known, **use.facts, **self.facts})


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardUses:
    """What is asked, and of what beside each policy as such."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def uses(self) -> Iterator[StandardUse]:
        """Yield every use of every column."""
        for column in self.columns:
            yield from column.uses

    def rows_of(self, library: Library) -> tuple[Row, ...]:
        """Return the rows for *library*: a policy that none of ours names has a plain one."""
        rows = []
        for policy_id, versions in sorted(library.policies.items()):
            route = _ROUTES[versions[-1].kind]
            named = [row for row in self.rows if row.policy == policy_id] or [
                Row(
                    id=policy_id,
                    title=versions[-1].title,
                    policy=policy_id,
                    facts={},
                    purposes={},
                )
            ]
            rows += [replace(row, facts={"access-route": route, **row.facts}) for row in named]
        return tuple(rows)


_ROUTES: Final[Mapping[Kind, str]] = {
    "provider": "first-party",
    "licence": "self-hosted",
    "overlay": "first-party",
}
"""How one comes to use what a policy of that kind rules, where a row does not say."""


def load_standard_uses(
    text: str, file: str, policies: Collection[str] | None = None
) -> StandardUses:
    """Return the standard uses that *text* spells; rows name some of *policies*, if given.

    Raises:
        MalformedPolicyError: names the line of what is wrong.
    """
    node = read(text, file)
    written = convert(node, WrittenStandardUses, file)
    common = facts_at(node, file, "common", "facts")
    columns: dict[str, Column] = {}
    for index, one in enumerate(written.uses):
        path = ("uses", index)
        _check_new(one.name, columns, file, line_at(node, *path, "name"), "use")
        columns[one.name] = Column(
            name=one.name, title=one.title, uses=_uses(node, one, common, file, path)
        )
    if not columns:
        raise MalformedPolicyError(file, line_at(node, "uses"), "no use is named")
    rows: dict[str, Row] = {}
    for index, row in enumerate(written.rows):
        _check_new(row.id, rows, file, line_at(node, "rows", index, "id"), "row")
        rows[row.id] = _row(node, row, file, index, policies)
    return StandardUses(columns=tuple(columns.values()), rows=tuple(rows.values()))


def _uses(
    node: Node,
    written: WrittenStandardUse,
    common: Mapping[str, Value],
    file: str,
    path: tuple[str | int, ...],
) -> tuple[StandardUse, ...]:
    """Return the plain use and its variants."""
    facts = {**common, **facts_at(node, file, *path, "facts")}
    spelt = [node_at(node, "common", "use"), node_at(node, *path, "use")]
    uses = {
        written.name: StandardUse(
            name=written.name, title=written.title, use=_use(spelt, file), facts=facts
        )
    }
    for index, variant in enumerate(written.variants):
        place = (*path, "variants", index)
        name = f"{written.name}/{variant.name}"
        _check_new(name, uses, file, line_at(node, *place, "name"), "variant", variant.name)
        uses[name] = StandardUse(
            name=name,
            title=variant.title,
            use=_use([*spelt, node_at(node, *place, "use")], file),
            facts={**facts, **facts_at(node, file, *place, "facts")},
        )
    return tuple(uses.values())


def _use(spelt: list[Node | None], file: str) -> IntendedUse:
    """Return the use that maps laid over each other spell; each key keeps its line."""
    entries: dict[str, Node] = {}
    key_lines: dict[str, int] = {}
    line = 1
    for node in spelt:
        if node is None:
            continue
        if not isinstance(node, Keyed):
            raise MalformedPolicyError(file, node.line, "`use` must be a mapping")
        entries |= node.entries
        key_lines |= node.key_lines
        line = node.line
    whole = Keyed(entries=entries, key_lines=key_lines, line=line)
    use = convert(whole, IntendedUse, file)
    check_use(whole, use, file)
    return use


def _row(
    node: Node, written: WrittenRow, file: str, index: int, policies: Collection[str] | None
) -> Row:
    path = ("rows", index)
    if policies is not None and written.policy not in policies:
        line = line_at(node, *path, "policy")
        hint = nearest(written.policy, policies, "name a policy's folder")
        raise MalformedPolicyError(file, line, f"no policy `{written.policy}`", hint=hint)
    for general, instead in written.purposes.items():
        line = line_at(node, *path, "purposes", general)
        check_purpose(general, file, line)
        check_purpose(instead, file, line)
    return Row(
        id=written.id,
        title=written.title,
        policy=written.policy,
        model=written.model,
        facts=facts_at(node, file, *path, "facts"),
        purposes=written.purposes,
    )


def _check_new(
    name: str, known: Collection[str], file: str, line: int, what: str, said: str | None = None
) -> None:
    """Raise `MalformedPolicyError` if *name* is no name (*said* is as written) or is taken."""
    shown = name if said is None else said
    if NAME.fullmatch(shown) is None:
        raise MalformedPolicyError(
            file,
            line,
            f"`{shown[:40]}` can't be the name of a {what}",
            hint="use lower-case letters, digits and dashes",
        )
    if name in known:
        raise MalformedPolicyError(file, line, f"{what} `{shown}` twice")
