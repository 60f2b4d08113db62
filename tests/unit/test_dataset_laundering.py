"""Laundering: whatever is done to rows so that they look as if they came from elsewhere.

Each attempt is refused with a code of its own, made by somebody with the folder alone, or by an
insider who signs and logs whatever they like.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.canonical import sha256_hex
from gateway.dataset.assembly.build import Built
from gateway.dataset.manifest import ABOVE, HELD_OUT, LEAVES, MANIFEST, RECEIPTS, ROWS
from gateway.dataset.verification.verify import verified_rows, verify_dataset
from gateway.errors import EvidenceError
from gateway.receipt.model import Parent, Written
from tests.support.dataset import House, a_library, a_policy
from tests.support.derived import build, derive, messages, parent
from tests.support.evidence import TRUST
from tests.support.forger import (
    above_in,
    asked_in,
    found_in,
    leaves_of,
    lines_of,
    log_again,
    put_above,
    put_leaves,
    put_lines,
    said_in,
    say,
)


@dataclass(frozen=True)
class Scene:
    """A house with a dataset of answers, one of rows made of them, and one of others."""

    house: House
    plain: Built
    derived: Built
    other: Built


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Return the scene; nobody changes its folders."""
    judging = a_library(judge=a_policy("judge", "permit", when="purpose: verify"))
    house = House(tmp_path_factory.mktemp("laundering") / "house", judging)
    use, verifying = house.declare(), house.declare("verify")
    answers = [house.answer(use, f"answer {number}") for number in range(8)]
    judge = house.answer(verifying, "the better one", provider="judge")
    tidied = derive(
        house,
        use,
        [
            (messages(f"tidy {number}", f"tidied {number}"), [parent(house, answers[number])])
            for number in range(4)
        ],
        name="tidy",
        transform="extract",
    )
    said = parent(house, judge, "judge")
    rows: list[tuple[dict[str, Any], list[Parent]]] = [
        (
            messages(f"question {number} of many words", f"rewritten {number}"),
            [
                parent(house, tidied, choice=number)
                if number < 4
                else parent(house, answers[number]),
                said,
            ],
        )
        for number in range(8)
    ]
    derive(house, use, rows)
    derive(
        house,
        use,
        [(messages("who wrote this?", "people"), [])],
        name="others",
        transform="written",
        written=Written(by="ada", licence="CC0-1.0", source="the team"),
    )
    lone = house.answer(use, "another answer")
    derive(house, use, [(messages("else?", "else"), [parent(house, lone)])], name="others")
    yield Scene(
        house,
        plain=build(house, use, "plain", of=None),
        derived=build(house, use, "derived", of="rewrite", held_out="0.4"),
        other=build(house, use, "others", of="others"),
    )
    house.close()


@pytest.fixture
def plain(scene: Scene, tmp_path: Path) -> Path:
    """Return a copy of the dataset of answers."""
    return Path(shutil.copytree(scene.plain.folder, tmp_path / "plain"))


@pytest.fixture
def derived(scene: Scene, tmp_path: Path) -> Path:
    """Return a copy of the dataset of rows that were made of others."""
    return Path(shutil.copytree(scene.derived.folder, tmp_path / "derived"))


def refused(folder: Path) -> str:
    """Return the code with which a folder is refused, learned from or only verified."""
    codes = set()
    with pytest.raises(EvidenceError) as wrong:
        list(verified_rows(folder, TRUST))
    codes.add(wrong.value.problem)
    with pytest.raises(EvidenceError) as wrong:
        verify_dataset(folder, TRUST)
    codes.add(wrong.value.problem)
    (code,) = codes
    return code


def test_what_was_made_of_others_verifies_with_all_above(scene: Scene) -> None:
    """A row knows every leaf above it, and whether it spoke or judged."""
    rows = list(verified_rows(scene.derived.folder, TRUST))

    assert 8 == len(rows)
    assert {"train", "held-out"} == {row.split for row in rows}
    first = rows[0]
    assert first.exchange is None
    assert first.statement is not None
    above = [(type(one.statement).__name__, one.influence) for one in first.above()]
    assert [("Receipt", "text"), ("Receipt", "judge"), ("Derivation", "text")] == above
    assert 3 == len(list(verified_rows(scene.other.folder, TRUST))) + 1


def test_a_student_run_in_the_pipeline_stands_above(tmp_path: Path) -> None:
    """Its training manifest is a leaf above, counted as a teacher, and found by its key."""
    house = House(tmp_path / "house")
    use = house.declare()
    taught = house.answer(use, "an answer")
    first = build(house, use, "first", of=None)
    student = house.train("tidier", first.manifest_sha256)
    above = [parent(house, student, "rewriter"), parent(house, taught)]
    derive(house, use, [(messages("tidy?", "tidied"), above)])
    built = build(house, use, of="rewrite")
    (row,) = verified_rows(built.folder, TRUST)

    assert ["Receipt", "Manifest"] == [type(one.statement).__name__ for one in row.above()]
    assert {"tidier", "open"} == {one.provider for one in built.manifest.found.teachers}
    assert 1 == verify_dataset(built.folder, TRUST, every_signature=True).rows
    house.close()


@pytest.mark.crash
def test_several_processes_find_what_one_finds(scene: Scene, derived: Path) -> None:
    """Rows made of others, and what stands above them, are checked alike by one and by two."""
    assert verify_dataset(derived, TRUST, workers=1) == verify_dataset(
        derived, TRUST, workers=2, every_signature=True
    )
    above = above_in(derived)
    put_above(derived, dict(list(above.items())[1:]))
    log_again(scene.house, derived)
    told = []
    for workers in (1, 2):
        with pytest.raises(EvidenceError) as wrong:
            verify_dataset(derived, TRUST, workers=workers)
        told.append(str(wrong.value))

    assert told[0] == told[1]


# -- with the folder alone -------------------------------------------------------------------


def relabel_the_manifest(folder: Path) -> None:
    """Say another provider in the signed manifest."""
    bundle = json.loads((folder / MANIFEST).read_bytes())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    changed = payload.replace(b'"provider":"open"', b'"provider":"free"')
    assert changed != payload
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()
    (folder / MANIFEST).write_text(json.dumps(bundle, sort_keys=True, separators=(",", ":")))


def relabel_a_receipt(folder: Path) -> None:
    """Say another purpose in a signed receipt."""
    put_leaves(
        folder, [_payload(leaf, b"train.sft", b"inference") for leaf in leaves_of(folder)]
    )


def respell_a_row(folder: Path) -> None:
    """Write the same JSON in other bytes."""
    lines = lines_of(folder, ROWS)
    lines[1] = json.dumps(json.loads(lines[1])).encode()
    put_lines(folder, ROWS, lines)


def edit_a_row(folder: Path) -> None:
    """Change one word of a row."""
    lines = lines_of(folder, ROWS)
    lines[1] = lines[1].replace(b"answer", b"reply")
    put_lines(folder, ROWS, lines)


def strip_a_receipt(folder: Path) -> None:
    """Take away the line that names a row's receipt."""
    lines = lines_of(folder, RECEIPTS)
    put_lines(folder, RECEIPTS, [*lines[:1], *lines[2:]])


def strip_the_last_receipt(folder: Path) -> None:
    """Take away the line that names the last row's receipt."""
    put_lines(folder, RECEIPTS, lines_of(folder, RECEIPTS)[:-1])


def swap_two_receipts(folder: Path) -> None:
    """Let two rows change receipts."""
    said = said_in(folder)
    say(folder, [said[1], said[0], *said[2:]])


def swap_two_rows(folder: Path) -> None:
    """Let two receipts change rows, digests and salts with them."""
    lines, said = lines_of(folder, ROWS), said_in(folder)
    put_lines(folder, ROWS, [lines[1], lines[0], *lines[2:]])
    for key in ("sha256", "salt"):
        said[0][key], said[1][key] = said[1][key], said[0][key]
    say(folder, said)


def replay_a_receipt(folder: Path) -> None:
    """Let one receipt vouch for its row twice."""
    lines, said = lines_of(folder, ROWS), said_in(folder)
    put_lines(folder, ROWS, [lines[0], lines[0], *lines[2:]])
    say(folder, [said[0], said[0], *said[2:]])


def replay_an_older_receipt(folder: Path) -> None:
    """Let a receipt vouch for its row again, some rows later."""
    lines, said = lines_of(folder, ROWS), said_in(folder)
    put_lines(folder, ROWS, [*lines[:3], lines[0], *lines[4:]])
    say(folder, [*said[:3], said[0], *said[4:]])


def lose_a_file(folder: Path) -> None:
    """Take the rows away."""
    (folder / ROWS).unlink()


def add_a_file(folder: Path) -> None:
    """Put more rows beside the rows."""
    (folder / "more.jsonl").write_bytes(b"{}\n")


def edit_the_card(folder: Path) -> None:
    """Say another licence on the card."""
    with (folder / "README.md").open("a") as card:
        card.write("It is free to use.\n")


@pytest.mark.parametrize(
    ("attempt", "code"),
    [
        (relabel_the_manifest, "signature.bad"),
        (relabel_a_receipt, "dataset.leaf_changed"),
        (respell_a_row, "dataset.row_respelt"),
        (edit_a_row, "dataset.row_changed"),
        (strip_a_receipt, "dataset.receipt_missing"),
        (strip_the_last_receipt, "dataset.receipt_missing"),
        (swap_two_receipts, "dataset.receipt_swapped"),
        (swap_two_rows, "dataset.receipt_swapped"),
        (replay_a_receipt, "dataset.receipt_replayed"),
        (replay_an_older_receipt, "dataset.receipt_replayed"),
        (lose_a_file, "dataset.file_missing"),
        (add_a_file, "dataset.file_added"),
        (edit_the_card, "dataset.file_changed"),
    ],
)
def test_an_attempt_on_rows_fails_by_its_code(
    plain: Path, attempt: Callable[[Path], None], code: str
) -> None:
    """What is done to a row or its receipt is refused, and the code says what it was."""
    attempt(plain)

    assert code == refused(plain)


@pytest.mark.parametrize(
    ("attempt", "code"),
    [
        (relabel_a_receipt, "dataset.leaf_changed"),
        (respell_a_row, "dataset.row_respelt"),
        (edit_the_card, "dataset.file_changed"),
    ],
)
def test_derived_rows_are_no_softer(
    derived: Path, attempt: Callable[[Path], None], code: str
) -> None:
    """The same attempts on rows that a pipeline made fail by the same codes."""
    attempt(derived)

    assert code == refused(derived)


# -- with the manifest key, and a place in the log ---------------------------------------------


def _payload(leaf: bytes, old: bytes, new: bytes) -> bytes:
    """Return a leaf whose payload says *new* for *old*."""
    envelope = json.loads(leaf)
    payload = base64.b64decode(envelope["payload"])
    envelope["payload"] = base64.b64encode(payload.replace(old, new)).decode()
    return json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode()


def another_provider(statement: Any) -> None:
    """Say that somebody else answered."""
    found_in(statement)["teachers"][0]["provider"] = "free"


def a_wider_use(statement: Any) -> None:
    """Say that the rows are for rewarding, too."""
    found_in(statement)["use"]["purpose"] = "train.reward"


def another_project(statement: Any) -> None:
    """Say that the rows are another team's."""
    asked_in(statement)["project"] = "other"


def a_judge_that_spoke(statement: Any) -> None:
    """Say that the judge's words stand in the rows."""
    for teacher in found_in(statement)["teachers"]:
        teacher.pop("influence", None)


def a_teacher_that_only_judged(statement: Any) -> None:
    """Say that nobody's words stand in the rows."""
    for teacher in found_in(statement)["teachers"]:
        teacher["influence"] = "judge"


def another_maker(statement: Any) -> None:
    """Say that another version of the transform made the rows."""
    found_in(statement)["madeBy"][0]["version"] = "2"


def fewer_members(statement: Any) -> None:
    """Say that the rows were made from less."""
    found_in(statement)["members"]["count"] -= 1


def more_held_out(statement: Any) -> None:
    """Say that one row more is held out."""
    train, held_out = found_in(statement)["splits"]
    train["rows"] -= 1
    held_out["rows"] += 1


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (another_provider, "dataset.relabelled"),
        (a_wider_use, "dataset.relabelled"),
        (another_project, "dataset.relabelled"),
        (a_judge_that_spoke, "dataset.relabelled"),
        (a_teacher_that_only_judged, "dataset.relabelled"),
        (another_maker, "dataset.relabelled"),
        (fewer_members, "dataset.relabelled"),
        (more_held_out, "dataset.split_broken"),
        (lambda s: asked_in(s).update(kind="preference"), "dataset.wrong_kind"),
    ],
)
def test_a_manifest_can_t_relabel_what_the_derivations_say(
    scene: Scene, derived: Path, lie: Callable[[Any], None], code: str
) -> None:
    """Even signed and logged, a manifest says of rows what their leaves say, or nothing."""
    log_again(scene.house, derived, lie)

    assert code == refused(derived)


def test_a_parent_that_is_cut_out_is_missed(scene: Scene, derived: Path) -> None:
    """Without the leaf of an answer, the rows made of it are made of nothing known."""
    above = above_in(derived)
    put_above(derived, dict(list(above.items())[1:]))
    log_again(scene.house, derived)

    assert "dataset.parent_unresolved" == refused(derived)


def test_a_parent_cut_out_of_its_derivation_is_another_leaf(
    scene: Scene, derived: Path
) -> None:
    """A derivation that names fewer parents is not the one in the log."""
    put_leaves(
        derived,
        [_payload(leaf, b'"parents":[0,1]', b'"parents":[0]') for leaf in leaves_of(derived)],
    )
    log_again(scene.house, derived)

    assert "dataset.leaf_changed" == refused(derived)


def test_a_judge_made_a_source_is_another_leaf(scene: Scene, derived: Path) -> None:
    """Whether a parent judged or spoke stands in the signed derivation."""
    put_leaves(
        derived,
        [_payload(leaf, b'"role":"judge"', b'"role":"chosen"') for leaf in leaves_of(derived)],
    )
    log_again(scene.house, derived)

    assert "dataset.leaf_changed" == refused(derived)


def test_a_leaf_above_is_that_of_its_place(scene: Scene, derived: Path) -> None:
    """The answer of another dataset's row can't stand in for the one that was used."""
    above, other = above_in(derived), above_in(scene.other.folder)
    first = next(iter(above))
    put_above(derived, above | {first: next(iter(other.values()))})
    log_again(scene.house, derived)

    assert "dataset.leaf_changed" == refused(derived)


def test_nothing_stands_above_that_no_row_came_from(scene: Scene, derived: Path) -> None:
    """A leaf of the log that made no row can't be shown as if it had."""
    above, other = above_in(derived), above_in(scene.other.folder)
    put_above(derived, dict(sorted((above | other).items())))
    log_again(scene.house, derived)

    assert "dataset.leaf_unneeded" == refused(derived)


def test_a_held_out_row_stays_held_out(scene: Scene, derived: Path) -> None:
    """A row moved to where it would be learned from is missed where it was."""
    _move_to_train(derived)
    log_again(scene.house, derived)

    assert "dataset.split_broken" == refused(derived)


def test_a_prompt_stands_on_one_side_only(scene: Scene, tmp_path: Path) -> None:
    """Where a row's prompt is held out, too, the row is none to train on, whoever signs it."""
    house = House(tmp_path / "house")
    use = house.declare()
    answers = [house.answer(use, f"answer {number}") for number in range(6)]
    derive(
        house,
        use,
        [
            (messages("the same question", f"rewritten {at}"), [parent(house, one)])
            for at, one in enumerate(answers)
        ]
        + [
            (messages(f"{at} quite another one {at * 7}", "words"), [parent(house, answers[0])])
            for at in range(12)
        ],
    )
    folder, seed = tmp_path, 0
    while True:
        built = build(house, use, f"set{seed}", of="rewrite", held_out="0.5", seed=seed)
        folder, seed = built.folder, seed + 1
        if any(b"the same" in line for line in lines_of(folder, HELD_OUT)):
            break
    _move_to_train(folder, b"the same")

    def count_so(statement: Any) -> None:
        train, held_out = found_in(statement)["splits"]
        train["rows"] += 1
        held_out["rows"] -= 1

    log_again(house, folder, count_so)

    assert "dataset.split_broken" == refused(folder)
    house.close()


def _move_to_train(folder: Path, which: bytes = b"") -> None:
    """Move the first held-out row that says *which* to the rows to train on."""
    rows, held_out = lines_of(folder, ROWS), lines_of(folder, HELD_OUT)
    moved = next(line for line in held_out if which in line)
    said = said_in(folder)
    trained = 0
    for line in said:
        if line["sha256"] == sha256_hex(moved):
            del line["split"]
            break
        trained += "split" not in line
    held_out.remove(moved)
    put_lines(folder, HELD_OUT, held_out)
    put_lines(folder, ROWS, [*rows[:trained], moved, *rows[trained:]])
    say(folder, said)


def test_a_derived_row_is_none_that_somebody_answered(scene: Scene, derived: Path) -> None:
    """Rows of a pipeline can't be passed off as answers with nothing above them."""
    for name in ("leaves", "tiles/0"):
        (derived / "evidence/above" / name).unlink()
    shutil.rmtree(derived / "evidence/above")

    def claim(statement: Any) -> None:
        found = found_in(statement)
        found.pop("madeBy")
        found.pop("writtenBy", None)
        statement["subject"] = [
            one for one in statement["subject"] if "above" not in one["name"]
        ]

    log_again(scene.house, derived, claim)

    assert "dataset.wrong_kind" == refused(derived)


def test_an_answer_is_no_row_that_a_pipeline_made(scene: Scene, plain: Path) -> None:
    """A plain dataset that claims to be made of others shows no derivation."""
    (plain / "evidence/above/tiles").mkdir(parents=True)
    (plain / ABOVE).write_bytes(b"")
    tile = "evidence/above/tiles/0"
    (plain / tile).write_bytes((plain / "evidence/tiles/0").read_bytes())

    def claim(statement: Any) -> None:
        found_in(statement)["madeBy"] = [
            {"kind": "rewrite", "name": "rewrite", "rows": 1, "version": "1"}
        ]
        for name in (ABOVE, tile):
            statement["subject"].append({"name": name, "digest": {"sha256": "0" * 64}})

    log_again(scene.house, plain, claim)

    assert "dataset.wrong_kind" == refused(plain)


@pytest.mark.parametrize("name", [LEAVES, ABOVE])
def test_a_cut_off_file_is_no_shorter_dataset(scene: Scene, derived: Path, name: str) -> None:
    """Whoever cuts the end off a file of leaves is found out, whatever they sign."""
    whole = (derived / name).read_bytes()
    (derived / name).write_bytes(whole[:-40])
    log_again(scene.house, derived)

    assert refused(derived) in {"receipt.malformed", "dataset.leaf_changed"}
