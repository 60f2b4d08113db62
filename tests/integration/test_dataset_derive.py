"""What a pipeline records: every row with its parents, in whole batches, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import settings
from gateway.app.installation import open_sourced
from gateway.app.pipeline import open_pipeline
from gateway.canonical import canonical_json, salted_sha256, sha256_hex
from gateway.dataset import derive
from gateway.dataset.derive import BatchErasedError, Step
from gateway.errors import GateRefusedError
from gateway.ident import ExchangeId, new_derivation_id
from gateway.intent.model import Declaration
from gateway.ledger.custody.erasure import apply_erasures
from gateway.limits import DERIVATION_BYTES_MAX, LEAF_BYTES_MAX, ROWS_PER_DERIVATION_MAX
from gateway.receipt.envelope import open_envelope
from gateway.receipt.model import Derivation, Withdrawal
from gateway.receipt.statement import write_statement
from gateway.store.content import Content
from tests.support.pipeline import Works, messages, rows_of, works_in

ROW = messages("q", "a")


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    """Return an installation; each test declares a use of its own project in it."""
    with works_in(tmp_path_factory.mktemp("works")) as works:
        yield works


@pytest.fixture
def declared(works: Works, request: pytest.FixtureRequest) -> Declaration:
    """Return a declared use of a project that no other test knows."""
    name = sha256_hex(request.node.nodeid.encode())[:12]
    return works.declare(project=f"p{name}", student=f"s{name}")


def rewrite(works: Works, declared: Declaration) -> Step:
    """Return a step of a pipeline that puts rows into other words."""
    return works.pipeline(declared).transform("clean", version="1", kind="rewrite")


def mine(works: Works, declared: Declaration) -> list[tuple[int, Derivation]]:
    """Return what was derived in the project of one test."""
    return works.derivations(declared.project)


def test_a_row_is_stated_with_its_parents_and_its_text_is_kept(
    works: Works, declared: Declaration
) -> None:
    """The leaf names transform, use and parents by place, and commits to the row's bytes."""
    source, rewriter = works.answer(declared, "a", "b"), works.answer(declared, "c")
    pipeline = works.pipeline(declared, tags=["nightly"])
    with pipeline.transform(
        "clean", version="2", kind="rewrite", code=rewrite, settings={"t": 0.5}, tags=["x"]
    ) as step:
        reference = step.row(
            ROW, [f"{source}/1", derive.parent(rewriter, role="rewriter")], verdict=0.5
        )

    ((index, one),) = mine(works, declared)
    assert reference == f"{one.derivation}/0"
    assert ("clean", "2", "rewrite") == (
        one.transform.name,
        one.transform.version,
        one.transform.kind,
    )
    assert derive.code_digest(rewrite) == one.transform.code
    assert sha256_hex(b'{"t":0.5}') == one.transform.settings
    assert declared.id == one.declared.declaration
    assert ("ada", declared.project) == (one.caller.principal, one.caller.project)
    assert ("nightly", "x") == one.tags
    assert [(source, 1, "source"), (rewriter, 0, "rewriter")] == [
        (parent.exchange, parent.choice, parent.role) for parent in one.parents
    ]
    assert all(parent.index < index for parent in one.parents)
    (row,) = one.rows
    assert ((0, 1), "0.5", "messages") == (row.parents, row.verdict, row.kind)
    kept = works.house.content.get(one.derivation)
    assert kept is not None
    assert canonical_json(ROW) == kept.rows[0]
    assert salted_sha256(kept.salt, kept.rows[0]) == row.row.value


def test_rows_are_made_of_rows_of_the_same_pipeline(
    works: Works, declared: Declaration
) -> None:
    """What a row is made of stands in the ledger before it, even if it waited till then."""
    source = works.answer(declared)
    pipeline = works.pipeline(declared)
    with (
        pipeline.transform("one", version="1", kind="extract") as first,
        pipeline.transform("two", version="1", kind="compose") as second,
    ):
        a, b = first.row(messages("q", "a"), source), first.row(messages("q", "b"), source)
        assert 0 == first.recorded
        c = second.row(messages("q", "c"), [a, b])
        assert (2, 0) == (first.recorded, second.recorded)
        second.row(messages("q", "d"), [c, c])

    places = {one.derivation: index for index, one in mine(works, declared)}
    for index, one in mine(works, declared):
        for parent in one.parents:
            assert parent.index < index
            assert parent.derivation is None or places[parent.derivation] == parent.index
    assert 4 == rows_of(mine(works, declared))


def test_a_batch_is_bounded_and_every_leaf_fits(works: Works, declared: Declaration) -> None:
    """No leaf states more rows or bytes than allowed, whatever rows and parents are like."""
    sources = [works.answer(declared, "a", "b") for _ in range(40)]
    draw = random.Random(6)
    with rewrite(works, declared) as step:
        for at in range(300):
            named = {f"{draw.choice(sources)}/{draw.choice('01')}" for _ in range(at % 64)}
            step.row(messages("q", f"a{at}"), [f"{sources[0]}/1", *sorted(named)])

    found = mine(works, declared)
    assert 300 == rows_of(found)
    for index, one in found:
        leaf = works.house.reader.leaf(index)
        assert len(one.rows) <= ROWS_PER_DERIVATION_MAX
        assert len(leaf) <= LEAF_BYTES_MAX
        assert len(open_envelope(leaf).payload) <= DERIVATION_BYTES_MAX + 8192


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("x-00000000000000000000000000/0", "derive.parent_unknown"),
        ("d-00000000000000000000000000/0", "derive.parent_unknown"),
        ("0" * 64, "derive.parent_unknown"),
        ("gpt-4", "derive.parent_unknown"),
        ("{source}/7", "derive.parent_unknown"),
        ("{source}/-1", "derive.parent_unknown"),
        ("{source}/", "derive.parent_unknown"),
        ("{source}/٣", "derive.parent_unknown"),
        ("{unrowed}/0", "derive.parent_unknown"),
        ("{other}/0", "derive.parent_other_project"),
    ],
)
def test_a_parent_that_cannot_be_resolved_is_refused(
    works: Works, declared: Declaration, given: str, code: str
) -> None:
    """No row is recorded of what is not in the ledger, or is none of the project's."""
    elsewhere = works.declare(project="elsewhere")
    names = {
        "source": works.answer(declared),
        "unrowed": works.answer(declared, outputs=()),
        "other": works.answer(elsewhere),
    }
    with rewrite(works, declared) as step, pytest.raises(GateRefusedError) as refused:
        step.row(ROW, [given.format(**names)])

    assert code == refused.value.problem
    assert [] == mine(works, declared)


def test_what_was_withdrawn_is_no_parent(works: Works, declared: Declaration) -> None:
    """Neither a withdrawn answer, nor a row of it, nor a withdrawn row or student is."""
    source, other = works.answer(declared), works.answer(declared)
    student = works.train("parser")
    with rewrite(works, declared) as step:
        below = step.row(ROW, source)
        lone = step.row(messages("q", "b"), other)
        step.flush()
        alone = step.row(messages("q", "c"), other)
        step.flush()
        step.row(messages("q", "d"), student)
        works.withdraw(exchange=source)
        works.withdraw(derivation=alone.partition("/")[0])
        works.withdraw(manifest=student)
        for named in (source, below, alone, student):
            with pytest.raises(GateRefusedError) as refused:
                step.row(messages("q", "e"), named)
            assert "derive.parent_withdrawn" == refused.value.problem
        with pytest.raises(GateRefusedError):
            step.keep(below)
        assert lone


def test_a_row_without_parents_is_somebodys_or_refused(
    works: Works, declared: Declaration
) -> None:
    """Only what people wrote has no parents, and then somebody answers for it."""
    source = works.answer(declared)
    pipeline = works.pipeline(declared)
    with rewrite(works, declared) as step:
        for parents in ((), [derive.parent(source, role="judge")]):
            with pytest.raises(GateRefusedError) as refused:
                step.row(ROW, parents)
            assert "derive.parent_missing" == refused.value.problem
    with pipeline.written(licence="cc-by-4.0", source="our own staff") as step:
        with pytest.raises(GateRefusedError):
            step.row(ROW, source)
        step.row(ROW)

    ((_, one),) = mine(works, declared)
    assert one.written is not None
    assert ("ada", "cc-by-4.0") == (one.written.by, one.written.licence)
    assert ((), "written") == (one.rows[0].parents, one.transform.kind)


def test_filters_and_judges_keep_rows_to_the_byte(works: Works, declared: Declaration) -> None:
    """A row that a filter or a judge hands on is its one source's, unchanged."""
    source = works.answer(declared, "good", "bad")
    judge = works.answer(declared, "the first", outputs_left_out=0)
    pipeline = works.pipeline(declared)
    own = pipeline.row(f"{source}/0")
    with (
        pipeline.transform("sieve", version="1", kind="filter") as sieve,
        pipeline.transform("court", version="1", kind="judge") as court,
    ):
        for step in (sieve, court):
            with pytest.raises(GateRefusedError) as refused:
                step.row(messages("say something", "better"), f"{source}/0")
            assert "derive.row_changed" == refused.value.problem
            with pytest.raises(GateRefusedError):
                step.row(own, [f"{source}/0", f"{source}/1"])
        kept = sieve.row(dict(reversed(own.items())), f"{source}/0")
        again = sieve.keep(kept)
        judged = court.verdict(again, "good", judge=judge)
        pair = court.pair(f"{source}/0", f"{source}/1", judge=judge, verdict=True)

    assert own == works.text(kept) == works.text(again) == works.text(judged)
    assert {
        "prompt": own["messages"][:1],
        "chosen": [{"role": "assistant", "content": "good"}],
        "rejected": [{"role": "assistant", "content": "bad"}],
    } == works.text(pair)
    *_, (_, one) = mine(works, declared)
    assert ["good", "yes"] == [row.verdict for row in one.rows]
    assert ["messages", "preference"] == [row.kind for row in one.rows]
    assert ["source", "judge"] == [one.parents[at].role for at in one.rows[0].parents]
    assert ["chosen", "rejected", "judge"] == [
        one.parents[at].role for at in one.rows[1].parents
    ]


def test_two_answers_to_different_prompts_are_no_pair(
    works: Works, declared: Declaration
) -> None:
    """A pair has one prompt, and two answers that differ."""
    source = works.answer(declared, "a", "a")
    other = works.answer(declared, "b", prompt="something else")
    pipeline = works.pipeline(declared)
    with pipeline.transform("court", version="1", kind="judge") as court:
        for sides in ((f"{source}/0", other), (f"{source}/0", f"{source}/1")):
            with pytest.raises(GateRefusedError) as refused:
                court.pair(*sides)
            assert "derive.row_malformed" == refused.value.problem


def test_a_pair_is_made_of_its_sides_or_of_a_pair(works: Works, declared: Declaration) -> None:
    """Each side of a pair has a parent of its own; one answer is not the source of both."""
    source = works.answer(declared, "a", "b")
    pipeline = works.pipeline(declared)
    with pipeline.transform("court", version="1", kind="judge") as court:
        pair = court.pair(f"{source}/0", f"{source}/1")
    row = {**works.text(pair), "prompt": messages("in other words")["messages"]}
    with rewrite(works, declared) as step:
        for parents in (
            [derive.parent(source)],
            [derive.parent(source, role="chosen")],
            [derive.parent(source), derive.parent(source, role="rejected")],
        ):
            with pytest.raises(GateRefusedError) as refused:
                step.row(row, parents)
            assert "derive.parent_missing" == refused.value.problem
        step.row(row, pair)
        step.row(
            row,
            [
                derive.parent(source, choice=at, role=role)
                for at, role in enumerate(("chosen", "rejected"))
            ],
        )
        assert 2 == step.pending


def test_an_exception_leaves_whole_batches_and_says_how_many(
    works: Works, declared: Declaration
) -> None:
    """What was recorded stands, the batch that was begun is gone, and the error tells."""
    source = works.answer(declared)
    step = rewrite(works, declared)

    def run() -> None:
        with step:
            for at in range(ROWS_PER_DERIVATION_MAX + 3):
                step.row(messages("q", str(at)), source)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        run()

    assert ROWS_PER_DERIVATION_MAX == rows_of(mine(works, declared))
    assert raised.value.__notes__ == [
        f"{ROWS_PER_DERIVATION_MAX} rows of `clean` are recorded, the last 3 are not"
    ]


def test_no_reference_comes_to_nothing(works: Works, declared: Declaration) -> None:
    """What a step gave a reference for is durable when the pipeline ends, in `with` or not."""
    source = works.answer(declared)
    with open_pipeline(works.file, declaration=declared.id, by="ada") as pipeline:
        with pipeline.transform("clean", version="1", kind="rewrite") as step:
            step.row(messages("q", "first"), source)
        late = step.row(messages("q", "after its step"), source)
        alone = pipeline.transform("alone", version="1", kind="rewrite")
        bare = alone.row(messages("q", "without a block"), source)
    for use_it in (
        lambda: step.row(ROW, source),
        lambda: step.keep(source),
        lambda: step.verdict(source, "good"),
        lambda: pipeline.row(source),
    ):
        with pytest.raises(GateRefusedError) as refused:
            use_it()
        assert "derive.ended" == refused.value.problem

    assert 3 == pipeline.recorded == rows_of(mine(works, declared))
    assert "after its step" == works.text(late)["messages"][1]["content"]
    assert "without a block" == works.text(bare)["messages"][1]["content"]


def test_an_error_drops_what_no_batch_holds_and_says_so(
    works: Works, declared: Declaration
) -> None:
    """A step without a block loses its last batch to an error, as one with a block does."""
    source = works.answer(declared)

    def run() -> None:
        with open_pipeline(works.file, declaration=declared.id, by="ada") as pipeline:
            step = pipeline.transform("clean", version="1", kind="rewrite")
            step.row(ROW, source)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        run()

    assert [] == mine(works, declared)
    assert ["0 rows of `clean` are recorded, the last 1 are not"] == raised.value.__notes__


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"row": None}, "derive.row_malformed"),
        ({"row": [1]}, "derive.row_malformed"),
        ({"version": 1}, "derive.transform_malformed"),
        ({"name": None}, "derive.transform_malformed"),
        ({"by": 7}, "derive.transform_malformed"),
        ({"settings": [1]}, "derive.transform_malformed"),
        ({"parents": None}, "derive.parent_missing"),
        ({"parents": 5}, "derive.parent_unknown"),
        ({"parents": [{"receipt": "x-1/0"}]}, "derive.parent_unknown"),
    ],
)
def test_what_is_of_another_type_is_one_line(
    works: Works, declared: Declaration, said: dict[str, Any], code: str
) -> None:
    """A program that hands over the wrong thing is told which, and nothing is recorded."""
    given: dict[str, Any] = {"name": "clean", "version": "1", "settings": None, "by": "ada"}
    given |= {"row": ROW, "parents": [works.answer(declared)]} | said

    def run() -> None:
        step = works.pipeline(declared, by=given["by"]).transform(
            given["name"], version=given["version"], kind="rewrite", settings=given["settings"]
        )
        step.row(given["row"], given["parents"])

    with pytest.raises(GateRefusedError) as refused:
        run()

    assert code == refused.value.problem
    assert [] == mine(works, declared)


def test_map_hands_on_what_is_recorded(works: Works, declared: Declaration) -> None:
    """Each row that map yields is in the ledger by then, and names itself for the next step."""
    rows: list[dict[str, Any]] = [
        {"receipt": f"{works.answer(declared, str(at))}/0", "number": at} for at in range(200)
    ]
    pipeline = works.pipeline(declared)

    def doubled(row: dict[str, Any]) -> list[dict[str, Any]]:
        return [messages("q", f"{row['number']}-{at}") for at in range(row["number"] % 3)]

    made = []
    for row in derive.map(pipeline, rows, doubled, name="double", version="1", kind="compose"):
        assert works.text(row["receipt"]) == {"messages": row["messages"]}
        named = ExchangeId(row["receipt"].partition("/")[0])
        assert works.house.reader.derivation(named) is not None
        made.append(row)
    assert sum(at % 3 for at in range(200)) == len(made) == pipeline.recorded

    with pipeline.transform("long", version="1", kind="filter") as step:
        kept = list(step.map(made, lambda row: row["messages"][1]["content"].endswith("1")))
    assert [row["messages"] for row in made if row["messages"][1]["content"][-1] == "1"] == [
        row["messages"] for row in kept
    ]
    with pipeline.transform("court", version="1", kind="judge") as court:
        judged = list(court.map(kept, lambda row: {"verdict": 1, "judge": rows[0]["receipt"]}))
    assert {1} == {row["verdict"] for row in judged}
    *_, (_, last) = mine(works, declared)
    assert "judge" in {parent.role for parent in last.parents}


def test_map_takes_rows_as_tables_have_them(works: Works, declared: Declaration) -> None:
    """Nulls in places that a row does without, and other columns, are no part of a row."""
    source = works.answer(declared)
    own = works.pipeline(declared).row(source)
    wide = {
        "messages": [{**one, "name": None, "tool_calls": None} for one in own["messages"]],
        "tools": None,
        "prompt": None,
        "receipts": [f"{source}/0"],
        "score": 0.5,
    }
    pipeline = works.pipeline(declared)
    table: list[dict[str, Any]] = [wide]
    (made,) = derive.map(
        pipeline, table, lambda _: True, name="sieve", version="1", kind="filter"
    )

    assert own == works.text(made["receipt"])
    assert 0.5 == made["score"]


def test_map_says_which_row_was_refused(works: Works, declared: Declaration) -> None:
    """The error of a map names the row, and what was whole before it stands."""
    rows = [{"receipt": str(works.answer(declared))}, {"receipt": "x-nowhere"}]
    pipeline = works.pipeline(declared)
    with pytest.raises(GateRefusedError) as refused:
        list(derive.map(pipeline, rows, lambda _: ROW, name="n", version="1", kind="rewrite"))

    assert refused.value.message.startswith("row 1: ")
    assert "derive.parent_unknown" == refused.value.problem
    assert ["0 rows of `n` are recorded, the last 1 are not"] == refused.value.__notes__
    assert [] == mine(works, declared)


@pytest.mark.parametrize(
    "said",
    [
        {"purpose": "inference"},
        {"purpose": "evaluate.internal"},
        {"expires": "2020-01-01"},
    ],
)
def test_a_pipeline_is_run_for_a_use_that_teaches(works: Works, said: dict[str, str]) -> None:
    """For a use under which nothing is ever learned, nothing is recorded."""
    declaration = works.declare(project="idle", student="idle", **said)

    with pytest.raises(GateRefusedError):
        works.pipeline(declaration)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "written"},
        {"kind": "launder"},
        {"name": "Clean It"},
        {"version": " "},
        {"code": "/nowhere/code.py"},
        {"settings": {"a": object()}},
        {"tags": ["No Name"]},
        {"tags": [f"t{at}" for at in range(17)]},
    ],
)
def test_a_transform_says_what_it_is(
    works: Works, declared: Declaration, changes: dict[str, Any]
) -> None:
    """A transform that can't be named, or found again, is refused."""
    said: dict[str, Any] = {"name": "clean", "version": "1", "kind": "rewrite"} | changes
    with pytest.raises(GateRefusedError) as refused:
        works.pipeline(declared).transform(said.pop("name"), **said)

    assert "derive.transform_malformed" == refused.value.problem


def test_a_foreign_derivation_of_the_same_name_is_none(
    works: Works, declared: Declaration
) -> None:
    """A reference to a batch that was dropped leads nowhere."""
    source = works.answer(declared)
    step = rewrite(works, declared)
    reference = step.row(ROW, source)
    assert 1 == step.drop()

    with rewrite(works, declared) as other, pytest.raises(GateRefusedError) as refused:
        other.row(ROW, reference)
    assert "derive.parent_unknown" == refused.value.problem


def test_what_others_say_meanwhile_counts_from_the_next_batch_on(
    works: Works, declared: Declaration
) -> None:
    """A withdrawal by another process ends what a pipeline that is under way makes of it."""
    source = works.answer(declared)
    with rewrite(works, declared) as step:
        step.row(ROW, source)
        sourced = settings.load(works.file, environment={})
        with contextlib.closing(open_sourced(sourced)) as other:
            said = Withdrawal(
                by="grace", reason="wrong", exchange=source, at=works.now, writer=other.writer
            )
            other.sequencer.append_and_wait(write_statement(said, (), other.keyring.receipt))
        step.flush()
        with pytest.raises(GateRefusedError) as refused:
            step.row(messages("q", "b"), source)

    assert "derive.parent_withdrawn" == refused.value.problem
    assert 1 == step.recorded


# -- files ---------------------------------------------------------------------------------


def write_rows(path: Path, *rows: object) -> Path:
    """Write *rows* as JSON lines; a text goes as it is."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def references(path: Path) -> dict[int, str]:
    """Return the references beside a file, by line."""
    listed = path.with_name(path.name + ".receipts.jsonl").read_text().splitlines()
    return {one["line"]: one["receipt"] for one in map(json.loads, listed)}


DERIVE = ("--transform", "clean", "--version", "1", "--kind", "rewrite", "--by", "ada")


def test_a_file_is_recorded_and_its_references_stand_beside_it(
    works: Works, declared: Declaration, tmp_path: Path
) -> None:
    """Each good line is recorded, the others are named; given again, nothing comes twice."""
    source = works.answer(declared)
    rows = [messages("q", str(at)) | {"receipt": f"{source}/0", "n": at} for at in range(200)]
    file = write_rows(
        tmp_path / "made.jsonl",
        *rows,
        "",
        "{",
        messages("q", "a"),
        messages("q", "b") | {"receipt": "x-nowhere"},
    )
    use = ("dataset", "derive", str(file), "--for", declared.id, *DERIVE)
    code, said, _ = works.command(*use)

    assert 1 == code
    assert "200 rows recorded, 3 refused" in said
    assert "refused: line 202: derive.row_malformed" in said
    assert "refused: line 203: derive.parent_missing" in said
    assert "refused: line 204: derive.parent_unknown" in said
    found = references(file)
    assert list(range(1, 201)) == list(found)
    assert messages("q", "41") == works.text(found[42])
    assert 200 == rows_of(mine(works, declared))

    beside = file.with_name(file.name + ".receipts.jsonl")
    beside.write_bytes(beside.read_bytes()[:-3])
    write_rows(file, *rows)
    assert (0, True) == ((done := works.command(*use))[0], "1 rows recorded, 199" in done[1])
    assert list(range(1, 201)) == list(references(file))
    assert "0 rows recorded, 200 were already" in works.command(*use)[1]


def test_a_table_is_recorded_as_lines_are(
    works: Works, declared: Declaration, tmp_path: Path
) -> None:
    """Rows of a Parquet file are recorded, with roles of parents, whatever nulls it holds."""
    pa = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    a, b = works.answer(declared), works.answer(declared)
    told = messages("q", "a")
    told["messages"][1]["name"] = "bot"
    named = [{"receipt": f"{a}/0", "role": None}, {"receipt": f"{b}/0", "role": "rewriter"}]
    table = pa.Table.from_pylist([told | {"made_of": named}, messages("q", "b")])
    file = tmp_path / "made.parquet"
    parquet.write_table(table, file)
    code, said, _ = works.command(
        "dataset", "derive", str(file), "--for", declared.id, *DERIVE,
        "--parents-column", "made_of",
    )  # fmt: skip

    assert 1 == code
    assert "refused: line 2: derive.parent_missing" in said
    assert told == works.text(references(file)[1])
    ((_, one),) = mine(works, declared)
    assert ["source", "rewriter"] == [parent.role for parent in one.parents]


def test_words_of_people_name_nothing_that_they_were_made_of(
    works: Works, declared: Declaration, tmp_path: Path
) -> None:
    """A line that names a receipt is no text of people, whoever says so; the others are."""
    answer = f"{works.answer(declared, 'its words')}/0"
    laundered = messages("q", "its words")
    path = write_rows(
        tmp_path / "own.jsonl",
        laundered | {"receipt": answer},
        laundered | {"receipts": [answer]},
        messages("q", "ours") | {"receipt": None},
    )
    said = ("--written", "--licence", "mit", "--source", "us", "--by", "ada")
    code, out, _ = works.command("dataset", "derive", str(path), "--for", declared.id, *said)

    assert (1, 2) == (code, out.count("derive.row_malformed"))
    assert [3] == list(references(path))
    assert 1 == rows_of(mine(works, declared))


def test_no_column_of_parents_is_passed_over(works: Works, declared: Declaration) -> None:
    """Parents in both columns are refused, not cut; what map hands on has one of them."""
    one, other = (f"{works.answer(declared, text)}/0" for text in ("one", "other"))
    pipeline = works.pipeline(declared)
    both = ROW | {"receipt": one, "receipts": [other]}
    with pytest.raises(GateRefusedError) as refused:
        list(derive.map(pipeline, [both], dict, name="m", version="1", kind="compose"))
    assert "derive.row_malformed" == refused.value.problem

    source = works.text(one) | {"receipts": [one]}
    with pipeline.transform("long", version="1", kind="filter") as step:
        (kept,) = step.map([source], bool)
        (again,) = step.map([kept], bool)
    assert "receipts" not in again
    assert 2 == pipeline.recorded


def test_written_rows_are_declared(works: Works, declared: Declaration, tmp_path: Path) -> None:
    """People's words are recorded with who answers for them, their licence and their source."""
    file = write_rows(tmp_path / "own.jsonl", ROW)
    use = ("dataset", "derive", str(file), "--for", declared.id, "--written")
    assert 2 == works.command(*use)[0]
    assert 2 == works.command(*use, "--by", "Ada", "--kind", "filter")[0]
    done = works.command(
        *use, "--by", "Ada", "--licence", "cc-by-4.0", "--source", "our own staff"
    )

    assert 0 == done[0], done
    ((index, one),) = mine(works, declared)
    assert one.written is not None
    assert ("Ada", "cc-by-4.0", "our own staff") == (
        one.written.by,
        one.written.licence,
        one.written.source,
    )
    listed = works.command("receipt", "list", "--kind", "derivation", "--project", "none")[1]
    assert "nothing fits" in listed
    words = ("receipt", "list", "--kind", "derivation", "--project", declared.project)
    assert f"{one.derivation}  " in works.command(*words)[1]
    assert "written" == json.loads(works.command(*words, "--json")[1])["transform"]
    code, shown, _ = works.command("receipt", "show", one.derivation)
    assert 0 == code
    assert f"leaf {index} of the ledger" in shown
    assert "wrote 1 row" in shown


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--written", "--by", "A", "--licence", "mit"), 2),
        (("--transform", "t", "--version", "1"), 2),
        ((*DERIVE, "--licence", "mit"), 2),
        ((*DERIVE, "--code", "/nowhere"), 1),
        ((*DERIVE, "--tag", "No Tag"), 1),
        (DERIVE, 1),
    ],
)
def test_a_command_that_says_too_little_records_nothing(
    works: Works, declared: Declaration, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    """What can't be stated, or read, is refused in one line before anything is recorded."""
    missing = str(tmp_path / "none.jsonl")
    done = works.command("dataset", "derive", missing, "--for", declared.id, *words)

    assert code == done[0]
    assert 1 == len(done[2].strip().splitlines())
    assert [] == [*tmp_path.iterdir()]
    assert [] == mine(works, declared)


def test_one_process_at_a_time_records_a_file(
    works: Works, declared: Declaration, tmp_path: Path
) -> None:
    """While one records a file, another is told to wait."""
    file = write_rows(tmp_path / "own.jsonl", ROW)
    with (tmp_path / "own.jsonl.receipts.jsonl").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = works.command("dataset", "derive", str(file), "--for", declared.id, *DERIVE)

    assert 1 == done[0]
    assert "derive.busy" in done[2]


# -- erasing -------------------------------------------------------------------------------


def test_rows_go_with_the_texts_they_were_made_of(works: Works, declared: Declaration) -> None:
    """What was made of an erased text goes, at any distance; rows beside it stay."""
    gone, kept = works.answer(declared, principal="eve"), works.answer(declared)
    pipeline = works.pipeline(declared)
    with (
        pipeline.transform("one", version="1", kind="extract") as one,
        pipeline.transform("two", version="1", kind="compose") as two,
    ):
        reached = [one.row(messages("q", "a"), gone)]
        spared = [one.row(messages("q", "b"), kept)]
        spared.append(one.row(messages("q", "c"), [kept, derive.parent(gone, role="judge")]))
        reached.append(two.row(messages("q", "d"), reached))
        spared.append(two.row(messages("q", "e"), spared))
        two.flush()
        reached.append(two.row(messages("q", "f"), reached[-1:]))
    below = reached[-1]
    step = rewrite(works, declared)
    late = step.row(messages("q", "g"), gone)
    works.erase(exchange=gone)
    apply_erasures(works.house.reader, works.house.content)

    assert [None] * 3 == [works.text(one) for one in reached]
    assert None not in [works.text(one) for one in spared]
    with pytest.raises(BatchErasedError):
        step.flush()
    assert works.text(late) is None
    assert 0 == step.recorded
    for named in (gone, below, late):
        with rewrite(works, declared) as other, pytest.raises(GateRefusedError) as refused:
            other.row(ROW, named)
        assert "derive.parent_erased" == refused.value.problem
    with rewrite(works, declared) as other:
        other.row(ROW, spared[0])


def test_erasing_a_project_reaches_its_rows(works: Works) -> None:
    """The texts of a project's, a principal's or one named derivation go; others' stay."""
    mine_, theirs = works.declare(project="leaving"), works.declare(project="staying")
    rows = {}
    for declared in (mine_, theirs):
        pipeline = works.pipeline(declared, by="ada" if declared is mine_ else "grace")
        with pipeline.written(licence="mit", source="us") as step:
            rows[declared.project] = step.row(ROW)
    with works.pipeline(theirs, by="mallory").written(licence="mit", source="us") as step:
        rows["mallory"] = step.row(ROW)
        step.flush()
        rows["named"] = step.row(messages("q", "z"))
    works.erase(project="leaving")
    works.erase(principal="mallory", before="2020-01-01")
    works.erase(exchange=rows["named"].partition("/")[0])
    apply_erasures(works.house.reader, works.house.content)

    assert {"leaving": True, "staying": False, "mallory": False, "named": True} == {
        name: works.text(row) is None for name, row in rows.items()
    }
    works.erase(principal="mallory")
    apply_erasures(works.house.reader, works.house.content)
    assert works.text(rows["mallory"]) is None
    assert works.text(rows["staying"]) is not None


def test_a_derivation_is_withdrawn_by_command(works: Works, declared: Declaration) -> None:
    """A person's word ends the use of a batch of rows, once; of none that isn't there."""
    with rewrite(works, declared) as step:
        row = step.row(ROW, works.answer(declared))
    named = row.partition("/")[0]
    unknown = named[:-1] + ("0" if named.endswith("Z") else "Z")
    why = ("--by", "grace", "--reason", "wrong")

    assert 2 == works.command("review", "withdraw", unknown, *why)[0]
    code, said, _ = works.command("review", "withdraw", named, *why)
    assert (0, True) == (code, said.startswith(f"withdrew {named}"))
    assert "withdrawn already" in works.command("review", "withdraw", named, *why)[1]
    code, _, said = works.command("receipt", "show", unknown)
    assert (2, True) == (code, "thing.unknown" in said)


def test_texts_whose_leaf_never_came_go_with_the_next_erasure(
    works: Works, declared: Declaration
) -> None:
    """Nobody can say whose words they are, so any erasure reaches them; newer ones wait."""
    content, now = works.house.content, works.house.clock.now_ms()
    row = Content(request=b"", salt=b"s", rows={0: b"{}"})
    # The newer one stays new, however long it takes until something is erased.
    old, new = (new_derivation_id(now - age) for age in (120_000, -3_600_000))
    content.put_many([(old, row), (new, row)])
    with rewrite(works, declared) as step:
        stated = step.row(ROW, works.answer(declared))
    works.erase(exchange=works.answer(declared))
    apply_erasures(works.house.reader, content)

    assert [True, False] == [content.was_erased(one) for one in (old, new)]
    assert works.text(stated) is not None


def test_a_judge_whose_answer_stands_in_the_row_is_none(
    works: Works, declared: Declaration
) -> None:
    """No words are had by calling an answer a judge; what a judge repeats isn't its own."""
    words = "the whole answer of somebody whose terms say that nobody may learn from it"
    source = works.answer(
        declared, "a source which says quite enough to be repeated by a judge"
    )
    other = works.answer(declared, words)
    echo = works.answer(
        declared, "a source which says quite enough to be repeated by a judge", prompt="which?"
    )
    step = rewrite(works, declared)

    for text in (words, f"To begin with: {words}. So it is."):
        with pytest.raises(GateRefusedError) as refused:
            step.row(messages("q", text), [source, derive.parent(other, role="judge")])
        assert "derive.judge_answered" == refused.value.problem
    repeated = messages("q", "a source which says quite enough to be repeated by a judge")
    step.row(repeated, [source, derive.parent(echo, role="judge")])
    step.row(messages("q", "other words"), [source, derive.parent(other, role="judge")])
    assert 2 == step.pending
