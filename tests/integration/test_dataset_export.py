"""An export is the dataset in another form: ruled on again, whole or not at all, verifiable."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.canonical import canonical_json, salted_sha256, sha256_hex
from gateway.dataset.export.forms import FORMS
from gateway.dataset.export.lost import LEFT_OUT, LOSSES
from gateway.dataset.export.verify import verify_export
from gateway.dataset.manifest import MANIFEST, PROOF
from gateway.dataset.ruling import PolicyLaw
from gateway.errors import EvidenceError, GateRefusedError, LedgerUnwellError, OperatorError
from gateway.intent.model import Declaration
from gateway.receipt.model import Commitment, Manifest, Receipt
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import read_leaf
from gateway.tlog.proof import format_proof
from tests.support.dataset import House, Kept, a_library, a_policy
from tests.support.evidence import MANIFEST_SIGNER, TRUST
from tests.support.export import export, rows_of

OF_MESSAGES = [name for name, form in FORMS.items() if "messages" in form.kinds]
CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
TALK: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "what is due?", "name": "ada"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "12", "tool_call_id": "c"},
        {"role": "assistant", "content": "12.00 \u20ac"},
    ],
    "tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}],
}
CALLING: dict[str, Any] = {
    "messages": [TALK["messages"][0], TALK["messages"][1]],
    "tools": TALK["tools"],
}


def answered(house: House, declaration: Declaration, row: dict[str, Any]) -> Receipt:
    """Append the receipt of an answer that makes *row*, and keep its text."""
    receipt = house.receipt(declaration, "said")
    line, salt = canonical_json(row), house.texts[receipt.exchange].salt
    house.texts[receipt.exchange] = Kept(salt, {0: line})
    committed = Commitment(alg="sha256-salted", value=salted_sha256(salt, line))
    units = tuple(msgspec.structs.replace(unit, row=committed) for unit in receipt.outputs)
    receipt = msgspec.structs.replace(receipt, outputs=units)
    house.state(receipt)
    return receipt


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return the house that the standing dataset was built in."""
    house = House(tmp_path_factory.mktemp("standing") / "house")
    yield house
    house.close()


@pytest.fixture(scope="module")
def standing(built_in: House) -> Path:
    """Return a dataset of five rows: three plain ones, one with tools, one that is a call."""
    declaration = built_in.declare()
    built_in.answer(declaration, "one", "two")
    answered(built_in, declaration, TALK)
    answered(built_in, declaration, CALLING)
    built_in.answer(declaration, "three")
    return built_in.build(declaration).folder


@pytest.fixture(scope="module")
def exported(built_in: House, standing: Path) -> Path:
    """Return an export that verifies, to be copied before it is changed."""
    return export(built_in, standing, "sharegpt", name="standing").folder


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Return a house with an empty ledger."""
    house = House(tmp_path / "house")
    yield house
    house.close()


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """Return a copy of the standing export, to be changed."""
    return Path(shutil.copytree(exported, tmp_path / "export"))


@pytest.mark.parametrize("form", OF_MESSAGES)
def test_an_export_verifies_in_every_form(built_in: House, standing: Path, form: str) -> None:
    """Whoever has the trust file can check what was written, and of which dataset it is."""
    done = export(built_in, standing, form)
    verified = verify_export(done.folder, TRUST)

    assert done.manifest_sha256 == verified.manifest_sha256
    assert "set" == verified.dataset.asked.dataset
    assert done.index is not None
    statement = read_leaf(built_in.leaf(done.index))
    assert isinstance(statement, Manifest)
    assert done.manifest_sha256 == statement.payload_sha256


def test_messages_are_the_dataset_s_own_bytes(built_in: House, standing: Path) -> None:
    """In OpenAI's form each line is the line that was sealed."""
    done = export(built_in, standing, "openai", name="bytes")

    assert (standing / "rows.jsonl").read_bytes() == (done.folder / "train.jsonl").read_bytes()


@pytest.mark.parametrize("form", ["openai", "alpaca", "parquet"])
def test_line_i_vouches_for_row_i(built_in: House, standing: Path, form: str) -> None:
    """Each line of receipts names its row, here and there, and opens the commitment."""
    done = export(built_in, standing, form, name=f"joined-{form}")
    lines = (standing / "rows.jsonl").read_bytes().splitlines()

    said = rows_of(done.folder / "receipts.jsonl")
    assert list(range(len(said))) == [one["row"] for one in said]
    for one in said:
        line = lines[one["source"]]
        receipt = read_leaf(built_in.leaf(one["index"]))
        assert isinstance(receipt, Receipt)
        name, _, choice = one["receipt"].partition("/")
        assert (receipt.exchange, one["choice"]) == (name, int(choice))
        assert sha256_hex(line) == one["sha256"]
        committed = receipt.outputs[one["choice"]].row
        assert committed is not None
        assert committed.value == salted_sha256(bytes.fromhex(one["salt"]), line)


def test_what_was_lost_is_counted_and_named_in_each_row(folder: Path) -> None:
    """The report, the manifest and the rows' own lines say the same."""
    report = msgspec.json.decode((folder / "lost.json").read_bytes())
    verified = verify_export(folder, TRUST)

    assert {"call-ids": 2, "names": 2} == verified.manifest.found.lost
    assert {"first": [2, 3], "rows": 2} == {
        name: value for name, value in report["lost"]["names"].items() if name != "means"
    }
    assert [[], [], ["call-ids", "names"], ["call-ids", "names"], []] == [
        one.get("lost", []) for one in rows_of(folder / "receipts.jsonl")
    ]


def test_a_row_without_a_place_is_left_out_by_name(built_in: House, standing: Path) -> None:
    """Where a form can't hold a row at all, the others keep their receipts."""
    done = export(built_in, standing, "alpaca", name="left-out")

    assert {"answer-is-a-call": 1} == done.manifest.found.left_out
    assert [0, 1, 2, 4] == [one["source"] for one in rows_of(done.folder / "receipts.jsonl")]
    assert 4 == len(rows_of(done.folder / "train.jsonl"))
    verify_export(done.folder, TRUST)


@pytest.mark.parametrize("form", ["openai", "parquet"])
def test_rows_stand_in_as_many_files_as_were_asked_for(
    built_in: House, standing: Path, form: str
) -> None:
    """Files of a part say which they are, of how many, and hold its rows in their order."""
    done = export(built_in, standing, form, name=f"sharded-{form}", shard_rows=2)
    ending = "parquet" if form == "parquet" else "jsonl"

    assert [(f"train-0000{n}-of-00003.{ending}", (2, 2, 1)[n]) for n in range(3)] == [
        (file.name, file.rows) for file in done.manifest.found.files
    ]
    verify_export(done.folder, TRUST)


def test_a_row_can_name_what_vouches_for_it(built_in: House, standing: Path) -> None:
    """With a receipt column, a pipeline that goes on with the rows keeps their parents."""
    done = export(built_in, standing, "prompt-completion", name="named", receipt_column=True)

    said = rows_of(done.folder / "receipts.jsonl")
    assert [one["receipt"] for one in said] == [
        row["receipt"] for row in rows_of(done.folder / "train.jsonl")
    ]
    verify_export(done.folder, TRUST)


def refused(house: House, dataset: Path, form: str = "openai", **said: Any) -> GateRefusedError:
    """Return the refusal of an export, after which nothing is there and nothing was said."""
    size = house.ledger.head().size
    with pytest.raises(GateRefusedError) as caught:
        export(house, dataset, form, **said)
    assert size == house.ledger.head().size
    exports = house.folder / "exports"
    assert not exports.exists() or not [*exports.iterdir()]
    return caught.value


def test_a_row_that_was_withdrawn_ends_the_export(house: House) -> None:
    """What was taken back after the dataset was built is in no export; the row is named."""
    declaration = house.declare()
    receipts = [house.answer(declaration) for _ in range(3)]
    built = house.build(declaration)
    house.withdraw(exchange=receipts[1].exchange)

    said = refused(house, built.folder)

    # The dataset is held as a whole, before a row is looked at.
    assert "export.withdrawn" == said.problem
    assert "by grace: asked to" in said.message


def test_terms_that_forbid_it_today_end_the_export(house: House) -> None:
    """A ruling of the day the dataset was built is none of today."""
    declaration = house.declare()
    receipt = house.answer(declaration)
    built = house.build(declaration)
    tightened = a_library(open=a_policy("open", "forbid"))
    law = PolicyLaw(tightened, house.register)

    said = refused(house, built.folder, sources={"law": law})

    assert "export.row_refused" == said.problem
    assert f"row 0 of `set` ({receipt.exchange}/0)" in said.message
    assert "terms-forbid-use (open:training" in said.message


def test_a_person_s_no_ends_the_export(house: House) -> None:
    """A declaration that was declined after the build carries nothing any more."""
    declaration = house.declare()
    house.answer(declaration)
    built = house.build(declaration)
    house.decline(declaration)

    said = refused(house, built.folder)

    assert "export.row_refused" == said.problem
    assert "declined" in said.message


def test_text_that_was_erased_ends_the_export(house: House) -> None:
    """A copy in a dataset folder is no way around an erasure."""
    declaration = house.declare()
    receipt = house.answer(declaration)
    built = house.build(declaration)
    house.texts.erase(receipt.exchange)

    said = refused(house, built.folder)

    assert "content-erased" in said.message


def test_a_dataset_that_was_withdrawn_is_not_exported(house: House) -> None:
    """A withdrawal of the dataset, or of what it was declared for, is the last word."""
    declaration = house.declare()
    house.answer(declaration)
    built = house.build(declaration)
    house.withdraw(manifest=built.manifest_sha256)

    assert "export.withdrawn" == refused(house, built.folder).problem


def test_a_withdrawal_while_rows_pass_ends_the_export(house: House) -> None:
    """What is said before the export is logged counts, though its rows have passed."""
    declaration = house.declare()
    receipt = house.answer(declaration)
    built = house.build(declaration)

    def refresh() -> None:
        house.withdraw(exchange=receipt.exchange)

    with pytest.raises(GateRefusedError) as caught:
        export(house, built.folder, "openai", sources={"refresh": refresh})
    assert "export.withdrawn" == caught.value.problem
    assert not [*(house.folder / "exports").iterdir()]


def test_a_declaration_that_expired_exports_nothing(house: House) -> None:
    """A use that may no longer be cited is none that rows go out for."""
    declaration = house.declare(expires="2026-11-19")
    house.answer(declaration)
    built = house.build(declaration)
    house.clock.move_ms(3 * 86_400_000)

    assert "declaration.expired" == refused(house, built.folder).problem


def test_a_dataset_of_another_ledger_is_not_exported(house: House, standing: Path) -> None:
    """What was withdrawn since, only the ledger knows that it was built from."""
    assert "export.unknown_dataset" == refused(house, standing).problem


def test_a_form_takes_only_rows_of_its_kind(house: House) -> None:
    """Conversations are no pairs of answers."""
    declaration = house.declare()
    house.answer(declaration)
    built = house.build(declaration)

    said = refused(house, built.folder, "trl-preference")

    assert "export.unfit" == said.problem
    assert "export.no_split" == refused(house, built.folder, splits=("held-out",)).problem
    assert "dataset.misnamed" == refused(house, built.folder, name="Set 1").problem


def test_strictly_nothing_is_lost(house: House) -> None:
    """Asked to lose nothing, an export ends at the first row that would, and names it."""
    declaration = house.declare()
    house.answer(declaration, "plain")
    answered(house, declaration, TALK)
    built = house.build(declaration)

    said = refused(house, built.folder, "sharegpt", strict=True)

    assert "export.lossy" == said.problem
    assert "row 1 of `set`" in said.message
    assert "would lose: call-ids, names" in said.message
    assert export(house, built.folder, "openai", strict=True).manifest.asked.strict


def test_a_dataset_that_was_changed_is_not_exported(house: House) -> None:
    """Rows are verified in the pass that writes them; of a bad one nothing is kept."""
    declaration = house.declare()
    for _ in range(3):
        house.answer(declaration)
    built = house.build(declaration)
    rows = built.folder / "rows.jsonl"
    rows.write_bytes(rows.read_bytes().replace(b"answer 2", b"answer 9"))

    with pytest.raises(EvidenceError, match="row 2"):
        export(house, built.folder, "openai")
    assert not [*(house.folder / "exports").iterdir()]


def test_an_export_is_never_changed(house: House) -> None:
    """What stands is not written again."""
    declaration = house.declare()
    house.answer(declaration)
    built = house.build(declaration)
    export(house, built.folder, "openai")

    with pytest.raises(GateRefusedError, match="already stands"):
        export(house, built.folder, "openai")


def failing(house: House, when: str) -> dict[str, Any]:
    """Return sources in which the ledger fails: before a leaf, after it, or at its proof."""

    def append(leaf: bytes) -> int:
        if when == "after":
            house.append(leaf)
        raise LedgerUnwellError("the disk is gone")

    def publish() -> str:
        raise LedgerUnwellError("the disk is gone")

    return {"publish": publish} if when == "proof" else {"append": append}


@pytest.mark.parametrize("when", ["before", "after", "proof"])
def test_an_interrupted_export_is_finished_by_running_it_again(house: House, when: str) -> None:
    """Whether or not the leaf got through, the next run leaves one export, logged once."""
    declaration = house.declare()
    house.answer(declaration)
    built = house.build(declaration)
    with pytest.raises(LedgerUnwellError):
        export(house, built.folder, "openai", sources=failing(house, when))
    assert not (house.folder / "exports" / "openai").exists()

    done = export(house, built.folder, "openai")

    assert (when != "before") is (done.index is None)
    verified = verify_export(done.folder, TRUST)
    exports = [
        index
        for index, leaf in enumerate(house.ledger.leaves(0, house.ledger.head().size))
        if isinstance(statement := read_leaf(leaf), Manifest)
        and statement.payload_sha256 != built.manifest_sha256
    ]
    assert [verified.manifest_index] == exports
    assert not [*(house.folder / "exports").glob(".*")]


@pytest.mark.parametrize("form", ["openai", "parquet"])
def test_a_full_disk_is_one_line_and_leaves_nothing(house: House, form: str) -> None:
    """Where rows can't be written, nothing is there, nothing was said, and the line says so."""
    declaration = house.declare()
    for number in range(40):
        house.answer(declaration, f"answer {number} " + "of many words " * 40)
    built = house.build(declaration)
    size = house.ledger.head().size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def was_erased(_: str) -> bool:
        # The rows begin: from here on no file may grow beyond this.
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        return False

    try:
        with pytest.raises(OperatorError) as caught:
            export(house, built.folder, form, sources={"was_erased": was_erased})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert "disk.unwell" == caught.value.problem
    assert not [*(house.folder / "exports").iterdir()]
    assert size == house.ledger.head().size
    export(house, built.folder, form)


def test_an_interrupted_export_is_ruled_on_once_more(house: House) -> None:
    """What was withdrawn in between keeps an export from standing that was logged before."""
    declaration = house.declare()
    receipt = house.answer(declaration)
    built = house.build(declaration)
    with pytest.raises(LedgerUnwellError):
        export(house, built.folder, "openai", sources=failing(house, "after"))
    house.texts.erase(receipt.exchange)

    with pytest.raises(GateRefusedError, match="content-erased"):
        export(house, built.folder, "openai")
    assert not (house.folder / "exports" / "openai").exists()


def test_what_was_changed_in_an_interrupted_export_is_written_anew(house: House) -> None:
    """What stands in a workshop is put into place only as it was signed."""
    declaration = house.declare()
    house.answer(declaration)
    built = house.build(declaration)
    with pytest.raises(LedgerUnwellError):
        export(house, built.folder, "openai", sources=failing(house, "after"))
    (house.folder / "exports" / ".openai.exporting" / "train.jsonl").write_bytes(b"{}\n")

    done = export(house, built.folder, "openai")

    assert done.index is not None
    verify_export(done.folder, TRUST)


def written(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return a change of a file."""

    def changed(folder: Path) -> None:
        before = (folder / name).read_bytes()
        assert before != change(before)
        (folder / name).write_bytes(change(before))

    return changed


def swapped_lines(content: bytes) -> bytes:
    """Return *content* with its first two lines in the other order."""
    first, second, *rest = content.splitlines(keepends=True)
    return b"".join([second, first, *rest])


def added(folder: Path) -> None:
    """Put another file beside the rows."""
    (folder / "more.jsonl").write_bytes(b"{}\n")


TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a row": (
        written("train.jsonl", lambda was: was.replace(b"one", b"oni")),
        "dataset.file_changed",
    ),
    "swapped receipts": (written("receipts.jsonl", swapped_lines), "dataset.file_changed"),
    "losses": (
        written("lost.json", lambda was: was.replace(b"names", b"nomes")),
        "dataset.file_changed",
    ),
    "the card": (
        written("README.md", lambda was: was.replace(b"license: other", b"license: mit")),
        "dataset.file_changed",
    ),
    "no receipts": (
        lambda folder: (folder / "receipts.jsonl").unlink(),
        "dataset.file_missing",
    ),
    "a row file more": (
        added,
        "dataset.file_added",
    ),
    "no proof": (lambda folder: (folder / PROOF).unlink(), "proof.bad"),
    "a manifest of nobody's": (
        written(MANIFEST, lambda was: was.replace(b'"sig":"', b'"sig":"AAAA')),
        "signature.bad",
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_does_not_verify(folder: Path, what: str) -> None:
    """A change of anything in the folder is found, and named by a stable code."""
    change, code = TAMPERED[what]
    change(folder)

    with pytest.raises(EvidenceError) as caught:
        verify_export(folder, TRUST)
    assert code == caught.value.problem


def resigned(house: House, folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Sign the files of *folder* as they are, as an exporter who lies could."""
    bundle = msgspec.json.decode((folder / MANIFEST).read_bytes())
    payload = bundle["dsseEnvelope"]["payload"]
    statement = msgspec.json.decode(msgspec.json.decode(f'"{payload}"', type=bytes))
    for subject in statement["subject"]:
        subject["digest"]["sha256"] = sha256_hex((folder / subject["name"]).read_bytes())
    change(statement["predicate"]["buildDefinition"])
    encoded, leaf = write_manifest(statement, MANIFEST_SIGNER)
    (folder / MANIFEST).write_bytes(encoded)
    (folder / PROOF).write_text(format_proof(house.proof(house.append(leaf))))


def unchanged(_: dict[str, Any]) -> None:
    """Change nothing else."""


def relabelled(build: dict[str, Any]) -> None:
    """Say that it is a dataset of another project."""
    build["externalParameters"]["project"] = "sales"


def undutiful(build: dict[str, Any]) -> None:
    """Leave the obligations away."""
    del build["internalParameters"]["obligations"]


def recounted(build: dict[str, Any]) -> None:
    """Say that nothing was lost."""
    del build["internalParameters"]["lost"], build["internalParameters"]["lossy"]


def row_and_digest(folder: Path) -> None:
    """Edit a row, and its digest in the line of receipts."""
    written("train.jsonl", lambda was: was.replace(b'"one"', b'"oni"'))(folder)
    edited = sha256_hex((folder / "train.jsonl").read_bytes().splitlines()[0])
    before = rows_of(folder / "receipts.jsonl")[0]["exported"]
    written("receipts.jsonl", lambda was: was.replace(before.encode(), edited.encode()))(folder)


LIES: dict[str, tuple[Callable[[Path], None], Callable[[dict[str, Any]], None], str]] = {
    "a row was edited": (
        written("train.jsonl", lambda was: was.replace(b"one", b"oni")),
        unchanged,
        "export.row_changed",
    ),
    "a row and its digest were edited": (row_and_digest, unchanged, "export.row_changed"),
    "rows were swapped": (
        written("train.jsonl", swapped_lines),
        unchanged,
        "export.row_changed",
    ),
    "losses are hidden": (lambda _: None, recounted, "export.miscounted"),
    "a report that plays losses down": (
        written("lost.json", lambda was: was.replace(b'"rows":2', b'"rows":1')),
        unchanged,
        "export.miscounted",
    ),
    "receipts that are respelt": (
        written("receipts.jsonl", lambda was: was.replace(b'"row":0', b'"row": 0')),
        unchanged,
        "receipt.malformed",
    ),
    "another project": (lambda _: None, relabelled, "export.other_dataset"),
    "no obligations": (lambda _: None, undutiful, "export.other_dataset"),
}


@pytest.mark.parametrize("what", LIES)
def test_an_exporter_who_lies_is_found_out(built_in: House, folder: Path, what: str) -> None:
    """Signed and logged, an export that is not its dataset's still does not verify."""
    change, say, code = LIES[what]
    change(folder)
    resigned(built_in, folder, say)

    with pytest.raises(EvidenceError) as caught:
        verify_export(folder, TRUST)
    assert code == caught.value.problem


def test_each_check_is_told(exported: Path) -> None:
    """Whoever asks hears what was checked, in order."""
    told: list[str] = []
    verify_export(exported, TRUST, lambda check, found: told.append(check))

    assert ["signature", "logged", "files", "dataset", "rows"] == told


def test_every_loss_and_form_is_in_the_docs() -> None:
    """Whoever reads of a loss, or looks for a form, finds what it means."""
    page = (Path(__file__).parents[2] / "docs/formats/exports.md").read_text()

    told = {**LOSSES, **LEFT_OUT}
    assert [] == [name for name, said in told.items() if f"| `{name}` | {said} |" not in page]
    assert [] == [name for name in FORMS if f"| `{name}` |" not in page]


def test_the_card_says_how_to_load_it(exported: Path) -> None:
    """The names by which LLaMA-Factory knows the files are those of its own page."""
    card = (exported / "README.md").read_text()
    info = msgspec.json.decode((exported / "dataset_info.json").read_bytes())

    assert ["standing-train"] == [*info]
    assert "the datasets `standing-train`" in card
    assert "train.jsonl" == info["standing-train"]["file_name"]
    assert "| call-ids | 2 |" in card
    assert "keep-ai-label" in card


def test_words_of_others_are_text_in_a_card(house: House) -> None:
    """What a declaration says in free words is neither markup nor a line of its own."""
    declaration = house.declare(competes_basis="<script>\n# Licence: MIT\n`rm`")
    house.answer(declaration)
    built = house.build(declaration)

    for folder in (built.folder, export(house, built.folder, "openai").folder):
        card = (folder / "README.md").read_text()
        assert "<script>" not in card.replace("\\<", "")
        assert "\n# Licence" not in card
