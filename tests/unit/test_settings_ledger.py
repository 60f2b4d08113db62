"""Laws of the setting that says where the ledger is."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import settings
from gateway.errors import SettingError


def load(tmp_path: Path, text: str) -> settings.Sourced:
    """Return the settings that *text* makes."""
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    return settings.load(file, environment={})


def test_an_empty_file_keeps_it_in_a_file(tmp_path: Path) -> None:
    """Without a word the ledger is in the data folder."""
    assert load(tmp_path, "").database() is None
    assert load(tmp_path, "ledger: sqlite\n").database() is None


@pytest.mark.parametrize(
    "url",
    [
        "postgres://gateway@db/receipts",
        "postgresql://gateway@db1:5432,db2:5433/receipts?sslmode=verify-full",
        "postgres:///receipts?host=/run/postgresql",
    ],
)
def test_a_url_names_a_database(tmp_path: Path, url: str) -> None:
    """A URL without a password stands in the settings as it is."""
    assert load(tmp_path, f"ledger: {url}\n").database() == url


@pytest.mark.parametrize(
    "url",
    [
        "postgres://gateway:secret@db/receipts",
        "postgres://db/receipts?user=gateway&password=secret",
    ],
)
def test_a_password_is_a_secret(tmp_path: Path, url: str) -> None:
    """A URL with a password stands behind a reference only, and is never shown."""
    with pytest.raises(SettingError, match="plain text") as raised:
        load(tmp_path, f"ledger: {url}\n")
    assert "secret" not in raised.value.message

    (tmp_path / "url").write_text(f"{url}\n")
    sourced = load(tmp_path, "ledger: file:url\n")
    assert sourced.database() == url
    assert all("secret@" not in value for _, value, _ in settings.shown(sourced))


@pytest.mark.parametrize("named", ["mysql://db/x", "sqlite3", "/var/ledger.db", "env"])
def test_what_is_neither_is_refused(tmp_path: Path, named: str) -> None:
    """Anything else is one clear line."""
    with pytest.raises(SettingError, match="neither `sqlite` nor a database"):
        load(tmp_path, f"ledger: {named}\n")


def test_a_reference_must_lead_to_a_database(tmp_path: Path) -> None:
    """What a reference holds is looked at, and not repeated."""
    (tmp_path / "url").write_text("hunter2\n")
    with pytest.raises(SettingError, match="not the URL of a database") as raised:
        load(tmp_path, "ledger: file:url\n").database()

    assert "hunter2" not in str(raised.value)


def test_workers_share_a_file_and_replicas_a_database(tmp_path: Path) -> None:
    """Several workers over a database are refused: there, replicas are what to add."""
    with pytest.raises(SettingError, match="replicas share it"):
        load(tmp_path, "ledger: postgres://db/x\nworkers: 2\n")
