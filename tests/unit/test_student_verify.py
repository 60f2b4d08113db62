"""A model folder verifies whole or not at all, and what is wrong is named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.errors import BadDigestError, BadProofError, BadSignatureError, EvidenceError
from gateway.ident import Sha256
from gateway.receipt.envelope import open_envelope
from gateway.receipt.keys import P256Signer, TrustedManifestKey, generate_pem
from gateway.receipt.sigstore import open_manifest, write_manifest
from gateway.receipt.verify import verify_manifest
from gateway.student.manifest import ModelManifest, statement_of
from gateway.student.verify import verify_model
from gateway.student.weights import read_weights
from tests.support.dataset import House
from tests.support.evidence import MANIFEST_SIGNER, RECEIPT_SIGNER, TRUST
from tests.support.model import MADE_LAST, a_model, sign, sign_weights


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return the house whose log the model's manifests are in."""
    house = House(tmp_path_factory.mktemp("house"))
    yield house
    house.close()


@pytest.fixture(scope="module")
def made(house: House) -> Path:
    """Return a model folder that verifies."""
    return a_model(house)


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder to do harm to."""
    return Path(shutil.copytree(made, tmp_path / "model"))


def manifest_of(model: Path) -> ModelManifest:
    """Return the manifest of a folder that still verifies."""
    return verify_model(model, TRUST).manifest


def test_a_whole_folder_verifies_and_says_what_was_checked(model: Path) -> None:
    """Signature, files and datasets are each told once."""
    told: list[str] = []
    verified = verify_model(model, TRUST, lambda check, _: told.append(check))

    assert told == [
        "signature",
        "logged",
        "files",
        "digest",
        "dataset",
        "views",
        "weights",
    ]
    assert verified.manifest.asked.student == "parser"


def test_the_weights_digest_is_worked_out_again(house: House, model: Path) -> None:
    """Whoever signs another digest than that of the weights is found out."""
    manifest = manifest_of(model)
    told: list[str] = []
    verify_model(model, TRUST, lambda _, found: told.append(found))
    other = msgspec.structs.replace(manifest.found, weights=Sha256("0" * 64))
    sign(house, model, msgspec.structs.replace(manifest, found=other))

    assert f"weights {read_weights(model).sha256}, worked out again" in told
    assert manifest.found.weights == read_weights(model).sha256
    with pytest.raises(BadDigestError, match="not that of the weights") as refused:
        verify_model(model, TRUST)
    assert refused.value.problem == "model.weights_digest"


def test_a_manifest_from_before_there_was_a_digest_verifies(house: House, model: Path) -> None:
    """Without one, its files alone tell it, and the check says so."""
    manifest = manifest_of(model)
    old = msgspec.structs.replace(manifest.found, weights=None, views=0)
    sign(house, model, msgspec.structs.replace(manifest, found=old))
    told: list[str] = []
    verify_model(model, TRUST, lambda _, found: told.append(found))

    assert "no weights digest is signed: it is known by its files alone" in told
    assert (
        b'"weights"'
        not in open_envelope(open_manifest((model / "manifest.json").read_bytes())[0]).payload
    )


def test_signed_weights_that_are_none_are_named(house: House, model: Path) -> None:
    """Where a digest is signed, there are weights that it is of."""
    manifest = manifest_of(model)
    (model / "model.safetensors").write_bytes(b"weights")
    sign(house, model, manifest)

    with pytest.raises(EvidenceError, match=r"model\.safetensors: holds no whole weights"):
        verify_model(model, TRUST)


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "metrics.jsonl",
        "samples.jsonl",
        "evidence/set.manifest.json",
        "evidence/set.manifest.tlog-proof",
    ],
)
def test_one_byte_changed_is_named(model: Path, name: str) -> None:
    """A byte changed in any file ends it, naming the file."""
    content = bytearray((model / name).read_bytes())
    content[-1] ^= 1
    (model / name).write_bytes(content)

    with pytest.raises(BadDigestError, match=name.replace(".", r"\.")):
        verify_model(model, TRUST)


def test_edited_weights_have_a_code_of_their_own(model: Path) -> None:
    """Whoever edits weights is told that it was the weights; another file, that it was one."""
    codes = {}
    for name in ("model.safetensors", "config.json"):
        whole = (model / name).read_bytes()
        (model / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(BadDigestError) as refused:
            verify_model(model, TRUST)
        codes[name] = refused.value.problem
        (model / name).write_bytes(whole)

    assert codes == {
        "model.safetensors": "model.weights_changed",
        "config.json": "model.file_changed",
    }


def test_a_changed_manifest_proof_or_signature_does_not_verify(model: Path) -> None:
    """Every byte of what is signed last counts, and what is refused is named."""
    for name in MADE_LAST:
        path = model / name
        whole = path.read_bytes()
        for at in range(0, len(whole), 41):
            content = bytearray(whole)
            content[at] ^= 1
            path.write_bytes(content)
            with pytest.raises(EvidenceError, match=r"manifest|model\.sig") as refused:
                verify_model(model, TRUST)
            assert refused.value.hint or name == "model.sig"
        path.write_bytes(whole)


def test_a_missing_and_an_added_file_are_named(model: Path) -> None:
    """The folder holds what was signed, and nothing beside it."""
    (model / "extra.txt").write_text("more")
    with pytest.raises(BadDigestError, match=r"extra\.txt: there, but not signed"):
        verify_model(model, TRUST)

    (model / "extra.txt").unlink()
    (model / "config.json").unlink()
    with pytest.raises(BadDigestError, match=r"config\.json: signed, but not there"):
        verify_model(model, TRUST)


def test_a_link_is_no_file_of_a_model(model: Path, tmp_path: Path) -> None:
    """What a link points to can change after it was verified."""
    (model / "config.json").rename(tmp_path / "config.json")
    (model / "config.json").symlink_to(tmp_path / "config.json")

    with pytest.raises(BadDigestError, match="neither a plain file"):
        verify_model(model, TRUST)


def test_a_pickle_is_no_part_of_a_model(house: House, model: Path) -> None:
    """A file that can run code is refused even where it was signed."""
    manifest = manifest_of(model)
    (model / "training_args.bin").write_bytes(b"\x80\x04.")
    sign(house, model, manifest)

    with pytest.raises(BadDigestError, match=r"training_args\.bin"):
        verify_model(model, TRUST)


def test_a_dataset_that_is_not_shown_is_missed(house: House, model: Path) -> None:
    """Each dataset that the student names has its own signed manifest in the folder."""
    manifest = manifest_of(model)
    for name in ("manifest.json", "manifest.tlog-proof"):
        (model / "evidence" / f"set.{name}").unlink()
    sign(house, model, manifest)

    with pytest.raises(BadDigestError, match="its manifest is not in evidence"):
        verify_model(model, TRUST)


def test_teachers_are_those_of_the_datasets(house: House, model: Path) -> None:
    """A training manifest that hides or invents a teacher does not verify."""
    sign(house, model, hidden(manifest_of(model)))

    with pytest.raises(BadDigestError, match="teachers"):
        verify_model(model, TRUST)


@pytest.mark.parametrize("name", ["README.md", "report.html", "bom.cdx.json"])
def test_a_view_says_what_the_manifest_says(house: House, model: Path, name: str) -> None:
    """A card, report or bill that says something else is found out even where it was signed."""
    manifest = manifest_of(model)
    whole = (model / name).read_bytes()
    (model / name).write_bytes(whole.replace(b"open-1", b"nobody"))
    sign(house, model, manifest)

    with pytest.raises(BadDigestError, match=name) as differs:
        verify_model(model, TRUST)

    assert differs.value.problem == "model.view_differs"


def test_a_view_changed_afterwards_has_a_line_of_its_own(model: Path) -> None:
    """A card that was edited by hand is told apart from a broken download."""
    card = model / "README.md"
    card.write_text(card.read_text().replace("license: other", "license: mit"))

    with pytest.raises(BadDigestError, match=r"README\.md: changed by hand") as changed:
        verify_model(model, TRUST)

    assert changed.value.problem == "model.view_changed"


def test_a_figure_in_the_bill_is_that_of_the_manifest(house: House, model: Path) -> None:
    """Who signs better figures into the manifest must draw them everywhere."""
    manifest = manifest_of(model)
    evaluation = manifest.found.evaluation
    assert evaluation is not None
    better = tuple(msgspec.structs.replace(one, value="0.9990") for one in evaluation.figures)
    found = msgspec.structs.replace(
        manifest.found, evaluation=msgspec.structs.replace(evaluation, figures=better)
    )
    sign(house, model, msgspec.structs.replace(manifest, found=found))

    with pytest.raises(BadDigestError, match=r"README\.md: it does not say"):
        verify_model(model, TRUST)


def test_views_drawn_by_other_rules_are_checked_by_digest(house: House, model: Path) -> None:
    """A folder of another version still verifies, and says how far its views were checked."""
    manifest = manifest_of(model)
    found = msgspec.structs.replace(manifest.found, views=0)
    (model / "README.md").write_text("a card of old")
    sign(house, model, msgspec.structs.replace(manifest, found=found))
    told: dict[str, str] = {}
    verify_model(model, TRUST, lambda check, what: told.update({check: what}))

    assert told["views"].startswith("by digest alone")


def hidden(manifest: ModelManifest) -> ModelManifest:
    """Return *manifest* with its teacher renamed."""
    teacher = msgspec.structs.replace(manifest.found.teachers[0], provider="nobody")
    found = msgspec.structs.replace(manifest.found, teachers=(teacher,))
    return msgspec.structs.replace(manifest, found=found)


def test_another_key_is_not_trusted(model: Path) -> None:
    """Only a key that the trust file names for manifests may sign one."""
    statement, _ = verify_manifest((model / "manifest.json").read_bytes(), TRUST)
    encoded, _ = write_manifest(statement, RECEIPT_SIGNER)
    (model / "manifest.json").write_bytes(encoded)

    with pytest.raises(BadSignatureError):
        verify_model(model, TRUST)


@pytest.mark.parametrize("name", MADE_LAST[1:])
def test_what_is_made_last_may_not_be_missing(model: Path, name: str) -> None:
    """A model whose manifest is not shown to be in the log, or without `model.sig`, is none."""
    (model / name).unlink()

    with pytest.raises(EvidenceError, match=name):
        verify_model(model, TRUST)


def test_a_manifest_outside_the_log_is_no_manifest(model: Path) -> None:
    """Who stole the manifest key can sign a model, but what the log never took is refused."""
    manifest = msgspec.structs.replace(manifest_of(model), version="another")
    encoded, _ = write_manifest(statement_of(manifest), MANIFEST_SIGNER)
    (model / "manifest.json").write_bytes(encoded)
    sign_weights(model)

    with pytest.raises(BadProofError, match=r"manifest\.tlog-proof: leaf"):
        verify_model(model, TRUST)


def test_a_dataset_outside_the_log_is_no_dataset(house: House, model: Path) -> None:
    """The manifest of each dataset must be shown to be in the log too."""
    manifest = manifest_of(model)
    (model / "evidence" / "set.manifest.tlog-proof").unlink()
    sign(house, model, manifest)

    with pytest.raises(BadProofError, match="nothing shows that the manifest is in the log"):
        verify_model(model, TRUST)


def test_weights_are_signed_by_a_manifest_key(model: Path) -> None:
    """`model.sig` by a key nobody trusts is none; by the next manifest key it is one."""
    successor = P256Signer(generate_pem("p256"))
    sign_weights(model, successor)
    with pytest.raises(BadSignatureError, match=r"model\.sig: not by a key that is trusted"):
        verify_model(model, TRUST)

    known = TrustedManifestKey(key=successor.public.pem, since=100)
    trust = msgspec.structs.replace(TRUST, manifest_keys=(*TRUST.manifest_keys, known))
    assert verify_model(model, trust).manifest.asked.student == "parser"


def test_a_signature_over_other_files_is_found_out(model: Path) -> None:
    """`model.sig` is over exactly the files that are there."""
    (model / "manifest.tlog-proof").rename(model.parent / "aside")
    sign_weights(model)
    (model.parent / "aside").rename(model / "manifest.tlog-proof")

    with pytest.raises(BadDigestError, match=r"model\.sig: it is over other files"):
        verify_model(model, TRUST)


def test_a_folder_without_a_manifest_says_so(tmp_path: Path) -> None:
    """A folder that is no model's is an error of evidence, in one line."""
    with pytest.raises(EvidenceError, match=r"manifest\.json: can't be read"):
        verify_model(tmp_path, TRUST)


def test_verifying_loads_no_training_library() -> None:
    """The commands that need no training library import none."""
    loaded = (
        "import sys, gateway.cli.student, gateway.student.verify, gateway.student.card;"
        "print([m for m in ('torch','transformers','trl','pyarrow','matplotlib','aiohttp')"
        " if m in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )

    assert told.stdout == "[]\n"
