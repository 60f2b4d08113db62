"""Whose a resource is, which parts of a list one may see, and where addresses lead."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest

from gateway.errors import MalformedBodyError, NotFoundError
from gateway.exchange.forward import origin_of
from gateway.exchange.providers import Provider
from gateway.exchange.resources import Amendment, Resources, is_owner, upload_of
from gateway.exchange.states import Answered, Asked, Permitted, Principal
from gateway.ident import ExchangeId, Sha256, new_exchange_id
from gateway.intent.model import INFERENCE, Declaration, declaration_id
from gateway.limits import UPLOAD_S_MAX
from gateway.log import build_logger
from gateway.provider.catalogue import dialect_named
from gateway.provider.model import Answer, Choice, Made, Resource, Usage
from gateway.receipt.model import Ended
from gateway.store.index.rows import Kept

ADA = Principal(name="ada", project="search")
BOB = Principal(name="bob", project="search")
NOW_MS = 1_790_000_000_000
BASE = "https://api.example.com/base"
HERE = "https://gateway.example/openai"


@dataclass
class Written:
    """What some ledger knows of resources."""

    kept: list[Kept] = field(default_factory=list)
    open: list[ExchangeId] = field(default_factory=list)
    looked: int = 0
    """How often somebody looked what is under way."""

    def add(self, owner: Principal, kind: str, name: str, at_ms: int = NOW_MS) -> None:
        """Note that *owner* had a resource made."""
        one = Kept(
            leaf=len(self.kept),
            kind=kind,
            id=name,
            exchange=new_exchange_id(at_ms),
            project=owner.project,
            principal=owner.name,
        )
        self.kept.append(one)

    def resources(self, provider: str, kind: str, ids: Sequence[str]) -> dict[str, Kept]:
        """Return those of one kind."""
        return {one.id: one for one in self.kept if one.kind == kind and one.id in ids}

    def resources_named(self, provider: str, ids: Sequence[str]) -> list[Kept]:
        """Return those of any kind."""
        return [one for one in self.kept if one.id in ids]

    def under_way(self, provider: str, principal: str, project: str) -> set[ExchangeId]:
        """Return what is under way now: one less each time, and the last one told of `late`."""
        self.looked += 1
        if self.open:
            self.open.pop()
            if not self.open:
                self.add(Principal(name=principal, project=project), "response", "late")
        return set(self.open)


@dataclass
class Taken:
    """Remembers what later answers it was given."""

    given: list[str] = field(default_factory=list)

    async def take(self, answered: Answered, kept: Kept, provider: Provider) -> None:
        """Remember it."""
        self.given.append(kept.id)


def room(written: Written, *, managed: bool = True, later: Taken | None = None) -> Resources:
    """Return the room over what is *written*."""
    return Resources(
        known=written,
        later=later or Taken(),
        log=build_logger("info", io.StringIO()),
        managed=managed,
    )


def provider(dialect: str = "openai") -> Provider:
    """Return a provider below a path of its host."""
    return Provider(
        id=dialect,
        dialect=dialect_named(dialect),
        origin=origin_of(BASE),
        base_url=BASE,
        layers=(),
    )


def asked(
    method: str, target: str, body: Any = None, *, who: Principal = ADA, dialect: str = "openai"
) -> Asked:
    """Return a request as it was read."""
    path, _, query = target.partition("?")
    spoken = dialect_named(dialect)
    sent = b"" if body is None else json.dumps(body).encode()
    found = spoken.found(method, path, query)
    return Asked(
        exchange=new_exchange_id(NOW_MS),
        received_ms=NOW_MS,
        principal=who,
        declaration=Declaration(
            id=declaration_id(who.project, INFERENCE), project=who.project, use=INFERENCE
        ),
        declared=False,
        call=spoken.read_request(dialect, found, "application/json", sent),
        endpoint=f"{method} {BASE}{path}",
        body=sent,
    )


def answered(
    request: Asked,
    body: bytes,
    *,
    answer: Answer | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    ended: Ended = "complete",
    error: str | None = None,
) -> Answered:
    """Return an answer that waits whole."""
    return Answered(
        permitted=Permitted(
            asked=request,
            ruling=cast(Any, None),  # Nobody here reads the ruling.
            headers=(),
            opening=1,
        ),
        answer=answer or Answer(readable=True, whole=True),
        status=200,
        request_id=None,
        response_sha256=Sha256(hashlib.sha256(body).hexdigest()),
        response_bytes=len(body),
        ended=ended,
        error=error,
        reason=b"OK",
        headers=((b"content-length", b"%d" % len(body)), *headers),
        sized=True,
        held=body,
        head_sent=False,
    )


def amendment(
    here: Resources, request: Asked, dialect: str = "openai", **kept: Kept
) -> Amendment:
    """Return what is made of the answer to *request*."""
    found = here.amendment(
        request,
        provider(dialect),
        {Resource(one.kind, one.id): one for one in kept.values()},
        HERE.replace("openai", dialect),
    )
    assert found is not None
    return found


async def listed(here: Resources, body: bytes, **more: Any) -> Answered:
    """Return the list of files that *body* is, as ada gets it."""
    request = asked("GET", "/v1/files")
    return await amendment(here, request).finish(answered(request, body, **more), held=True)


# -- whose it is -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("principal", "project", "owns"),
    [("ada", "search", True), ("ada", "else", False), ("bob", "search", False)],
)
def test_principal_and_project_own_it(*, principal: str, project: str, owns: bool) -> None:
    """What one principal has made for one project is not that of its other projects."""
    written = Written()
    written.add(ADA, "file", "f")

    assert owns == is_owner(Principal(name=principal, project=project), written.kept[0])


@pytest.mark.parametrize("managed", [True, False], ids=["managed", "passthrough"])
async def test_nobody_reaches_what_another_had_made(*, managed: bool) -> None:
    """Whatever the mode: who had it made reaches it, and nobody else does."""
    written = Written()
    written.add(ADA, "file", "f")
    here = room(written, managed=managed)

    kept = await here.admit(asked("GET", "/v1/files/f"), provider())
    assert [Resource("file", "f")] == list(kept)
    with pytest.raises(NotFoundError, match="no such file: `f`") as caught:
        await here.admit(asked("GET", "/v1/files/f", who=BOB), provider())
    assert "resource.unknown" == caught.value.problem


async def test_what_nobody_knows_is_open_to_who_brings_a_key() -> None:
    """Callers who share a key may not have it; a key of one's own opens what it opens."""
    here = asked("GET", "/v1/files/f")

    assert {} == await room(Written(), managed=False).admit(here, provider())
    with pytest.raises(NotFoundError):
        await room(Written()).admit(here, provider())


async def test_ids_are_compared_as_the_provider_will_read_them() -> None:
    """An escaped letter in an id hides nothing, and keeps nobody from what is its own."""
    written = Written()
    written.add(ADA, "file", "file-1")
    for managed in (True, False):
        here = room(written, managed=managed)
        target = "/v1/files/%66ile%2D1"

        assert await here.admit(asked("GET", target), provider())
        with pytest.raises(NotFoundError):
            await here.admit(asked("GET", target, who=BOB), provider())


@pytest.mark.parametrize(
    "target",
    [
        "/v1/files/file-1/",
        "/v1//files/file-1",
        "/v1/files/./file-1",
        "/v1/files/other/../file-1",
        "/v1/files%2ffile-1",
        "/v1/files%252ffile-1",
        "/v1/FILES/file-1",
        "/v1/files/file-1;x=1",
        "/v1/files\\file-1",
        "/v1/unheard/file-1/of",
        "/v1/unheard?of=file-1",
        "/v1/unheard/of:file-1",
    ],
)
@pytest.mark.parametrize("managed", [True, False], ids=["managed", "passthrough"])
async def test_an_odd_path_leads_round_nothing(target: str, *, managed: bool) -> None:
    """What no reader here knows may not name what is somebody else's, however it is written."""
    written = Written()
    written.add(ADA, "file", "file-1")
    here = room(written, managed=managed)

    await here.admit(asked("GET", target), provider())
    with pytest.raises(NotFoundError):
        await here.admit(asked("GET", target, who=BOB), provider())


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b'{"a":[{"file":"file-123456789"}]}', None),
        (b'{"file-123456789":1}', None),
        (b'{"a":"files/file-123456789"}', None),
        (b'{"a":"file\\u002d123456789"}', None),
        (b"a=1&file=file-123456789&b=2", None),
        (b"--x\r\n\r\nfile-123456789\r\n--x--", None),
        (gzip.compress(b'{"a":"file-123456789"}'), "gzip"),
    ],
    ids=["value", "key", "path", "escaped", "form", "multipart", "gzip"],
)
async def test_an_operation_that_nobody_reads_names_nothing_of_anothers(
    body: bytes, encoding: str | None
) -> None:
    """Whatever it asks for: an id of somebody else's in its body is found."""
    written = Written()
    written.add(ADA, "file", "file-123456789")
    here = room(written)
    for who in (ADA, BOB):
        request = msgspec.structs.replace(asked("POST", "/v1/unheard/of", who=who), body=body)
        if who is ADA:
            await here.admit(request, provider(), encoding)
            continue
        with pytest.raises(NotFoundError):
            await here.admit(request, provider(), encoding)


async def test_words_that_cannot_be_read_go_no_further() -> None:
    """A body that does not decode could name anything."""
    request = msgspec.structs.replace(asked("POST", "/v1/unheard/of"), body=b"not gzip at all")
    for encoding in ("gzip", "unheard-of"):
        with pytest.raises(MalformedBodyError):
            await room(Written()).admit(request, provider(), encoding)


@pytest.mark.parametrize("managed", [True, False], ids=["managed", "passthrough"])
def test_only_what_nobody_reads_is_held_for_its_words(*, managed: bool) -> None:
    """And only where callers share a key."""
    here = room(Written(), managed=managed)
    opaque = asked("POST", "/v1/unheard/of").call.found
    chat = asked("POST", "/v1/chat/completions", {"model": "m", "messages": []}).call.found
    assert opaque is not None
    assert chat is not None

    assert managed == here.reads_words(opaque, streams=False)
    assert not here.reads_words(opaque, streams=True)
    assert not here.reads_words(chat, streams=False)


@pytest.mark.parametrize(
    "target", ["/v1/files/", "/v1//files", "/v1/%66iles", "/v1/x/../files?limit=9", "/V1/Files"]
)
async def test_an_odd_path_lists_nothing(target: str) -> None:
    """A list that nobody here takes for one could not be shortened, so it is not asked for."""
    here = asked("GET", target)

    await room(Written(), managed=False).admit(here, provider())
    with pytest.raises(NotFoundError, match="no list"):
        await room(Written()).admit(here, provider())
    await room(Written()).admit(asked("HEAD", target), provider())


async def test_all_of_what_is_named_must_be_ones_own() -> None:
    """One thing of another's among several is enough."""
    written = Written()
    written.add(ADA, "file", "mine")
    written.add(BOB, "file", "theirs")
    here = room(written)

    await here.owned(ADA, "openai", [Resource("file", "mine")])
    with pytest.raises(NotFoundError, match="theirs"):
        await here.owned(ADA, "openai", [Resource("file", one) for one in ("mine", "theirs")])


async def test_who_comes_back_faster_than_the_ledger_waits_for_it() -> None:
    """What a stream that was just left told of is its caller's, once its receipt is there."""
    written = Written(open=[new_exchange_id(NOW_MS) for _ in range(3)])
    found = await room(written).admit(asked("GET", "/v1/responses/late"), provider())

    assert [Resource("response", "late")] == list(found)
    assert 3 == written.looked


async def test_nobody_waits_for_what_nothing_under_way_can_tell() -> None:
    """Without an exchange of the same caller that is open, nobody looks a second time."""
    written = Written()
    with pytest.raises(NotFoundError):
        await room(written).admit(asked("GET", "/v1/responses/none"), provider())

    assert 1 == written.looked


# -- uploads ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("upload_id=a&upload_protocol=resumable", ["a"]),
        ("upload_protocol=resumable", []),
        ("upload_id=", []),
        ("x=upload_id", []),
        ("upload_id=a%2Fb", ["a/b"]),
    ],
)
def test_an_upload_is_named_in_the_query(query: str, ids: list[str]) -> None:
    """By one parameter, decoded."""
    assert ids == upload_of(query)


async def test_an_upload_may_go_on_for_a_while() -> None:
    """Who began it is known by its id, until it is too old, and never by two ids."""
    written = Written()
    written.add(ADA, "upload", "a")
    written.add(BOB, "upload", "b")
    here = room(written)
    last_ms = NOW_MS + UPLOAD_S_MAX * 1000

    found = await here.uploader("gemini", "upload_id=a", last_ms)
    assert found is not None
    assert "ada" == found.principal
    assert await here.uploader("gemini", "upload_id=a", last_ms + 1) is None
    assert await here.uploader("gemini", "upload_id=a&upload_id=b", NOW_MS) is None
    assert await here.uploader("gemini", "upload_id=c", NOW_MS) is None


async def test_who_begins_an_upload_owns_it() -> None:
    """Its id stands in a header of the answer, and becomes part of the receipt."""
    request = asked("POST", "/upload/v1beta/files", dialect="gemini")
    amends = amendment(room(Written()), request, "gemini")
    url = f"{BASE}/upload/v1beta/files?upload_id=u1&upload_protocol=resumable&key=secret"
    headers = amends.headers([(b"X-Goog-Upload-URL", url.encode()), (b"x-other", url.encode())])
    done = await amends.finish(answered(request, b""), held=False)

    led = f"{HERE.replace('openai', 'gemini')}/upload/v1beta/files?upload_id=u1"
    assert headers[0][1].startswith(led.encode())
    assert b"secret" not in headers[0][1]
    assert (b"x-other", url.encode()) == headers[1]
    assert (Made(resource=Resource("upload", "u1")),) == done.answer.made


# -- lists -----------------------------------------------------------------------------------

FILES = b'{"object":"list", "data":[{"id":"a"}, {"id":"b"},{"id":"c"}],"last_id":"c"}'


async def test_a_list_has_what_is_ones_own() -> None:
    """Where keys are shared, what is another's or nobody's is taken out; the rest stays."""
    written = Written()
    written.add(ADA, "file", "a")
    written.add(BOB, "file", "b")
    done = await listed(room(written), FILES)

    assert b'{"object":"list", "data":[{"id":"a"}],"last_id":"c"}' == done.held
    assert hashlib.sha256(done.held).hexdigest() == done.response_sha256
    assert len(done.held) == done.response_bytes
    assert done.rewritten is not None
    assert (hashlib.sha256(FILES).hexdigest(), len(FILES)) == (
        done.rewritten.sha256,
        done.rewritten.bytes,
    )
    assert ((b"content-length", b"%d" % len(done.held)),) == done.headers
    assert done.sized


async def test_a_list_under_ones_own_key_lacks_what_is_known_to_be_anothers() -> None:
    """What was made outside the gateway stays in it."""
    written = Written()
    written.add(ADA, "file", "a")
    written.add(BOB, "file", "b")
    done = await listed(room(written, managed=False), FILES)

    assert ["a", "c"] == [one["id"] for one in json.loads(done.held)["data"]]


async def test_a_list_that_is_all_ones_own_stays_as_it_came() -> None:
    """Nothing is written anew that need not be: not even an encoding is undone."""
    written = Written()
    for name in "abc":
        written.add(ADA, "file", name)
    packed = gzip.compress(FILES)
    done = await listed(room(written), packed, headers=((b"content-encoding", b"gzip"),))

    assert packed == done.held
    assert done.rewritten is None
    assert done.sized


async def test_an_encoded_list_goes_on_without_its_encoding() -> None:
    """The digest of the provider's own bytes is that of what it sent."""
    packed = gzip.compress(FILES, mtime=0)
    done = await listed(room(Written()), packed, headers=((b"content-encoding", b"gzip"),))

    assert [] == json.loads(done.held)["data"]
    assert done.rewritten is not None
    assert hashlib.sha256(packed).hexdigest() == done.rewritten.sha256


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b'{"data":[{"id":"a"}', b'{"data":["a"]}', b"\xff\xfe", b'"text"'],
)
async def test_a_list_that_nobody_can_read_is_not_passed_on(body: bytes) -> None:
    """Where keys are shared the caller gets an error of ours, and not a byte of the list."""
    done = await listed(room(Written()), body)

    assert b"" == done.held
    assert ("cut-short-by-provider", "provider.unreadable") == (done.ended, done.error)
    assert not done.answer.readable
    assert hashlib.sha256(body).hexdigest() == done.response_sha256


async def test_an_element_without_a_name_is_nobodys() -> None:
    """It is taken out where keys are shared."""
    done = await listed(room(Written()), b'{"data":[{"x":1}]}')

    assert b'{"data":[]}' == done.held


async def test_who_lists_has_nothing_made() -> None:
    """Whatever a reader takes a list to tell of: nobody owns a thing by looking at it."""
    told = Answer(readable=True, whole=True, made=(Made(resource=Resource("file", "a")),))
    done = await listed(room(Written(), managed=False), FILES, answer=told)

    assert () == done.answer.made


@pytest.mark.parametrize("ended", ["cut-short-by-caller", "cut-short-by-provider"])
async def test_a_list_that_broke_off_is_left_alone(ended: Ended) -> None:
    """It is not passed on in any case."""
    error = None if ended == "cut-short-by-caller" else "provider.broke_off"
    done = await listed(room(Written()), FILES[:20], ended=ended, error=error)

    assert done.rewritten is None
    assert (ended, error) == (done.ended, done.error)


async def test_what_stands_below_a_resource_is_its_owners() -> None:
    """A list inside of something that is one's own is passed on as it comes."""
    written = Written()
    written.add(ADA, "vector-store", "vs")
    request = asked("GET", "/v1/vector_stores/vs/files")
    amends = amendment(room(written), request, kept=written.kept[0])

    assert not amends.wants_plain
    done = await amends.finish(answered(request, FILES), held=False)
    assert FILES == done.held


# -- addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "led"),
    [
        ("https://api.anthropic.com/v1/x?a=1", "https://gateway.example/anthropic/v1/x?a=1"),
        (f"{BASE}/v1/x", "https://gateway.example/anthropic/v1/x"),
        ("https://api.example.com/v1/x", "https://gateway.example/anthropic/v1/x"),
        ("/v1/x", "/v1/x"),
        ("x", "x"),
        ("https://[broken/v1", "https://[broken/v1"),
    ],
)
async def test_where_results_are_leads_here(said: str, led: str) -> None:
    """Whatever host a batch's results are said to be at, they are asked for here."""
    request = asked("GET", "/v1/messages/batches/b", dialect="anthropic")
    written = Written()
    written.add(ADA, "batch", "b")
    amends = amendment(room(written), request, "anthropic", kept=written.kept[0])
    body = json.dumps({"id": "b", "results_url": said}).encode()
    done = await amends.finish(answered(request, body), held=True)

    assert led == json.loads(done.held)["results_url"]


@pytest.mark.parametrize(
    ("said", "led"),
    [
        ("/v1/realtime/calls/c", "/openai/v1/realtime/calls/c"),
        ("/base/v1/realtime/calls/c", "/openai/v1/realtime/calls/c"),
        (f"{BASE}/v1/realtime/calls/c?a=b", f"{HERE}/v1/realtime/calls/c?a=b"),
        ("https://storage.example.com/x?signed=1", "https://storage.example.com/x?signed=1"),
        ("//api.example.com/x", "//api.example.com/x"),
        ("c", "c"),
    ],
)
def test_a_location_at_the_provider_leads_here(said: str, led: str) -> None:
    """A path of the provider's gets its prefix; other hosts stay what they are."""
    request = asked("POST", "/v1/realtime/calls", {})
    headers = amendment(room(Written()), request).headers([(b"Location", said.encode())])

    assert [(b"Location", led.encode())] == headers


def test_what_a_model_makes_passes_as_it_comes() -> None:
    """Nothing is held, and nothing looked at, where there is nothing to change."""
    body = {"model": "m", "messages": []}
    request = asked("POST", "/v1/chat/completions", body)

    assert room(Written()).amendment(request, provider(), {}, HERE) is None


# -- later answers ---------------------------------------------------------------------------

SAID = Answer(
    readable=True,
    whole=True,
    id="r",
    choices=(Choice(index=0, text="good day", finish_reason="completed"),),
    usage=Usage(output_tokens=2),
)


async def fetched(
    answer: Answer, *, target: str = "/v1/responses/r", **more: Any
) -> tuple[Answered, list[str]]:
    """Return the fetch of a response as it is sealed, and what was taken for an item."""
    written, later = Written(), Taken()
    written.add(ADA, "response", "r")
    request = asked("GET", target)
    here = room(written, later=later)
    amends = amendment(here, request, kept=written.kept[0])
    given = answered(request, b"{}", answer=answer, **more)
    return await amends.finish(given, held=False), later.given


async def test_the_fetch_has_no_units_of_its_own() -> None:
    """Units and usage are the item's."""
    done, given = await fetched(SAID)

    assert ["r"] == given
    assert ((), (), None) == (done.answer.choices, done.answer.units, done.answer.usage)


@pytest.mark.parametrize(
    ("answer", "more"),
    [
        (Answer(readable=True, whole=True, id="r", pending=True), {}),
        (Answer(readable=True, whole=False, id="r", choices=SAID.choices), {}),
        (Answer(readable=False, whole=False), {}),
        (SAID, {"ended": "cut-short-by-caller"}),
        (SAID, {"ended": "cut-short-by-provider", "error": "provider.broke_off"}),
    ],
    ids=["pending", "torn", "opaque", "left", "broken"],
)
async def test_only_a_whole_answer_is_an_item(answer: Answer, more: dict[str, Any]) -> None:
    """What has not come yet, or not whole, is left to the next fetch."""
    _, given = await fetched(answer, **more)

    assert [] == given


async def test_what_stands_below_a_response_is_no_answer() -> None:
    """Its input items are digested, and are nobody's output."""
    done, given = await fetched(SAID, target="/v1/responses/r/input_items")

    assert [] == given
    assert done.answer.usage is None
