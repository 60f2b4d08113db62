"""Reading a folder of policies from disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import MalformedPolicyError, SettingError
from gateway.limits import YAML_BYTES_MAX
from gateway.policy.library import Library
from gateway.store.policies import builtin_policies, read_policy_files
from tests.support.policies import acme_files


def lay(folder: Path, files: dict[str, str]) -> Path:
    """Write *files* under *folder*."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return folder


def test_what_lies_on_disk_is_what_is_loaded(tmp_path: Path) -> None:
    """Every policy file comes back byte for byte under its relative path."""
    files = acme_files() | {"acme/notes.md": "one\r\ntwo"}
    lay(tmp_path, files | {"acme/picture.png": "x"})

    assert read_policy_files(tmp_path) == files


def test_the_builtin_library_loads() -> None:
    """The policies that ship are found and load whole."""
    library = Library.load(read_policy_files(builtin_policies()))

    assert {"openai", "anthropic", "deepseek", "self-hosted"} <= set(library.providers)


@pytest.mark.parametrize("files", [{}, {"acme/terms.yaml": "{}"}])
def test_an_empty_library_is_refused(tmp_path: Path, files: dict[str, str]) -> None:
    """A folder without a policy is a wrong setting, not a library that forbids everything."""
    with pytest.raises(SettingError, match=r"holds no `policy.yaml`"):
        read_policy_files(lay(tmp_path, files))


def test_a_folder_that_is_not_there_is_a_wrong_setting(tmp_path: Path) -> None:
    """A typo in the path is named, with what to set."""
    with pytest.raises(SettingError, match="is no folder of policies"):
        read_policy_files(tmp_path / "polices")


def test_a_folder_that_may_not_be_looked_into_is_a_wrong_setting() -> None:
    """What lies in it might forbid something: no library is loaded without it."""
    with tempfile.TemporaryDirectory() as place:
        folder = lay(Path(place), acme_files())
        folder.chmod(0o755)
        (folder / "closed").mkdir(mode=0)
        with as_nobody(), pytest.raises(SettingError, match="can't be read: Permission denied"):
            read_policy_files(folder)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Be an account whom a file's mode binds."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path: Path) -> None:
    """A file in another encoding is refused before it is read as YAML."""
    lay(tmp_path, acme_files())
    (tmp_path / "acme" / "policy.yaml").write_bytes(b"a: b\nc: \xff\n")

    with pytest.raises(MalformedPolicyError, match=r"acme/policy.yaml:2: not UTF-8"):
        read_policy_files(tmp_path)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    """A policy is something that a person wrote."""
    lay(tmp_path, {"acme/policy.yaml": "#" * (YAML_BYTES_MAX + 1)})

    with pytest.raises(MalformedPolicyError, match="larger than"):
        read_policy_files(tmp_path)


def test_a_name_that_is_no_text_is_a_wrong_setting(tmp_path: Path) -> None:
    """A file that an old system named in another encoding is named, and ends nothing."""
    lay(tmp_path, acme_files())
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/acme/caf\xe9.md")).write_text("x")

    with pytest.raises(SettingError, match=r"odd name: 'acme/caf\\udce9.md'"):
        read_policy_files(tmp_path)
