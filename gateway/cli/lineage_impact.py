"""`gateway lineage impact`: what came of something, and who must act."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from gateway.app.installation import Installation, open_installation
from gateway.cli.lineage_ask import accounts_like, accounts_told
from gateway.cli.lineage_subject import Looking
from gateway.cli.lineage_tree import plain
from gateway.cli.replay import changed_library, sources_of
from gateway.cli.use import screen
from gateway.clock import day_of
from gateway.dataset.recall import Change, Recall, pair_json, policies_that_differ
from gateway.errors import CallerError, NotFoundError, UnknownDeclarationError
from gateway.ident import (
    DeclarationId,
    DerivationId,
    ExchangeId,
    Sha256,
    is_declaration_id,
    is_derivation_id,
    is_exchange_id,
)
from gateway.lineage.impact import MENTIONED, Below, Impact, sentences_of
from gateway.lineage.impact import as_json as impact_json


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `impact` among the *verbs* of `gateway lineage`."""
    impact = verbs.add_parser(
        "impact",
        help="show what came of something, and who must act",
        description="Show every dataset, student and export below something, how much of each "
        "is reached, and whose they are. Nothing is changed.",
    )
    asked = impact.add_mutually_exclusive_group(required=True)
    for name, metavar, sentence in (
        ("provider", "NAME", "what was made of a provider's answers"),
        ("model", "NAME", "what was made of a model's answers, by whatever name it goes"),
        ("policy", "ID", "what was ruled on under a policy"),
        ("clause", "POLICY:CLAUSE", "what a clause had a say in"),
        ("agreement", "ID", "what was called for under a registered agreement"),
        ("transform", "NAME", "what a transform of a pipeline made"),
        ("author", "NAME", "what holds rows that somebody wrote or answers for"),
        ("base", "NAME", "what began as a model from outside"),
    ):
        asked.add_argument(f"--{name}", metavar=metavar, help=sentence)
    asked.add_argument(
        "--principal",
        "--account",
        metavar="NAME",
        help="what was asked for under a name; * stands for any letters",
    )
    asked.add_argument("--declaration", metavar="use-…", help="what was declared so")
    asked.add_argument("--exchange", metavar="x-…|d-…", help="what an answer or rows went into")
    asked.add_argument(
        "--manifest", metavar="WHAT", help="what was made of a dataset, a student or an export"
    )
    asked.add_argument(
        "--policy-change",
        metavar="DIR",
        type=Path,
        help="what would be ruled otherwise under the policies in DIR; nothing is put in force",
    )
    impact.add_argument("--json", action="store_true", help="one JSON document")
    impact.set_defaults(run=_impact)


def _impact(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        house.reader.catch_up()
        changes: list[Change] = []
        if args.policy_change is not None:
            impact, changes = _of_policies(house, args.policy_change)
        else:
            impact = _of(house, args)
        asked = args.principal
        named = [] if asked is None else list(accounts_told(house.index, asked))
    if args.json:
        document = impact_json(impact)
        if args.policy_change is not None:
            document["changes"] = [one.as_json() for one in changes]
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    for one in changes:
        for line in _change(one):
            screen().print(plain(line), soft_wrap=True)
    for line in named:
        screen().print(plain(line), soft_wrap=True)
    print_impact(impact)
    for doubt in impact.unknown:
        screen().print(plain(f"Mind: {doubt}."), soft_wrap=True)
    return 0


def _of(house: Installation, args: argparse.Namespace) -> Impact:
    below = Below(house.index, house.register)
    for kind in MENTIONED:
        name = getattr(args, kind)
        if name is not None:
            _check_named(kind, name)
            return below.of_named(kind, name)
    if args.principal is not None:
        return below.of_principal(args.principal, accounts_like(house.index, args.principal))
    if args.declaration is not None:
        if not is_declaration_id(args.declaration):
            raise CallerError(f"`{args.declaration[:40]}` is not use-…")
        declaration = DeclarationId(args.declaration)
        impact = below.of_declaration(declaration)
        if not impact.touched and house.register.declaration(declaration) is None:
            raise UnknownDeclarationError(
                f"no declaration `{declaration}` is on record",
                hint="`gateway use list` shows them",
            )
        return impact
    if args.exchange is not None:
        return impact_of_answer(house, args.exchange)
    payload = Looking(house, 1).named(args.manifest)
    stage = house.index.lineage.stage(payload)
    if stage is None or stage.leaf is None:
        raise NotFoundError(
            f"no manifest {payload[:12]}… is in the ledger",
            hint="`gateway lineage show FOLDER` prints the digest of a manifest",
        )
    return below.of_manifests(stage.kind or "manifest", stage.name, [payload])


def _check_named(kind: str, name: str) -> None:
    """Refuse what is spelt as nothing is: *nothing came of it* would be no answer.

    Raises:
        CallerError: says how it is spelt.
    """
    policy, at, _ = name.partition("@")
    if kind == "policy" and at:
        raise CallerError(
            f"a policy is asked about in all its versions: `{plain(policy[:64])}`",
            hint=f"of one thing, `gateway lineage ask policy:{plain(name[:64])} WHAT` tells",
        )
    if kind == "clause" and ":" not in name:
        raise CallerError(f"`{plain(name[:64])}` is not POLICY:CLAUSE")


def impact_of_answer(house: Installation, name: str) -> Impact:
    """Return what came of an exchange or a derivation.

    Raises:
        NotFoundError: there is no receipt of it.
    """
    leaf = None
    if is_exchange_id(name) or is_derivation_id(name):
        leaf = house.index.named(ExchangeId(name))
    if leaf is None:
        raise NotFoundError(
            f"no answered exchange and no derivation is called `{plain(name[:40])}`",
            hint="`gateway receipt list` shows exchanges",
        )
    kind = "derivation" if is_derivation_id(name) else "exchange"
    return Below(house.index, house.register).of_leaf(
        kind, DerivationId(ExchangeId(name)), leaf
    )


def _of_policies(house: Installation, folder: Path) -> tuple[Impact, list[Change]]:
    """Return what would be ruled otherwise under the policies in *folder*, and how."""
    changed = changed_library(house, folder)
    below, lineage = Below(house.index, house.register), house.index.lineage
    differ = policies_that_differ(house.library, changed)
    among: set[Sha256] | None = None
    if differ is not None and not differ & set(house.overlays):
        met = [
            stage
            for policy in differ
            for stage, _ in lineage.mentioning("policy", policy).values()
        ]
        among = {stage.manifest for stage in lineage.below(met)}
    recall = Recall(sources_of(house, changed, day_of(house.clock.now_ms())))
    changes = list(recall.stages(among))
    first = [Sha256(one.manifest) for one in changes if one.today and one.today.changes]
    return below.of_manifests("change of policies", changed.digest[:12], first), changes


def _change(change: Change) -> Iterator[str]:
    if change.today is not None and change.today.changes:
        told = pair_json(change.today)
        by = ", ".join(f"{policy}:{clause}" for policy, clause in change.today.causes)
        yield (
            f"{change.kind} {change.name} ({change.manifest[:12]}…): {told['before']} to"
            f" {told['after']}, by {by}"
        )


def print_impact(impact: Impact) -> None:
    """Print what came of something, and who must act."""
    console = screen()
    for sentence in sentences_of(impact):
        console.print(plain(sentence), soft_wrap=True)
    if impact.derivations:
        count = impact.derivations
        console.print(f"{count:,} derivation{'s'[: count > 1]} made of it")
    for declaration in impact.declarations:
        ended = ", withdrawn already" if declaration.ended else ""
        told = f"declaration {declaration.id} of {declaration.owner}{ended}"
        console.print(plain(told), soft_wrap=True)
    for who, what in impact.actions:
        console.print(plain(f"{who} answers for {what}"), soft_wrap=True)
