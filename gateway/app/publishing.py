"""Build what publishes checkpoints: witnesses, copies and timestamps, as settings name them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from gateway.clock import Clock
from gateway.errors import SettingError
from gateway.ledger.publishing.alarms import Alarm
from gateway.ledger.publishing.copies import Copies, Copy
from gateway.ledger.publishing.publisher import Publisher
from gateway.ledger.publishing.timestamp import Stamper, read_stamps
from gateway.ledger.publishing.witness import Witness, Witnesses
from gateway.log import Logger
from gateway.receipt.keys import Trust
from gateway.settings import CheckpointSettings, Sourced
from gateway.store.ports import LedgerStore
from gateway.tlog.cosignature import parse_cosignature_vkey
from gateway.tlog.note import NoteSigner

TIMESTAMPS: Final = "timestamps"
"""The folder of tokens in the data folder."""


def build_publisher(
    sourced: Sourced,
    data: Path,
    store: LedgerStore,
    signer: NoteSigner,
    clock: Clock,
    *,
    predecessors: Collection[str] = (),
) -> Publisher:
    """Return what publishes the checkpoints of *store*, signed by *signer*.

    *predecessors* are the origins of the logs that it goes on from.
    """
    settings = sourced.settings.checkpoint
    return Publisher(
        store,
        signer,
        signer.name,
        clock,
        publish_file=data / "checkpoint",
        witnesses=_witnesses(settings),
        copies=_copies(sourced, data),
        stamper=_stamper(sourced, data, clock),
        start_unwitnessed=settings.start_unwitnessed,
        predecessors=predecessors,
    )


def published_notes(sourced: Sourced, data: Path) -> list[str]:
    """Return every checkpoint that is kept beside the ledger: its file, copies, and stamped.

    Raises:
        LedgerUnwellError: one can't be read, or is gone.
    """
    file = data / "checkpoint"
    notes = [file.read_text("utf-8", "replace")] if file.exists() else []
    notes += [note for _, note in _copies(sourced, data).read(published=False)]
    stamped = {stamp.note for stamp in read_stamps(data / TIMESTAMPS)}
    notes += [note.decode("utf-8", "replace") for note in sorted(stamped)]
    return list(dict.fromkeys(notes))


def asked_of_auditors(settings: CheckpointSettings) -> tuple[tuple[str, ...], int]:
    """Return what a trust file should ask for: vkeys of witnesses, and how many of them."""
    vkeys = tuple(one.vkey for one in settings.witnesses)
    return vkeys, settings.needed if vkeys else 0


def check_trust(settings: CheckpointSettings, trust: Trust) -> None:
    """Check that what will be published is what the trust file tells auditors to ask for.

    Raises:
        SettingError: they would turn it away.
    """
    vkeys, quorum = asked_of_auditors(settings)
    strangers = [vkey.partition("+")[0] for vkey in vkeys if vkey not in trust.witnesses]
    if trust.quorum > quorum:
        raise SettingError(
            f"trust.json tells auditors to ask for {trust.quorum} cosignatures, and"
            f" `checkpoint` in the settings makes sure of {quorum}",
            hint="name the witnesses of trust.json in the settings, with that quorum or more;"
            " or make trust.json ask for less with `gateway key trust`",
        )
    if trust.quorum and strangers:
        raise SettingError(
            f"the witness `{strangers[0]}` is not in trust.json: auditors don't count it",
            hint="add it with `gateway key trust`, and give auditors the new file",
        )


class AlarmLog:
    """Logs what is wrong with publishing when it begins, and when all is well again."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._raised: set[Alarm] = set()

    def tell(self, alarms: Sequence[Alarm]) -> None:
        """Log what is new in *alarms*."""
        now = set(alarms)
        for alarm in alarms:
            if alarm not in self._raised:
                self._log.warning(alarm.code, why=alarm.told)
        if self._raised and not now:
            self._log.info("checkpoint.well")
        self._raised = now


def _copies(sourced: Sourced, data: Path) -> Copies:
    copies = sourced.settings.checkpoint.copies
    return Copies(
        [Copy(sourced.path(copy).absolute()) for copy in copies],
        memory=data / "checkpoint.copies",
    )


def _witnesses(settings: CheckpointSettings) -> Witnesses | None:
    if not settings.witnesses:
        return None
    made = [Witness(one.url, parse_cosignature_vkey(one.vkey)) for one in settings.witnesses]
    return Witnesses(made, settings.needed)


def _stamper(sourced: Sourced, data: Path, clock: Clock) -> Stamper | None:
    settings = sourced.settings.checkpoint.timestamps
    if settings is None:
        return None
    return Stamper(
        data / TIMESTAMPS,
        settings.urls,
        sourced.path(settings.certificates),
        every_hours=settings.every_hours,
        clock=clock,
    )
