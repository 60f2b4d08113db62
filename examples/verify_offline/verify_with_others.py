"""Verify receipts, datasets and models with software of others; nothing of the gateway's.

Signatures are judged by `securesystemslib`, the log's notes and trees by Go's own
`golang.org/x/mod` (the program in `go/`, which must be built first). What is here takes files
apart, says who may sign what, and compares digests. README.md says what it shows and what not.

    python verify_with_others.py trust TRUST ROOT-KEY
    python verify_with_others.py receipt BUNDLE TRUST
    python verify_with_others.py dataset FOLDER TRUST
    python verify_with_others.py model FOLDER TRUST
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SecureSystemsError
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

Json = dict[str, Any]

GO = Path(__file__).parent / "go" / "verify"
AUTHORIZATION = "https://tos-gateway.example/key-authorization/v1"
REVOCATION = "https://tos-gateway.example/key-revocation/v1"
SUCCESSION = "https://tos-gateway.example/log-succession/v1"
RECEIPT = "https://tos-gateway.example/usage-receipt/v1"
DERIVATION = "https://tos-gateway.example/derivation/v1"
HELD_OUT = "held-out.jsonl"
TRUST = "https://tos-gateway.example/trust/v2"
PROVENANCE = "https://slsa.dev/provenance/v1"


class NotVerifiedError(Exception):
    """The evidence does not show what it claims."""


# -- the log, by Go --------------------------------------------------------------------------


class Log:
    """The log that the trust file names; every question goes to the Go program."""

    def __init__(self, trust: Json, scratch: Path) -> None:
        self._trust = trust
        self._scratch = scratch

    def include(self, leaf: bytes, proof: str) -> None:
        """Check that *leaf* is where *proof* says, under a checkpoint of this log."""
        files = self._write(proof=proof.encode(), leaf=leaf)
        self._ask("inclusion", self._trust["log"], *files)
        self.witnessed(proof.partition("\n\n")[2].encode())

    def dataset(self, folder: Path) -> str:
        """Check that all receipts and key statements of a dataset are leaves of this log."""
        self.witnessed((folder / "evidence" / "checkpoint").read_bytes())
        return self._ask("dataset", self._trust["log"], folder)

    def witnessed(self, note: bytes) -> None:
        """Check that the log, and as many witnesses as the trust file asks for, signed."""
        (file,) = self._write(note=note)
        self._ask("note", self._trust["log"], file)
        found = 0
        for witness in self._trust["witnesses"]:
            try:
                self._ask("note", f"{self._trust['log']},{witness}", file)
            except NotVerifiedError:
                continue
            found += 1
        if found < self._trust["quorum"]:
            asked = self._trust["quorum"]
            raise NotVerifiedError(f"{found} witnesses cosigned the checkpoint, {asked} must")

    def _write(self, **files: bytes) -> list[Path]:
        for name, content in files.items():
            (self._scratch / name).write_bytes(content)
        return [self._scratch / name for name in files]

    def _ask(self, *words: str | Path) -> str:
        done = subprocess.run([GO, *words], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.startswith("ok   "):
            return done.stdout.removeprefix("ok   ").strip()
        raise NotVerifiedError(f"the log: {(done.stdout or done.stderr).strip()}")


# -- signatures, by securesystemslib ---------------------------------------------------------


def signed_by(envelope: Json, pem: str) -> Json:
    """Return the statement in a DSSE *envelope* after checking that the key *pem* signed it."""
    (signature,) = envelope["signatures"]
    # The library wants each signature to name its key; a manifest's is named by its bundle.
    named = envelope | {"signatures": [{"keyid": keyid_of(pem), **signature}]}
    try:
        read = Envelope.from_dict(named)
        read.verify([SSlibKey.from_crypto(load_pem_public_key(pem.encode()), keyid_of(pem))], 1)
    except (VerificationError, SecureSystemsError) as bad:
        raise NotVerifiedError(f"a signature: {bad}") from bad
    statement: Json = json.loads(read.payload)
    if read.payload_type != "application/vnd.in-toto+json":
        raise NotVerifiedError("this is no in-toto statement")
    return statement


def keyid_of(pem: str) -> str:
    """Return what envelopes name a key by."""
    key = load_pem_public_key(pem.encode())
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


class Keys:
    """Who may sign at which leaf: from the trust file, and from leaves about keys, in order."""

    def __init__(self, trust: Json) -> None:
        self._ends = {one["keyid"]: one["since"] for one in trust["revoked"]}
        self._lives: dict[str, tuple[str, str, int]] = {}
        for one in trust["manifestKeys"]:
            self._begin("manifest", one["key"], one["since"])
            self._end(one["key"], one["until"])

    def admit(self, index: int, leaf: bytes) -> None:
        """Take in an authorisation or a revocation that is shown to be leaf *index*."""
        statement = self.statement(index, leaf)
        said = statement["predicate"]
        if statement["predicateType"] == AUTHORIZATION:
            if keyid_of(said["key"]) != said["keyid"]:
                raise NotVerifiedError("an authorisation names another key than it carries")
            self._begin(said["role"], said["key"], index + 1)
        elif statement["predicateType"] == REVOCATION:
            since = said.get("since", index)
            self._ends[said["keyid"]] = min(since, self._ends.get(said["keyid"], since))
        else:
            raise NotVerifiedError("a statement about keys is about something else")

    def statement(self, index: int, leaf: bytes) -> Json:
        """Return the statement at leaf *index*, signed by a key that could sign it there."""
        envelope = json.loads(leaf)
        said = json.loads(base64.b64decode(envelope["payload"]))
        kinds = (PROVENANCE, AUTHORIZATION, REVOCATION, SUCCESSION)
        role = "manifest" if said["predicateType"] in kinds else "receipt"
        named = envelope["signatures"][0].get("keyid")
        if (named is None) is not (said["predicateType"] == PROVENANCE):
            raise NotVerifiedError("manifests don't name their key, and all others do")
        for keyid, pem in self._good(role, index):
            if named in {None, keyid}:
                try:
                    return signed_by(envelope, pem)
                except NotVerifiedError:
                    continue
        raise NotVerifiedError(f"no {role} key that could sign leaf {index} did")

    def _good(self, role: str, index: int) -> Iterator[tuple[str, str]]:
        for keyid, (has, pem, since) in self._lives.items():
            if has == role and since <= index < self._ends.get(keyid, index + 1):
                yield keyid, pem

    def _begin(self, role: str, pem: str, since: int) -> None:
        self._lives.setdefault(keyid_of(pem), (role, pem, since))

    def _end(self, pem: str, until: int | None) -> None:
        keyid = keyid_of(pem)
        if until is not None:
            self._ends[keyid] = min(until, self._ends.get(keyid, until))


# -- what can be asked -----------------------------------------------------------------------


def trust_file(file: Path, root: str) -> Iterator[str]:
    """Check that the root key signed the trust file, by the signature that lies beside it."""
    bundle = json.loads(file.with_name("trust.sigstore.json").read_bytes())
    statement = signed_by(bundle["dsseEnvelope"], root)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    origin = json.loads(file.read_bytes())["origin"]
    if statement["predicateType"] != TRUST or statement["predicate"]["origin"] != origin:
        raise NotVerifiedError("the root signed something else")
    if [one["digest"]["sha256"] for one in statement["subject"]] != [digest]:
        raise NotVerifiedError("the root signed another trust file")
    yield f"signed by the root key {keyid_of(root)[:16]}… on {statement['predicate']['at']}"


def receipt(file: Path, trust: Json, log: Log) -> Iterator[str]:
    """Check a bundle: a statement, its place, and the authorisation of the key that signed."""
    bundle = json.loads(file.read_bytes())
    leaf, proof = unbase64(bundle["leaf"]), bundle["proof"]
    log.include(leaf, proof)
    index = index_of(proof)
    yield f"leaf {index} of {trust['origin']}"
    keys = Keys(trust)
    authorization = bundle.get("authorization")
    if authorization is not None:
        head = ["c2sp.org/tlog-proof@v1", f"index {authorization['index']}"]
        lines = "\n".join([*head, *authorization["hashes"]])
        first = unbase64(authorization["leaf"])
        log.include(first, lines + "\n\n" + proof.partition("\n\n")[2])
        keys.admit(authorization["index"], first)
        yield f"its key was authorised at leaf {authorization['index']}"
    if json.loads(leaf).get("kind") == "opening/v1":
        yield "an opening, which nobody signs"
        return
    said = keys.statement(index, leaf)
    yield f"signed: {said['predicateType']}"
    ruled = said["predicate"].get("ruling")
    if ruled:
        yield f"says it was ruled `{ruled['effect']}` on {ruled['day']}"


def dataset(folder: Path, trust: Json, log: Log) -> Iterator[str]:
    """Check a dataset: its manifest, its files, its receipts, and each row against them."""
    keys = Keys(trust)
    statement, index = manifest(folder, "manifest", keys, log)
    yield f"the manifest is leaf {index}, signed"
    found = compare_files(folder, statement, besides=("manifest.json", "manifest.tlog-proof"))
    yield f"{found} files as the manifest says, nothing beside them"
    yield log.dataset(folder)
    for line in lines_of(folder / "evidence" / "keys.jsonl"):
        keys.admit(line["index"], unbase64(line["leaf"]))
    build = statement["predicate"]["buildDefinition"]
    rows = vouching = 0
    at, said = -1, {}
    leaves = entries(folder / "evidence" / "leaves")
    above = leaves_above(folder / "evidence" / "above" / "leaves", keys)
    with contextlib.ExitStack() as stack:
        parts = {
            split: stack.enter_context(path.open("rb"))
            for split, path in ((None, folder / "rows.jsonl"), ("held-out", folder / HELD_OUT))
            if path.exists()
        }
        for line in lines_of(folder / "receipts.jsonl"):
            if line["index"] != at:
                at, vouching = line["index"], vouching + 1
                said = statement_of_rows(at, next(leaves), keys, build["externalParameters"])
            text = parts[line.get("split")].readline().removesuffix(b"\n")
            compare_row(text, line, said)
            check_parents(line, said, above, at)
            rows += 1
        left = any(file.read(1) for file in parts.values())
    if left or rows != build["internalParameters"]["rows"] or next(leaves, None) is not None:
        raise NotVerifiedError("the manifest counts other rows than there are")
    yield f"{vouching} receipts or derivations, each signed by a key that could sign it there"
    yield f"{len(above)} leaves above them, each signed, and found where it is named"
    yield f"{rows} rows, each as what vouches for it committed to it"


def leaves_above(path: Path, keys: Keys) -> dict[int, Json]:
    """Return what stands above derived rows, by leaf index: each signed statement."""
    found: dict[int, Json] = {}
    content = path.read_bytes() if path.exists() else b""
    while content:
        index, size = int.from_bytes(content[:8], "big"), int.from_bytes(content[8:10], "big")
        found[index] = keys.statement(index, content[10 : 10 + size])
        content = content[10 + size :]
    return found


def check_parents(line: Json, said: Json, above: dict[int, Json], index: int) -> None:
    """Check that all that a derived row was made from stands there, before what it made."""
    if "derivation" not in line:
        return
    waiting = [(said, line["choice"], index)]
    while waiting:
        made, place, below = waiting.pop()
        for at in made["rows"][place].get("parents", []):
            parent = made["parents"][at]
            stands = above.get(parent["index"])
            if stands is None or not parent["index"] < below:
                raise NotVerifiedError(f"row {line['row']}: a parent is not above it")
            found = stands["predicate"]
            if "derivation" in parent:
                waiting.append((found, parent.get("choice", 0), parent["index"]))
            for name in ("derivation", "exchange"):
                if name in parent and parent[name] != found.get(name):
                    raise NotVerifiedError(f"row {line['row']}: a parent is something else")


def statement_of_rows(index: int, leaf: bytes, keys: Keys, asked: Json) -> Json:
    """Return what vouches for rows at *index*, signed, and fit for this dataset."""
    statement = keys.statement(index, leaf)
    said: Json = statement["predicate"]
    if statement["predicateType"] not in {RECEIPT, DERIVATION}:
        raise NotVerifiedError(f"leaf {index} is neither a receipt nor a derivation")
    if said["caller"]["project"] != asked["project"]:
        raise NotVerifiedError(f"leaf {index} is not of the dataset's project")
    if statement["predicateType"] == RECEIPT and (
        said["ruling"]["effect"] != "permit" or said["ended"] != "complete"
    ):
        raise NotVerifiedError(f"leaf {index} was not permitted, or not answered whole")
    return said


def compare_row(text: bytes, line: Json, said: Json) -> None:
    """Check that the receipt or the derivation commits to this row."""
    if "derivation" in line:
        committed = [said["rows"][line["choice"]]["row"]["value"]]
    else:
        kind = "reasoned" if line.get("reasoned") else "row"
        committed = [
            one[kind]["value"]
            for one in said["outputs"]
            if kind in one and one["choice"] == line["choice"]
        ]
    salted = hashlib.sha256(bytes.fromhex(line["salt"]) + text).hexdigest()
    if salted not in committed or hashlib.sha256(text).hexdigest() != line["sha256"]:
        raise NotVerifiedError(f"row {line['row']} is not what was committed to")


def model(folder: Path, trust: Json, log: Log) -> Iterator[str]:
    """Check a model: its manifest, its files, and the manifests of what it learned from."""
    keys = Keys(trust)
    statement, index = manifest(folder, "manifest", keys, log)
    yield f"the manifest is leaf {index}, signed"
    last = ("manifest.json", "manifest.tlog-proof", "model.sig")
    found = compare_files(folder, statement, besides=last)
    yield f"{found} files as the manifest says, nothing beside them"
    named = {
        one["digest"]["sha256"]
        for one in statement["predicate"]["buildDefinition"]["resolvedDependencies"]
        if one["annotations"]["kind"] == "dataset-manifest"
    }
    there = set()
    for file in sorted((folder / "evidence").glob("*.manifest.json")):
        name = "evidence/" + file.name.removesuffix(".json")
        learned, at = manifest(folder, name, keys, log)
        there.add(hashlib.sha256(payload_of(folder / f"{name}.json")).hexdigest())
        asked = learned["predicate"]["buildDefinition"]["externalParameters"]
        yield f"learned from dataset {asked['dataset']}, whose manifest is leaf {at}, signed"
    if there != named:
        raise NotVerifiedError("it learned from other datasets than those that are shown")
    yield from weights(folder, trust)


def weights(folder: Path, trust: Json) -> Iterator[str]:
    """Check `model.sig`: the same files once more, in OpenSSF model-signing's format."""
    key = key_named_by(json.loads((folder / "manifest.json").read_bytes()), trust)
    bundle = json.loads((folder / "model.sig").read_bytes())
    said = signed_by(bundle["dsseEnvelope"], key)
    signed = {one["name"]: one["digest"] for one in said["predicate"]["resources"]}
    there = {name: sha256_of(folder / name) for name in names_in(folder) if name != "model.sig"}
    if signed != there:
        raise NotVerifiedError("model.sig is over other files than those that are here")
    yield f"model.sig is over the same {len(signed)} files"


def manifest(folder: Path, name: str, keys: Keys, log: Log) -> tuple[Json, int]:
    """Return a manifest and its index; it is in the log, and signed by a key good there."""
    bundle = json.loads((folder / f"{name}.json").read_bytes())
    proof = (folder / f"{name}.tlog-proof").read_text()
    # In the ledger stands the envelope alone, byte for byte as it is in the bundle.
    leaf = json.dumps(bundle["dsseEnvelope"], separators=(",", ":")).encode()
    log.include(leaf, proof)
    statement = keys.statement(index_of(proof), leaf)
    if statement["predicateType"] != PROVENANCE:
        raise NotVerifiedError(f"{name} is no manifest")
    return statement, index_of(proof)


def compare_files(folder: Path, statement: Json, besides: tuple[str, ...]) -> int:
    """Check that the folder holds the files that are signed, and no others; count them."""
    signed = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
    there = set(names_in(folder)) - set(besides)
    if there != set(signed):
        raise NotVerifiedError(f"missing or added: {sorted(there ^ set(signed))}")
    for name, digest in signed.items():
        if sha256_of(folder / name) != digest:
            raise NotVerifiedError(f"{name} is not the file that was signed")
    return len(signed)


# -- files -----------------------------------------------------------------------------------


def names_in(folder: Path) -> list[str]:
    """Return every file below *folder*; a link could lead anywhere, so none may be there."""
    found = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    if any(path.is_symlink() for path in found):
        raise NotVerifiedError("there is a link in the folder")
    return [path.relative_to(folder).as_posix() for path in found]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_named_by(bundle: Json, trust: Json) -> str:
    """Return the trusted manifest key that a Sigstore bundle hints at."""
    hint = unbase64(bundle["verificationMaterial"]["publicKey"]["hint"]).hex()
    revoked = {one["keyid"] for one in trust["revoked"]}
    for one in trust["manifestKeys"]:
        if keyid_of(one["key"]) == hint and hint not in revoked:
            pem: str = one["key"]
            return pem
    raise NotVerifiedError("it is signed by no key that the trust file names")


def payload_of(file: Path) -> bytes:
    """Return what the envelope in a Sigstore bundle says."""
    return unbase64(json.loads(file.read_bytes())["dsseEnvelope"]["payload"])


def lines_of(file: Path) -> Iterator[Json]:
    """Yield each line of a file as JSON."""
    with file.open("rb") as lines:
        for line in lines:
            yield json.loads(line)


def entries(file: Path) -> Iterator[bytes]:
    """Yield each leaf, which stands behind its length in two bytes."""
    with file.open("rb") as leaves:
        while length := leaves.read(2):
            yield leaves.read(int.from_bytes(length, "big"))


def index_of(proof: str) -> int:
    """Return the leaf index that a `tlog-proof@v1` is for."""
    return int(proof.split("\n")[1].removeprefix("index "))


def unbase64(text: str) -> bytes:
    """Return the bytes that *text* spells in base64."""
    return base64.b64decode(text, validate=True)


def of_this_format(trust: Json) -> Json:
    """Return a trust file whose every word is known here."""
    if trust["format"] != "trust/v2":
        raise NotVerifiedError("the trust file is of another format")
    return trust


def main(words: list[str]) -> int:
    """Verify what the command line names."""
    asked = {"receipt": receipt, "dataset": dataset, "model": model}
    if len(words) != 3 or words[0] not in {"trust", *asked}:
        print(__doc__, file=sys.stderr)
        return 2
    if not GO.exists():
        print(f"build `{GO}` first; README.md says how", file=sys.stderr)
        return 2
    what, path = words[0], Path(words[1])
    try:
        given = Path(words[2]).read_text()
        with tempfile.TemporaryDirectory() as scratch:
            if what == "trust":
                checks = trust_file(path, given)
            else:
                trust = of_this_format(json.loads(given))
                checks = asked[what](path, trust, Log(trust, Path(scratch)))
            for found in checks:
                print(f"ok   {found}")
    except (NotVerifiedError, OSError, ValueError, LookupError, TypeError) as bad:
        print(f"fail {type(bad).__name__}: {bad}")
        return 1
    print("verified")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
