"""All policies, loaded together or not at all.

A policy's folder holds `policy.yaml`, `terms.yaml`, `review.md` and `cases/`; earlier versions
stand beside it as `policy.<version>.yaml`. The folder's name is the policy's id; below
`licences/` and `overlays/` stand policies of those kinds. Folders whose name begins with `_`
are patterns to copy and are not loaded. `models.yaml` names the terms that exact models carry.

Not here: reading the folder from disk (`store/policies.py`), running cases (`cases.py`).
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from gateway.canonical import digest_of, sha256_hex
from gateway.errors import MalformedPolicyError
from gateway.ident import Sha256
from gateway.policy.condition import compile_condition
from gateway.policy.decide import RESERVED
from gateway.policy.model import (
    EFFECTS,
    Clause,
    Confidence,
    Document,
    Effect,
    Kind,
    Policy,
    WrittenClause,
    WrittenModels,
    WrittenPolicy,
    WrittenTerms,
)
from gateway.policy.obligation import OBLIGATIONS, obligation_of
from gateway.policy.source import Keyed, Node, convert, line_at, nearest, node_at, read
from gateway.policy.vocabulary import UNLISTED

QUOTED_WORDS_MAX: Final = 10
"""Words of terms are paraphrased and cited, never copied at length."""

_POLICY_FILE: Final = re.compile(r"policy(\.[1-9][0-9]*)?\.yaml")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
MODELS_FILE: Final = "models.yaml"
_TOP_FILES: Final = frozenset({"vocabulary.yaml", MODELS_FILE, "standard-uses.yaml"})
_FOLDER_FILES: Final = ("policy.yaml", "terms.yaml", "review.md")
_KINDS: Final[Mapping[str, Kind]] = {"licences": "licence", "overlays": "overlay"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The policies that bind one call, and the ids of those that should and are not there."""

    policies: tuple[Policy, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """Every policy by id; *digest* names the whole set of rules."""

    policies: Mapping[str, tuple[Policy, ...]]
    """Versions of each policy, earliest first; no two bind on one day."""
    terms: Mapping[str, tuple[Document, ...]]
    """The documents that each policy's folder lists."""
    models: Mapping[str, tuple[str, ...]]
    """For each exact model id, the policies that come with the model."""
    digest: Sha256

    @staticmethod
    def load(files: Mapping[str, str]) -> Library:
        """Return the library that *files* (relative path to text) spell.

        Raises:
            MalformedPolicyError: the first thing that is wrong, with its file and line.
        """
        policies: dict[str, tuple[Policy, ...]] = {}
        terms: dict[str, tuple[Document, ...]] = {}
        rules: list[str] = []
        written = _policy_files(files)
        for folder in _folders(files):
            policy_id = _split(folder)[1]
            if policy_id in policies:
                raise MalformedPolicyError(
                    f"{folder}/policy.yaml", 1, f"a second policy `{policy_id}`"
                )
            if f"{folder}/policy.yaml" not in files:
                raise MalformedPolicyError(
                    f"{folder}/policy.yaml", 1, "the file is missing", hint="copy `_template`"
                )
            names = written[folder]
            documents = load_terms(files, folder)
            versions = [load_policy(files[name], name, documents) for name in names]
            policies[policy_id] = _one_a_day(versions)
            terms[policy_id] = tuple(documents.values())
            rules += [*names, f"{folder}/terms.yaml"]
        models: dict[str, tuple[str, ...]] = {}
        for name in sorted(name for name in files if _is_models(name)):
            _add_models(models, files[name], name, policies)
            rules.append(name)
        digests = [[name, sha256_hex(files[name].encode())] for name in sorted(rules)]
        return Library(policies=policies, terms=terms, models=models, digest=digest_of(digests))

    @property
    def providers(self) -> tuple[str, ...]:
        """Return the ids of all policies, sorted."""
        return tuple(sorted(self.policies))

    def in_force(self, provider: str, on: dt.date) -> Policy | None:
        """Return the policy of *provider* that binds on that day, or `None`."""
        for policy in self.policies.get(provider, ()):
            if policy.in_force(on):
                return policy
        return None

    def marked(self, stale: Mapping[tuple[str, int], str]) -> Library:
        """Return the same library with each (policy, version) of *stale* marked, and why."""
        policies = {
            name: tuple(
                replace(policy, stale=stale.get((policy.id, policy.version), ""))
                for policy in versions
            )
            for name, versions in self.policies.items()
        }
        return replace(self, policies=policies)

    def binding(
        self, named: Iterable[str], model: str | None, on: dt.date, *, of_model: bool = True
    ) -> Binding:
        """Return every policy that binds a call of *model* under the policies *named*.

        Where one of them says that the model's own terms bind as well, those are added; a
        model that is not listed adds `unlisted-model`. Where no model makes anything, which
        *of_model* says, the provider's terms speak alone. A policy that doesn't bind on that
        day must not fall silent: its newest version stands in, and `decide` finds it not in
        force.
        """
        bound: dict[str, Policy] = {}
        absent: list[str] = []
        waiting = [*named]
        for policy_id in waiting:
            if policy_id in bound or policy_id in absent:
                continue
            versions = self.policies.get(policy_id)
            if not versions:
                absent.append(policy_id)
                continue
            policy = self.in_force(policy_id, on) or versions[-1]
            bound[policy_id] = policy
            if policy.with_model_terms and of_model:
                waiting += self.models.get(model or "", (UNLISTED,))
        if not absent and all(policy.kind == "overlay" for policy in bound.values()):
            absent.append("")  # An overlay only adds: alone it would permit everything.
        return Binding(policies=tuple(bound.values()), absent=tuple(absent))


def load_terms(files: Mapping[str, str], folder: str) -> dict[str, Document]:
    """Return the documents that the folder's `terms.yaml` lists, by id.

    Raises:
        MalformedPolicyError: the file is missing or malformed, or lists a document twice.
    """
    file = f"{folder}/terms.yaml"
    if file not in files:
        raise MalformedPolicyError(
            file, 1, "the file is missing", hint="list the documents that the policy reads"
        )
    node = read(files[file], file)
    documents: dict[str, Document] = {}
    for index, document in enumerate(convert(node, WrittenTerms, file).documents):
        line = line_at(node, "documents", index, "id")
        if document.id in documents:
            raise MalformedPolicyError(file, line, f"document `{document.id}` twice")
        if document.confidence != "unread" and document.read is None:
            raise MalformedPolicyError(
                file,
                line,
                f"document `{document.id}` does not say where and when it was read",
                hint="add `read: {where: …, when: YYYY-MM-DD}`, or set `confidence: unread`",
            )
        documents[document.id] = document
    return documents


def load_policy(text: str, file: str, documents: Mapping[str, Document]) -> Policy:
    """Return the policy that *text* spells; its folder's name must be its id.

    Raises:
        MalformedPolicyError: names the line of what is wrong.
    """
    node = read(text, file)
    written = convert(node, WrittenPolicy, file)
    _check_head(node, written, file, documents)
    clauses: dict[str, Clause] = {}
    for index, clause in enumerate(written.clauses):
        where = node_at(node, "clauses", index)
        assert where is not None  # noqa: S101 # INVARIANT: the struct was made of this node.
        if clause.id in clauses:
            first = clauses[clause.id].line
            raise MalformedPolicyError(
                file,
                line_at(where, "id"),
                f"clause `{clause.id}` twice",
                hint=f"it already stands in line {first}",
            )
        clauses[clause.id] = _clause(clause, where, file, written.terms, documents)
    return Policy(
        id=written.policy,
        version=written.version,
        title=written.title,
        kind=_KINDS.get(_split(_split(_split(file)[0])[0])[1], "provider"),
        with_model_terms=written.with_model_terms,
        in_force_from=written.in_force_from,
        in_force_until=written.in_force_until,
        review_by=written.review_by,
        clauses=tuple(clauses.values()),
        file=file,
        sha256=sha256_hex(text.encode()),
    )


def binding_effect(effect: Effect, confidence: Confidence) -> Effect:
    """Return how *effect* counts: only what was read in the original can permit."""
    return Effect.HOLD if effect is Effect.PERMIT and confidence != "primary" else effect


def _clause(
    written: WrittenClause,
    node: Node,
    file: str,
    terms: tuple[str, ...],
    documents: Mapping[str, Document],
) -> Clause:
    _check_name(written.id, file, line_at(node, "id"), "clause")
    cited = written.citation.document
    if cited not in terms:
        hint = nearest(cited, terms, "list it under `terms`, and in terms.yaml")
        message = f"clause `{written.id}` cites a document that is not listed: `{cited}`"
        raise MalformedPolicyError(
            file, line_at(node, "citation", "document"), message, hint=hint
        )
    if len((written.citation.words or "").split()) > QUOTED_WORDS_MAX:
        line = line_at(node, "citation", "words")
        message = f"more than {QUOTED_WORDS_MAX} quoted words"
        raise MalformedPolicyError(file, line, message, hint="paraphrase in `because`")
    for key in ("because", "change"):
        if not getattr(written, key).strip():
            message = f"clause `{written.id}` has an empty `{key}`"
            raise MalformedPolicyError(file, line_at(node, key), message)
    effect = EFFECTS[written.effect]
    document = documents[cited]
    return Clause(
        id=written.id,
        effect=effect,
        binding=binding_effect(effect, document.confidence),
        condition=compile_condition(node_at(node, "when"), node_at(node, "unless"), file),
        citation=written.citation,
        document=document,
        because=" ".join(written.because.split()),
        change=" ".join(written.change.split()),
        obligations=_obligations(written, node, file),
        binds=written.binds,
        survives=written.survives,
        line=line_at(node, "id"),
    )


def _obligations(written: WrittenClause, node: Node, file: str) -> frozenset[str]:
    """Return the clause's obligations as they stand on the wire."""
    found = []
    for index, one in enumerate(written.obligations):
        line = line_at(node, "obligations", index)
        if isinstance(one, str):
            name, text = one, one
        elif len(one) == 1:
            name, value = next(iter(one.items()))
            text = f"{name}={value}"
        else:
            message = "an obligation is a name, or one name with its value"
            raise MalformedPolicyError(file, line, message, hint="write `- {name: value}`")
        if name not in OBLIGATIONS:
            hint = nearest(name, OBLIGATIONS, f"known: {', '.join(OBLIGATIONS)}")
            raise MalformedPolicyError(file, line, f"unknown obligation `{name}`", hint=hint)
        if obligation_of(text) is None:
            raise MalformedPolicyError(
                file,
                line,
                f"obligation `{name}` takes {_TAKES[OBLIGATIONS[name].takes]}",
                hint="without a comma" if isinstance(one, dict) else "write `{name: value}`",
            )
        found.append(text)
    return frozenset(found)


_TAKES: Final = {"nothing": "no value", "words": "some words", "days": "a number of days"}


def _add_models(
    models: dict[str, tuple[str, ...]], text: str, file: str, policies: Mapping[str, object]
) -> None:
    """Add what a `models.yaml` says to *models*."""
    node = read(text, file)
    if isinstance(node, Keyed) and not node.entries:
        return
    for index, one in enumerate(convert(node, WrittenModels, file).models):
        line = line_at(node, "models", index, "id")
        if not one.terms:
            raise MalformedPolicyError(
                file, line, f"model `{one.id}` names no terms", hint=f"or write `{UNLISTED}`"
            )
        for place, policy_id in enumerate(one.terms):
            if policy_id not in policies:
                hint = nearest(policy_id, policies, "name a policy's folder")
                at = line_at(node, "models", index, "terms", place)
                message = f"model `{one.id}` names terms that no policy reads: `{policy_id}`"
                raise MalformedPolicyError(file, at, message, hint=hint)
        # What is known from hearsay binds, and so does what is not known.
        terms = one.terms if one.confidence == "primary" else (*one.terms, UNLISTED)
        for name in (one.id, *one.names):
            if name in models:
                raise MalformedPolicyError(file, line, f"model `{name}` is listed twice")
            models[name] = terms


def _check_head(
    node: Node, written: WrittenPolicy, file: str, documents: Mapping[str, Document]
) -> None:
    folder, name = _split(file)
    folder = _split(folder)[1]
    if written.policy != folder:
        raise MalformedPolicyError(
            file,
            line_at(node, "policy"),
            f"policy `{written.policy}` lies in folder `{folder}`",
            hint="the folder's name is the policy's id",
        )
    if written.version < 1:
        raise MalformedPolicyError(file, line_at(node, "version"), "versions start at 1")
    if name not in ("policy.yaml", f"policy.{written.version}.yaml"):
        raise MalformedPolicyError(
            file,
            line_at(node, "version"),
            f"version {written.version} lies in `{name}`",
            hint=f"name the file `policy.{written.version}.yaml`",
        )
    if written.in_force_until is not None and written.in_force_until < written.in_force_from:
        line = line_at(node, "in_force_until")
        raise MalformedPolicyError(file, line, "`in_force_until` lies before `in_force_from`")
    for index, term in enumerate(written.terms):
        if term not in documents:
            hint = nearest(term, documents, f"terms.yaml lists {', '.join(documents)}")
            line = line_at(node, "terms", index)
            raise MalformedPolicyError(file, line, f"`{term}` is not in terms.yaml", hint=hint)


def _check_name(name: str, file: str, line: int, what: str) -> None:
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise MalformedPolicyError(
            file,
            line,
            f"`{name[:40]}` can't be the name of a {what}",
            hint="use lower-case letters, digits and dashes",
        )


def _folders(files: Iterable[str]) -> list[str]:
    """Return every folder of a policy; a YAML file that belongs to nothing is an error."""
    folders = set()
    for path in sorted(files):
        folder, name = _split(path)
        if _is_left_alone(path) or name in _TOP_FILES:
            continue
        if name.endswith(".yml"):
            raise MalformedPolicyError(path, 1, "ends in `.yml`", hint="name it `.yaml`")
        if not name.endswith(".yaml"):
            continue
        if _split(folder)[1] == "cases":
            folders.add(_split(folder)[0])
        elif folder and (_POLICY_FILE.fullmatch(name) or name == "terms.yaml"):
            folders.add(folder)
        else:
            near = nearest(name, _FOLDER_FILES) if folder else ""
            hint = near or "a policy has a folder of its own"
            raise MalformedPolicyError(path, 1, "a file that belongs to no policy", hint=hint)
    for folder in sorted(folders):
        _check_name(_split(folder)[1], f"{folder}/policy.yaml", 1, "policy")
    return sorted(folders)


def _is_models(path: str) -> bool:
    return _split(path)[1] == MODELS_FILE and not _is_left_alone(path)


def _is_left_alone(path: str) -> bool:
    """Tell whether *path* lies in a pattern to copy, or is hidden."""
    return any(part.startswith(("_", ".")) for part in path.split("/"))


def _split(path: str) -> tuple[str, str]:
    """Return the folder of *path*, empty at the top, and its last name."""
    folder, _, name = path.rpartition("/")
    return folder, name


def _policy_files(files: Iterable[str]) -> dict[str, list[str]]:
    """Return the files of each folder that spell a version of its policy, sorted."""
    found: dict[str, list[str]] = {}
    for path in sorted(files):
        folder, name = _split(path)
        if _POLICY_FILE.fullmatch(name):
            found.setdefault(folder, []).append(path)
    return found


def _one_a_day(versions: Iterable[Policy]) -> tuple[Policy, ...]:
    """Return *versions* by their first day; two on one day are an error."""
    ordered = sorted(versions, key=lambda policy: (policy.in_force_from, policy.version))
    for earlier, later in itertools.pairwise(ordered):
        if earlier.in_force(later.in_force_from):
            raise MalformedPolicyError(
                later.file,
                1,
                f"versions {earlier.version} and {later.version} of `{later.id}` are both in"
                f" force on {later.in_force_from}",
                hint=f"set `in_force_until` in {earlier.file} to the day before",
            )
    return tuple(ordered)
