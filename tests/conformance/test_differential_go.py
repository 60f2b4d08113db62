"""Ours and Go's code are asked the same thousands of questions, and answer alike.

Questions are drawn from a fixed seed: right proofs, and proofs changed at random. Where ours is
stricter by intent (one spelling for each thing), it must never say yes where Go says no.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from gateway.errors import EvidenceError
from gateway.receipt.keys import LogSigner, generate_pem
from gateway.tlog.checkpoint import Checkpoint, format_checkpoint
from gateway.tlog.merkle import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from gateway.tlog.note import open_note, parse_vkey, sign_note
from gateway.tlog.tile import Tile, format_path, parse_path
from tests.support.foreign import GoJudge, flipped

COUNT = 3_000
LARGEST = 520
HASHES = [leaf_hash(b"leaf %d" % number) for number in range(LARGEST)]


@cache
def subtree(first: int, stop: int) -> bytes:
    """Return the root of a part of the log."""
    return root_of(HASHES[first:stop])


def says_yes(verify: Callable[..., object], *words: object) -> bool:
    """Return whether ours raises nothing."""
    try:
        verify(*words)
    except EvidenceError:
        return False
    return True


def bent(random: Random, hashes: list[bytes]) -> list[bytes]:
    """Return hashes of which something was changed."""
    changed = list(hashes)
    at = random.randrange(len(changed)) if changed else 0
    match random.randrange(6):
        case 0 if changed:
            changed[at] = flipped(changed[at], random.randrange(32), 1 << random.randrange(8))
        case 1 if changed:
            del changed[at]
        case 2 if changed:
            changed.insert(at, changed[at])
        case 3 if changed:
            other = random.randrange(len(changed))
            changed[at], changed[other] = changed[other], changed[at]
        case 4:
            changed.reverse()
        case _:
            changed.append(random.choice(HASHES))
    return changed


def near(random: Random, number: int) -> int:
    """Return a number close by, or half, or twice as large."""
    return random.choice([number - 1, number + 1, number // 2, number * 2])


def size_of(random: Random) -> int:
    """Return the size of a log; powers of two and their neighbours as often as all others."""
    if random.random() < 0.5:
        return random.randint(1, LARGEST)
    return max(1, (1 << random.randrange(10)) + random.randint(-1, 1))


def test_inclusion_is_judged_alike(judge: GoJudge) -> None:
    """Whatever proof is shown, both say yes or both say no."""
    random, questions, ours = Random(6962), [], []
    for _ in range(COUNT):
        size = size_of(random)
        index = random.randrange(size)
        hashes = inclusion_proof(index, size, subtree)
        leaf, root = HASHES[index], subtree(0, size)
        match random.randrange(6):
            case 0:
                hashes = bent(random, hashes)
            case 1:
                index = near(random, index)
            case 2:
                size = near(random, size)
            case 3:
                leaf = random.choice(HASHES)
            case 4:
                root = subtree(0, near(random, size) % LARGEST)
            case _:
                pass
        questions.append(
            {
                "ask": "inclusion",
                "index": index,
                "size": size,
                "leaf": leaf.hex(),
                "root": root.hex(),
                "hashes": [one.hex() for one in hashes],
            }
        )
        ours.append(says_yes(verify_inclusion, leaf, index, size, hashes, root))

    assert ours == judge(questions)
    assert COUNT // 10 < sum(ours) < COUNT // 2


def test_growth_is_judged_alike(judge: GoJudge) -> None:
    """Whatever growth is claimed, both say yes or both say no."""
    random, questions, ours = Random(9162), [], []
    for _ in range(COUNT):
        size = size_of(random)
        old = random.randint(1, size)
        hashes = consistency_proof(old, size, subtree)
        before, root = subtree(0, old), subtree(0, size)
        match random.randrange(6):
            case 0:
                hashes = bent(random, hashes)
            case 1:
                # Of growth out of nothing Go's code says nothing.
                old = max(1, near(random, old))
            case 2:
                size = near(random, size)
            case 3:
                before = subtree(0, near(random, old) % LARGEST)
            case 4:
                root = subtree(0, near(random, size) % LARGEST)
            case _:
                pass
        questions.append(
            {
                "ask": "consistency",
                "old": old,
                "size": size,
                "before": before.hex(),
                "root": root.hex(),
                "hashes": [one.hex() for one in hashes],
            }
        )
        ours.append(says_yes(verify_consistency, old, before, size, root, hashes))

    assert ours == judge(questions)
    assert COUNT // 10 < sum(ours) < COUNT // 2


def mutated(random: Random, text: str) -> str:
    """Return a text with a character changed, left out, doubled or moved; or as it is."""
    if random.random() < 0.2:
        return text
    at = random.randrange(len(text))
    other = random.choice([*"+/=\n \u2014A0z\t\r", random.choice(text)])
    changed: list[str] = [
        text[:at] + other + text[at + 1 :],
        text[:at] + text[at + 1 :],
        text[:at] + text[at] + text[at:],
        text[:at] + other + text[at:],
        text[:at],
        text + other,
    ]
    return random.choice(changed)


def test_no_note_is_taken_that_go_refuses(judge: GoJudge) -> None:
    """Ours is stricter about spelling, and never laxer."""
    random = Random(1)
    log = LogSigner(generate_pem("ed25519"), "log.example/one")
    other = LogSigner(generate_pem("ed25519"), "log.example/two")
    verifier = parse_vkey(log.vkey)
    texts = []
    for _ in range(COUNT):
        size = size_of(random)
        text = format_checkpoint(Checkpoint(log.name, size, subtree(0, size)))
        signers = random.choice([[log], [log, other], [other, log], [other]])
        texts.append(mutated(random, sign_note(text, signers)))
    ours = [says_yes(open_note, text, [verifier]) for text in texts]
    theirs = judge({"ask": "note", "vkey": log.vkey, "text": text} for text in texts)
    laxer = [
        text for text, mine, go in zip(texts, ours, theirs, strict=True) if mine and not go
    ]

    assert [] == laxer
    assert COUNT // 20 < sum(ours) <= sum(theirs) < COUNT


def test_no_key_is_taken_that_go_refuses(judge: GoJudge) -> None:
    """A verifier key that Go does not read is none to us either."""
    random = Random(2)
    log = LogSigner(generate_pem("ed25519"), "log.example/one")
    vkeys = [mutated(random, log.vkey) for _ in range(COUNT)]
    ours = [says_yes(parse_vkey, vkey) for vkey in vkeys]
    theirs = judge({"ask": "vkey", "vkey": vkey} for vkey in vkeys)

    assert [] == [
        vkey for vkey, mine, go in zip(vkeys, ours, theirs, strict=True) if mine and not go
    ]
    assert 0 < sum(ours)


def test_paths_are_read_alike(judge: GoJudge) -> None:
    """A tile has one path to both, whatever is made of it."""
    random, paths = Random(3), list[str]()
    for _ in range(COUNT):
        number = random.choice([random.randrange(1_100), random.randrange(10**9)])
        tile = Tile(random.randint(-1, 7), number, random.choice([256, random.randint(1, 255)]))
        paths.append(mutated(random, format_path(tile)))
    ours = [says_yes(parse_path, path) for path in paths]
    theirs: list[Any] = judge({"ask": "path", "text": path} for path in paths)

    assert [] == [
        (path, mine)
        for path, mine, go in zip(paths, ours, theirs, strict=True)
        if mine is not go
    ]
