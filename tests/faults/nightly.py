"""Inject ten thousand faults and count the promises that break: none may.

`python -m tests.faults.nightly` runs every campaign and ends with 1 if anything broke. Each
violation is shown with what replays it: `python -m tests.faults.nightly --replay 'KIND SEED'`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import SystemRandom

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.faults import awaits, calls, days, mutations, power, texts
from tests.support.faults import Injected

IMAGES_A_DAY = 40
LINES = 100
VALUES_A_BYTE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """One kind of fault, injected again and again."""

    name: str
    faults: Callable[[], Iterator[Injected]]
    expected: int | None = None
    """How many there will be, where that is known."""


def campaigns(seed: int, wanted: int) -> list[Campaign]:
    """Return every campaign; power cuts make up what the others lack of *wanted* faults."""
    sessions = max(1, wanted * 7 // 10 // IMAGES_A_DAY // len(power.TROUBLES))
    few = max(1, sessions // 4)
    return [
        *(
            Campaign(
                name=f"power.{trouble}",
                faults=lambda trouble=trouble: power.faults(  # type: ignore[misc]
                    seed, sessions, IMAGES_A_DAY, trouble
                ),
                expected=sessions * IMAGES_A_DAY,
            )
            for trouble in power.TROUBLES
        ),
        *(
            Campaign(
                name=f"texts.{trouble}",
                faults=lambda trouble=trouble: texts.faults(  # type: ignore[misc]
                    seed, few, IMAGES_A_DAY, trouble
                ),
                expected=few * IMAGES_A_DAY,
            )
            for trouble in power.TROUBLES
        ),
        Campaign(name="day", faults=days.faults),
        *(
            Campaign(name=f"calls.{job}", faults=lambda job=job: calls.faults(job, seed))  # type: ignore[misc]
            for job in calls.JOBS
        ),
        Campaign(name="awaits.start", faults=lambda: awaits.faults_at_start(seed)),
        Campaign(name="awaits", faults=lambda: awaits.faults(seed, lines=LINES)),
        Campaign(name="mutation", faults=lambda: mutations.faults(seed, VALUES_A_BYTE)),
    ]


def replayed(line: str) -> Iterator[Injected]:
    """Yield what comes of the faults that *line* names, a kind and a seed."""
    kind, _, seed = line.partition(" ")
    room, _, rest = kind.partition(".")
    match room, rest:
        case (("power" | "texts"), ("none" | "killed" | "sync-failed" | "full") as trouble):
            number, _, image = seed.partition(":")
            faults = power.faults if room == "power" else texts.faults
            *_, last = faults(int(number), 1, int(image) + 1, trouble)
            yield last
        case "calls", _:
            job = rest.partition(".")[0]
            fault, _, image = seed.partition(":")
            for one in calls.JOBS:
                if one == job:
                    images = int(image or 0) + 1
                    yield from calls.faults(one, 0, images=images, only=fault)
        case "awaits", "start":
            yield from awaits.faults_at_start(0, only=int(seed))
        case "awaits", ("suspend" | "resume" | "line") as phase:
            yield from awaits.replayed(seed, phase)
        case "day", _:
            yield from (one for one in days.faults() if one.kind == kind)
        case "mutation", piece:
            # A mutation is named by its place and byte, whatever the seed.
            every = mutations.faults(0, 255, piece)
            yield from (one for one in every if one.seed == seed)
        case _:
            raise SystemExit(f"no campaign injects `{kind}`")


class Tally:
    """Counts what was injected and what broke."""

    def __init__(self) -> None:
        self.injected: Counter[str] = Counter()
        self.broken: list[Injected] = []
        self.seconds: dict[str, float] = {}

    def run(self, campaign: Campaign, each: Callable[[], None]) -> None:
        """Run a campaign to its end."""
        began = time.monotonic()
        for one in campaign.faults():
            self.injected[one.kind] += 1
            if one.violations:
                self.broken.append(one)
            each()
        self.seconds[campaign.name] = time.monotonic() - began

    def table(self) -> Table:
        """Return what was counted, a row a kind."""
        broken = Counter(one.kind for one in self.broken)
        table = Table("fault", "injected", "broken", box=None, pad_edge=False)
        for kind, count in sorted(self.injected.items()):
            table.add_row(kind, str(count), str(broken[kind]))
        table.add_row("all", str(self.injected.total()), str(len(self.broken)))
        return table


def main(words: list[str]) -> int:
    """Run what *words* ask for; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.nightly", description=__doc__)
    parser.add_argument("--faults", type=int, default=10_000, help="about how many to inject")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1 << 32))
    parser.add_argument("--only", default="", help="campaigns whose names begin so")
    parser.add_argument("--replay", metavar="'KIND SEED'", help="inject one fault again")
    asked = parser.parse_args(words)
    console = Console(soft_wrap=True)
    tally = Tally()
    if asked.replay is not None:
        tally.run(Campaign(name="replay", faults=lambda: replayed(asked.replay)), lambda: None)
    else:
        console.print(f"seed {asked.seed}")
        _run_all(asked, tally, console)
    for one in tally.broken:
        console.print(str(one), markup=False)
    console.print(tally.table())
    return 1 if tally.broken or not tally.injected else 0


def _run_all(asked: argparse.Namespace, tally: Tally, console: Console) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        for campaign in campaigns(asked.seed, asked.faults):
            if campaign.name.startswith(asked.only):
                task = progress.add_task(campaign.name, total=campaign.expected)
                tally.run(campaign, lambda task=task: progress.advance(task))  # type: ignore[misc]
                if not console.is_terminal:
                    console.print(
                        f"{campaign.name}: {tally.seconds[campaign.name]:.0f} s,"
                        f" {tally.injected.total()} injected so far,"
                        f" {len(tally.broken)} broke a promise"
                    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
