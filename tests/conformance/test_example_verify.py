"""`examples/verify_offline/verify.py` comes to the same answers as the package, on the vectors.

It is a second verifier, of one page, that shares no code with the first.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import pytest

from tests.conformance.test_vectors import reasons, vectors
from tests.support.foreign import EXAMPLE, flipped

SPELLING = {"an unknown key", "keys in another order", "a newline at the end", "blanks"}
"""What only the package refuses: another way to write what is true."""


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """Return the example as a module."""
    spec = importlib.util.spec_from_file_location("verify", EXAMPLE / "verify.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refused(example: ModuleType, bundle: bytes, trust: dict[str, Any]) -> bool:
    """Return whether the example says no, in one of the ways that it knows."""
    try:
        example.verify(bundle, trust)
    except (example.NotVerifiedError, ValueError, KeyError, IndexError, TypeError):
        return True
    return False


@pytest.mark.parametrize("kind", vectors("ledger")["bundles"])
def test_a_bundle_is_accepted(kind: str, example: ModuleType) -> None:
    """A bundle of each kind of leaf is verified, by signature or by the checkpoint alone."""
    said = vectors("ledger")
    index, statement = example.verify(said["bundles"][kind].encode(), said["trust"])

    assert said["bundles"].keys() <= {*said["bundles"], statement.get("kind")}
    assert 0 < index < len(said["leaves"])


@pytest.mark.parametrize("one", reasons("ledger"))
def test_what_is_no_evidence_is_refused(one: dict[str, Any], example: ModuleType) -> None:
    """All that the package refuses is refused here, but for what is merely spelt otherwise."""
    says_no = refused(example, one["bundle"].encode(), vectors("ledger")["trust"])

    assert says_no is (one["why"] not in SPELLING)


@pytest.mark.parametrize("one", reasons("ledger", "refusedUnder"))
def test_another_trust_refuses_it(one: dict[str, Any], example: ModuleType) -> None:
    """Other keys, or an end of the key before the leaf, refuse the same receipt."""
    assert refused(example, vectors("ledger")["bundles"]["receipt"].encode(), one["trust"])


@pytest.mark.parametrize("one", reasons("ledger", "acceptedUnder"))
def test_a_milder_trust_accepts_it(one: dict[str, Any], example: ModuleType) -> None:
    """An end after the leaf, or no witnesses asked for, accept it."""
    bundle = vectors("ledger")["bundles"]["receipt"].encode()

    assert 5 == example.verify(bundle, one["trust"])[0]


def test_every_changed_byte_is_refused(example: ModuleType) -> None:
    """No byte of a receipt's bundle can be changed."""
    said = vectors("ledger")
    bundle = said["bundles"]["receipt"].encode()
    for at in range(len(bundle)):
        assert refused(example, flipped(bundle, at), said["trust"]), bundle[at - 9 : at + 9]
