"""Go's own notes and trees (`golang.org/x/mod`) accept what we write, and nothing bent.

The program is `examples/verify_offline/go`; what it checks, it checks with code of Go's own
checksum database, which was written for another log and another purpose.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.ledger.reading.subtrees import Subtrees
from gateway.ledger.reading.tiles import Tiles
from gateway.receipt.keys import LogSigner, generate_pem
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.checkpoint import Checkpoint, format_checkpoint
from gateway.tlog.merkle import consistency_proof, leaf_hash, root_of
from gateway.tlog.note import sign_note
from gateway.tlog.proof import ConsistencyProof, format_consistency, format_proof
from tests.conformance.test_vectors import leaves as vectors_leaves
from tests.conformance.test_vectors import reasons, vectors
from tests.support.evidence import LOG_SIGNER, ORIGIN, a_note, a_proof
from tests.support.foreign import GoVerifier, flipped, places

VKEY = LOG_SIGNER.vkey
OTHER = LogSigner(generate_pem("ed25519"), ORIGIN)
LEAVES = [b"leaf %d" % number for number in range(600)]
INDEX = 300


def write(folder: Path, **files: str | bytes) -> list[Path]:
    """Write each file and return the paths in that order."""
    for name, content in files.items():
        encoded = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(encoded)
    return [folder / name for name in files]


def growth(old_size: int, leaves: list[bytes]) -> str:
    """Return the proof that the log of *old_size* has grown into *leaves*."""
    hashes = [leaf_hash(leaf) for leaf in leaves]
    path = consistency_proof(
        old_size, len(leaves), lambda first, stop: root_of(hashes[first:stop])
    )
    return format_consistency(ConsistencyProof(old_size, tuple(path), a_note(leaves)))


# -- checkpoints --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 600])
def test_a_checkpoint_is_accepted(size: int, go: GoVerifier, tmp_path: Path) -> None:
    """A checkpoint of any size is a signed note, and the tree in it is read."""
    said = go.accepts("note", VKEY, *write(tmp_path, note=a_note(LEAVES[:size])))

    assert f"checkpoint of {size} leaves" in said


def test_every_changed_byte_of_a_checkpoint_is_rejected(go: GoVerifier, tmp_path: Path) -> None:
    """Whichever byte of a checkpoint is changed, its signature no longer holds."""
    note = a_note(LEAVES).encode()
    assert note.endswith(b"=\n")
    # Of the last digit before the padding Go leaves two bits unread, as base64 allows.
    for at in set(range(len(note) - 1)) - {len(note) - 3}:
        go.rejects("note", VKEY, *write(tmp_path, bent=flipped(note, at)))


def test_a_checkpoint_of_another_key_is_rejected(go: GoVerifier, tmp_path: Path) -> None:
    """A key that merely has the log's name does not sign for it."""
    go.rejects("note", VKEY, *write(tmp_path, note=a_note(LEAVES, OTHER)))
    go.rejects("note", OTHER.vkey, *write(tmp_path, note=a_note(LEAVES)))


def test_a_checkpoint_of_another_origin_is_rejected(go: GoVerifier, tmp_path: Path) -> None:
    """What the log's key signed under its name about another log is not of this log."""
    root = root_of(map(leaf_hash, LEAVES))
    text = format_checkpoint(Checkpoint("other.example/log", len(LEAVES), root))
    note = sign_note(text, [LOG_SIGNER])

    assert "other.example" in go.rejects("note", VKEY, *write(tmp_path, note=note))


# -- inclusion ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 600])
def test_an_inclusion_proof_is_accepted(size: int, go: GoVerifier, tmp_path: Path) -> None:
    """The first, a middle and the last leaf of a log are found under its checkpoint."""
    for index in {0, size // 2, size - 1}:
        proof = format_proof(a_proof(LEAVES[:size], index))
        said = go.accepts("inclusion", VKEY, *write(tmp_path, p=proof, leaf=LEAVES[index]))

        assert f"leaf {index} is one of {size} leaves" in said


PROOF = format_proof(a_proof(LEAVES, INDEX))
LINES = PROOF.split("\n")
_, _, NOTE = PROOF.partition("\n\n")

BENT_PROOFS: dict[str, tuple[str, bytes]] = {
    "the index before": (PROOF.replace("index 300", "index 299"), LEAVES[INDEX]),
    "the index after": (PROOF.replace("index 300", "index 301"), LEAVES[INDEX]),
    "an index beyond the log": (PROOF.replace("index 300", "index 600"), LEAVES[INDEX]),
    "a truncated leaf": (PROOF, LEAVES[INDEX][:-1]),
    "a longer leaf": (PROOF, LEAVES[INDEX] + b" "),
    "another leaf": (PROOF, LEAVES[INDEX + 1]),
    "an empty leaf": (PROOF, b""),
    "hashes swapped": ("\n".join([*LINES[:2], LINES[3], LINES[2], *LINES[4:]]), LEAVES[INDEX]),
    "a hash left out": ("\n".join([*LINES[:2], *LINES[3:]]), LEAVES[INDEX]),
    "a hash twice": ("\n".join([*LINES[:3], *LINES[2:]]), LEAVES[INDEX]),
    "no hashes": ("\n".join(LINES[:2]) + "\n\n" + NOTE, LEAVES[INDEX]),
    "an older checkpoint": (PROOF.replace(NOTE, a_note(LEAVES[:599])), LEAVES[INDEX]),
    "a newer checkpoint": (PROOF.replace(NOTE, a_note([*LEAVES, b"one more"])), LEAVES[INDEX]),
    "a fork's checkpoint": (PROOF.replace(NOTE, a_note([b"x", *LEAVES[1:]])), LEAVES[INDEX]),
    "another key's checkpoint": (PROOF.replace(NOTE, a_note(LEAVES, OTHER)), LEAVES[INDEX]),
    "no checkpoint": (PROOF.partition("\n\n")[0] + "\n", LEAVES[INDEX]),
    "another version": (PROOF.replace("@v1", "@v2"), LEAVES[INDEX]),
}


@pytest.mark.parametrize("mutation", BENT_PROOFS)
def test_a_bent_inclusion_proof_is_rejected(
    mutation: str, go: GoVerifier, tmp_path: Path
) -> None:
    """A proof of something else than this leaf, here, under this log, proves nothing."""
    proof, leaf = BENT_PROOFS[mutation]

    assert (proof, leaf) != (PROOF, LEAVES[INDEX])
    go.rejects("inclusion", VKEY, *write(tmp_path, proof=proof, leaf=leaf))


def test_a_changed_byte_of_an_inclusion_proof_is_rejected(
    go: GoVerifier, tmp_path: Path
) -> None:
    """Whichever part of a proof a changed byte is in, it proves nothing any more."""
    proof = PROOF.encode()
    for at in places(len(proof) - 1, 150):
        go.rejects(
            "inclusion", VKEY, *write(tmp_path, bent=flipped(proof, at), leaf=LEAVES[INDEX])
        )


# -- consistency --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old_size", "size"), [(1, 2), (1, 600), (255, 256), (256, 600), (300, 600), (599, 600)]
)
def test_a_consistency_proof_is_accepted(
    old_size: int, size: int, go: GoVerifier, tmp_path: Path
) -> None:
    """Whoever holds an older checkpoint is shown that the log only grew."""
    old, proof = a_note(LEAVES[:old_size]), growth(old_size, LEAVES[:size])
    said = go.accepts("consistency", VKEY, *write(tmp_path, old=old, proof=proof))

    assert f"{old_size} leaves grew into {size}" in said


GREW = growth(300, LEAVES)
GREW_LINES = GREW.split("\n")
OLD = a_note(LEAVES[:300])

BENT_GROWTH: dict[str, tuple[str, str]] = {
    "an edited leaf": (a_note([b"x", *LEAVES[1:300]]), GREW),
    "a smaller old checkpoint": (a_note(LEAVES[:299]), GREW),
    "a larger old checkpoint": (a_note(LEAVES[:301]), GREW),
    "another old size": (OLD, GREW.replace("old 300", "old 301")),
    "another key's old checkpoint": (a_note(LEAVES[:300], OTHER), GREW),
    "hashes swapped": (
        OLD,
        "\n".join([GREW_LINES[0], GREW_LINES[2], GREW_LINES[1], *GREW_LINES[3:]]),
    ),
    "a hash left out": (OLD, "\n".join([GREW_LINES[0], *GREW_LINES[2:]])),
    "a fork": (OLD, growth(300, [b"x", *LEAVES[1:]])),
    "another key's new checkpoint": (
        OLD,
        GREW.replace(GREW.partition("\n\n")[2], a_note(LEAVES, OTHER)),
    ),
    "an older new checkpoint": (
        OLD,
        GREW.replace(GREW.partition("\n\n")[2], a_note(LEAVES[:200])),
    ),
}


@pytest.mark.parametrize("mutation", BENT_GROWTH)
def test_bent_growth_is_rejected(mutation: str, go: GoVerifier, tmp_path: Path) -> None:
    """A log that did not only grow is not said to have done so."""
    old, proof = BENT_GROWTH[mutation]

    assert (old, proof) != (OLD, GREW)
    go.rejects("consistency", VKEY, *write(tmp_path, old=old, proof=proof))


# -- the whole log as a folder ------------------------------------------------------------


def exported(folder: Path, leaves: list[bytes], *, entries: bool = True) -> Path:
    """Write a log of *leaves* as a folder, through a ledger in SQLite."""
    store = SqliteLedger.create(folder / "ledger.db", ORIGIN)
    if leaves:
        store.append(leaves)
    Tiles(store, Subtrees(store)).export(folder / "log", a_note(leaves), entries=entries)
    store.close()
    return folder / "log"


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 600])
def test_an_exported_log_is_accepted(size: int, go: GoVerifier, tmp_path: Path) -> None:
    """The root is recomputed from every leaf, and every tile is what the leaves make of it."""
    said = go.accepts("folder", VKEY, exported(tmp_path, LEAVES[:size]))

    assert f"folder of {size} leaves" in said


def test_a_log_with_a_third_level_is_accepted(go: GoVerifier, tmp_path: Path) -> None:
    """A log of more than 65,536 leaves has tiles of tiles of tiles."""
    leaves = [b"%d" % number for number in range(65_800)]
    folder = exported(tmp_path, leaves)
    (old,) = write(tmp_path, old=a_note(leaves[:40_000]))

    assert (folder / "tile/2/000.p/1").is_file()
    assert "grown from 40000" in go.accepts("folder", VKEY, folder, old)
    assert "grown from 40000" in go.accepts("hashes", VKEY, folder, old)


def test_a_log_of_hashes_alone_is_accepted(go: GoVerifier, tmp_path: Path) -> None:
    """Without leaves, every tile is still shown to be under the checkpoint."""
    folder = exported(tmp_path, LEAVES, entries=False)
    (old,) = write(tmp_path, old=a_note(LEAVES[:77]))

    go.accepts("hashes", VKEY, folder, old)
    go.rejects("folder", VKEY, folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the log of 600 leaves as a folder, which is left as it is."""
    return exported(tmp_path_factory.mktemp("whole"), LEAVES)


def swap(first: Path, second: Path) -> None:
    """Let two files change places."""
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


BENT_FOLDERS: dict[str, Callable[[Path], object]] = {
    "tiles swapped": lambda log: swap(log / "tile/0/000", log / "tile/0/001"),
    "bundles swapped": lambda log: swap(log / "tile/entries/000", log / "tile/entries/001"),
    "a tile and its parent swapped": lambda log: swap(
        log / "tile/0/000", log / "tile/1/000.p/2"
    ),
    "a tile missing": lambda log: (log / "tile/0/001").unlink(),
    "the partial tile missing": lambda log: (log / "tile/0/002.p/88").unlink(),
    "a bundle missing": lambda log: (log / "tile/entries/001").unlink(),
    "the checkpoint missing": lambda log: (log / "checkpoint").unlink(),
    "a wider partial tile": lambda log: (log / "tile/0/002.p/88").rename(
        log / "tile/0/002.p/89"
    ),
    "a truncated tile": lambda log: (log / "tile/0/001").write_bytes(bytes(255 * 32)),
    "a truncated bundle": lambda log: (log / "tile/entries/001").write_bytes(
        (log / "tile/entries/001").read_bytes()[:-1]
    ),
    "a leaf too many": lambda log: (log / "tile/entries/002.p/88").write_bytes(
        (log / "tile/entries/002.p/88").read_bytes() + b"\x00\x01x"
    ),
    "an older checkpoint": lambda log: (log / "checkpoint").write_text(a_note(LEAVES[:599])),
    "a newer checkpoint": lambda log: (log / "checkpoint").write_text(a_note([*LEAVES, b"x"])),
    "another key's checkpoint": lambda log: (log / "checkpoint").write_text(
        a_note(LEAVES, OTHER)
    ),
    "a fork's checkpoint": lambda log: (log / "checkpoint").write_text(
        a_note([b"x", *LEAVES[1:]])
    ),
}


@pytest.mark.parametrize("mutation", BENT_FOLDERS)
def test_a_bent_folder_is_rejected(
    mutation: str, go: GoVerifier, tmp_path: Path, whole: Path
) -> None:
    """A folder that is not the whole log as it was signed is not taken for it."""
    log = tmp_path / "log"
    shutil.copytree(whole, log)
    BENT_FOLDERS[mutation](log)

    go.rejects("folder", VKEY, log)


def test_a_changed_byte_of_any_file_is_rejected(
    go: GoVerifier, tmp_path: Path, whole: Path
) -> None:
    """Whichever file of the folder a changed byte is in, the folder is no longer the log."""
    log = tmp_path / "log"
    shutil.copytree(whole, log)
    for path in sorted(one for one in log.rglob("*") if one.is_file()):
        kept = path.read_bytes()
        for at in places(len(kept) - 1, 9):
            path.write_bytes(flipped(kept, at))
            go.rejects("folder", VKEY, log)
        path.write_bytes(kept)

    go.accepts("folder", VKEY, log)


@pytest.mark.parametrize(
    "old",
    [a_note([b"x", *LEAVES[1:77]]), a_note(LEAVES[:77], OTHER), a_note([*LEAVES, b"x"])],
    ids=["a fork", "another key", "newer than the folder"],
)
def test_a_folder_that_did_not_grow_out_of_a_checkpoint_is_rejected(
    old: str, go: GoVerifier, tmp_path: Path, whole: Path
) -> None:
    """Whoever holds a checkpoint of another history is not told that the log grew from it."""
    (held,) = write(tmp_path, old=old)

    go.rejects("folder", VKEY, whole, held)
    go.rejects("hashes", VKEY, whole, held)


# -- the vectors ----------------------------------------------------------------------------

LENIENT = {
    "an extension line, which C2SP allows and we neither write nor read, truly signed",
    "an empty log with another root, truly signed",
    "a root with spare bits, truly signed",
}
"""What Go's code lets pass: the first by the standard, the others by its own leniency."""


def test_the_vectors_are_accepted(go: GoVerifier, tmp_path: Path) -> None:
    """Three agree that share no code: the generator of the vectors, Go, and the package."""
    said, text = vectors("notes"), vectors("proofs")
    log, witness = said["log"]["vkey"], said["witness"]["vkey"]
    for one in said["accepted"]:
        go.accepts("note", log, *write(tmp_path, note=one["note"]))
    for note in said["cosigned"]:
        go.accepts("note", f"{log},{witness}", *write(tmp_path, note=note))
    for one in text["inclusion"]:
        leaf = vectors_leaves(one["index"] + 1)[-1]
        go.accepts("inclusion", log, *write(tmp_path, proof=one["text"], leaf=leaf))
    notes = {one["size"]: one["note"] for one in said["accepted"]}
    for one in text["consistency"]:
        if one["old"] in notes and one["old"]:
            files = write(tmp_path, old=notes[one["old"]], proof=one["text"])
            go.accepts("consistency", log, *files)


@pytest.mark.parametrize("one", reasons("notes"))
def test_a_bent_note_of_the_vectors_is_rejected(
    one: dict[str, str], go: GoVerifier, tmp_path: Path
) -> None:
    """What the vectors say is no checkpoint is none to Go's code, but for known leniencies."""
    log = vectors("notes")["log"]["vkey"]
    check = go.accepts if one["why"] in LENIENT else go.rejects

    check("note", log, *write(tmp_path, note=one["note"]))


@pytest.mark.parametrize("one", reasons("notes", "cosignaturesRefused"))
def test_a_bent_cosignature_of_the_vectors_is_rejected(
    one: dict[str, str], go: GoVerifier, tmp_path: Path
) -> None:
    """A line in the witness's name that it did not make is no cosignature to Go either."""
    said = vectors("notes")
    keys = f"{said['log']['vkey']},{said['witness']['vkey']}"

    go.rejects("note", keys, *write(tmp_path, note=one["note"]))


@pytest.mark.parametrize("one", reasons("proofs", "inclusionRefused"))
def test_a_bent_proof_of_the_vectors_is_rejected(
    one: dict[str, str], go: GoVerifier, tmp_path: Path
) -> None:
    """A proof in another form proves nothing to the Go program either."""
    log, leaf = vectors("notes")["log"]["vkey"], vectors_leaves(6)[-1]

    go.rejects("inclusion", log, *write(tmp_path, proof=one["text"], leaf=leaf))
