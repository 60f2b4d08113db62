"""A pack shows what it answers, offline, to somebody who believes nothing in it."""

from __future__ import annotations

import json
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.canonical import canonical_json, sha256_hex
from gateway.errors import BadDigestError, EvidenceError, OperatorError
from gateway.ident import Sha256
from gateway.lineage.folders import payload_in
from gateway.lineage.gathering import ask_log
from gateway.lineage.holdings import About
from gateway.lineage.pack_format import PACK, PACK_TYPE, PAGE, SIGNATURE
from gateway.lineage.pack_format import TRUST as TRUST_FILE
from gateway.lineage.pack_verify import ClaimDiffersError, VerifiedPack, verify_pack
from gateway.lineage.question import parse_question
from gateway.lineage.zipped import write_zip
from gateway.receipt.envelope import seal_unnamed
from gateway.receipt.keys import P256Signer, WitnessSigner, generate_pem
from gateway.receipt.model import STATEMENT_TYPE
from gateway.receipt.sigstore import wrap_leaf
from gateway.student.manifest import parse_model_manifest
from gateway.tlog.cosignature import add_cosignatures, cosign
from gateway.tlog.note import parse_note
from tests.support.chain import VERSION, Chain, two_stages
from tests.support.dataset import a_library, a_policy
from tests.support.derived import build, derive, parent, preference
from tests.support.evidence import MANIFEST_SIGNER, TRUST
from tests.support.model import a_model, sign

QUESTIONS = ("distilled-from:open", "distilled-from:openai", "principal:ada", "principal:eve")


@dataclass(frozen=True)
class World:
    """A chain, and a pack about its last student."""

    chain: Chain
    reader: Sha256
    pack: Path
    exchange: str

    def files(self) -> dict[str, bytes]:
        """Return what is in the pack."""
        with zipfile.ZipFile(self.pack) as zipped:
            return {name: zipped.read(name) for name in zipped.namelist()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return a chain of two stages and a pack about it."""
    chain = Chain(tmp_path_factory.mktemp("packs") / "house")
    chain.approve(chain.use, ("held", "training"))
    (answer,) = chain.ask(1, account="zoe", provider="held")
    _, reader = two_stages(chain, [answer])
    packed = chain.pack(reader, *QUESTIONS)
    yield World(chain, reader, packed.path, answer.exchange)
    chain.close()


def verify(path: Path) -> VerifiedPack:
    """Verify a pack as anybody would."""
    return verify_pack(path, TRUST, VERSION)


def rewritten(path: Path, files: dict[str, bytes]) -> Path:
    """Write a pack of these files, however wrong they are."""
    path.unlink(missing_ok=True)
    write_zip(path, list(files.items()))
    return path


def signed_again(
    files: dict[str, bytes],
    change: Callable[[dict[str, Any]], None] | None = None,
    signer: P256Signer = MANIFEST_SIGNER,
) -> dict[str, bytes]:
    """Return *files* with digests and signature made to fit, as an insider could."""
    facts = json.loads(files[PACK])
    facts["files"] = {
        name: sha256_hex(content)
        for name, content in files.items()
        if name not in (PACK, SIGNATURE)
    }
    if change is not None:
        change(facts)
    written = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    said = written.encode() + b"\n"
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": PACK, "digest": {"sha256": sha256_hex(said)}}],
        "predicateType": PACK_TYPE,
        "predicate": {"format": "tos-gateway-pack/v2"},
    }
    signature = wrap_leaf(seal_unnamed(canonical_json(statement), signer), signer.keyid)
    return files | {PACK: said, SIGNATURE: signature}


def test_a_pack_gives_the_answers_of_the_ledger(world: World) -> None:
    """Whoever verifies the pack comes to what the ledger itself answers."""
    questions = [parse_question(one) for one in QUESTIONS]
    log = world.chain.sources_of_packs().log

    verified = verify(world.pack)

    assert ask_log(world.chain.about(world.reader), questions, log) == verified.answers
    assert ["yes", "no", "yes", "no"] == [one.says for one in verified.answers]


def test_the_same_ledger_gives_the_same_pack(world: World) -> None:
    """Under one checkpoint a pack is the same to the byte, whenever it is made."""
    again = world.chain.pack(world.reader, *QUESTIONS, name="again")

    assert world.pack.read_bytes() == again.path.read_bytes()
    again.path.unlink()


def test_a_pack_holds_all_that_the_answer_rests_on(world: World) -> None:
    """Manifests with proofs, lists, receipts, words, policies, cards and a page are there."""
    files = world.files()
    verified = verify(world.pack)

    assert 4 == len(verified.holdings.manifests)
    assert 2 == len(verified.holdings.lists)
    assert 7 == len(verified.holdings.answers)
    assert verified.holdings.register.declarations()
    assert verified.holdings.register.verdicts(world.chain.use.id)
    assert verified.holdings.register.activations()
    assert 4 == len([name for name in files if name.startswith("policies/")])
    assert 2 == len([name for name in files if name.endswith("/README.md")])
    assert (("all", 7, 7), ()) == (
        msgspec.structs.astuple(verified.facts.receipts),
        verified.facts.missing,
    )


def test_no_text_leaves_without_being_asked_for(world: World, tmp_path: Path) -> None:
    """No word of a row or a prompt and no salt is in a pack, unless rows are asked for."""
    whole = b"".join(world.files().values())
    for kept in world.chain.texts.values():
        assert kept.salt not in whole
        assert all(row not in whole for row in kept.rows.values())

    packed = world.chain.pack(world.reader, name="rows", rows=True)

    with zipfile.ZipFile(packed.path) as zipped:
        assert [b"{}\n"] * 2 == [zipped.read(n) for n in zipped.namelist() if "rows" in n]
    assert verify(packed.path).facts.rows


def test_every_change_to_a_file_is_found(world: World, tmp_path: Path) -> None:
    """One changed byte in any file, first, last or in between, and nothing verifies."""
    files, chance = world.files(), random.Random(8)
    passed = []
    for name, content in files.items():
        places = {0, len(content) - 1, *(chance.randrange(len(content)) for _ in range(3))}
        for at in places:
            changed = bytearray(content)
            changed[at] ^= 1 << chance.randrange(8)
            path = rewritten(tmp_path / "pack.zip", files | {name: bytes(changed)})
            try:
                verify(path)
                passed.append((name, at))
            except EvidenceError:
                continue

    assert [] == passed


def test_who_may_sign_packs_can_still_not_change_the_evidence(
    world: World, tmp_path: Path
) -> None:
    """With digests and signature made to fit, a changed byte is found, or claims nothing."""
    files, chance = world.files(), random.Random(9)
    said = verify(world.pack).answers
    passed = []
    for name, content in files.items():
        if name in (PACK, SIGNATURE):
            continue
        places = {0, len(content) - 1, *(chance.randrange(len(content)) for _ in range(3))}
        for at in places:
            changed = bytearray(content)
            changed[at] ^= 1 << chance.randrange(8)
            again = signed_again(files | {name: bytes(changed)})
            try:
                assert said == verify(rewritten(tmp_path / "pack.zip", again)).answers
                passed.append(name)
            except EvidenceError:
                continue

    assert set(passed) <= {TRUST_FILE}


@pytest.mark.parametrize("says", ["no", "can't tell"])
def test_another_answer_than_the_evidence_gives_is_refused(
    world: World, tmp_path: Path, says: str
) -> None:
    """What the pack claims must be what the evidence in it says."""

    def claim(facts: dict[str, Any]) -> None:
        facts["answers"][0] |= {"says": says}

    path = rewritten(tmp_path / "pack.zip", signed_again(world.files(), claim))

    with pytest.raises(ClaimDiffersError, match="distilled-from:open"):
        verify(path)


def test_a_page_that_says_something_else_is_refused(world: World, tmp_path: Path) -> None:
    """The page for people is made again too."""
    files = world.files()
    page = files[PAGE].replace(b"Yes: ", b"No: ")

    path = rewritten(tmp_path / "pack.zip", signed_again(files | {PAGE: page}))

    with pytest.raises(ClaimDiffersError, match=PAGE):
        verify(path)


def test_a_page_of_another_version_is_not_passed_over_in_silence(world: World) -> None:
    """Who verifies with another version is told that the page was not made again."""
    told: list[str] = []

    verify_pack(world.pack, TRUST, "9.9", lambda check, found: told.append(f"{check} {found}"))

    assert any("by version 0.1.0: signed for, not made again" in one for one in told)


def test_nothing_above_can_be_cut_off(world: World, tmp_path: Path) -> None:
    """Without the manifest of a stage the answer is another one, whoever signs."""
    files = world.files()
    first = next(
        payload
        for payload, dataset in verify(world.pack).holdings.datasets().items()
        if dataset.asked.dataset == "first"
    )
    left = {name: content for name, content in files.items() if first not in name}

    with pytest.raises(EvidenceError):
        verify(rewritten(tmp_path / "pack.zip", signed_again(left)))


def test_no_leaf_can_be_left_out(world: World, tmp_path: Path) -> None:
    """Each leaf counts, a list's, a receipt's and a person's: without one nothing verifies."""
    files = world.files()
    frames = list(framed(files["evidence/leaves"]))
    for gone in range(len(frames)):
        leaves = b"".join(frame for at, frame in enumerate(frames) if at != gone)
        again = signed_again(files | {"evidence/leaves": leaves})

        with pytest.raises(EvidenceError):
            verify(rewritten(tmp_path / "pack.zip", again))


def framed(leaves: bytes) -> Iterator[bytes]:
    """Yield each leaf with its index and length."""
    at = 0
    while at < len(leaves):
        stop = at + 10 + int.from_bytes(leaves[at + 8 : at + 10], "big")
        yield leaves[at:stop]
        at = stop


def test_an_account_can_not_be_given_other_receipts(world: World, tmp_path: Path) -> None:
    """A receipt in the pack belongs to the account that it names, whatever the pack says."""

    def claim(facts: dict[str, Any]) -> None:
        named = {one["account"]: one for one in facts["accounts"]}
        named["ada"]["leaves"], named["eve"]["leaves"] = {}, named["ada"]["leaves"]

    path = rewritten(tmp_path / "pack.zip", signed_again(world.files(), claim))

    with pytest.raises(BadDigestError, match="receipt of `ada`"):
        verify(path)


def test_whatever_a_pack_says_it_is_refused_in_one_way(world: World, tmp_path: Path) -> None:
    """However odd what a trusted key signed is, it verifies as it was or is no evidence."""
    files, chance = world.files(), random.Random(10)
    odd: list[Any] = [None, -1, 2**70, 0, "", "x" * 300, "distilled-from:*", [], {}, True, [{}]]
    said = verify(world.pack).answers
    for _ in range(120):

        def claim(facts: dict[str, Any]) -> None:
            at: Any = facts
            while True:
                key = chance.choice(list(at) if isinstance(at, dict) else range(len(at)))
                if (
                    not isinstance(at[key], dict | list)
                    or not at[key]
                    or not chance.randrange(4)
                ):
                    at[key] = chance.choice(odd)
                    return
                at = at[key]

        try:
            path = rewritten(tmp_path / "pack.zip", signed_again(files, claim))
            assert said == verify(path).answers
        except EvidenceError:
            continue


def test_a_pack_of_strangers_is_refused(world: World, tmp_path: Path) -> None:
    """Only a manifest key of the log may sign a pack."""
    stranger = P256Signer(generate_pem("p256"))

    path = rewritten(tmp_path / "pack.zip", signed_again(world.files(), signer=stranger))

    with pytest.raises(EvidenceError, match="not trusted for packs"):
        verify(path)


def test_witnesses_that_are_asked_for_must_have_cosigned(world: World) -> None:
    """Whoever asks for a witness takes the pack with its cosignature, and no other."""
    witness = WitnessSigner(generate_pem("ed25519"), "witness.example/one")
    asking = msgspec.structs.replace(TRUST, witnesses=(witness.vkey,), quorum=1)
    note = world.chain.sequencer.checkpoint_now()
    cosigned = add_cosignatures(note, [cosign(parse_note(note)[0], witness, 1_795_000_000)])
    packed = world.chain.pack(world.reader, name="cosigned", note=cosigned)

    assert verify_pack(packed.path, asking, VERSION).answers
    with pytest.raises(EvidenceError, match="evidence/checkpoint"):
        verify_pack(world.pack, asking, VERSION)


def test_a_sample_says_that_it_is_one(world: World) -> None:
    """Where not all receipts are shown the pack says how many of how many."""
    packed = world.chain.pack(
        world.reader, "principal:ada", name="sample", receipts="sample", sample=2
    )

    shown = verify(packed.path).facts.receipts

    assert ("sample", 7) == (shown.chosen, shown.of)
    assert 2 <= shown.shown < shown.of
    with zipfile.ZipFile(packed.path) as zipped:
        assert f"{shown.shown} of 7 receipts" in zipped.read(PAGE).decode()


def test_a_pack_can_be_about_every_stage(world: World) -> None:
    """What an account went into and what not is shown for all manifests of the log."""
    packed = world.chain.pack(About(kind="log", name="all"), "principal:bob", name="log")

    (answer,) = verify(packed.path).answers

    assert ["second"] == [one.dataset for one in answer.findings]
    assert ["first"] == [one.dataset for one in answer.clear]


def test_a_pack_can_be_about_an_answer(world: World) -> None:
    """The receipt of an answer is evidence of its own."""
    about = About(kind="exchange", name=world.exchange, exchange=world.exchange)

    packed = world.chain.pack(about, "distilled-from:held", name="answer")

    assert ["yes"] == [one.says for one in verify(packed.path).answers]


def test_a_pack_appears_whole_or_not_at_all(world: World, tmp_path: Path) -> None:
    """What stands already stays as it is, and a pack that can't be written leaves nothing."""
    before = world.pack.read_bytes()
    with pytest.raises(OperatorError, match="already stands") as refused:
        world.chain.pack(world.reader, *QUESTIONS)
    assert "pack.exists" == refused.value.problem
    assert before == world.pack.read_bytes()

    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    folder = world.chain.folder / "packs"
    there = sorted(folder.iterdir())
    with pytest.raises(OperatorError):
        world.chain.pack(world.reader, out_in=blocked)
    assert there == sorted(folder.iterdir())


def test_a_teacher_that_no_manifest_names_is_found(tmp_path: Path) -> None:
    """A manifest that is silent about a receipt of its own list does not get packed."""
    chain = Chain(tmp_path / "house")
    hidden = chain.ask(1, provider="closed")
    dataset = chain.collect("first", chain.ask(1), unnamed=hidden)

    with pytest.raises(BadDigestError, match="closed"):
        chain.pack(dataset)
    assert [] == list((chain.folder / "packs").iterdir())
    chain.close()


def test_rows_of_a_pipeline_lead_to_everybody_above(tmp_path: Path) -> None:
    """In a dataset of pairs, built by the gate, words taught and a judge only judged."""
    permits = {name: a_policy(name, "permit", when="purpose: [train, verify]") for name in "ab"}
    chain = Chain(tmp_path / "house", a_library(**permits))
    declared = chain.declare("train.preference")
    rows = []
    for number in range(3):
        good, bad = (chain.answer(declared, f"{w} {number}", provider="a") for w in ("+", "-"))
        judge = chain.answer(declared, f"A {number}", provider="b")
        above = [
            parent(chain, good, "chosen"),
            parent(chain, bad, "rejected"),
            parent(chain, judge, "judge"),
        ]
        rows.append((preference(f"question {number}", f"+ {number}", "-"), above))
    derive(chain, declared, rows, name="pairs", transform="judge", kind="preference")
    built = build(chain, declared, of="pairs", kind="preference")
    student = chain.train("chooser", built.manifest_sha256)

    packed = chain.pack(student, "distilled-from:a", "distilled-from:b", "judged-by:b")

    verified = verify(packed.path)
    assert ["yes", "no", "yes"] == [one.says for one in verified.answers]
    assert 1 == len(verified.answers[1].judged)
    assert (9, 1) == (len(verified.holdings.answers), len(verified.holdings.derivations))
    assert 10 == verified.facts.receipts.of
    chain.close()


def test_cards_and_bills_of_a_model_are_packed_as_signed(tmp_path: Path) -> None:
    """What describes a model folder is in the pack; its weights are not."""
    chain = Chain(tmp_path / "house")
    model = a_model(chain)
    (model / "README.md").write_text("# A student")
    (model / "bom.cdx.json").write_text("{}")
    before = payload_in(model)
    assert before is not None
    manifest = chain.manifest(before)
    assert manifest is not None
    sign(chain, model, parse_model_manifest(manifest.statement))
    payload = payload_in(model)
    assert payload is not None

    packed = chain.pack(payload)

    assert ["yes"] == [one.says for one in verify(packed.path).answers]
    files = {name.split("/")[2] for name in packed.facts.files if f"files/{payload}" in name}
    assert {"README.md", "bom.cdx.json"} == files
    chain.close()


def test_what_is_not_at_hand_is_named(tmp_path: Path) -> None:
    """A card that was edited, or a folder that is gone, is told and not packed."""
    chain = Chain(tmp_path / "house")
    first, second = chain.collect("first", chain.ask(1)), chain.collect("second", chain.ask(1))
    student = chain.train("parser", first, second)
    (chain.folder / "datasets" / "first" / "README.md").write_text("edited by hand")
    shutil.rmtree(chain.folder / "datasets" / "second")

    verified = verify(chain.pack(student).path)

    assert ["README.md of first: it is not as it was signed"] == [
        one for one in verified.facts.missing if "first" in one
    ]
    assert any("second: its folder is not at hand" in one for one in verified.facts.missing)
    chain.close()
