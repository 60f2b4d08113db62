"""House rules that a machine can hold, run as ordinary tests."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Files that may catch everything: the last line of a task, and where code of others is called.
CATCH_ALL = {"gateway/proxy/server.py", "gateway/student/evaluate.py"}

# States that may be made in few places only: where they are earned, and for items of those.
MINTED_IN = {
    "Permitted": ("gateway/exchange/walk.py", "gateway/exchange/items.py"),
    "Answered": ("gateway/exchange/relay.py", "gateway/exchange/items.py"),
    "Sealed": ("gateway/exchange/seal.py",),
}

BANNED_MODULES = {
    "base",
    "common",
    "core",
    "helpers",
    "manager",
    "misc",
    "services",
    "util",
    "utils",
}

# Words that are never right for the thing they would name; the glossary's third column.
BANNED_WORDS = re.compile(
    r"\b(usecase|use_case|ruleset|tree_head|merkle_path|merkle path|tree head|blockchain"
    r"|distillation attack)",
    re.IGNORECASE,
)


def modules() -> list[Path]:
    """Return every module of the package."""
    return sorted((ROOT / "gateway").rglob("*.py"))


def complaints(path: str, text: str) -> Iterator[str]:
    """Yield `path:line: what is wrong, and what to do`."""
    tree = ast.parse(text)
    if ast.get_docstring(tree) is None:
        yield f"{path}:1: say in one sentence what this module promises"
    if Path(path).stem in BANNED_MODULES:
        yield f"{path}:1: `{Path(path).stem}` names no thing of ours; use a glossary word"
    for node in ast.walk(tree):
        match node:
            case ast.ExceptHandler(type=None | ast.Name(id="Exception" | "BaseException")):
                again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
                if path not in CATCH_ALL and not again:
                    yield f"{path}:{node.lineno}: catch an error by its name"
            case ast.Call(func=ast.Name(id=name)) if name in MINTED_IN:
                if path not in MINTED_IN[name]:
                    earned = " and ".join(MINTED_IN[name])
                    yield f"{path}:{node.lineno}: `{name}` is made only in {earned}"


def test_every_module_keeps_the_house_rules() -> None:
    """Each module says its promise, catches by name, and mints no state of another room."""
    found = [
        complaint
        for module in modules()
        for complaint in complaints(
            str(module.relative_to(ROOT)), module.read_text(encoding="utf-8")
        )
    ]

    assert [] == found


def test_a_complaint_is_made_where_one_is_due() -> None:
    """The checks above are alive: each finds what it is for."""
    text = "try:\n    Permitted()\nexcept Exception:\n    pass\n"

    assert 3 == len(list(complaints("gateway/x/other.py", text)))


def test_the_words_are_those_of_the_glossary() -> None:
    """No text of ours uses a word that the glossary bans."""
    texts = [*modules(), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    texts += [
        path for path in (ROOT / "policies").rglob("*") if path.suffix in {".md", ".yaml"}
    ]
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in texts
        for match in BANNED_WORDS.finditer(path.read_text(encoding="utf-8"))
        if path.name != "glossary.md"
    ]

    assert [] == found


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("gateway.receipt.verify", {"aiohttp", "apsw", "yaml", "structlog", "gateway.policy"}),
        ("gateway.cli.student", {"torch", "transformers", "trl"}),
        ("gateway.app", {"torch", "transformers", "trl"}),
    ],
)
def test_importing_one_room_does_not_furnish_another(module: str, absent: set[str]) -> None:
    """The verifier loads no server and no policies; the gateway never loads torch."""
    script = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()

    assert set() == absent & set(loaded)


def test_the_floors_hold() -> None:
    """Imports go down the floors, and pure floors have no windows."""
    ran = subprocess.run(
        # Without a cache, which another process may be writing at the same time.
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )

    assert "0 broken" in ran.stdout, ran.stdout
