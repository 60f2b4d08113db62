"""Whatever ends a pack early, nothing of it is left, and one line says so."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.cli.lineage_ask import until_packed
from gateway.errors import OperatorError
from gateway.ident import Sha256
from gateway.lineage.pack import Order, write_pack
from gateway.lineage.question import parse_question
from tests.support.chain import Chain, two_stages


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Chain, Sha256]]:
    """Return a chain of two stages, and its last student."""
    chain = Chain(tmp_path_factory.mktemp("stopped") / "house")
    _, reader = two_stages(chain)
    yield chain, reader
    chain.close()


def packing(
    world: tuple[Chain, Sha256], out: Path, progress: Callable[[int, int], None] | None = None
) -> Callable[[], int]:
    """Return the work of writing a pack."""
    chain, reader = world
    order = Order(
        about=chain.about(reader), questions=(parse_question("distilled-from:*"),), out=out
    )

    def work() -> int:
        write_pack(order, chain.sources_of_packs(), progress)
        return 0

    return work


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pack_that_is_told_to_stop_leaves_nothing(
    world: tuple[Chain, Sha256],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    """Told to stop while it writes leaves, it clears up; whoever asks again gets it whole."""
    handler = signal.getsignal(number)
    out = tmp_path / "out" / "pack.zip"

    def stop(done: int, total: int) -> None:
        if done == 3:
            signal.raise_signal(number)

    left = until_packed(out, packing(world, out, stop))

    said = capsys.readouterr().err
    assert 128 + number == left
    assert said.startswith("gateway: pack.interrupted: ")
    assert 1 == said.count("\n")
    assert [] == list(out.parent.iterdir())
    assert handler == signal.getsignal(number)
    assert 0 == until_packed(out, packing(world, out))
    assert [out] == list(out.parent.iterdir())


def test_clearing_up_is_not_interrupted(
    world: tuple[Chain, Sha256], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever says it twice is not answered twice."""

    def work() -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
        return 0

    assert 130 == until_packed(tmp_path / "pack.zip", work)
    assert 1 == capsys.readouterr().err.count("\n")


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_a_full_disk_leaves_nothing(
    world: tuple[Chain, Sha256], tmp_path: Path, part: float
) -> None:
    """Where no more can be written, of the leaves or of the zip file, one line says so."""
    out = tmp_path / "out" / "pack.zip"
    chain, reader = world
    order = Order(
        about=chain.about(reader), questions=(parse_question("distilled-from:*"),), out=out
    )
    sources = chain.sources_of_packs()
    assert 0 == packing(world, tmp_path / "whole.zip")()
    size = int(part * ((tmp_path / "whole.zip").stat().st_size - 1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        with pytest.raises(OperatorError, match="could not be written") as refused:
            write_pack(order, sources)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert "disk.unwell" == refused.value.problem
    assert [] == list(out.parent.iterdir())
