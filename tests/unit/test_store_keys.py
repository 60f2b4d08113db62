"""Laws of where keys are kept."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gateway.clock import FrozenClock
from gateway.errors import (
    BadDigestError,
    BadSignatureError,
    EvidenceError,
    KeyUnreadableError,
)
from gateway.receipt.authority import Authority
from gateway.receipt.keys import P256Signer, generate_pem, parse_public_pem, parse_trust
from gateway.receipt.sigstore import write_trust_signature
from gateway.receipt.statement import write_statement
from gateway.receipt.verify import verify_leaf, verify_trust
from gateway.store.keys import Keyring, load_keyring, make_keys
from tests.support.evidence import AT, RECEIPT, SUBJECTS, WRITER

NAMES = ["commitment.key", "content.key", "log.key", "manifest.key"]
ORIGIN = "receipts.example/acme"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder with fresh keys."""
    make_keys(tmp_path, ORIGIN, AT)
    return tmp_path


def load(data: Path) -> Keyring:
    """Return the keys in *data*, for a process of the test's."""
    return load_keyring(data, WRITER, FrozenClock())


def test_private_keys_are_private(data: Path) -> None:
    """Only the gateway's account may read private keys; anyone may read the trust file."""
    names = sorted([*NAMES, "root.key"])
    assert sorted(path.name for path in (data / "keys").iterdir()) == names
    modes = {stat.S_IMODE((data / "keys" / name).stat().st_mode) for name in names}
    assert modes == {0o600}
    assert stat.S_IMODE((data / "keys").stat().st_mode) == 0o700
    assert stat.S_IMODE((data / "trust.json").stat().st_mode) == 0o644


def test_what_they_sign_the_trust_file_verifies(data: Path) -> None:
    """An auditor with the trust file alone verifies what the loaded keys sign."""
    keyring = load(data)
    trust = parse_trust((data / "trust.json").read_bytes())

    assert trust == keyring.trust
    leaf = write_statement(RECEIPT, SUBJECTS, keyring.receipt)
    (authorization,) = keyring.process.first()
    authority = Authority(trust)
    authority.admit(0, verify_leaf(authorization, 0, authority))
    assert verify_leaf(leaf, 1, authority) == RECEIPT
    assert keyring.log.name == ORIGIN
    assert len(keyring.commitment) == len(keyring.content) == 32
    assert keyring.commitment != keyring.content


def test_the_root_vouches_for_the_trust_file(data: Path) -> None:
    """The trust file of a new installation is signed by its root, and by nobody else's."""
    trust_file = (data / "trust.json").read_bytes()
    signature = (data / "trust.sigstore.json").read_bytes()
    root = parse_public_pem((data / "root.pub").read_text())
    stranger = P256Signer(generate_pem("p256"))

    assert verify_trust(trust_file, signature, root) == (parse_trust(trust_file), AT)
    with pytest.raises(BadSignatureError):
        verify_trust(trust_file, signature, stranger.public)
    with pytest.raises(EvidenceError):
        verify_trust(trust_file.replace(b'"quorum": 0', b'"quorum": 00'), signature, root)
    with pytest.raises(BadDigestError):
        verify_trust(trust_file + b" ", signature, root)
    with pytest.raises(BadSignatureError):
        verify_trust(trust_file, write_trust_signature(trust_file, ORIGIN, AT, stranger), root)
    for mask in (0x01, 0x20):
        for at in range(len(signature)):
            bent = signature[:at] + bytes([signature[at] ^ mask]) + signature[at + 1 :]
            with pytest.raises(EvidenceError):
                verify_trust(trust_file, bent, root)


def test_a_root_that_has_left_is_not_missed(data: Path) -> None:
    """The root key is for rotations; the gateway runs without it."""
    (data / "keys" / "root.key").unlink()

    assert load(data).trust.origin == ORIGIN


def test_a_keyring_shows_no_secret(data: Path) -> None:
    """Printing a keyring gives nothing away."""
    keyring = load(data)

    assert keyring.content.hex() not in repr(keyring)
    assert repr(keyring.content) not in repr(keyring)


def test_keys_are_made_once(data: Path) -> None:
    """Making keys where there are some refuses and changes none."""
    before = {path: path.read_bytes() for path in (data / "keys").iterdir()}

    with pytest.raises(KeyUnreadableError, match="already there"):
        make_keys(data, ORIGIN, AT)

    assert before == {path: path.read_bytes() for path in (data / "keys").iterdir()}


@pytest.mark.parametrize("lost", [(), ("log.key",), ("root.key", "content.key")])
def test_a_killed_call_is_gone_on_with(data: Path, lost: tuple[str, ...]) -> None:
    """What was made before a kill is used by the next call; only what is missing is made."""
    for name in (*lost, "../trust.json"):
        (data / "keys" / name).unlink()
    before = {path: path.read_bytes() for path in (data / "keys").iterdir()}

    make_keys(data, ORIGIN, AT)

    after = {path: path.read_bytes() for path in (data / "keys").iterdir()}
    assert before.items() <= after.items()
    assert len(before) + len(lost) == len(after)
    assert load(data).trust.origin == ORIGIN


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "line\nbreak"])
def test_a_bad_origin_makes_nothing(tmp_path: Path, origin: str) -> None:
    """An origin that can't name a log is refused before anything is written."""
    with pytest.raises(KeyUnreadableError, match="not an origin"):
        make_keys(tmp_path, origin, AT)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700])
def test_a_key_that_others_can_read_is_refused(data: Path, name: str, mode: int) -> None:
    """A private key with wider permissions is refused, and the hint is the command."""
    (data / "keys" / name).chmod(mode)

    with pytest.raises(KeyUnreadableError, match="read by others") as raised:
        load(data)

    assert raised.value.hint == f"chmod 600 {data / 'keys' / name}"


@pytest.mark.parametrize("name", [*NAMES, "../trust.json"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe", b"ab" * 31])
def test_a_broken_key_is_named(data: Path, name: str, content: bytes) -> None:
    """A key file with anything else in it is named."""
    (data / "keys" / name).write_bytes(content)

    with pytest.raises(KeyUnreadableError, match=Path(name).name.replace(".", r"\.")):
        load(data)


@pytest.mark.parametrize("name", [*NAMES, "../trust.json"])
def test_a_missing_key_is_named(data: Path, name: str) -> None:
    """A missing key is named with what to do."""
    (data / "keys" / name).unlink()

    with pytest.raises(KeyUnreadableError, match="there is no") as raised:
        load(data)

    assert "gateway init" in raised.value.hint


@pytest.mark.parametrize("name", ["log.key", "manifest.key"])
def test_keys_of_two_installations_dont_mix(data: Path, tmp_path: Path, name: str) -> None:
    """A key that the trust file does not name would sign what no auditor can verify."""
    other = tmp_path / "other"
    make_keys(other, ORIGIN, AT)
    (data / "keys" / name).write_bytes((other / "keys" / name).read_bytes())

    with pytest.raises(KeyUnreadableError, match="not a key that"):
        load(data)


def test_a_folder_that_cant_be_made_is_named(tmp_path: Path) -> None:
    """Where keys can't be written, the folder is named."""
    (tmp_path / "data").write_text("a file in the way")

    with pytest.raises(KeyUnreadableError, match="can't be written"):
        make_keys(tmp_path / "data", ORIGIN, AT)
