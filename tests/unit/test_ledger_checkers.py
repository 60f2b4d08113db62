"""Laws of checking in several processes."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import BadDigestError, CheckInterruptedError
from gateway.ledger.checkers import check_in_order, checkers_at_hand
from gateway.limits import CHECKERS_MAX, PARTS_AHEAD_PER_CHECKER

pytestmark = pytest.mark.crash


def doubled(part: int) -> int:
    """Answer, the earlier parts last."""
    time.sleep(0.02 * (4 - part % 4))
    return 2 * part


def doubtful(bad: frozenset[int], part: int) -> int:
    """Refuse some parts, and be quicker to refuse the later ones."""
    time.sleep(0.02 * (4 - part % 4))
    if part in bad:
        raise BadDigestError(f"part {part} is bad", hint="take it again", code="digest.odd")
    return part


def deadly(part: int) -> int:
    """Die at one of the parts."""
    if part == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return part


def test_answers_come_in_the_order_of_the_parts() -> None:
    """However long each takes, what is heard first is the answer for the first part."""
    assert [2 * part for part in range(20)] == list(check_in_order(doubled, range(20), 2))


def test_the_first_refusal_in_order_is_raised() -> None:
    """The refusal of an earlier part is heard even where a later one was there before."""
    check = functools.partial(doubtful, frozenset({5, 7}))

    with pytest.raises(BadDigestError) as refused:
        list(check_in_order(check, range(12), 2))

    assert "digest.odd: part 5 is bad; hint: take it again" == str(refused.value)


def test_parts_are_asked_for_as_they_are_needed() -> None:
    """Parts may be large: only a few are made before the first answers are heard."""
    made: list[int] = []

    def making() -> Iterator[int]:
        for part in range(50):
            made.append(part)
            yield part

    answers = check_in_order(doubled, making(), 2)
    next(answers)

    assert len(made) <= 2 * PARTS_AHEAD_PER_CHECKER + 1


def test_a_process_that_dies_is_an_error() -> None:
    """A part whose process died has not passed."""
    with pytest.raises(CheckInterruptedError):
        list(check_in_order(deadly, range(8), 2))


def test_checkers_end_with_their_parent(tmp_path: Path) -> None:
    """Killing the one that asked leaves nobody working."""
    script = tmp_path / "asks.py"
    script.write_text(
        "import multiprocessing, sys, time\n"
        "from gateway.ledger.checkers import check_in_order\n"
        "if __name__ == '__main__':\n"
        "    answers = check_in_order(time.sleep, [0, 0, 600, 600], 2)\n"
        "    next(answers); next(answers)\n"
        "    print(*(one.pid for one in multiprocessing.active_children()), flush=True)\n"
        "    next(answers)\n"
    )
    asking = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    pids = [int(pid) for pid in asking.stdout.readline().split()]
    asking.kill()
    asking.communicate()

    assert pids
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Tell whether a process is there and not only waiting to be buried."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_there_are_as_many_checkers_as_cores() -> None:
    """One a core, and never too many."""
    assert 1 <= checkers_at_hand() <= min(CHECKERS_MAX, os.cpu_count() or 1)
