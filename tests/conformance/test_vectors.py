"""The package against vectors whose generator shares no code with it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import EvidenceError
from gateway.ledger.reading.subtrees import Subtrees
from gateway.ledger.reading.tiles import Tiles
from gateway.receipt.authority import Authority
from gateway.receipt.bundle import format_bundle, parse_bundle
from gateway.receipt.cose import write_cose
from gateway.receipt.envelope import pae, seal_statement, seal_unnamed, verify_envelope
from gateway.receipt.keys import (
    Ed25519Signer,
    LogSigner,
    P256Signer,
    Trust,
    parse_public_pem,
    parse_trust,
)
from gateway.receipt.model import Receipt
from gateway.receipt.sigstore import open_manifest, wrap_leaf
from gateway.receipt.verify import verify_bundle, verify_leaf, verify_trust
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.checkpoint import Checkpoint, format_checkpoint, parse_checkpoint
from gateway.tlog.cosignature import check_quorum, cosigned_by, parse_cosignature_vkey
from gateway.tlog.merkle import (
    EMPTY_ROOT,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from gateway.tlog.note import format_vkey, open_note, parse_note, parse_vkey
from gateway.tlog.proof import (
    format_consistency,
    format_proof,
    parse_consistency,
    parse_proof,
)
from gateway.tlog.tile import (
    ENTRIES,
    Tile,
    decode_entries,
    encode_entries,
    format_path,
    parse_path,
    tiles_of,
)

FOLDER = Path(__file__).parent / "vectors"


@cache
def vectors(name: str) -> Any:
    """Return one file of vectors."""
    return json.loads((FOLDER / f"{name}.json").read_bytes())


@cache
def hashes(size: int) -> list[bytes]:
    """Return the leaf hashes of the log of *size*."""
    return [leaf_hash(leaf) for leaf in leaves(size)]


def leaves(size: int) -> list[bytes]:
    """Return the leaves of the log of *size*."""
    form = vectors("trees")["leaf"]
    return [(form % number).encode() for number in range(size)]


@cache
def subtree(first: int, stop: int) -> bytes:
    """Return the root of a part of the log."""
    return root_of(hashes(65_537)[first:stop])


def unhex(values: list[str]) -> list[bytes]:
    """Return the bytes of each."""
    return [bytes.fromhex(value) for value in values]


# -- the generator --------------------------------------------------------------------------


def test_the_generator_shares_no_code_with_the_package() -> None:
    """It imports the standard library and `cryptography`, and nothing of ours."""
    tree = ast.parse((FOLDER / "generate.py").read_text(encoding="utf-8"))
    found = {
        (node.module or "" if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }

    assert set() == found - sys.stdlib_module_names - {"cryptography"}
    assert {"cryptography", "hashlib"} <= found
    assert "importlib" not in found


def test_the_vectors_are_what_the_generator_makes(tmp_path: Path) -> None:
    """Run alone in another place it writes the committed files, byte for byte."""
    subprocess.run(
        [sys.executable, "-I", FOLDER / "generate.py", tmp_path], check=True, cwd=tmp_path
    )
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_bytes() for path in FOLDER.glob("*.json")}

    assert kept.keys() == made.keys()
    assert [] == [name for name in made if made[name] != kept[name]]


# -- trees ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [int(size) for size in vectors("trees")["roots"]])
def test_a_tree_has_its_root(size: int) -> None:
    """The root of a log is RFC 6962's, at every size up to 40 and around full tiles."""
    assert vectors("trees")["roots"][str(size)] == subtree(0, size).hex()


def test_a_leaf_has_its_hash() -> None:
    """A leaf is hashed behind a zero byte."""
    for number, expected in vectors("trees")["leafHashes"].items():
        assert expected == hashes(65_537)[int(number)].hex()
    assert vectors("trees")["roots"]["0"] == EMPTY_ROOT.hex()


def test_inclusion_proofs_are_those_of_the_standard() -> None:
    """Each proof is made hash for hash, and leads to the root."""
    for one in vectors("inclusion")["proofs"]:
        index, size = one["index"], one["size"]
        path = unhex(one["hashes"])

        assert path == inclusion_proof(index, size, subtree)
        verify_inclusion(hashes(65_537)[index], index, size, path, subtree(0, size))


def reasons(name: str, key: str = "refused") -> list[Any]:
    """Return each vector to refuse, named by its reason."""
    return [pytest.param(one, id=one["why"]) for one in vectors(name)[key]]


@pytest.mark.parametrize("one", reasons("inclusion"))
def test_what_shows_no_inclusion_is_refused(one: dict[str, Any]) -> None:
    """A proof of something else is none, for the reason it gives."""
    with pytest.raises(EvidenceError):
        verify_inclusion(
            bytes.fromhex(one["leafHash"]),
            one["index"],
            one["size"],
            unhex(one["hashes"]),
            bytes.fromhex(one["root"]),
        )


def test_consistency_proofs_are_those_of_the_standard() -> None:
    """Each proof is made hash for hash, and leads from root to root."""
    for one in vectors("consistency")["proofs"]:
        old, size = one["old"], one["size"]
        path = unhex(one["hashes"])

        assert path == consistency_proof(old, size, subtree)
        verify_consistency(old, subtree(0, old), size, subtree(0, size), path)


@pytest.mark.parametrize("one", reasons("consistency"))
def test_what_shows_no_growth_is_refused(one: dict[str, Any]) -> None:
    """A proof of another growth is none, for the reason it gives."""
    with pytest.raises(EvidenceError):
        verify_consistency(
            one["old"],
            bytes.fromhex(one["oldRoot"]),
            one["size"],
            bytes.fromhex(one["root"]),
            unhex(one["hashes"]),
        )


# -- notes ----------------------------------------------------------------------------------


def test_a_verifier_key_is_written_and_read() -> None:
    """Name, key id and key are one line, for a log and for a witness."""
    log, witness = vectors("notes")["log"], vectors("notes")["witness"]

    assert log["vkey"] == format_vkey(log["name"], bytes.fromhex(log["public"]))
    assert log["name"] == parse_vkey(log["vkey"]).name
    assert witness["name"] == parse_cosignature_vkey(witness["vkey"]).name
    assert witness["public"] == parse_cosignature_vkey(witness["vkey"]).public_key_raw.hex()


@pytest.mark.parametrize("one", reasons("notes", "vkeysRefused"))
def test_what_is_no_verifier_key_is_refused(one: dict[str, Any]) -> None:
    """A key that can't be a log's is none, for the reason it gives."""
    with pytest.raises(EvidenceError):
        parse_vkey(one["vkey"])


def test_a_checkpoint_is_read_and_written() -> None:
    """A note opens with the log's key; its three lines are written again as they were."""
    log = parse_vkey(vectors("notes")["log"]["vkey"])
    for one in vectors("notes")["accepted"]:
        text = open_note(one["note"], [log])
        expected = Checkpoint(log.name, one["size"], bytes.fromhex(one["root"]))

        assert expected == parse_checkpoint(text)
        assert text == format_checkpoint(expected)


@pytest.mark.parametrize("one", reasons("notes"))
def test_what_is_no_checkpoint_of_the_log_is_refused(one: dict[str, Any]) -> None:
    """A note of another key, another log or another spelling is none of this log."""
    log = parse_vkey(vectors("notes")["log"]["vkey"])

    with pytest.raises(EvidenceError):
        refuse_other_logs(parse_checkpoint(open_note(one["note"], [log])))


def refuse_other_logs(checkpoint: Checkpoint) -> None:
    """Insist on the log of the vectors, as whoever verifies does with a trust file."""
    if checkpoint.origin != vectors("notes")["log"]["name"]:
        raise EvidenceError("the checkpoint is of another log")


def test_a_witness_has_cosigned() -> None:
    """A cosignature is found and checked, on whichever line it stands."""
    said = vectors("notes")["witness"]
    witness = parse_cosignature_vkey(said["vkey"])
    for note in vectors("notes")["cosigned"]:
        (one,) = check_quorum(note, [witness], 1)

        assert (said["name"], said["time"]) == (one.name, one.time)
        assert 2 == len(parse_note(note)[1])


@pytest.mark.parametrize("one", reasons("notes", "cosignaturesRefused"))
def test_what_the_witness_did_not_cosign_is_refused(one: dict[str, Any]) -> None:
    """A line in the witness's name that it did not make is no cosignature."""
    witness = parse_cosignature_vkey(vectors("notes")["witness"]["vkey"])

    with pytest.raises(EvidenceError):
        check_quorum(one["note"], [witness], 1)
    assert () == cosigned_by(vectors("notes")["accepted"][0]["note"], [witness])


# -- proofs as text -------------------------------------------------------------------------


def test_proofs_are_read_and_written() -> None:
    """A proof as text is read, verifies, and is written again as it was."""
    log = parse_vkey(vectors("notes")["log"]["vkey"])
    for one in vectors("proofs")["inclusion"]:
        proof = parse_proof(one["text"])
        checkpoint = parse_checkpoint(open_note(proof.checkpoint, [log]))

        assert (one["index"], one["size"]) == (proof.index, checkpoint.size)
        assert one["text"] == format_proof(proof)
        verify_inclusion(
            hashes(65_537)[proof.index],
            proof.index,
            checkpoint.size,
            proof.hashes,
            checkpoint.root,
        )
    for one in vectors("proofs")["consistency"]:
        growth = parse_consistency(one["text"])
        checkpoint = parse_checkpoint(open_note(growth.checkpoint, [log]))

        assert (one["old"], one["size"]) == (growth.old_size, checkpoint.size)
        assert one["text"] == format_consistency(growth)
        verify_consistency(
            one["old"],
            bytes.fromhex(one["oldRoot"]),
            checkpoint.size,
            checkpoint.root,
            growth.hashes,
        )


@pytest.mark.parametrize("one", reasons("proofs", "inclusionRefused"))
def test_what_is_no_inclusion_proof_is_refused(one: dict[str, Any]) -> None:
    """A text in another form is no proof, for the reason it gives."""
    with pytest.raises(EvidenceError):
        parse_proof(one["text"])


@pytest.mark.parametrize("one", reasons("proofs", "consistencyRefused"))
def test_what_is_no_consistency_proof_is_refused(one: dict[str, Any]) -> None:
    """A text in another form is no proof, for the reason it gives."""
    with pytest.raises(EvidenceError):
        parse_consistency(one["text"])


# -- tiles ----------------------------------------------------------------------------------


def test_a_tile_has_its_path() -> None:
    """Level, number and width are one path, read and written."""
    for one in vectors("tiles")["paths"]:
        level = ENTRIES if one["level"] == "entries" else one["level"]
        tile = Tile(level, one["number"], one["width"])

        assert one["path"] == format_path(tile)
        assert tile == parse_path(one["path"])


@pytest.mark.parametrize("path", vectors("tiles")["pathsRefused"])
def test_what_is_no_path_of_a_tile_is_refused(path: str) -> None:
    """A path in another spelling names nothing."""
    with pytest.raises(EvidenceError):
        parse_path(path)


def test_a_bundle_holds_its_leaves() -> None:
    """Leaves stand behind their lengths, read and written."""
    for one in vectors("tiles")["bundles"]:
        assert one["bytes"] == encode_entries(unhex(one["leaves"])).hex()
        assert unhex(one["leaves"]) == decode_entries(bytes.fromhex(one["bytes"]))


@pytest.mark.parametrize("one", reasons("tiles", "bundlesRefused"))
def test_what_is_no_bundle_is_refused(one: dict[str, Any]) -> None:
    """Bytes that are no bundle of leaves are refused."""
    with pytest.raises(EvidenceError):
        decode_entries(bytes.fromhex(one["bytes"]))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, str]]:
    """Return the digest of each file of the log of each size, as the package exports it."""
    found = {}
    for size in [*map(int, vectors("tiles")["logs"]), vectors("tiles")["largest"]["size"]]:
        folder = tmp_path_factory.mktemp("log")
        store = SqliteLedger.create(folder / "ledger.db", "vectors.example/log")
        if size:
            store.append(leaves(size))
        notes = {one["size"]: one["note"] for one in vectors("notes")["accepted"]}
        text = format_checkpoint(Checkpoint("vectors.example/log", size, subtree(0, size)))
        note = notes.get(size, text + "\n— vectors.example/log AAAAAAAA\n")
        Tiles(store, Subtrees(store)).export(folder / "log", note)
        store.close()
        found[size] = {
            str(path.relative_to(folder / "log")): sha256(path.read_bytes()).hexdigest()
            for path in (folder / "log/tile").rglob("*")
            if path.is_file()
        }
    return found


def test_a_log_is_cut_into_its_tiles(exported: dict[int, dict[str, str]]) -> None:
    """Every file of a log has the path and the bytes that the standard gives it."""
    for size, expected in vectors("tiles")["logs"].items():
        assert expected == exported[int(size)]
        assert list(expected) == [format_path(tile) for tile in tiles_of(int(size))]
    largest = vectors("tiles")["largest"]

    assert largest["files"] == len(exported[largest["size"]])
    assert largest["above"].items() <= exported[largest["size"]].items()


# -- envelopes ------------------------------------------------------------------------------


def test_an_envelope_is_made_byte_for_byte() -> None:
    """Ed25519 is deterministic: the same key and statement give the same leaf."""
    said = vectors("dsse")
    payload = said["payload"].encode()
    signer = Ed25519Signer(said["receiptKey"]["private"].encode())

    assert said["pae"] == pae("application/vnd.in-toto+json", payload).hex()
    assert said["receiptKey"]["keyid"] == signer.keyid
    assert said["ed25519"].encode() == seal_statement(payload, signer)


def test_an_envelope_is_read() -> None:
    """Both kinds of key sign what the package verifies."""
    said = vectors("dsse")
    for key, envelope in (("receiptKey", "ed25519"), ("manifestKey", "p256")):
        public = parse_public_pem(said[key]["public"])
        payload = verify_envelope(said[envelope].encode(), {public.keyid: public})

        assert said[key]["keyid"] == public.keyid
        assert said["payload"].encode() == payload


def test_a_p256_envelope_differs_in_its_signature_alone() -> None:
    """ECDSA takes a fresh number each time; all else is as in the vector."""
    said = vectors("dsse")
    signer = P256Signer(said["manifestKey"]["private"].encode())
    made = json.loads(seal_unnamed(said["payload"].encode(), signer))
    expected = json.loads(said["p256"])

    assert [{"sig"}, {"sig"}] == [set(one["signatures"][0]) for one in (made, expected)]
    assert expected | {"signatures": []} == made | {"signatures": []}


def test_a_manifest_is_a_sigstore_bundle() -> None:
    """The envelope of a manifest is wrapped, and found again, byte for byte."""
    said = vectors("dsse")

    assert said["sigstore"].encode() == wrap_leaf(
        said["p256"].encode(), said["manifestKey"]["keyid"]
    )
    assert (said["p256"].encode(), said["manifestKey"]["keyid"]) == open_manifest(
        said["sigstore"].encode()
    )


@pytest.mark.parametrize("one", reasons("dsse", "p256Refused"))
def test_what_is_no_signed_envelope_is_refused(one: dict[str, Any]) -> None:
    """An envelope that is bent, or spelt otherwise, is none."""
    public = parse_public_pem(vectors("dsse")["manifestKey"]["public"])

    assert vectors("dsse")["p256"] != one["envelope"]
    with pytest.raises(EvidenceError):
        verify_envelope(one["envelope"].encode(), {public.keyid: public})


# -- COSE -----------------------------------------------------------------------------------


def test_a_cose_receipt_is_written_byte_for_byte() -> None:
    """Deterministic CBOR and Ed25519 leave one way to write it."""
    said = vectors("cose")
    signer = LogSigner(said["logKey"]["private"].encode(), vectors("notes")["log"]["name"])
    notes = {one["index"]: parse_proof(one["text"]) for one in vectors("proofs")["inclusion"]}
    for one in said["receipts"]:
        leaf = leaves(one["index"] + 1)[-1]

        assert one["bytes"] == write_cose(leaf, notes[one["index"]], signer).hex()


# -- a whole ledger -------------------------------------------------------------------------


def trust_file(said: dict[str, Any]) -> Trust:
    """Return what a trust file of the vectors says."""
    return parse_trust(json.dumps(said).encode())


@pytest.mark.parametrize("kind", vectors("ledger")["bundles"])
def test_a_bundle_is_verified(kind: str) -> None:
    """A bundle of each kind of leaf verifies whole, with nothing but the trust file."""
    said = vectors("ledger")
    encoded = said["bundles"][kind].encode()
    verified = verify_bundle(encoded, trust_file(said["trust"]))

    assert said["leaves"][verified.index].encode() == verified.leaf
    assert ["witness.example/w1"] == [one.name for one in verified.cosigned]
    assert encoded == format_bundle(parse_bundle(encoded))


def test_a_receipt_says_what_the_vector_says() -> None:
    """The statement in the bundle is the exchange's receipt, read into its fields."""
    said = vectors("ledger")
    verified = verify_bundle(said["bundles"]["receipt"].encode(), trust_file(said["trust"]))
    receipt = verified.statement

    assert isinstance(receipt, Receipt)
    assert (5, "x-01JD0000000000000000000597") == (verified.index, receipt.exchange)
    assert ("permit", 4, "complete") == (receipt.ruling.effect, receipt.opening, receipt.ended)
    assert sha256(b"answer number 597").hexdigest() == receipt.outputs[0].sha256


@pytest.mark.parametrize("one", reasons("ledger", "acceptedUnder"))
def test_a_bundle_is_verified_under_another_trust(one: dict[str, Any]) -> None:
    """A trust file that asks for less, or ends a key later, still holds the receipt good."""
    encoded = vectors("ledger")["bundles"]["receipt"].encode()

    assert 5 == verify_bundle(encoded, trust_file(one["trust"])).index


@pytest.mark.parametrize("one", reasons("ledger", "refusedUnder"))
def test_a_bundle_is_refused_under_another_trust(one: dict[str, Any]) -> None:
    """Whoever trusts other keys, or not at that leaf, is shown nothing."""
    trust = trust_file(one["trust"])

    with pytest.raises(EvidenceError):
        verify_bundle(vectors("ledger")["bundles"]["receipt"].encode(), trust)


@pytest.mark.parametrize("one", reasons("ledger"))
def test_what_is_no_evidence_is_refused(one: dict[str, Any]) -> None:
    """A bundle by somebody who may not say it, or in another spelling, shows nothing."""
    trust = trust_file(vectors("ledger")["trust"])

    assert one["bundle"] not in vectors("ledger")["bundles"].values()
    with pytest.raises(EvidenceError):
        verify_bundle(one["bundle"].encode(), trust)


def test_the_root_has_signed_the_trust_file() -> None:
    """Its signature is over the exact bytes of the file, and verifies under the root's key."""
    said = vectors("ledger")
    root = parse_public_pem(said["root"]["public"])
    trust, at = verify_trust(said["trustFile"].encode(), said["trustSignature"].encode(), root)

    assert trust_file(said["trust"]) == trust
    assert "2026-11-22T04:30:00.123Z" == at
    with pytest.raises(EvidenceError):
        verify_trust(said["trustFile"].encode() + b"\n", said["trustSignature"].encode(), root)


@pytest.mark.parametrize("one", reasons("ledger", "trustSignatureRefused"))
def test_what_the_root_did_not_sign_is_refused(one: dict[str, Any]) -> None:
    """Another file, another key, another log, or a statement about something else."""
    said = vectors("ledger")
    root = parse_public_pem(said["root"]["public"])

    with pytest.raises(EvidenceError):
        verify_trust(said["trustFile"].encode(), one["signature"].encode(), root)


def test_what_an_authorised_key_signs_after_its_revocation_is_known_from_the_whole() -> None:
    """Folding the ledger's statements ends the key at the leaf that says so."""
    said = vectors("ledger")
    authority = Authority(trust_file(said["trust"]))
    for index, leaf in enumerate(said["leaves"]):
        if index not in {0, 2}:
            authority.admit(index, verify_leaf(leaf.encode(), index, authority))
    keyid = vectors("dsse")["receiptKey"]["keyid"]

    assert keyid == authority.receipt_key(keyid, 5).keyid
    with pytest.raises(EvidenceError):
        authority.receipt_key(keyid, 6)
    with pytest.raises(EvidenceError):
        authority.receipt_key(keyid, 1)
