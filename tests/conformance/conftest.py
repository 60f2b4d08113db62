"""Verifiers of others, made once for all tests that ask them."""

from __future__ import annotations

import pytest

from tests.support.foreign import (
    GoJudge,
    GoVerifier,
    SigstoreJs,
    build_go_judge,
    build_go_verifier,
    install_sigstore_js,
)


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> GoVerifier:
    """Return the verifier that is made of Go's own notes and trees."""
    return build_go_verifier(tmp_path_factory.mktemp("go"))


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> GoJudge:
    """Return Go's own answers to any question about trees and notes."""
    return build_go_judge(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="session")
def sigstore_js(tmp_path_factory: pytest.TempPathFactory) -> SigstoreJs:
    """Return Sigstore's own JavaScript."""
    return install_sigstore_js(tmp_path_factory.mktemp("sigstore"))
