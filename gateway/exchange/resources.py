"""What is kept at a provider belongs to who had it made: no one else reaches or sees it.

The ledger knows: the first statement that tells of a resource had it made. Its principal and
project own it, also when others ask with the same key of the provider, and also after it was
deleted. Where keys are managed, what the ledger does not know may be anybody's, so it is
nobody's; where callers bring their own key of the provider, that key opens it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
import orjson

from gateway.canonical import sha256_hex
from gateway.errors import MalformedBodyError, NotFoundError, ProviderUnreadableError
from gateway.exchange.forward import ProviderResponse, RawHeaders
from gateway.exchange.providers import Provider
from gateway.exchange.states import Answered, Asked, Principal
from gateway.ident import ExchangeId, made_at_ms
from gateway.limits import UNDER_WAY_S_MAX, UPLOAD_S_MAX
from gateway.log import Logger
from gateway.provider.encoding import UNREADABLE, decoder_for
from gateway.provider.model import OPAQUE_ROUTE, Answer, Found, Made, Operation, Resource
from gateway.provider.spans import NoJsonError, arrays_of, replaced, without
from gateway.receipt.model import RewrittenFacts
from gateway.store.index.rows import Kept

UNKNOWN: Final = "resource.unknown"
UPLOAD: Final = "upload"
_TOLD_EARLY: Final = frozenset({"response", "completion", "interaction", "container"})
"""Kinds whose ids a stream tells its caller before its receipt is written."""

_PAUSE_S: Final = 0.01
_BODILESS: Final = ("HEAD ", "OPTIONS ")
_METHODS: Final = ("GET", "POST", "DELETE", "PATCH", "PUT")
_ID_CHARS_TOLD_MAX: Final = 64
_ID_CHARS_MIN: Final = 6
_ID_CHARS_MAX: Final = 512
_WORD: Final = re.compile(rb"[A-Za-z0-9_~.-]{12,256}")
"""What could be an id in bytes that are no JSON; those of providers are no shorter."""

_PARTS: Final = re.compile(r"[/:;,?&=#\s]+")
"""What parts an address, or a list written as text, into words."""

_ODD: Final = re.compile(r"(?i)%2[ef]|%5c|\\|//|/\.\.?(?:/|$)")
"""What makes another path of one, if a provider is lenient."""

_ODD_MAX: Final = 3
"""How often a path may be percent-encoded over; nobody decodes more often."""

_GENERATING: Final = frozenset(
    {
        Operation.CHAT,
        Operation.COMPLETION,
        Operation.EMBEDDING,
        Operation.MODERATION,
        Operation.IMAGE,
        Operation.SPEECH,
        Operation.TRANSCRIPTION,
        Operation.TOKEN_COUNT,
    }
)
"""Operations whose answers hold no list, no address and nothing that was made before."""

_LINKS: Final = ("results_url", "next", "nextLink", "next_url", "next_page_url")
"""Keys under which answers say where to go on; what is there may lead past the gateway."""

_LINKED: Final = frozenset({Operation.BATCH})
"""Operations, beside lists, whose answers may hold such an address."""
_UPLOAD_HEADERS: Final = (b"x-goog-upload-url", b"x-goog-upload-control-url")


class Known(Protocol):
    """What the ledger knows of resources; all of it may block."""

    def resources(self, provider: str, kind: str, ids: Sequence[str]) -> dict[str, Kept]:
        """Return what is known of resources of one *kind* at *provider*, by their ids."""
        ...

    def resources_named(self, provider: str, ids: Sequence[str]) -> list[Kept]:
        """Return what is known of resources at *provider* of those ids, of whatever kind."""
        ...

    def under_way(self, provider: str, principal: str, project: str) -> set[ExchangeId]:
        """Return the exchanges of *principal* with *provider* that are not closed as yet."""
        ...


class Later(Protocol):
    """Makes an item of an answer that comes after the exchange that asked for it."""

    async def take(self, answered: Answered, kept: Kept, provider: Provider) -> None:
        """Seal what *answered* brings of a resource, once; durable on return.

        Raises:
            LedgerUnwellError: it could not be written.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Who may reach what at the providers; built once, in `app/`."""

    known: Known
    later: Later
    log: Logger
    managed: bool
    """Callers share the providers' keys, and are told apart here alone."""

    async def admit(
        self, asked: Asked, provider: Provider, encoding: str | None = None
    ) -> Mapping[Resource, Kept]:
        """Return what is known of each resource that a request names.

        Of an operation that nobody here reads, any word of its path, query or body that is
        somebody else's id counts, so far as the body is held; *encoding* is that of the body.

        Raises:
            NotFoundError: one is somebody else's, or nobody knows whose.
            MalformedBodyError: a body whose words count can't be decoded.
        """
        call = asked.call
        named = [*(call.found.names if call.found is not None else ()), *call.uses]
        odd: tuple[str, ...] = ()
        if call.found is not None:
            named += [Resource(UPLOAD, one) for one in upload_of(call.found.query)]
            if call.found.route is OPAQUE_ROUTE or _ODD.search(call.found.path):
                meant = list(_meant(provider, call.found))
                named += [name for one in meant for name in one.names]
                if self._is_odd_list(asked, meant):
                    raise NotFoundError(
                        f"no list is known as `{call.found.path[:_ID_CHARS_TOLD_MAX]}`",
                        hint="write path and method as the provider documents them",
                        code=UNKNOWN,
                    )
            if call.found.route.operation is Operation.OPAQUE:
                odd = tuple(_words_of(call.found))
                if isinstance(asked.body, bytes) and asked.body:
                    odd += await asyncio.to_thread(words_in, asked.body, encoding)
        if not named and not odd:
            return {}
        wanted = list(dict.fromkeys(map(_plain, named)))
        return await self.owned(asked.principal, provider.id, wanted, words=odd)

    def _is_odd_list(self, asked: Asked, meant: Iterable[Found]) -> bool:
        """Tell whether a path might mean a list of what is others', which nobody shortens."""
        return (
            self.managed
            and not asked.endpoint.startswith(_BODILESS)
            and any(one.route.lists is not None for one in meant)
        )

    def reads_words(self, found: Found, *, streams: bool) -> bool:
        """Tell whether a body that no reader takes must be held for the words in it.

        It must where callers share a key: it may name what is another's. One of a session does
        not come before the session has begun.
        """
        return self.managed and not streams and found.route.operation is Operation.OPAQUE

    async def uploader(self, provider: str, query: str, now_ms: int) -> Kept | None:
        """Return who began the upload that *query* names, if that is known and not long ago.

        Its id came to nobody else, so whoever shows it may go on with the upload.
        """
        ids = upload_of(query)
        if len(ids) != 1:
            return None
        known = await asyncio.to_thread(self.known.resources, provider, UPLOAD, ids)
        kept = known.get(ids[0])
        if kept is None or now_ms - made_at_ms(kept.exchange) > UPLOAD_S_MAX * 1000:
            return None
        return kept

    async def owned(
        self,
        principal: Principal,
        provider: str,
        resources: Sequence[Resource],
        *,
        words: Sequence[str] = (),
    ) -> Mapping[Resource, Kept]:
        """Return what is known of *resources*, all of which *principal* may reach.

        None of *words* may be the id of what is somebody else's.

        Raises:
            NotFoundError: one is somebody else's, or nobody knows whose.
        """
        known, meant = await asyncio.to_thread(self._look_up, provider, resources, words)
        if any(one not in known and one.kind in _TOLD_EARLY for one in resources):
            known = await self._once_sealed(principal, provider, resources)
        for resource in resources:
            kept = known.get(resource)
            if not self.may_see(principal, kept):
                raise self._refused(principal, provider, resource, kept)
        for kept in meant:
            if not is_owner(principal, kept):
                resource = Resource(kept.kind, kept.id)
                raise self._refused(principal, provider, resource, kept)
        return known

    async def _once_sealed(
        self,
        principal: Principal,
        provider: str,
        resources: Sequence[Resource],
    ) -> dict[Resource, Kept]:
        """Return what is known of *resources* once those exchanges are closed that might tell.

        A stream tells its caller an id long before its receipt is written; whoever leaves it
        and comes back for the rest is faster than the ledger.
        """
        waiting = await asyncio.to_thread(
            self.known.under_way, provider, principal.name, principal.project
        )
        known, _ = await asyncio.to_thread(self._look_up, provider, resources, ())
        pause_s, left_s = _PAUSE_S, UNDER_WAY_S_MAX
        while waiting and left_s > 0 and not set(resources) <= set(known):
            await asyncio.sleep(pause_s)
            left_s -= pause_s
            pause_s *= 2
            # First what is under way, then what is known: what was closed between is seen.
            now = await asyncio.to_thread(
                self.known.under_way, provider, principal.name, principal.project
            )
            known, _ = await asyncio.to_thread(self._look_up, provider, resources, ())
            waiting &= now
        return known

    def _look_up(
        self, provider: str, resources: Sequence[Resource], words: Sequence[str]
    ) -> tuple[dict[Resource, Kept], list[Kept]]:
        found: dict[Resource, Kept] = {}
        for kind, ids in _by_kind(resources).items():
            for kept in self.known.resources(provider, kind, ids).values():
                found[Resource(kind, kept.id)] = kept
        return found, self.known.resources_named(provider, words) if words else []

    def _refused(
        self, principal: Principal, provider: str, resource: Resource, kept: Kept | None
    ) -> NotFoundError:
        self.log.info(
            "resource.refused",
            principal=principal.name,
            project=principal.project,
            provider=provider,
            kind=resource.kind,
            known=kept is not None,
        )
        # Whether it is somebody else's or not there at all is nobody's business.
        return NotFoundError(
            f"no such {resource.kind}: `{resource.id[:_ID_CHARS_TOLD_MAX]}`",
            hint="what is kept at a provider is for who had it made through this gateway",
            code=UNKNOWN,
        )

    def may_see(self, principal: Principal, kept: Kept | None) -> bool:
        """Tell whether a resource is *principal*'s to see; `None`: nobody knows whose it is."""
        return not self.managed if kept is None else is_owner(principal, kept)

    def amendment(
        self,
        asked: Asked,
        provider: Provider,
        kept: Mapping[Resource, Kept],
        public_url: str | None,
    ) -> Amendment | None:
        """Return what is made of the answer on its way; `None`: it passes as it comes."""
        call = asked.call
        if call.operation in _GENERATING and call.lists is None:
            return None
        return Amendment(
            room=self, asked=asked, provider=provider, kept=kept, public_url=public_url
        )


@dataclass(frozen=True, kw_only=True)
class Amendment:
    """What is made of one answer before it goes on; implements the relay's `Amends`."""

    room: Resources
    asked: Asked
    provider: Provider
    kept: Mapping[Resource, Kept]
    public_url: str | None
    """What leads to this provider through the gateway, as the caller may use it."""
    _uploads: list[str] = field(default_factory=list)

    @property
    def wants_plain(self) -> bool:
        """Whether the answer may have to change, so that it should come without an encoding."""
        return self._lists or self.asked.call.operation in _LINKED

    @property
    def _lists(self) -> bool:
        """Whether the answer is a list of what is kept for all who share a key.

        What stands below a resource belongs to whose that is.
        """
        call = self.asked.call
        return call.lists is not None and not (call.found is not None and call.found.names)

    def headers(self, headers: RawHeaders) -> RawHeaders:
        """Return *headers* with those addresses led through the gateway that lead past it."""
        amended = []
        for name, value in headers:
            lowered = name.lower()
            now = value
            if lowered in _UPLOAD_HEADERS:
                said = value.decode("latin-1")
                self._uploads.extend(upload_of(urlsplit(said).query))
                now = self._led_here(said).encode("latin-1")
            elif lowered == b"location":
                now = self._location(value.decode("latin-1")).encode("latin-1")
            amended.append((name, now))
        return amended

    def holds(self, response: ProviderResponse) -> bool:
        """Tell whether all of it must be here before any of it may go."""
        if response.status >= 300:
            return False
        kind = (response.header(b"content-type") or "").lower()
        return self._lists or (
            self.asked.call.operation in _LINKED and kind.startswith("application/json")
        )

    async def finish(self, answered: Answered, *, held: bool) -> Answered:
        """Return *answered* as it is sealed and released.

        Raises:
            LedgerUnwellError: what it brings of an earlier exchange could not be written.
        """
        if held and answered.ended != "cut-short-by-caller" and answered.error not in _BROKEN:
            answered = await asyncio.to_thread(self._edited, answered)
        answer = answered.answer
        made = answer.made
        for upload in self._uploads:
            made = (*made, Made(resource=Resource(UPLOAD, upload)))
        if self._lists or self._foreign:
            # Who looks at something does not make it.
            made = ()
        answer = msgspec.structs.replace(answer, made=tuple(dict.fromkeys(made)))
        answered = msgspec.structs.replace(answered, answer=answer)
        return await self._taken(answered)

    @property
    def _foreign(self) -> bool:
        """Whether it was made outside the gateway, as far as the ledger knows."""
        found = self.asked.call.found
        return found is not None and any(_plain(one) not in self.kept for one in found.names)

    async def _taken(self, answered: Answered) -> Answered:
        """Make an item of what comes after its exchange; the fetch itself has no units then."""
        call, answer = self.asked.call, answered.answer
        if call.operation is not Operation.RETRIEVAL or call.found is None:
            return answered
        kept = self.kept.get(_plain(call.found.names[0])) if call.found.names else None
        if kept is None or not _tells_of_it(call.found):
            return msgspec.structs.replace(
                answered, answer=msgspec.structs.replace(answer, usage=None)
            )
        if _brings(answered):
            await self.room.later.take(answered, kept, self.provider)
        bare = msgspec.structs.replace(answer, choices=(), units=(), usage=None)
        return msgspec.structs.replace(answered, answer=bare)

    # -- bodies ---------------------------------------------------------------------------

    def _edited(self, answered: Answered) -> Answered:
        """Return *answered* without what is others', and with addresses that lead here."""
        encoding = _header(answered.headers, b"content-encoding")
        decoder = decoder_for(encoding)
        body = answered.held if decoder is None else decoder.decode(answered.held)
        try:
            text = body.decode()
            edited = self._without_others(text) if self._lists else text
        except (UnicodeDecodeError, NoJsonError):
            if not self._lists:
                return answered
            if not self.room.managed:
                # The caller's own key of the provider opens all of it anyway.
                return answered
            return msgspec.structs.replace(
                answered,
                answer=Answer(readable=False, whole=False),
                ended="cut-short-by-provider",
                error=ProviderUnreadableError.code,
                held=b"",
            )
        for key in _LINKS:
            edited = replaced(edited, key, self._link)
        if edited == text:
            return answered
        content = edited.encode()
        return msgspec.structs.replace(
            answered,
            held=content,
            response_sha256=sha256_hex(content),
            response_bytes=len(content),
            rewritten=RewrittenFacts(
                sha256=sha256_hex(answered.held), bytes=len(answered.held)
            ),
            headers=(
                *(line for line in answered.headers if line[0].lower() not in _FRAMING),
                (b"content-length", b"%d" % len(content)),
            ),
            sized=True,
            # Trailers spoke of the bytes that came, as the headers left out did.
            trailers=(),
        )

    def _without_others(self, text: str) -> str:
        """Return a list without what the caller may not see.

        Raises:
            NoJsonError: it is none.
        """
        arrays = arrays_of(text)
        kind = self.asked.call.lists or ""
        named: dict[int, str | None] = {}
        for array in arrays:
            for element in array:
                if isinstance(element.value, dict):
                    named[id(element.value)] = id_of(element.value)
                elif self.room.managed:
                    raise NoJsonError("an element that names nothing")
        ids = list(dict.fromkeys(name for name in named.values() if name is not None))
        known = self.room.known.resources(self.provider.id, kind, ids) if ids else {}

        def goes(value: Any) -> bool:
            name = named.get(id(value))
            kept = None if name is None else known.get(name)
            return not self.room.may_see(self.asked.principal, kept)

        return without(text, arrays, goes)

    # -- addresses ------------------------------------------------------------------------

    def _link(self, said: str) -> str:
        return self._led_here(said) if said.startswith(("http://", "https://")) else said

    def _led_here(self, said: str) -> str:
        """Return an address of the provider's as one that leads to it through the gateway."""
        try:
            parts = urlsplit(said)
        except ValueError:
            return said
        if self.public_url is None or not parts.netloc:
            return said
        own = urlsplit(self.provider.base_url).path.rstrip("/")
        path = parts.path
        if own and path.startswith(own + "/"):
            path = path[len(own) :]
        # Where keys are swapped, the provider's may stand in an address of its own.
        query = self.provider.dialect.query_upstream(parts.query)
        return self.public_url + path + (f"?{query}" if query else "")

    def _location(self, said: str) -> str:
        """Return where else to look; other hosts than the provider's stay what they are."""
        base = urlsplit(self.provider.base_url)
        if said.startswith("/") and not said.startswith("//"):
            own = base.path.rstrip("/")
            inner = said[len(own) :] if own and said.startswith(own + "/") else said
            return f"/{self.provider.id}{inner}"
        if said.startswith(f"{base.scheme}://{base.netloc}/"):
            return self._led_here(said)
        return said


_FRAMING: Final = frozenset({b"content-length", b"content-encoding", b"content-md5", b"digest"})
_BROKEN: Final = frozenset(
    {
        "provider.unreachable",
        "provider.timeout",
        "provider.broke_off",
        ProviderUnreadableError.code,
    }
)
_ITSELF: Final = re.compile(r".*\{[a-z-]+\}(?:/cancel|:cancel)?")


def is_owner(principal: Principal, kept: Kept) -> bool:
    """Tell whether a resource is *principal*'s, and its project's."""
    return (kept.principal, kept.project) == (principal.name, principal.project)


def id_of(element: Mapping[str, Any]) -> str | None:
    """Return the id of one element of a list, or `None` where it has none.

    What has no `id` has a `name` like `files/abc`, whose last part is the id.
    """
    for key in ("id", "name"):
        said = element.get(key)
        if isinstance(said, str):
            return said if key == "id" else said.rpartition("/")[2]
    return None


def _meant(provider: Provider, found: Found) -> Iterator[Found]:
    """Yield what a path that leads nowhere would mean if a provider were more lenient.

    Another method, a slash too many, an escaped letter or a dot segment: nobody knows what a
    provider makes of them.
    """
    for path in dict.fromkeys(_paths(found.path)):
        for method in _METHODS:
            meant = provider.dialect.found(method, path)
            if meant.route is not OPAQUE_ROUTE or meant.names:
                yield meant


def _paths(path: str) -> Iterator[str]:
    yield path
    for _ in range(_ODD_MAX):
        path = unquote(path)
        yield _tidy(path)
        yield _tidy(path).lower()
    yield _tidy(path.partition(";")[0])


def _tidy(path: str) -> str:
    """Return *path* without empty and dot segments."""
    out: list[str] = []
    for segment in path.replace("\\", "/").split("/"):
        if segment == "..":
            del out[-1:]
        elif segment not in {"", "."}:
            out.append(segment)
    return "/" + "/".join(out)


def _words_of(found: Found) -> Iterator[str]:
    """Yield every part of a path and a query that could be an id."""
    path = found.path
    for _ in range(_ODD_MAX):
        path = unquote(path)
    yield from filter(None, re.split(r"[/:;\\]", path))
    yield from (value for _, value in parse_qsl(found.query))


def words_in(body: bytes, encoding: str | None) -> tuple[str, ...]:
    """Return everything in a *body* of any kind that could be an id.

    Of JSON those are its strings, and the parts of each.

    Raises:
        MalformedBodyError: it can't be decoded.
    """
    decoder = decoder_for(encoding)
    plain = body if decoder is None else decoder.decode(body)
    if decoder is not None and UNREADABLE in plain:
        raise MalformedBodyError(
            "the request body can't be decoded",
            hint="send it without `Content-Encoding`: what it names must be known",
        )
    words: dict[str, None] = {}
    try:
        level: list[Any] = [orjson.loads(plain)]
    except orjson.JSONDecodeError:
        return tuple(dict.fromkeys(word.decode() for word in _WORD.findall(plain)))
    while level:
        inner: list[Any] = []
        for value in level:
            if isinstance(value, str) and _ID_CHARS_MIN <= len(value) <= _ID_CHARS_MAX:
                words[value] = None
                words.update(dict.fromkeys(_PARTS.split(value)))
            elif isinstance(value, dict):
                inner += value.keys()
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        level = inner
    return tuple(words)


def upload_of(query: str) -> list[str]:
    """Return the ids of uploads that *query* names."""
    if "upload_id" not in query and "%" not in query:
        return []
    return [value for name, value in parse_qsl(query) if name == "upload_id" and value]


def _plain(resource: Resource) -> Resource:
    """Return *resource* by the id that its provider will understand."""
    if "%" not in resource.id and ";" not in resource.id:
        return resource
    return Resource(resource.kind, unquote(resource.id).partition(";")[0])


def _by_kind(resources: Iterable[Resource]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for resource in resources:
        kinds.setdefault(resource.kind, []).append(resource.id)
    return kinds


def _tells_of_it(found: Found) -> bool:
    """Tell whether the answer is about the resource itself, and not about something below."""
    return len(found.names) == 1 and _ITSELF.fullmatch(found.route.path) is not None


def _brings(answered: Answered) -> bool:
    """Tell whether a whole output came, or the word that there will be none."""
    answer = answered.answer
    return (
        answered.ended == "complete"
        and answered.status is not None
        and answered.status < 300
        and answer.readable
        and answer.whole
        and not answer.pending
        and bool(answer.choices or answer.units or answer.usage or answer.error)
    )


def _header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str | None:
    found = [value.decode("latin-1") for name, value in headers if name.lower() == wanted]
    return ", ".join(found) or None
