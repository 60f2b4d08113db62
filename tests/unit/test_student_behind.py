"""What a server shows that answers in a student's place; real servers on loopback."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from aiohttp import web

from gateway.cli.main import main
from gateway.errors import CallerError, GateError, MissingPieceError
from gateway.receipt.keys import format_trust
from gateway.student.behind import (
    ANSWER_BYTES_MAX,
    Behind,
    _as_evaluated,
    _begun_alike,
    look_behind,
    settings_for,
)
from gateway.student.speech import MANIFEST_HEADER
from gateway.student.verify import VerifiedModel, verify_model
from tests.support.dataset import House
from tests.support.evidence import TRUST
from tests.support.model import a_model
from tests.support.views import SAMPLES

Say = Callable[[str], str]
Lie = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VerifiedModel]:
    """Return a student that verifies."""
    house = House(tmp_path_factory.mktemp("house"))
    yield verify_model(a_model(house), TRUST)
    house.close()


def as_evaluated(asked: str) -> str:
    """Answer each sample as the student did."""
    by = {sample.prompt[-1]["content"]: sample.student for sample in SAMPLES}
    return by[asked]


@contextmanager
def server(
    listed: list[dict[str, Any]],
    say: Say = as_evaluated,
    key: str | None = None,
    lie: Lie | None = None,
) -> Iterator[str]:
    """Serve OpenAI's shape as vLLM does, or answer with *lie*; yield its address."""
    application = web.Application()

    def refused(request: web.Request) -> bool:
        return key is not None and request.headers.get("authorization") != f"Bearer {key}"

    async def models(request: web.Request) -> web.Response:
        if refused(request):
            return web.json_response({"error": "Unauthorized"}, status=401)
        return web.json_response({"object": "list", "data": listed})

    async def chat(request: web.Request) -> web.StreamResponse:
        if lie is not None:
            return await lie(request)
        asked = await request.json()
        said = say(asked["messages"][-1]["content"])
        message = {"role": "assistant", "content": said}
        return web.json_response({"choices": [{"index": 0, "message": message}]})

    application.router.add_get("/v1/models", models)
    application.router.add_post("/v1/chat/completions", chat)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runner = web.AppRunner(application)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port: int = runner.addresses[0][1]
        return port

    port = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def a_listing(model: VerifiedModel, **said: str) -> list[dict[str, Any]]:
    """Return what vLLM lists where it serves the folder of *model*."""
    entry = {"id": str(model.path), "object": "model", "root": str(model.path.resolve())}
    return [entry | said]


def test_a_server_of_the_same_folder_is_recognised(model: VerifiedModel) -> None:
    """Where it says that it serves the folder that was verified, that is seen by path."""
    with server(a_listing(model, id="anything")) as url:
        behind = look_behind(url, model)

    assert (behind.same_folder, behind.model) == (True, "anything")
    assert (behind.answered, behind.asked) == (2, 2)


def test_a_server_elsewhere_is_known_by_name_and_answers(model: VerifiedModel) -> None:
    """From another machine its name is all there is, and that it answers as was signed."""
    with server([{"id": "other"}, {"id": "parser", "root": "/models/parser"}]) as url:
        behind = look_behind(url, model)
        settings = yaml.safe_load(settings_for(behind, model))

    assert (behind.same_folder, behind.model) == (False, "parser")
    assert settings["providers"]["parser"] == {
        "base_url": url.removesuffix("/v1"),
        "route": "self-hosted",
        "student": str(model.path.resolve()),
    }


def test_a_server_of_another_model_is_refused(model: VerifiedModel) -> None:
    """A server that lists no such student is none of it, and what it lists is said."""
    with (
        server([{"id": "gpt\x1b[31m"}]) as url,
        pytest.raises(GateError, match="lists `gpt") as refused,
    ):
        look_behind(url, model)

    assert refused.value.problem == "student.not_served"
    assert "\x1b" not in str(refused.value)


def test_other_weights_under_the_name_are_found_out(model: VerifiedModel) -> None:
    """A server that answers no sample as the student did serves something else."""
    with (
        server([{"id": "parser"}], lambda _: "something else") as url,
        pytest.raises(GateError, match="none of 2 samples") as refused,
    ):
        look_behind(url, model)

    assert refused.value.problem == "student.behind_differs"


def test_by_path_other_kernels_may_change_an_end_and_not_a_beginning(
    model: VerifiedModel,
) -> None:
    """A path that a server names is worth as much as its answers: they must begin alike."""
    with (
        server(a_listing(model), lambda asked: as_evaluated(asked)[:-1] + "?") as url,
        pytest.raises(GateError, match="none of 2 samples"),
    ):
        look_behind(url, model)
    long = msgspec.structs.replace(SAMPLES[0], student="amber delta amber delta amber delta")

    assert _begun_alike("amber delta amber delta ember", long.student)
    assert not _as_evaluated("amber delta amber delta ember", long.student)
    assert not _begun_alike("ember", "")


async def another_model(request: web.Request) -> web.StreamResponse:
    """Answer the right words in the name of another model."""
    said = as_evaluated((await request.json())["messages"][-1]["content"])
    message = {"role": "assistant", "content": said}
    return web.json_response({"model": "gpt\x1b[1m", "choices": [{"message": message}]})


async def garbage(request: web.Request) -> web.StreamResponse:
    """Answer with a page for people."""
    return web.Response(text="<html>welcome</html>", content_type="text/html")


async def no_choice(request: web.Request) -> web.StreamResponse:
    """Answer in the right shape, and nothing."""
    return web.json_response({"choices": []})


async def broken_off(request: web.Request) -> web.StreamResponse:
    """Begin an answer and hang up."""
    response = web.StreamResponse(headers={"content-length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "amber')
    assert request.transport is not None
    request.transport.close()
    return response


async def elsewhere(request: web.Request) -> web.StreamResponse:
    """Send whoever asks to another house."""
    raise web.HTTPTemporaryRedirect("http://evil.example/v1/chat/completions")


async def endless(request: web.Request) -> web.StreamResponse:
    """Answer with more than anybody would read."""
    return web.Response(body=b" " * (ANSWER_BYTES_MAX + 1))


async def unwell(request: web.Request) -> web.StreamResponse:
    """Fail."""
    return web.Response(status=500)


async def another_manifest(request: web.Request) -> web.StreamResponse:
    """Answer the right words for another student's manifest."""
    said = as_evaluated((await request.json())["messages"][-1]["content"])
    message = {"role": "assistant", "content": said}
    answer = {"model": "parser", "choices": [{"message": message}]}
    return web.json_response(answer, headers={MANIFEST_HEADER: "e" * 64})


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        (another_model, "was asked for `parser` and answers as `gpt"),
        (another_manifest, "training manifest eeee"),
        (garbage, "in no shape that is known"),
        (no_choice, "in no shape that is known"),
        (broken_off, "breaks off within its answer to /v1/chat/completions"),
        (elsewhere, r"sends /v1/chat/completions on to http://evil\.example"),
        (endless, "with more than"),
        (unwell, "status 500; hint: look into the server's own log"),
    ],
)
def test_a_lie_that_shows_is_a_line(model: VerifiedModel, lie: Lie, told: str) -> None:
    """What can be seen from outside is refused in one line, and never followed."""
    with (
        server([{"id": "parser"}], lie=lie) as url,
        pytest.raises((GateError, MissingPieceError), match=told) as refused,
    ):
        look_behind(url, model)

    assert str(refused.value).isprintable()


def test_a_lie_that_does_not_show_passes(model: VerifiedModel) -> None:
    """Whoever names the folder and knows its samples can't be told from the student."""
    with server(a_listing(model)) as url:
        behind = look_behind(url, model)

    assert (behind.same_folder, behind.answered) == (True, 2)


def test_a_folder_of_any_name_stands_in_the_settings_as_it_is(
    model: VerifiedModel, tmp_path: Path
) -> None:
    """Signs that mean something in YAML are put into quotes."""
    behind = Behind(
        url="http://127.0.0.1:8000", model="parser", same_folder=True, answered=0, asked=0
    )
    odd = tmp_path / "a: b #1"
    odd.mkdir()
    settings = yaml.safe_load(settings_for(behind, dataclasses.replace(model, path=odd)))

    assert settings["providers"]["parser"]["student"] == str(odd.resolve())


def test_a_server_that_wants_a_key_is_given_it(model: VerifiedModel) -> None:
    """With the key it answers; without, one line says what to do."""
    with server(a_listing(model), key="k-1") as url:
        assert look_behind(url, model, "k-1").same_folder
        with pytest.raises(MissingPieceError, match="status 401"):
            look_behind(url, model)


def test_nobody_there_and_no_address_are_each_a_line(model: VerifiedModel) -> None:
    """A server that isn't there is missing; what is no address is the caller's."""
    with server([]) as url:
        gone = url
    with pytest.raises(MissingPieceError, match="can't be asked"):
        look_behind(gone, model)
    for address in ("ftp://x", "http://", "no address", "http://[::1", "http://x:99999"):
        with pytest.raises(CallerError, match="is not the address"):
            look_behind(address, model)


def test_the_command_prints_what_was_seen_and_the_settings(
    model: VerifiedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Verified first, then looked at; what can't be known is said, then the settings."""
    trust = tmp_path / "trust.json"
    trust.write_bytes(format_trust(TRUST))
    words = ["student", "serve", str(model.path), "--trust", str(trust), "--behind"]
    with server(a_listing(model)) as url:
        code = main([*words, url])
    told = capsys.readouterr().out

    assert code == 0
    assert "ok   weights" in told
    assert "ok   samples    2 of 2" in told
    assert "nobody can prove" in told
    assert f"    student: {model.path.resolve()}" in told
