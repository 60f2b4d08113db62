"""The twin of `gateway.provider.catalogue`."""

from __future__ import annotations

import pytest

from gateway.errors import SettingError
from gateway.provider.catalogue import BUILT_IN, DIALECTS, dialect_named


def test_every_entry_can_be_spoken_to() -> None:
    """Each built-in provider has a dialect, an https address and its own policy."""
    for id_, entry in BUILT_IN.items():
        assert entry.id == id_
        assert entry.dialect in DIALECTS
        assert entry.base_url.startswith("https://")
        assert not entry.base_url.endswith("/")
        assert entry.policies == (id_,)


def test_a_dialect_is_found_by_its_name() -> None:
    """The name of a dialect in the settings leads to it."""
    for name in ("openai", "azure", "anthropic", "gemini"):
        assert dialect_named(name).name == name


def test_an_unknown_dialect_is_the_operators_to_mend() -> None:
    """A dialect that nobody here speaks is refused with those that are spoken."""
    with pytest.raises(SettingError, match=r"unknown dialect `klingon`") as caught:
        dialect_named("klingon")

    assert caught.value.hint == "write one of anthropic, azure, gemini, openai"
