"""The tree, the notes and the proofs, for guests nobody thought of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadProofError, BadSignatureError
from gateway.tlog.checkpoint import Checkpoint, format_checkpoint, parse_checkpoint
from gateway.tlog.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from gateway.tlog.note import open_note, parse_note, parse_vkey, sign_note
from gateway.tlog.proof import InclusionProof, format_proof, parse_proof
from gateway.tlog.tile import (
    Tile,
    decode_entries,
    encode_entries,
    format_path,
    parse_path,
    tiles_of,
)
from tests.support.evidence import LOG_SIGNER

SIZE_MAX = 40
LEAVES = [b"leaf %d" % number for number in range(SIZE_MAX)]
HASHES = [leaf_hash(leaf) for leaf in LEAVES]

hashes = st.binary(min_size=32, max_size=32)
names = st.from_regex(r"[a-z0-9./-]{1,40}", fullmatch=True)


def naive_root(leaves: list[bytes]) -> bytes:
    """Return MTH of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = naive_split(len(leaves))
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """Return PATH of RFC 6962, section 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    k = naive_split(len(leaves))
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m: int, leaves: list[bytes], *, known: bool) -> list[bytes]:
    """Return SUBPROOF of RFC 6962, section 2.1.2, word for word."""
    if m == len(leaves):
        return [] if known else [naive_root(leaves)]
    k = naive_split(len(leaves))
    if m <= k:
        return [*naive_subproof(m, leaves[:k], known=known), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], known=False), naive_root(leaves[:k])]


def naive_split(size: int) -> int:
    """Return the largest power of two below *size*."""
    k = 1
    while 2 * k < size:
        k *= 2
    return k


def subtree(first: int, stop: int) -> bytes:
    """Return the root of leaves *first* up to *stop*, by the slow road."""
    return naive_root(LEAVES[first:stop])


def test_a_frontier_has_the_root_of_the_definition() -> None:
    """After each push the root is that of the recursive definition."""
    frontier = Frontier()
    for size in range(SIZE_MAX):
        assert frontier.root() == naive_root(LEAVES[:size]) == root_of(HASHES[:size])
        frontier.push(HASHES[size])


@pytest.mark.parametrize("size", range(1, SIZE_MAX + 1))
def test_inclusion_is_that_of_the_definition(size: int) -> None:
    """Each leaf's proof is the definition's, verifies, and verifies at no other index."""
    root = subtree(0, size)
    for index in range(size):
        proof = inclusion_proof(index, size, subtree)

        assert proof == naive_path(index, LEAVES[:size])
        for other in range(size):
            if other == index:
                verify_inclusion(HASHES[index], index, size, proof, root)
            else:
                with pytest.raises(BadProofError):
                    verify_inclusion(HASHES[index], other, size, proof, root)


@pytest.mark.parametrize("size", range(1, SIZE_MAX + 1))
def test_consistency_is_that_of_the_definition(size: int) -> None:
    """Each older tree's proof is the definition's, verifies, and for no other older size."""
    root = subtree(0, size)
    for old in range(1, size + 1):
        proof = consistency_proof(old, size, subtree)

        assert proof == naive_subproof(old, LEAVES[:size], known=True)
        verify_consistency(old, subtree(0, old), size, root, proof)
        for other in {old - 1, old + 1} & set(range(1, size + 1)):
            with pytest.raises(BadProofError):
                verify_consistency(other, subtree(0, old), size, root, proof)


@given(st.integers(1, 2**63 - 1), st.data())
def test_proofs_of_huge_trees_have_their_length(size: int, draw: st.DataObject) -> None:
    """A proof asks for at most as many subtrees as the tree is high, and they tile it."""
    index = draw.draw(st.integers(0, size - 1))
    asked: list[tuple[int, int]] = []

    def note(first: int, stop: int) -> bytes:
        asked.append((first, stop))
        return EMPTY_ROOT

    inclusion_proof(index, size, note)
    spans = sorted([*asked, (index, index + 1)])

    assert len(asked) <= (size - 1).bit_length()
    assert [0, *(stop for _, stop in spans)] == [*(first for first, _ in spans), size]


@given(st.lists(hashes, max_size=70), st.integers(0, 70))
def test_a_frontier_can_be_put_away(leaf_hashes: list[bytes], at: int) -> None:
    """Putting a frontier away at any size and going on gives the same root."""
    frontier = Frontier()
    for count, one in enumerate(leaf_hashes):
        if count == at:
            frontier = Frontier(frontier.size, frontier.hashes)
        frontier.push(one)

    assert frontier.root() == root_of(leaf_hashes)


@given(names, st.integers(1, 2**63 - 1), hashes)
def test_checkpoints_are_read_as_written(origin: str, size: int, root: bytes) -> None:
    """What a checkpoint's text says is what was put into it, signed or not."""
    checkpoint = Checkpoint(origin, size, root)
    text = format_checkpoint(checkpoint)

    assert parse_checkpoint(text) == checkpoint
    assert open_note(sign_note(text, [LOG_SIGNER]), [parse_vkey(LOG_SIGNER.vkey)]) == text


@given(
    st.integers(0, 2**63 - 1),
    st.lists(hashes, max_size=63),
    st.text(st.characters(codec="utf-8"), max_size=200),
)
def test_proofs_are_read_as_written(index: int, path: list[bytes], note: str) -> None:
    """What a proof's text says is what was put into it, the checkpoint verbatim."""
    proof = InclusionProof(index, tuple(path), note)

    assert parse_proof(format_proof(proof)) == proof


@given(st.integers(-1, 7), st.integers(0, 10**15), st.integers(1, 256))
def test_tile_paths_are_read_as_written(level: int, index: int, width: int) -> None:
    """A tile's path names that tile and no other."""
    tile = Tile(level, index, width)

    assert parse_path(format_path(tile)) == tile


@given(st.integers(0, 300_000))
def test_tiles_hold_every_leaf_once(size: int) -> None:
    """The widths on the two lowest levels add up to the size."""
    tiles = list(tiles_of(size))
    for level in (-1, 0):
        assert size == sum(tile.width for tile in tiles if tile.level == level)


@given(st.lists(st.binary(max_size=80), max_size=256))
def test_entries_are_read_as_written(leaves: list[bytes]) -> None:
    """An entry bundle gives back its leaves."""
    assert decode_entries(encode_entries(leaves)) == leaves


PARSERS: list[Callable[[str], Any]] = [
    parse_vkey,
    parse_note,
    parse_checkpoint,
    parse_proof,
    parse_path,
]
NEAR = st.sampled_from(
    [
        "c2sp.org/tlog-proof@v1\n",
        "index 0\n",
        "\n",
        "\n\n",
        "— ",
        "name ",
        "AAAAAAA=",
        "A" * 43 + "=",
        "+",
        "tile/",
        "entries/",
        "000",
        ".p/",
        "٣",
        "\x00",
        "\ud800",
    ]
)
texts = st.one_of(st.text(), st.lists(st.one_of(NEAR, st.text(max_size=3))).map("".join))


@pytest.mark.parametrize("parse", PARSERS)
@given(text=texts)
def test_any_text_is_a_value_or_an_error(parse: Callable[[str], Any], text: str) -> None:
    """Whatever comes in, a parser returns a value or raises its own error."""
    try:
        parse(text)
    except BadProofError as bad:
        line = str(bad)
    else:
        return
    assert "\n" not in line


@given(texts)
def test_any_note_is_unsigned_until_shown(text: str) -> None:
    """No made-up text opens as a note of ours."""
    with pytest.raises((BadProofError, BadSignatureError)):
        open_note(text, [parse_vkey(LOG_SIGNER.vkey)])


@given(st.binary(max_size=2000))
def test_any_bytes_are_entries_or_an_error(encoded: bytes) -> None:
    """What decodes as entries encodes to the same bytes."""
    try:
        leaves = decode_entries(encoded)
    except BadProofError:
        return
    assert encode_entries(leaves) == encoded
