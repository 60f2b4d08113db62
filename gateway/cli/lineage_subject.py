"""What a command line names: an answer, rows, a dataset, a student or an export."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.app.installation import Installation
from gateway.cli.lineage_tree import gone_of, kind_of, name_of, plain
from gateway.clock import day_of
from gateway.dataset.ancestry import Ancestry
from gateway.dataset.held import HeldWords
from gateway.dataset.manifest import MANIFEST, parse_training
from gateway.dataset.ruling import PolicyLaw
from gateway.dataset.verification.verify import iterate_rows
from gateway.errors import NotFoundError
from gateway.ident import (
    ExchangeId,
    Sha256,
    is_derivation_id,
    is_exchange_id,
)
from gateway.intent.model import Declaration
from gateway.ledger.reading.register import subject_of
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.lineage.folders import Copies, Folders
from gateway.lineage.impact import Below, Impact
from gateway.lineage.nodes import (
    DatasetNode,
    DerivationNode,
    ExchangeNode,
    ExportNode,
    Missing,
    ModelNode,
    Node,
    nodes_of,
)
from gateway.lineage.tree import (
    Sources,
    lineage_of_derivation,
    lineage_of_exchange,
    lineage_of_export,
    lineage_of_manifest,
    statements_in,
)
from gateway.lineage.uses import (
    Allowed,
    Rulers,
    allowed_uses,
)
from gateway.receipt.model import EXPORT_BUILD, Derivation, Manifest, Receipt
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import verify_leaf, verify_manifest
from gateway.store.index.lineage import Stage
from gateway.student.recognise import recognise, training_manifests
from gateway.student.weights import WEIGHTS, read_weights

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked about."""

    title: str
    root: Node
    below: Impact
    held: str
    stages_held: frozenset[Sha256]
    """The manifests above and below it that a withdrawal holds."""
    by_weights: str = ""
    """How it was recognised, where it says nothing of itself; as a sentence goes on."""
    shut: tuple[str, ...] = ()
    """What could not be looked into for it, in words."""


ROW: Final = re.compile(r"(?P<of>.+)#(?P<row>[0-9]{1,18})")
"""A row of a dataset, as it is named."""

CHOICE: Final = re.compile(r"(?P<of>[xd]-[0-9A-Z]{26})/(?P<choice>[0-9]{1,9})")
"""A choice of an answer, or a row of a derivation, as it is named."""


def answered(
    house: Installation, name: str, choice: int | None
) -> tuple[int, Receipt | Derivation]:
    """Return leaf and statement of an answered exchange, or of a derivation.

    Raises:
        NotFoundError: there is none of that name, or it lacks that choice or row.
    """
    leaf = house.index.named(ExchangeId(name))
    statement = None if leaf is None else read_leaf(house.reader.leaf(leaf))
    if leaf is None or not isinstance(statement, Receipt | Derivation):
        raise NotFoundError(
            f"no answered exchange and no derivation is called {name}",
            hint="`gateway receipt list` shows exchanges",
        )
    count = (
        len(statement.rows)
        if isinstance(statement, Derivation)
        else 1 + max((unit.choice for unit in statement.outputs), default=0)
    )
    if choice is not None and choice >= count:
        raise NotFoundError(
            f"{name} has {count}, from 0 on: there is no {choice}", hint="leave /N out"
        )
    return leaf, statement


class Looking:
    """Finds what a command line names, in a house."""

    def __init__(self, house: Installation, receipts: int) -> None:
        self._house = house
        self._trust = house.keyring.trust
        self._authority = house.reader.authority(self._trust)
        self._copies = Copies(self._trust)
        self._places = [house.data / "datasets"]
        self._words = HeldWords(house.register, house.index)
        self._below = Below(house.index, house.register)
        self.by_weights = ""
        """How what was asked for is known by its weights; empty where it says what it is."""
        self._folders = Folders(self._places)
        self._sources = Sources(
            manifest=self._manifest,
            words=house.register,
            folder=self._folders,
            students=house.index.lineage.students_with,
            statement=statements_in(house.reader.leaf),
            receipts_shown=receipts,
        )

    def at(self, what: str) -> Asked:
        """Return what *what* names.

        Raises:
            NotFoundError: it names nothing, or several things.
            EvidenceError: what it names does not verify.
        """
        path = Path(what)
        row, choice = ROW.fullmatch(what), CHOICE.fullmatch(what)
        if path.is_dir():
            asked = self._of_manifest(self._payload_at(path))
            return dataclasses.replace(asked, by_weights=self.by_weights)
        if choice is not None:
            return self._of_answer(choice["of"], int(choice["choice"]))
        if is_exchange_id(what) or is_derivation_id(what):
            return self._of_answer(what, None)
        if row is not None:
            return self._of_row(row["of"], int(row["row"]))
        return self._of_manifest(self.named(what))

    def named(self, what: str) -> Sha256:
        """Return the manifest that a folder, a digest or a name stands for.

        Raises:
            NotFoundError: it stands for none, or for several.
        """
        if Path(what).is_dir():
            return self._payload_at(Path(what))
        if _SHA256.fullmatch(what):
            return Sha256(what)
        named = self._house.index.lineage.named(what)
        if not named:
            raise NotFoundError(
                f"`{plain(what[:80])}` is no folder, no answered exchange, no derivation and"
                " no dataset, student or export of this ledger",
                hint="`gateway receipt list` shows exchanges",
            )
        if len(named) > 1:
            raise NotFoundError(
                f"{len(named)} things are called `{plain(what[:80])}`",
                hint="name one by its manifest: " + ", ".join(map(_stage, named)),
            )
        return named[0].manifest

    def allowed(self, root: Node, declared: Declaration | None) -> list[Allowed]:
        """Return what all who taught *root* allow together, for every purpose."""
        if declared is None:
            return []
        house = self._house

        def find(payload: Sha256) -> Manifest | None:
            found = self._manifest(payload)
            return None if found is None else found[1]

        rulers = Rulers(
            law=PolicyLaw(house.library, house.register, house.overlays),
            words=self._words,
            ancestry=Ancestry(find),
            today=day_of(house.clock.now_ms()),
        )
        return allowed_uses(root, declared, rulers)

    def _of_manifest(self, payload: Sha256) -> Asked:
        found = self._manifest(payload)
        if found is None:
            raise NotFoundError(
                f"no manifest {payload[:12]}… is in the ledger, nor a copy of it at hand",
                hint="name the folder of a dataset, a model or an export",
            )
        is_export = found[1].build_type == EXPORT_BUILD
        grow = lineage_of_export if is_export else lineage_of_manifest
        root = grow(payload, self._sources)
        withdrawal = self._words.held(payload)
        held = ""
        if withdrawal is not None:
            what = subject_of(withdrawal)
            gone = "it" if what == payload else f"{what}, which it came from"
            held = (
                f"HELD: {withdrawal.by} withdrew {gone} ({withdrawal.reason}). Nothing may"
                " learn from it, and it answers no more."
            )
        title = f"{kind_of(root)} {root.name}" if not isinstance(root, Missing) else root.what
        below = self._below.of_manifests(kind_of(root), title.partition(" ")[2], [payload])
        return self._asked(title, root, below, held)

    def _asked(self, title: str, root: Node, below: Impact, held: str) -> Asked:
        stages = [one.stage.manifest for one in below.touched]
        stages += [
            node.payload
            for node in nodes_of(root)
            if isinstance(node, ModelNode | DatasetNode | ExportNode)
        ]
        held_stages = frozenset(one for one in stages if self._words.held(one) is not None)
        return Asked(
            title=title,
            root=root,
            below=below,
            held=held,
            stages_held=held_stages,
            shut=tuple(self._folders.shut),
        )

    def _of_answer(self, name: str, choice: int | None) -> Asked:
        leaf, statement = answered(self._house, name, choice)
        root: ExchangeNode | DerivationNode
        if isinstance(statement, Receipt):
            root = lineage_of_exchange(statement, leaf, self._sources)
        else:
            root = lineage_of_derivation(statement, leaf, self._sources, choice)
        kind = "exchange" if isinstance(root, ExchangeNode) else "derivation"
        title = f"{kind} {name}" if choice is None else f"row {choice} of {kind} {name}"
        gone = next((node for node in nodes_of(root) if gone_of(node)), None)
        held = "" if gone is None else f"HELD: {name_of(gone)} was withdrawn {gone_of(gone)}."
        if not held and isinstance(root, ExchangeNode) and root.student is not None:
            student = root.receipt.model.manifest
            withdrawal = None if student is None else self._words.held(student)
            if withdrawal is not None:
                held = (
                    f"HELD: {withdrawal.by} withdrew {subject_of(withdrawal)}, which the"
                    f" student that answered came from ({withdrawal.reason})."
                )
        below = self._below.of_leaf(kind, name, leaf)
        return self._asked(title, root, below, held)

    def _of_row(self, of: str, number: int) -> Asked:
        folder, source, choice = self.row(of, number)
        asked = self._of_answer(source, choice)
        title = f"row {number} of dataset {folder}: {asked.title}"
        return dataclasses.replace(asked, title=title)

    def row(self, of: str, number: int) -> tuple[str, str, int]:
        """Return a dataset's folder by name, and what row *number* of it is: x-… or d-…, which.

        Raises:
            NotFoundError: there is no such row, or its folder is not at hand.
            EvidenceError: its rows can't be read.
        """
        payload = self.named(of)
        if Path(of).is_dir():
            self._places.append(Path(of))
        folder = self._sources.folder(payload)
        if folder is None:
            raise NotFoundError(
                f"the folder of dataset `{plain(of[:80])}` is not at hand",
                hint="name the row by its folder, like path/to/DATASET#17",
            )
        for row in iterate_rows(folder):
            if row.number == number:
                return folder.name, row.source, row.choice
        raise NotFoundError(
            f"dataset `{folder.name}` has no row {number}", hint="rows are numbered from 0"
        )

    def _payload_at(self, path: Path) -> Sha256:
        if not (path / MANIFEST).exists() and any(path.glob(f"*{WEIGHTS}")):
            return self._recognised(path)
        try:
            with (path / MANIFEST).open("rb") as file:
                _, payload = verify_manifest(file.read(BUNDLE_BYTES_MAX + 1), self._trust)
        except OSError as exc:
            raise NotFoundError(
                f"{path / MANIFEST} can't be read: {exc.strerror}",
                hint="name a dataset, model or export folder",
            ) from exc
        self._copies.take(path)
        self._places += [path, path.resolve().parent]
        return payload

    def _recognised(self, path: Path) -> Sha256:
        """Return the training manifest of the student whose weights lie in a folder without it.

        Raises:
            NotFoundError: they are no student's of this ledger.
            EvidenceError: they can't be read.
        """
        house = self._house
        places = house.index.statements(("manifest",))
        weights = read_weights(path)
        known = recognise(weights, training_manifests(places, house.reader.leaf)).whole
        if not known:
            raise NotFoundError(
                f"the weights in `{plain(str(path))}` are no student's of this ledger, as far"
                " as digests can tell, and there is no manifest beside them",
                hint="of weights that were changed, merged or rounded nothing is known here",
            )
        held = (one for one in known if self._words.held(one.payload_sha256) is not None)
        student = next(held, known[0])
        name = parse_training(student.statement).student
        self.by_weights = (
            f"that what is in `{plain(str(path))}` is the student `{name}`: its training"
            f" manifest signs these weights, digest {weights.sha256 or 'none'}"
        )
        return student.payload_sha256

    def _manifest(self, wanted: Sha256) -> tuple[int | None, Manifest] | None:
        found = self._house.reader.manifest(wanted)
        if found is not None:
            at = found[0]
            statement = verify_leaf(self._house.reader.leaf(at), at, self._authority)
            if isinstance(statement, Manifest):
                return at, statement
        copy = self._copies.known.get(wanted)
        return None if copy is None else (None, copy)


def _stage(stage: Stage) -> str:
    return f"{stage.manifest} ({stage.kind}, leaf {stage.leaf})"
