"""The log under `/-/log/`, as any client of C2SP's tlog-tiles reads it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.app.running import Gateway
from gateway.errors import LedgerUnwellError
from gateway.receipt.verify import verify_checkpoint
from gateway.tlog.merkle import leaf_hash
from gateway.tlog.tile import decode_entries, format_path, tiles_of
from tests.support.caller import Answer, Caller
from tests.support.foreign import build_go_verifier
from tests.support.house import CHAT, RawProvider, completion, gateway_in, sized
from tests.support.store import an_exchange_id, an_opening, brittle_disk

LEAVES = 600


@pytest.fixture
async def provider() -> AsyncIterator[RawProvider]:
    """Return a provider on a plain socket."""
    async with RawProvider().listening() as listening:
        listening.steps = [sized(completion("good day"))]
        yield listening


@pytest.fixture
async def gateway(tmp_path: Path, provider: RawProvider) -> AsyncIterator[Gateway]:
    """Return a gateway whose log has two full tiles and some more leaves."""
    async with gateway_in(tmp_path, provider.url) as running:
        await fill(running)
        yield running


@pytest.fixture
async def managed(tmp_path: Path, provider: RawProvider) -> AsyncIterator[Gateway]:
    """Return such a gateway with keys of its own."""
    more = "  spare:\n    base_url: http://127.0.0.1:1\nkeys: managed\n"
    async with gateway_in(tmp_path / "managed", provider.url, more) as running:
        await fill(running)
        yield running


async def fill(gateway: Gateway) -> None:
    """Add openings until the log has its size, and have a checkpoint published."""
    sequencer = gateway.installation.sequencer
    missing = LEAVES - await asyncio.to_thread(gateway.installation.reader.size)
    openings = [an_opening(an_exchange_id(number)) for number in range(missing)]
    await asyncio.gather(*map(sequencer.append, openings))
    await asyncio.to_thread(sequencer.checkpoint_now)


async def look(
    gateway: Gateway, path: str, *headers: tuple[str, str], method: str = "GET"
) -> Answer:
    """Ask for one file of the log."""

    def talk() -> Answer:
        with Caller(gateway.port) as caller:
            return caller.ask(method, f"/-/log/{path}", headers)

    return await asyncio.to_thread(talk)


async def test_a_client_reads_the_whole_log(gateway: Gateway, tmp_path: Path) -> None:
    """Checkpoint and tiles, fetched one by one, are a folder that Go's own code accepts."""
    trust = gateway.installation.keyring.trust
    folder = tmp_path / "mirror"

    def mirror() -> None:
        folder.mkdir()
        with Caller(gateway.port) as caller:
            note = caller.ask("GET", "/-/log/checkpoint").body
            (folder / "checkpoint").write_bytes(note)
            for tile in tiles_of(verify_checkpoint(note.decode(), trust).size):
                answer = caller.ask("GET", f"/-/log/{format_path(tile)}")
                assert 200 == answer.status
                path = folder / format_path(tile)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(answer.body)

    await asyncio.to_thread(mirror)
    go = await asyncio.to_thread(build_go_verifier, tmp_path)

    assert f"folder of {LEAVES} leaves" in await asyncio.to_thread(
        go.accepts, "folder", trust.log, folder
    )


@pytest.mark.parametrize("path", ["tile/0/000", "tile/0/002.p/88", "tile/1/000.p/2"])
async def test_a_tile_may_be_kept_for_ever(path: str, gateway: Gateway) -> None:
    """Hashes never change: they say so to every cache, and that they are bytes."""
    answer = await look(gateway, path)

    assert (200, "application/octet-stream") == (answer.status, answer.header("content-type"))
    assert "max-age=31536000, immutable" == answer.header("cache-control")
    assert 0 == len(answer.body) % 32


async def test_a_checkpoint_is_not_kept(gateway: Gateway) -> None:
    """A checkpoint is asked for anew each time."""
    answer = await look(gateway, "checkpoint")

    assert "no-cache" == answer.header("cache-control")
    assert "text/plain; charset=utf-8" == answer.header("content-type")


async def test_leaves_are_packed_for_who_reads_gzip(gateway: Gateway) -> None:
    """A bundle is the same bytes, packed or not, and packed only where that is asked for."""
    plain = await look(gateway, "tile/entries/001")
    packed = await look(gateway, "tile/entries/001", ("accept-encoding", "br, gzip;q=0.5"))
    declined = await look(gateway, "tile/entries/001", ("accept-encoding", "gzip;q=0, br"))
    hashes = await look(gateway, "tile/0/001")

    assert 256 == len(decode_entries(plain.body))
    assert hashes.body == b"".join(map(leaf_hash, decode_entries(plain.body)))
    assert ("gzip", plain.body) == (
        packed.header("content-encoding"),
        gzip.decompress(packed.body),
    )
    assert (None, plain.body) == (declined.header("content-encoding"), declined.body)
    assert "private, max-age=31536000, immutable" == plain.header("cache-control")
    assert "accept-encoding" == plain.header("vary")


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/002",
        "tile/0/002.p/89",
        "tile/0/003.p/1",
        "tile/1/000",
        "tile/2/000.p/1",
        "tile/entries/002.p/89",
        "tile/entries/x999/999.p/1",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/0",
        "tile/9/000",
        "tile/data/000",
        "tile/0/x000/000",
        "tile/0/000/",
        "tile/",
        "tile",
        "tile/0/%30%30%30",
        "tile/../checkpoint",
    ],
)
async def test_what_is_not_there_is_not_found(path: str, gateway: Gateway) -> None:
    """A tile beyond the checkpoint, or a path in another form, is a 404 that no cache keeps."""
    answer = await look(gateway, path)

    assert 404 == answer.status
    assert "no-cache" == answer.header("cache-control")
    assert "application/problem+json" == answer.header("content-type")


async def test_a_narrower_tile_is_still_served(gateway: Gateway) -> None:
    """Whoever holds an older checkpoint gets the tiles of its size, full as they are by now."""
    full = await look(gateway, "tile/0/001")
    part = await look(gateway, "tile/0/001.p/10")
    leaves = await look(gateway, "tile/entries/001.p/10")

    assert full.body[: 10 * 32] == part.body
    assert part.body == b"".join(map(leaf_hash, decode_entries(leaves.body)))


async def test_a_query_changes_nothing(gateway: Gateway) -> None:
    """A tile's name is its path."""
    assert 200 == (await look(gateway, "tile/0/000?fresh=1")).status


async def test_a_head_has_the_headers_alone(gateway: Gateway) -> None:
    """Whoever only wants to know whether a tile is there sends a HEAD."""
    there = await look(gateway, "tile/0/000", method="HEAD")
    absent = await look(gateway, "tile/0/777", method="HEAD")

    assert (200, b"") == (there.status, there.body)
    assert "max-age=31536000, immutable" == there.header("cache-control")
    assert 404 == absent.status


@pytest.mark.parametrize(
    ("roles", "hashes", "leaves"),
    [
        (("caller",), 200, 401),
        (("auditor",), 200, 200),
        (("legal",), 200, 200),
        (("operator",), 200, 200),
    ],
)
async def test_leaves_are_for_who_may_read_all(
    roles: tuple[str, ...], hashes: int, leaves: int, managed: Gateway
) -> None:
    """Any key reads hashes; the leaves are everyone's, so only some roles read them."""
    secret = managed.installation.access.new("ada", "search", roles)
    key = ("authorization", f"Bearer {secret}")

    assert hashes == (await look(managed, "tile/0/000", key)).status
    found = await look(managed, "tile/entries/000", key)
    assert leaves == found.status
    if leaves == 401:
        assert "credential.narrow" == json.loads(found.body)["code"]


async def test_without_a_key_there_is_the_checkpoint_alone(managed: Gateway) -> None:
    """Where keys are managed a stranger sees how long the log is, and no tile."""
    assert 200 == (await look(managed, "checkpoint")).status
    assert 401 == (await look(managed, "tile/0/000")).status
    assert 401 == (await look(managed, "tile/entries/000")).status
    assert 401 == (await look(managed, "tile/nothing")).status


async def test_a_log_that_can_not_grow_is_still_read(
    tmp_path: Path, provider: RawProvider
) -> None:
    """While nothing can be published, the newest checkpoint and its tiles stay there."""
    with brittle_disk() as disk:
        async with gateway_in(tmp_path, provider.url) as gateway:
            await fill(gateway)
            before = await look(gateway, "checkpoint")
            disk.full = True
            with pytest.raises(LedgerUnwellError):
                await gateway.installation.sequencer.append(an_opening(an_exchange_id(9_999)))
            after = await look(gateway, "checkpoint")
            tile = await look(gateway, "tile/entries/002.p/88")
            disk.full = False

    assert (200, before.body) == (after.status, after.body)
    assert 200 == tile.status


async def test_the_door_stays_open_while_tiles_are_read(
    gateway: Gateway, provider: RawProvider
) -> None:
    """Many readers of leaves at once do not keep a caller's exchange from its receipt."""

    def talk(method: str, path: str, body: bytes) -> int:
        with Caller(gateway.port) as caller:
            return caller.ask(method, path, (), body).status

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(16) as callers:
        reading = [
            loop.run_in_executor(callers, talk, "GET", "/-/log/tile/entries/000", b"")
            for _ in range(12)
        ]
        asking = ("POST", "/open/v1/chat/completions", json.dumps(CHAT).encode())
        asked = await loop.run_in_executor(callers, talk, *asking)
        read = await asyncio.gather(*reading)

    assert (200, {200}) == (asked, set(read))
