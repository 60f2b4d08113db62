"""The desk: what a request is for, in words, by id, by its key's default, or nothing."""

from __future__ import annotations

import pytest

from gateway.errors import MalformedDeclarationError, UnknownDeclarationError
from gateway.exchange.states import Principal
from gateway.intent.model import INFERENCE, IntendedUse, declaration_id
from gateway.ledger.reading.register import Register
from gateway.proxy.desk import Desk
from gateway.receipt.model import DeclarationFacts, Statement
from tests.support.house import TRAINING, WRITER

ADA = Principal(name="ada", project="search")
NAMED = declaration_id("search", TRAINING)
FACTS = DeclarationFacts(
    declaration=NAMED,
    project="search",
    use=TRAINING,
    owner="grace",
    expires="2027-01-01",
    at="2026-11-22T00:00:00.000Z",
    writer=WRITER,
)


class Elsewhere:
    """What other processes wrote, and how often somebody looked."""

    def __init__(self, *statements: Statement) -> None:
        self.statements = list(enumerate(statements))
        self.looks = 0

    def __call__(self) -> list[tuple[int, Statement]]:
        """Return it."""
        self.looks += 1
        return self.statements


async def test_nothing_declared_is_inference() -> None:
    """Without a word a request is ruled on for the narrowest purpose, and is not declared."""
    declaration, declared = await Desk(Register(), Elsewhere()).declared(None, ADA)

    assert (INFERENCE, "search", False) == (declaration.use, declaration.project, declared)


async def test_a_use_can_be_said_inline() -> None:
    """The words themselves are a declaration, whose id is that of the same words registered."""
    header = "purpose=train.sft, student=parser"
    declaration, declared = await Desk(Register(), Elsewhere()).declared(header, ADA)

    assert (NAMED, TRAINING, True) == (declaration.id, declaration.use, declared)
    assert declaration.expires is None


async def test_registered_words_bring_their_expiry() -> None:
    """Who says inline what is registered can't get around its expiry and owner."""
    register = Register()
    desk = Desk(register, Elsewhere())
    header = "purpose=train.sft, student=parser"
    await desk.declared(header, ADA)
    register.apply(0, FACTS)
    declaration, _ = await desk.declared(header, ADA)

    assert ("2027-01-01", "grace") == (declaration.expires, declaration.owner)


async def test_an_id_registered_elsewhere_is_found() -> None:
    """A declaration that another process registered just now can be cited at once."""
    elsewhere = Elsewhere(FACTS)
    register = Register()
    desk = Desk(register, elsewhere)
    first, declared = await desk.declared(NAMED, ADA)
    await desk.declared(NAMED, ADA)

    assert (NAMED, True, 1) == (first.id, declared, elsewhere.looks)


@pytest.mark.parametrize("project", ["search", "other"])
async def test_a_declaration_is_its_projects_alone(project: str) -> None:
    """An id is good in the project that registered it, and unknown elsewhere."""
    desk = Desk(Register(), Elsewhere(FACTS))
    principal = Principal(name="ada", project=project)
    if project == "search":
        assert NAMED == (await desk.declared(NAMED, principal))[0].id
    else:
        with pytest.raises(UnknownDeclarationError, match="other"):
            await desk.declared(NAMED, principal)


async def test_a_keys_default_is_cited_unless_another_is() -> None:
    """A header goes before the key's default declaration; without one the default counts."""
    desk = Desk(Register(), Elsewhere(FACTS))
    principal = Principal(name="ada", project="search", declaration=NAMED)
    by_default, declared = await desk.declared(None, principal)
    said, _ = await desk.declared("purpose=evaluate", principal)

    assert (NAMED, True) == (by_default.id, declared)
    assert IntendedUse(purpose="evaluate") == said.use


@pytest.mark.parametrize("header", ["purpose", "use-1", "purpose=conquest", "\xff", "a" * 9000])
async def test_what_cant_be_read_is_refused(header: str) -> None:
    """A use that can't be read is an error, and never taken for inference."""
    with pytest.raises(MalformedDeclarationError):
        await Desk(Register(), Elsewhere()).declared(header, ADA)


async def test_the_memory_of_headers_has_an_end() -> None:
    """Endless declarations don't make the memory of them endless."""
    desk = Desk(Register(), Elsewhere())
    for number in range(5000):
        await desk.declared(f"purpose=train, student=s{number}", ADA)

    assert len(desk._parsed) <= 4096
