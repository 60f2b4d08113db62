"""`gateway policy explain`: rule on one use, and say why and what would change it.

Exit codes: 0 the use is permitted, 1 it is not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.cli.arguments import day
from gateway.clock import SystemClock, day_of
from gateway.errors import MalformedPolicyError, NotFoundError
from gateway.intent.declare import parse_inline
from gateway.ledger.reading.register import Register
from gateway.policy.agreement import check_lifts, lifted_by
from gateway.policy.condition import Value, value_of
from gateway.policy.decide import NOTHING_REGISTERED, Facts, Lifted, facts_of
from gateway.policy.explain import Explanation, explain
from gateway.policy.library import Library
from gateway.policy.model import Effect
from gateway.policy.source import nearest, read
from gateway.policy.vocabulary import FACTS, UNLISTED
from gateway.provider.model import Operation, ProviderCall
from gateway.store.policies import builtin_policies, read_policy_files

_AGREEMENT: Final = "the-agreement-in-question"
OPEN_WEIGHTS: Final = "open-weights"
"""The policy of weights that the organisation runs itself; a model's licence joins it."""


def add(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `explain` to the actions of `gateway policy`."""
    parser = actions.add_parser(
        "explain", help="rule on a use and say why, and what would change it"
    )
    parser.add_argument(
        "policies",
        metavar="POLICY",
        nargs="+",
        help="the provider, or whatever else binds, or a model: `openai`, `together llama-3.3`",
    )
    parser.add_argument(
        "--use",
        required=True,
        help='as in x-intended-use: "purpose=train.sft, audience=internal"',
    )
    parser.add_argument("--model", help="the exact model id; its own terms may bind as well")
    parser.add_argument("--on", type=day, metavar="DAY", help="the day to rule for (today)")
    parser.add_argument(
        "--fact",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a fact that nobody declares: `account-tier=free`, `monthly-users=40000`",
    )
    parser.add_argument(
        "--route", choices=tuple(FACTS["access-route"].words), help="how the model is reached"
    )
    parser.add_argument(
        "--lift",
        action="append",
        default=[],
        metavar="POLICY:CLAUSE",
        help="as if a registered agreement lifted this clause",
    )
    parser.add_argument(
        "--agreement",
        metavar="ID",
        help="an agreement registered in this installation's ledger; with `--lift`, what the "
        "sentences call it",
    )
    parser.add_argument(
        "--project", default="default", help="with --agreement: whose use it is"
    )
    parser.add_argument(
        "--overlay", action="append", default=[], metavar="NAME", help="a law to be ruled by"
    )
    parser.add_argument(
        "--policies",
        dest="folder",
        metavar="FOLDER",
        type=Path,
        help="a folder of policies (the built-in ones)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    library = Library.load(read_policy_files(args.folder or builtin_policies()))
    register = _register(args) if args.agreement and not args.lift else None
    if register is not None:
        library = library.marked(register.stale)
    on = args.on or day_of(SystemClock().now_ms())
    explanation = _explained(library, args, on, register)
    if args.json:
        print(json.dumps(explanation.as_json(), indent=2, ensure_ascii=False))
    else:
        pins = explanation.decision.policies
        under = ", ".join(f"{pin.policy} (version {pin.version})" for pin in pins)
        print(f"Ruled for {on} under {under or 'no policy'}.")
        print("\n".join(explanation.sentences()))
    return 0 if explanation.decision.effect is Effect.PERMIT else 1


def _explained(
    library: Library, args: argparse.Namespace, on: dt.date, register: Register | None
) -> Explanation:
    asked, model = _asked(library, args.policies, args.model)
    named = [*asked, *args.overlay]
    for policy_id in named:
        if policy_id not in library.policies:
            known = ", ".join(library.providers)
            hint = nearest(policy_id, library.providers, f"known: {known}")
            raise NotFoundError(f"there is no policy `{policy_id}`", hint=hint)
    for policy_id in args.overlay:
        if library.policies[policy_id][0].kind != "overlay":
            hint = f"name it before `--use`: `gateway policy explain … {policy_id}`"
            raise NotFoundError(f"`{policy_id}` is no overlay", hint=hint)
    binding = library.binding(named, model, on)
    call = ProviderCall(provider=asked[0], operation=Operation.CHAT, model=model)
    use = parse_inline(args.use)
    registered = register.organisation if register is not None else NOTHING_REGISTERED
    facts = facts_of(use, call, registered, access_route=args.route, generated_on=on)
    for said in args.fact:
        facts = _with_fact(facts, said)
    bound = [policy.id for policy in binding.policies]
    if register is None:
        lifted = _lifted(library, args.lift, args.agreement or _AGREEMENT, bound, on)
    else:
        agreements = register.lifting([args.agreement])
        lifted = lifted_by(agreements, use, project=args.project, model=model, on=on)
    return explain(facts, binding.policies, on, absent=binding.absent, lifted=lifted)


def _register(args: argparse.Namespace) -> Register:
    """Return what is registered in the installation, which must know the agreement."""
    from gateway.app.installation import open_installation  # noqa: PLC0415  # it loads the server

    with contextlib.closing(open_installation(args)) as house:
        known = {facts.agreement for facts, _ in house.register.agreements()}
        if args.agreement not in known:
            hint = nearest(args.agreement, known, "`gateway agreement list` shows them")
            message = f"no agreement `{args.agreement[:40]}` is registered"
            raise NotFoundError(message, hint=hint)
        return house.register


def _asked(
    library: Library, named: Sequence[str], model: str | None
) -> tuple[Sequence[str], str | None]:
    """Return which policies are asked, and about which model.

    A model in their place is asked about under the provider whose terms come with it, or as
    weights that the organisation runs itself.
    """
    name = named[0]
    if len(named) > 1 or name in library.policies or name not in library.models:
        return named, model
    terms = [policy for policy in library.models[name] if policy != UNLISTED]
    providers = [one for one in terms if library.policies[one][0].kind == "provider"]
    return providers or [OPEN_WEIGHTS], name


def _with_fact(facts: Facts, said: str) -> Facts:
    """Return *facts* with what `--fact NAME=VALUE` says."""
    name, equals, text = said.partition("=")
    fact = FACTS.get(name)
    if fact is None or fact.origin == "derived" or fact.kind == "purpose" == name:
        hint = nearest(name, FACTS, f"known facts: {', '.join(FACTS)}")
        raise NotFoundError(f"there is no fact `{name}` to give", hint=hint)
    if not equals:
        raise NotFoundError(f"`--fact {name}` has no value", hint=f"write `{name}=…`")
    try:
        value: Value = value_of(fact, read(text, "--fact"), "--fact")
    except MalformedPolicyError as error:
        raise NotFoundError(f"`--fact {said}`: {_said(error)}", hint=error.hint) from error
    return facts.with_fact(name, value)


def _lifted(
    library: Library, lifts: Sequence[str], agreement: str, bound: Sequence[str], on: dt.date
) -> Lifted:
    """Return what the `--lift POLICY:CLAUSE` say; each must be a bar or a hold that binds."""
    lifted = {}
    for said in lifts:
        policy_id, _, clause = said.partition(":")
        try:
            check_lifts(library, policy_id, [clause], on)
        except MalformedPolicyError as error:
            raise NotFoundError(f"`--lift {said}`: {_said(error)}", hint=error.hint) from error
        if policy_id not in bound:
            raise NotFoundError(
                f"`--lift {said}`: the policy `{policy_id}` does not bind this use",
                hint=f"it is bound by {', '.join(bound)}",
            )
        lifted[policy_id, clause] = agreement
    return lifted


def _said(error: MalformedPolicyError) -> str:
    """Return what is wrong without the place: it stands on the command line."""
    return error.message.removeprefix(f"{error.file}:{error.line}: ")
