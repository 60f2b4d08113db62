"""`gateway dataset follow`: freeze snapshots of what was approved, one after the other."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.app.installation import Installation, open_installation
from gateway.cli.arguments import count
from gateway.cli.building import (
    add_selection,
    law_of,
    manifests_of,
    order_of,
    print_built,
    selected,
    shown,
    sources_of,
)
from gateway.clock import day_of
from gateway.dataset.ancestry import Ancestry
from gateway.dataset.assembly.build import (
    EmptyDatasetError,
    Order,
    build_dataset,
    parameters_of,
)
from gateway.dataset.assembly.follow import Chain, Watch
from gateway.dataset.gate.gate import Gate
from gateway.dataset.held import HeldWords
from gateway.ident import is_derivation_id

FINE: Final = 0
ENDED: Final = 143
_LOOKS_EVERY_S: Final = 2.0
_LASTS: Final = re.compile(r"([0-9]{1,6})([smh])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `follow` among *verbs*."""
    follow = verbs.add_parser(
        "follow",
        help="freeze snapshots of what was approved, each following the one before",
        description="Freeze datasets NAME-0001, NAME-0002, … as outputs are approved. A row "
        "stands in one of them only. Run again, it goes on where it was.",
    )
    follow.add_argument("name", metavar="NAME", help="the feed's name, like invoices")
    follow.add_argument(
        "--for", dest="declaration", metavar="DECLARATION", required=True, help="use-…"
    )
    add_selection(follow)
    follow.add_argument(
        "--rows", metavar="N", type=count, default=1_000, help="freeze when so many wait"
    )
    follow.add_argument(
        "--every",
        metavar="TIME",
        type=lasts,
        default=600,
        help="freeze after so long if there is anything, like 10m",
    )
    follow.add_argument("--rounds", metavar="K", type=count, help="end after so many")
    follow.add_argument("--once", action="store_true", help="freeze what there is now, and end")
    follow.add_argument(
        "--out", metavar="FOLDER", type=Path, help="where to (default: DATA/datasets)"
    )
    follow.set_defaults(run=_follow)


def lasts(text: str) -> int:
    """Return the seconds that *text*, like `10m`, stands for.

    Raises:
        argparse.ArgumentTypeError: it stands for none.
    """
    found = _LASTS.fullmatch(text)
    if found is None or not int(found[1]):
        raise argparse.ArgumentTypeError(f"`{text[:20]}` is no time, like 30s, 10m or 2h")
    return int(found[1]) * _UNITS[found[2]]


def _follow(args: argparse.Namespace) -> int:
    stop = threading.Event()
    stops = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in stops}
    try:
        return _freeze_until(stop, args)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _freeze_until(stop: threading.Event, args: argparse.Namespace) -> int:
    feed, frozen = _Feed(args), 0
    while not stop.is_set():
        if feed.freeze_if_due():
            frozen += 1
            if frozen == args.rounds:
                return FINE
        if args.once:
            return FINE
        if not feed.behind:
            stop.wait(_LOOKS_EVERY_S)
    print(f"ended between snapshots; run the same again to go on with `{args.name}`")
    return ENDED


class _Feed:
    """One feed, looked at now and then."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._watch: Watch | None = None
        self._chain: Chain | None = None
        self._since = time.monotonic()
        self._told = ""
        self.behind = False
        """Whether there is enough for another snapshot already."""

    def freeze_if_due(self) -> bool:
        """Look at what is new, and freeze a snapshot if it is time; tell whether one was."""
        args = self._args
        # Opened anew each time: what others wrote meanwhile, and policies that changed, count.
        with contextlib.closing(open_installation(args)) as house:
            chain = self._chain_in(house)
            order = order_of(args, house, chain.next_name(), chain.next_folder(), chain.feed())
            chain.check_same(parameters_of(order))
            house.reader.catch_up()
            watch = self._looked(house, order, chain)
            waited = time.monotonic() - self._since
            due = watch.ready >= args.rows or (
                watch.ready > 0 and (args.once or waited >= args.every)
            )
            self.behind = False
            if not due:
                self._tell(watch)
                return False
            return self._freeze(house, order, chain)

    def _chain_in(self, house: Installation) -> Chain:
        if self._chain is None:
            folder = self._args.out or house.data / "datasets"
            self._chain = Chain(self._args.name, folder, house.keyring.trust)
        return self._chain

    def _looked(self, house: Installation, order: Order, chain: Chain) -> Watch:
        if self._watch is None:
            self._watch = Watch(_places(house, chain), chain.after)
        gate = Gate(
            order.declaration,
            day_of(house.clock.now_ms()),
            law_of(house),
            HeldWords(house.register, house.index),
            Ancestry(manifests_of(house)),
            reasoning=order.reasoning,
        )
        self._watch.look(
            gate,
            house.register.version,
            lambda first: house.reader.leaves_at(
                row.index for row in selected(house, order, first)
            ),
            house.reader.leaf,
            house.reader.size(),
        )
        return self._watch

    def _freeze(self, house: Installation, order: Order, chain: Chain) -> bool:
        sources = dataclasses.replace(
            sources_of(house, order), candidates=lambda: _candidates(house, order, chain)
        )
        try:
            with shown() as progress:
                built = build_dataset(order, sources, progress)
        except EmptyDatasetError:
            # What looked ready is the same as rows that stand already, or lost its text.
            if self._watch is not None:
                self._watch.ready = 0
            return False
        finally:
            self._since = time.monotonic()
        print_built(built)
        self._chain, self._watch, self._told = None, None, ""
        self.behind = True
        return True

    def _tell(self, watch: Watch) -> None:
        """Say what is waited for, where that changed."""
        held = ", ".join(f"{count} {why}" for why, count in watch.waiting.most_common())
        said = f"{watch.ready} of {self._args.rows} rows" + (f"; {held}" if held else "")
        if said != self._told:
            print(f"{self._args.name}: waiting: {said}", flush=True)
            self._told = said


def _places(house: Installation, chain: Chain) -> Iterator[int]:
    """Yield the leaf indices of what waited when the last snapshot was frozen."""
    for name in chain.waiting():
        at = house.reader.derivation if is_derivation_id(name) else house.reader.find
        found = at(name)
        if found is not None:
            yield found[0]


def _candidates(house: Installation, order: Order, chain: Chain) -> Iterator[tuple[int, bytes]]:
    """Yield what waited, and what came since, in order of the ledger."""
    waited = sorted(set(_places(house, chain)))
    yield from house.reader.leaves_at(index for index in waited if index < chain.after)
    yield from house.reader.leaves_at(row.index for row in selected(house, order, chain.after))
