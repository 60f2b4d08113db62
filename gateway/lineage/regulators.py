"""Drafts of what regulators ask for, filled from signed manifests.

Two forms. The public summary of training content that Article 53(1)(d) of Regulation (EU)
2024/1689 (the AI Act) asks for, by the sections and questions of the Commission's template
(Communication C(2025) 8311 final of 5 December 2025, first published on 24 July 2025). And the
documentation of California Civil Code 3111 (AB 2013, Statutes of 2024, chapter 817), by the
twelve paragraphs of its subdivision (a), with the definitions of 3110.

Every figure says which manifest it is from. What the gateway doesn't know, or can't, is marked
to be filled in, never guessed. A draft is for a person to finish and to have reviewed; it is no
legal advice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.dataset.manifest import DatasetManifest, Teacher
from gateway.errors import NotFoundError
from gateway.ident import Sha256
from gateway.lineage.answer import share
from gateway.lineage.holdings import About, Holdings
from gateway.lineage.nodes import DatasetNode, Missing, ModelNode, Node
from gateway.lineage.ways import datasets_of, models_of, nodes_above

_FILL: Final = "**Fill in:**"
_UNKNOWN: Final = f"{_FILL} not known to the gateway"


@dataclass(slots=True)
class _Draft:
    """What a draft is filled from: stages, the nearest first, each with a mark to cite."""

    about: About
    size: int
    origin: str
    datasets: list[tuple[DatasetNode, int]]
    models: list[ModelNode]
    statements: Mapping[Sha256, dict[str, Any]]
    missing: list[str] = field(default_factory=list)

    def cite(self, payload: Sha256) -> str:
        """Return the mark of a manifest, which the list of sources resolves."""
        return f"[{payload[:12]}]"

    @property
    def direct(self) -> list[DatasetNode]:
        """Return the datasets that what is asked about was made from itself."""
        nearest = min((stages for _, stages in self.datasets), default=0)
        return [node for node, stages in self.datasets if stages == nearest]

    @property
    def is_synthetic(self) -> bool:
        """Tell whether answers of models stand in what was learned."""
        return any(one.influence == "text" for _, one in _all_teachers(self))


def report_of(form: str, about: About, holdings: Holdings) -> str:
    """Return the draft of *form* about a stage, as Markdown.

    Raises:
        NotFoundError: nothing was learned there that the form asks for.
    """
    roots = holdings.roots(about)
    datasets = sorted(datasets_of(roots).values(), key=lambda one: (one[1], one[0].name))
    if not datasets:
        raise NotFoundError(
            f"no dataset is known above {about}",
            hint="ask about a model, a dataset or an export of this log",
        )
    draft = _Draft(
        about=about,
        size=holdings.size,
        origin=holdings.origin,
        datasets=datasets,
        models=list(models_of(roots).values()),
        statements={
            payload: manifest.statement for payload, (_, manifest) in holdings.manifests.items()
        },
        missing=list(dict.fromkeys(_missing(roots))),
    )
    return "\n".join([*FORMATS[form](draft), *_sources(draft)]) + "\n"


# -- EU AI Act, Article 53(1)(d) ----------------------------------------------------------


def _eu(draft: _Draft) -> Iterator[str]:
    yield f"# Draft: public summary of training content of {_plain(str(draft.about))}"
    yield ""
    yield from _notice(
        draft,
        "Regulation (EU) 2024/1689, Article 53(1)(d), by the Commission's template"
        " (Communication C(2025) 8311 final of 5 December 2025)",
    )
    yield "Whether the obligation applies is for a person to decide. It binds providers of"
    yield "general-purpose AI models, free and open-source ones among them; for who modifies a"
    yield "model of another it is limited to the modification (recital 109)."
    yield ""
    yield f"- Version of the summary: {_UNKNOWN}."
    yield f"- Last update: {_UNKNOWN}."
    yield ""
    yield "## 1. General information"
    yield ""
    yield "### 1.1 Provider identification"
    yield ""
    yield f"- Provider name and contact details: {_UNKNOWN}."
    yield f"- Authorised representative name and contact details: {_UNKNOWN}."
    yield ""
    yield "### 1.2 Model identification"
    yield ""
    yield from _model(draft)
    yield f"- Date of placement of the model on the Union market: {_UNKNOWN}."
    yield ""
    yield "### 1.3 Modalities, overall training data size and other characteristics"
    yield ""
    yield "- Modality: text. Rows of other modalities are never taken."
    yield from _sizes(draft)
    yield f"- Training data size, as the template's range: {_band(draft)}"
    yield f"- Types of content: {_UNKNOWN}; the gateway does not look into texts."
    yield f"- Latest date of data acquisition/collection for model training: {_last(draft)}."
    yield f"- Linguistic characteristics of the overall training data: {_UNKNOWN}."
    yield f"- Other relevant characteristics of the overall training data: {_UNKNOWN}."
    yield ""
    yield "## 2. List of data sources"
    yield ""
    yield "### 2.1 Publicly available datasets"
    yield ""
    yield (
        f"- Have you used publicly available datasets to train the model? {_UNKNOWN}; rows"
        " that are stated to come from outside stand under 2.6."
    )
    yield ""
    yield "### 2.2 Private non-publicly available datasets obtained from third parties"
    yield ""
    yield "#### 2.2.1 Datasets commercially licensed by rightsholders or their representatives"
    yield ""
    yield (
        "- Have you concluded transactional commercial licensing agreement(s) with"
        f" rightsholder(s) or with their representatives? {_UNKNOWN}."
    )
    yield ""
    yield "#### 2.2.2 Private datasets obtained from other third parties"
    yield ""
    yield (
        "- Have you obtained private datasets from third parties that are not licensed as"
        f" under 2.2.1? {_UNKNOWN}; rows that are stated to come from outside stand under 2.6."
    )
    yield ""
    yield "### 2.3 Data crawled and scraped from online sources"
    yield ""
    yield (
        "- Were crawlers used by the provider or on its behalf? None by the gateway; whether"
        f" prompts held such data is {_UNKNOWN}."
    )
    yield ""
    yield "### 2.4 User data"
    yield ""
    yield (
        "- Was data from user interactions with the AI model (e.g. user input and prompts)"
        f" used to train the model? {_UNKNOWN}: whose words prompts are is not told."
    )
    yield (
        "- Was data collected from user interactions with the provider's other services or"
        f" products used to train the model? {_UNKNOWN}."
    )
    yield f"- Accounts whose calls were taken belong to project {_projects(draft)}."
    yield ""
    yield "### 2.5 Synthetic data"
    yield ""
    told = "Yes." if draft.is_synthetic else "None that went through the gateway."
    yield (
        "- Was synthetic AI-generated data created by the provider or on their behalf to"
        f" train the model? {told}"
    )
    if draft.is_synthetic:
        yield "- Modality of the synthetic data: text."
    yield (
        "- Which of these are general-purpose AI models available on the market, and which"
        f" are other AI models, the provider's own among them: {_FILL} by the names below."
    )
    yield ""
    yield from _teachers(draft)
    yield ""
    yield from _judges(draft)
    yield from _own_models(draft)
    yield f"- Links to what the teachers' providers publish of their own training: {_UNKNOWN}."
    yield ""
    yield "### 2.6 Other sources of data"
    yield ""
    yield (
        "- Have data sources other than those described in Sections 2.1 to 2.5 been used to"
        f" train the model? What was not taken from the gateway's log: {_UNKNOWN}."
    )
    yield from _from_people(draft)
    if any(node.manifest.found.written_by for node, _ in draft.datasets):
        yield f"- {_FILL} which of 2.1, 2.2, 2.4 and 2.6 each of these belongs to."
    yield ""
    yield "## 3. Data processing aspects"
    yield ""
    yield (
        "### 3.1 Respect of reservation of rights from text and data mining exception or"
        " limitation"
    )
    yield ""
    yield (
        "- Are you a signatory to the Code of Practice for general-purpose AI models that"
        " includes commitments to respect reservations of rights from the TDM exception or"
        f" limitation? {_UNKNOWN}."
    )
    yield (
        "- Measures implemented before model training (Article 4(3) of Directive (EU)"
        f" 2019/790): {_UNKNOWN}. What the providers' terms say (3.3) is no such measure."
    )
    yield ""
    yield "### 3.2 Removal of illegal content"
    yield ""
    yield f"- General description of measures taken: {_UNKNOWN}; the gateway removes none."
    yield ""
    yield "### 3.3 Other information (optional)"
    yield ""
    yield (
        "- Each answer was ruled on under its provider's terms when it was asked for, and"
        " again over every teacher when the dataset was built:"
    )
    yield from _terms(draft)
    yield from _processing(draft)
    yield ""


def _band(draft: _Draft) -> str:
    """Return the template's range for what a model learned, as far as tokens were counted."""
    for model in draft.models[:1]:
        tokens = _dict(_found(draft, model.payload).get("snapshot")).get("tokens")
        if isinstance(tokens, int):
            band = next(name for most, name in _BANDS if tokens < most)
            cite = draft.cite(model.payload)
            return (
                f"{band}, of this training {cite}. {_FILL} what was learned past the gateway."
            )
    return f"{_FILL} {', '.join(name.lower() for _, name in _BANDS)}."


_BANDS: Final = (
    (10**9, "Less than 1 billion tokens"),
    (10**13, "1 billion to 10 trillion tokens"),
    (float("inf"), "More than 10 trillion tokens"),
)
"""Of text, as the template has them."""


# -- California AB 2013 -------------------------------------------------------------------


def _california(draft: _Draft) -> Iterator[str]:
    yield f"# Draft: training data documentation of {_plain(str(draft.about))}"
    yield ""
    yield from _notice(
        draft, "California Civil Code 3111(a)(1) to (12), as added by AB 2013 (2024)"
    )
    yield (
        "Whether the duty applies, and its exceptions (3111(b): a sole purpose of security and"
    )
    yield "integrity, or of operating aircraft in the national airspace; national security,"
    yield "military or defense purposes for a federal entity alone), is for a person to decide."
    yield (
        "To train includes to test, to validate and to fine-tune (3110): what was measured with"
    )
    yield f"belongs into it, too. {_FILL} datasets of evaluations that the log doesn't hold."
    yield ""
    items: tuple[tuple[str, Callable[[_Draft], Iterable[str]]], ...] = (
        ("The sources or owners of the datasets", _ab_sources),
        ("How the datasets further the intended purpose of the system or service", _ab_purpose),
        ("The number of data points included in the datasets", _sizes),
        ("The types of data points within the datasets", _ab_types),
        (
            (
                "Whether the datasets include data protected by copyright, trademark or patent,"
                " or are entirely in the public domain"
            ),
            _ab_rights,
        ),
        ("Whether the datasets were purchased or licensed by the developer", _ab_licensed),
        (
            "Whether the datasets include personal information (Civil Code 1798.140(v))",
            _ab_personal,
        ),
        (
            (
                "Whether the datasets include aggregate consumer information"
                " (Civil Code 1798.140(b))"
            ),
            _ab_aggregate,
        ),
        (
            (
                "Cleaning, processing or other modification of the datasets by the developer,"
                " and the intended purpose of those efforts"
            ),
            _processing,
        ),
        (
            (
                "The time period in which the data were collected, with a notice if the"
                " collection is ongoing"
            ),
            _ab_period,
        ),
        ("The dates the datasets were first used during development", _ab_first_used),
        (
            "Whether synthetic data generation was or is used in development",
            _ab_synthetic,
        ),
    )
    for number, (title, tell) in enumerate(items, start=1):
        yield f"## ({number}) {title}"
        yield ""
        yield from tell(draft)
        yield ""


def _ab_sources(draft: _Draft) -> Iterator[str]:
    for node in draft.direct:
        yield (
            f"- `{_plain(node.name)}`, compiled by the developer (project"
            f" `{_plain(node.manifest.asked.project)}`) from recorded answers of the teachers"
            f" under (12) {draft.cite(node.payload)}."
        )
    yield from _from_people(draft)


def _ab_purpose(draft: _Draft) -> Iterator[str]:
    for node in draft.direct:
        use = node.manifest.found.use
        student = f" to make the student `{_plain(use.student)}`" if use.student else ""
        kind = f", of kind {use.student_kind}" if use.student_kind else ""
        yield (
            f"- `{_plain(node.name)}` was built for `{use.purpose}`{student}{kind}, as declared"
            f" in `{node.manifest.asked.declaration}` by"
            f" {_plain(node.owner or 'nobody on record')} {draft.cite(node.payload)}."
        )
    yield f"- In words for the public: {_UNKNOWN}."


def _ab_types(draft: _Draft) -> Iterator[str]:
    for node in draft.direct:
        yield (
            f"- `{_plain(node.name)}`: {_shape(node.manifest)}; text without labels"
            f" {draft.cite(node.payload)}."
        )


def _ab_rights(draft: _Draft) -> Iterator[str]:
    yield "- Answers of models were used under their providers' terms:"
    yield from _terms(draft)
    yield f"- Whether prompts or answers hold protected works: {_UNKNOWN}."


def _ab_licensed(draft: _Draft) -> Iterator[str]:
    yield "- The answers were obtained by calls to the teachers' APIs, under their terms (5)."
    agreements = sorted({name for _, one in _all_teachers(draft) for name in one.agreements})
    if agreements:
        names = ", ".join(f"`{_plain(name)}`" for name in agreements)
        yield f"- Calls were made under these registered agreements: {names}."
    yield from _from_people(draft)
    yield f"- Whether other data were purchased or licensed: {_UNKNOWN}."


def _ab_personal(draft: _Draft) -> Iterator[str]:
    yield f"- {_UNKNOWN}: the gateway does not look for personal information in texts."


def _ab_aggregate(draft: _Draft) -> Iterator[str]:
    yield f"- {_UNKNOWN}."


def _ab_period(draft: _Draft) -> Iterator[str]:
    for node, _ in draft.datasets:
        days = sorted({day for one in node.manifest.found.teachers for day in one.days})
        told = f"{days[0]} to {days[-1]}" if days else "no day on record"
        yield f"- `{_plain(node.name)}`: answers of {told} {draft.cite(node.payload)}."
    feeds = [node for node in draft.direct if node.manifest.asked.follows is not None]
    if feeds:
        yield "- Collection goes on: the dataset is a snapshot of a feed."
    else:
        yield f"- Whether collection goes on: {_UNKNOWN}."


def _ab_first_used(draft: _Draft) -> Iterator[str]:
    for model in draft.models:
        metadata = _details(draft, model.payload)
        begun = _text(metadata.get("startedOn")) or _text(metadata.get("finishedOn"))
        names = [one.name for one in model.parents if isinstance(one, DatasetNode)]
        told = ", ".join(f"`{_plain(name)}`" for name in names) or "no dataset"
        yield (
            f"- {told}: in the training of `{_plain(model.name)}`, {begun[:10] or 'undated'}"
            f" {draft.cite(model.payload)}."
        )
    if not draft.models:
        yield f"- {_UNKNOWN}: no training is asked about."


def _ab_synthetic(draft: _Draft) -> Iterator[str]:
    if draft.is_synthetic:
        yield "- Answers of these models were used in development:"
    else:
        yield "- No synthetic data went through the gateway."
    yield ""
    yield from _teachers(draft)
    yield ""
    yield from _judges(draft)
    yield from _own_models(draft)
    yield (
        "- Whether answers of models are synthetic data generation as 3110 defines it"
        " (artificial data made from seed data, with some of its statistical"
        " characteristics): for a person to decide; nothing is left out here."
    )
    yield f"- The functional need or desired purpose, which may be told: {_UNKNOWN}."


# -- what both tell -----------------------------------------------------------------------


def _notice(draft: _Draft, form: str) -> Iterator[str]:
    yield "> **A draft, not legal advice.** Filled by `gateway lineage report` from signed"
    yield f"> manifests in the log `{_plain(draft.origin)}` as it stood at {draft.size} leaves."
    yield f"> Form: {form}."
    yield "> It covers what went through the gateway and its gated trainers. Marks like"
    yield "> `[0123456789ab]` name the manifest that a figure is from, listed at the end."
    for one in draft.missing:
        yield f"> **Not known:** {_plain(one)}."
    yield ""


def _model(draft: _Draft) -> Iterator[str]:
    if not draft.models:
        yield (
            f"- Versioned model name(s): {_UNKNOWN}; the draft is about"
            f" {_plain(str(draft.about))}."
        )
        return
    model = draft.models[0]
    yield f"- Versioned model name(s): `{_plain(model.name)}` {draft.cite(model.payload)}."
    for base in model.bases:
        licence = _licence(draft, model.payload, base) or f"{_FILL} not stated"
        yield (
            f"- Model dependencies: it began as `{_plain(base)}`, from outside (licence:"
            f" {licence}); see its provider's own summary {draft.cite(model.payload)}."
        )
    for parent in model.parents:
        if isinstance(parent, ModelNode):
            cite = draft.cite(parent.payload)
            yield (
                f"- Model dependencies: it began as `{_plain(parent.name)}`, a student of ours"
                f" {cite}."
            )
    trained = _text(_details(draft, model.payload).get("finishedOn"))
    if trained:
        yield f"- Training ended on {trained[:10]} {draft.cite(model.payload)}."


def _sizes(draft: _Draft) -> Iterator[str]:
    for node in draft.direct:
        found = node.manifest.found
        parts = ", ".join(f"{one.rows} {one.name}" for one in found.splits)
        counted = [one.output_tokens for one in found.teachers if one.influence == "text"]
        tokens = (
            f"{sum(one or 0 for one in counted)} output tokens of its teachers"
            if counted and None not in counted
            else "tokens not counted by every teacher"
        )
        yield (
            f"- `{_plain(node.name)}`: {found.rows} rows{f' ({parts})' if parts else ''},"
            f" {tokens} {draft.cite(node.payload)}."
        )
    for model in draft.models[:1]:
        snapshot = _dict(_found(draft, model.payload).get("snapshot"))
        if snapshot:
            rows, tokens, learned = (
                snapshot.get(name, "?") for name in ("rows", "tokens", "learned")
            )
            yield (
                f"- Learned from: {rows} rows, {tokens} tokens, of which {learned} were learned"
                f" {draft.cite(model.payload)}."
            )


def _teachers(draft: _Draft) -> Iterator[str]:
    if not draft.is_synthetic:
        return
    yield "| teacher | how | dataset | rows | share | output tokens | asked | route | source |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for node, one in _all_teachers(draft):
        if one.influence == "text":
            whole = node.manifest.found.rows
            tokens = "not counted" if one.output_tokens is None else str(one.output_tokens)
            days = (
                " to ".join(dict.fromkeys((min(one.days), max(one.days)))) if one.days else ""
            )
            yield (
                f"| {_cell(_who(one))} | {_cell(one.operation)} | {_cell(node.name)} |"
                f" {one.rows} of {whole} | {share(one.rows, whole)} | {tokens} | {days} |"
                f" {_cell(one.route or 'not stated')} | {draft.cite(node.payload)} |"
            )


def _judges(draft: _Draft) -> Iterator[str]:
    for node, one in _all_teachers(draft):
        if one.influence == "judge":
            yield (
                f"- {_plain(_who(one))} judged {one.rows} rows of `{_plain(node.name)}`; its"
                f" words were not learned {draft.cite(node.payload)}."
            )


def _own_models(draft: _Draft) -> Iterator[str]:
    for node, _ in draft.datasets:
        for one in node.teachers:
            if isinstance(one.student, ModelNode):
                yield (
                    f"- `{_plain(one.teacher.provider)}` is the developer's own model"
                    f" `{_plain(one.student.name)}`; its teachers are in the table too"
                    f" {draft.cite(one.student.payload)}."
                )


def _terms(draft: _Draft) -> Iterator[str]:
    for node, one in _all_teachers(draft):
        pins = sorted({f"{pin.policy} v{pin.version}" for pin in one.policies})
        clauses = ", ".join(f"`{_plain(clause)}`" for clause in one.clauses) or "no clause"
        yes = [yes for yes in node.approvals if yes.index in one.verdicts]
        approved = "".join(f"; approved by {_plain(who.by)} in leaf {who.index}" for who in yes)
        duties = f"; obligations {', '.join(one.obligations)}" if one.obligations else ""
        yield (
            f"  - {_plain(_who(one))} for `{_plain(node.name)}`: policy"
            f" {_plain(' and '.join(pins)) or 'none'}, {clauses}{approved}{_plain(duties)}"
            f" {draft.cite(node.payload)}."
        )


def _processing(draft: _Draft) -> Iterator[str]:
    for node, _ in draft.datasets:
        asked, found = node.manifest.asked, node.manifest.found
        cite, name = draft.cite(node.payload), _plain(node.name)
        selected = ", ".join(f"{key} {_plain(value)}" for key, value in asked.filters.items())
        yield (
            f"- `{name}`: selected by {selected or 'project and declared use alone'};"
            f" duplicates removed ({asked.dedupe}) {cite}."
        )
        if found.left_out:
            left = ", ".join(f"{one.count} {one.reason}" for one in found.left_out)
            yield f"- `{name}`: left out by the gate: {left} {cite}."
        for made in found.made_by:
            yield (
                f"- `{name}`: {made.rows} rows through `{_plain(made.name)}`"
                f" {_plain(made.version)} ({made.kind}) {cite}."
            )
        for part in found.splits:
            if part.name == "held-out":
                yield f"- `{name}`: {part.rows} rows held out, never learned from {cite}."
    yield f"- The purpose of each step, in words for the public: {_UNKNOWN}."


def _from_people(draft: _Draft) -> Iterator[str]:
    said = False
    for node, _ in draft.datasets:
        for one in node.manifest.found.written_by:
            said = True
            yield (
                f"- {one.rows} rows of `{_plain(node.name)}` were written by people or came"
                f" from outside: {_plain(one.source)}, licence {_plain(one.licence)}, as"
                f" {_plain(one.by)} states {draft.cite(node.payload)}."
            )
    if not said:
        yield "- No row is stated to come from people or from outside."


def _sources(draft: _Draft) -> Iterator[str]:
    yield "## Sources"
    yield ""
    yield "| mark | what | leaf | sha256 of the manifest's payload |"
    yield "|---|---|---|---|"
    stages = [("dataset", node.name, node) for node, _ in draft.datasets]
    listed: list[tuple[str, str, DatasetNode | ModelNode]] = [
        *(("model", model.name, model) for model in draft.models),
        *stages,
    ]
    for kind, name, node in listed:
        yield (
            f"| {draft.cite(node.payload)} | {kind} {_cell(name)} |"
            f" {'none' if node.index is None else node.index} | `{node.payload}` |"
        )
    yield ""
    yield "`gateway lineage pack` puts all of them into one file that verifies offline."


def _missing(roots: Iterable[Node]) -> Iterator[str]:
    return (node.what for node, _, _ in nodes_above(roots) if isinstance(node, Missing))


def _all_teachers(draft: _Draft) -> Iterator[tuple[DatasetNode, Teacher]]:
    for node, _ in draft.datasets:
        for one in node.manifest.found.teachers:
            yield node, one


def _who(teacher: Teacher) -> str:
    names = tuple(dict.fromkeys(filter(None, (teacher.model, *teacher.reported))))
    who = f"{teacher.provider} ({', '.join(names)})" if names else teacher.provider
    return f"{who}, answered by {teacher.answered_by}" if teacher.answered_by else who


def _last(draft: _Draft) -> str:
    days = [(day, node.payload) for node, one in _all_teachers(draft) for day in one.days]
    if not days:
        return "no day on record"
    last, payload = max(days)
    return f"{last} {draft.cite(payload)}"


def _projects(draft: _Draft) -> str:
    names = dict.fromkeys(node.manifest.asked.project for node, _ in draft.datasets)
    return ", ".join(f"`{_plain(name)}`" for name in names)


def _shape(manifest: DatasetManifest) -> str:
    match manifest.asked.kind:
        case "preference":
            return "pairs of a better and a worse answer to one prompt"
        case "prompt":
            return "prompts with what verifies answers to them"
        case _:
            return "conversations, each to its answer"


def _found(draft: _Draft, payload: Sha256) -> dict[str, Any]:
    predicate = _dict(draft.statements.get(payload, {}).get("predicate"))
    return _dict(_dict(predicate.get("buildDefinition")).get("internalParameters"))


def _details(draft: _Draft, payload: Sha256) -> dict[str, Any]:
    predicate = _dict(draft.statements.get(payload, {}).get("predicate"))
    return _dict(_dict(predicate.get("runDetails")).get("metadata"))


def _licence(draft: _Draft, payload: Sha256, base: str) -> str:
    """Return the licence under which a training manifest says that its base came."""
    predicate = _dict(draft.statements.get(payload, {}).get("predicate"))
    for entry in _dict(predicate.get("buildDefinition")).get("resolvedDependencies") or ():
        if _dict(entry).get("name") == f"base:{base}":
            return _plain(_text(_dict(_dict(entry).get("annotations")).get("licence")))
    return ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _plain(text: str) -> str:
    """Return words of others so that they are no Markdown, no HTML and no control."""
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return "".join(f"\\{char}" if char in r"\*_<>[]|#" else char for char in shown).replace(
        "`", "'"
    )


def _cell(text: str) -> str:
    return _plain(text)


FORMATS: Final[Mapping[str, Callable[[_Draft], Iterator[str]]]] = {
    "eu-ai-act": _eu,
    "ab-2013": _california,
}
