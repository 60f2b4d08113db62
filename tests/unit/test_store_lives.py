"""Laws of the files that living processes hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gateway.store.lives import Lives

BE_ALIVE = """
import sys, pathlib
from gateway.store.lives import Lives
name, handle = Lives(pathlib.Path(sys.argv[1])).begin()
print(name, flush=True)
sys.stdin.read()
"""


def test_a_process_is_alive_until_it_is_killed(tmp_path: Path) -> None:
    """Another process sees it live, and sees it dead once it was killed."""
    lives = Lives(tmp_path / "workers")
    with subprocess.Popen(
        [sys.executable, "-c", BE_ALIVE, str(tmp_path / "workers")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        before = lives.is_alive(name)
        lives.bury()
        kept = lives.is_alive(name)
        process.kill()
    after = lives.is_alive(name)
    lives.bury()

    assert name.startswith(f"{process.pid}-")
    assert (True, True, False) == (before, kept, after)
    assert [] == list((tmp_path / "workers").iterdir())


def test_what_is_no_name_is_dead(tmp_path: Path) -> None:
    """Names of other makes, and such as lead elsewhere, belong to nobody who lives."""
    lives = Lives(tmp_path)
    name, handle = lives.begin()

    assert lives.is_alive(name)
    assert not any(map(lives.is_alive, ("", "1", f"../{tmp_path.name}/{name}", f"{name}0")))
    os.close(handle)
    assert not lives.is_alive(name)


def test_names_are_never_used_twice(tmp_path: Path) -> None:
    """The same process gets another name each time."""
    lives = Lives(tmp_path)
    begun = [lives.begin() for _ in range(20)]

    assert 20 == len({name for name, _ in begun})
    for _, handle in begun:
        os.close(handle)
