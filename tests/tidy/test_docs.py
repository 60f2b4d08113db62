"""Docs that can rot are compared with the code."""

from __future__ import annotations

import re
from pathlib import Path

import gateway.errors
from gateway.cli.main import EXIT_CODES, GROUPS, exit_code
from gateway.errors import GatewayError
from gateway.log import EVENTS
from gateway.proxy.problem import STATUSES, status_of
from gateway.settings import CheckpointSettings, ProviderSettings, Settings

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
CODE = re.compile(r"""\bcode(?:: str)? ?= ?"([a-z_]+\.[a-z_]+)\"""")


def every_error() -> list[type[GatewayError]]:
    """Return every error class of the tree."""
    kinds = [k for k in vars(gateway.errors).values() if isinstance(k, type)]
    return [kind for kind in kinds if issubclass(kind, GatewayError)]


def made(kind: type[GatewayError]) -> GatewayError:
    """Return an error of that class without running its constructor."""
    return kind.__new__(kind)


def test_every_event_is_in_the_docs() -> None:
    """An operator finds every log event, with its meaning, on one page."""
    page = (REFERENCE / "events.md").read_text(encoding="utf-8")

    assert [] == [name for name, told in EVENTS.items() if f"| `{name}` | {told} |" not in page]


def test_every_setting_is_in_the_docs() -> None:
    """An operator finds every key of gateway.yaml on one page."""
    page = (REFERENCE / "settings.md").read_text(encoding="utf-8")
    keys = [
        *Settings.__struct_fields__,
        *ProviderSettings.__struct_fields__,
        *CheckpointSettings.__struct_fields__,
    ]

    assert [] == [key for key in keys if f"`{key}`" not in page]


def test_every_error_code_is_in_the_docs() -> None:
    """Whoever reads a code finds what it means and who must act."""
    page = (REFERENCE / "errors.md").read_text(encoding="utf-8")

    assert [] == [kind.code for kind in every_error() if f"`{kind.code}`" not in page]


def test_every_closer_code_is_in_the_docs() -> None:
    """A code that some place gives an error of its own is explained too."""
    page = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "gateway").rglob("*.py")]
    codes = {code for text in texts for code in CODE.findall(text)}

    assert set() == {code for code in codes if f"`{code}`" not in page}
    assert codes


def test_every_error_has_a_status_and_an_exit_code() -> None:
    """No error falls through to the last line of either table but the root itself."""
    for kind in every_error():
        assert 400 <= status_of(made(kind)) < 600
        assert exit_code(made(kind)) in {1, 2, 3}
        if kind is not GatewayError:
            assert any(issubclass(kind, row) for row, _ in STATUSES[:-1])
            assert any(issubclass(kind, row) for row, _ in EXIT_CODES[:-1])


def test_the_readme_names_commands_that_exist() -> None:
    """Every `gateway …` command line of the README begins with a command there is."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    used = {
        line.split()[1]
        for line in text.splitlines()
        if line.startswith("gateway ") and len(line.split()) > 1
    }

    assert set() == used - GROUPS.keys()
    assert used
