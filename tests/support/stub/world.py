"""What a stub provider is asked, what it keeps, and how it answers: the same again each time.

Ids come from counters and the name of the scene, so that a scene played twice, once directly
and once through a gateway, has equal answers, and no two scenes share an id.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

from gateway.demo.provider import Generation, Reply, WrongRequestError

NOW: Final = 1_790_000_000
"""The second at which everything happens."""
NOW_TEXT: Final = "2026-09-21T14:13:20Z"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart form."""

    filename: str | None
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, as the stub of a provider sees it."""

    method: str
    path: str
    """Without the provider's own prefix."""
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    base: str
    """The address under which this provider was asked."""
    key: str
    """The caller's credential."""

    def json(self) -> Json:
        """Return the body as a JSON object; an empty one is empty."""
        if not self.body:
            return {}
        try:
            asked = json.loads(self.body)
        except ValueError as wrong:
            raise bad("the body is not valid JSON") from wrong
        if not isinstance(asked, dict):
            raise bad("the body is not an object")
        return asked

    def said(self, name: str, otherwise: str = "") -> str:
        """Return the first value of a query parameter."""
        return self.query.get(name, [otherwise])[0]

    def form(self) -> dict[str, list[Part]]:
        """Return the parts of a multipart form by their names."""
        found = re.search(r'boundary="?([^";]+)', self.headers.get("content-type", ""))
        if found is None:
            raise bad("the body is no multipart form")
        form: dict[str, list[Part]] = {}
        for piece in (b"\r\n" + self.body).split(b"\r\n--" + found[1].encode())[1:-1]:
            head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            told = head.decode(errors="replace")
            name = re.search(r'\bname="([^"]*)"', told)
            filename = re.search(r'\bfilename="([^"]*)"', told)
            kind = re.search(r"(?i)content-type: *([^\r\n]+)", told)
            form.setdefault(name[1] if name else "", []).append(
                Part(
                    filename[1] if filename else None,
                    kind[1] if kind else "text/plain",
                    content,
                )
            )
        return form

    def fields(self) -> Json:
        """Return the plain fields of a form, numbers and truths as JSON has them."""
        plain: Json = {}
        for name, parts in self.form().items():
            texts = [p.content.decode() for p in parts if p.filename is None]
            if texts:
                plain[name] = texts if name.endswith("[]") else texts[0]
        return plain


@dataclass(slots=True, kw_only=True)
class Made(Generation):
    """One generation: whose it is, and of which line where a batch asked for it."""

    provider: str
    key: str
    item: str = ""


def bad(message: str, status: int = 400) -> WrongRequestError:
    """Return the error that a provider answers a wrong request with."""
    kinds = {404: "not_found_error", 401: "authentication_error", 409: "conflict_error"}
    return WrongRequestError(status, kinds.get(status, "invalid_request_error"), message)


@dataclass(slots=True)
class World:
    """All that one provider keeps, and the counters that its ids come from."""

    provider: str
    scene: str = "scene"
    generations: list[Generation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    kept: dict[str, dict[str, Json]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    """The bytes of files, parts and the like, by id."""

    def begin(self, scene: str) -> None:
        """Forget everything; ids are those of *scene* from now on."""
        self.scene = scene
        self.counts.clear()
        self.kept.clear()
        self.contents.clear()

    def seed(self, kind: str) -> str:
        """Return the next 64 hex digits for things of one *kind*."""
        self.counts[kind] += 1
        told = f"{self.provider}/{self.scene}/{kind}/{self.counts[kind]}"
        return hashlib.sha256(told.encode()).hexdigest()

    def new_id(self, prefix: str, digits: int = 24) -> str:
        """Return the next id that begins with *prefix*."""
        return prefix + self.seed(prefix)[:digits]

    def keep(self, kind: str, thing: Json, name: str = "id") -> Json:
        """Keep *thing* under its id and return it."""
        self.kept.setdefault(kind, {})[thing[name]] = thing
        return thing

    def find(self, kind: str, name: str) -> Json:
        """Return what is kept under the id *name*."""
        try:
            return self.kept[kind][name]
        except KeyError:
            raise bad(f"No such {kind}: {name}", 404) from None

    def drop(self, kind: str, name: str) -> Json:
        """Forget what is kept under the id *name*."""
        thing = self.find(kind, name)
        del self.kept[kind][name]
        return thing

    def all(self, kind: str) -> list[Json]:
        """Return what is kept, oldest first."""
        return list(self.kept.get(kind, {}).values())

    def generate(
        self,
        ask: Ask,
        operation: str,
        name: str,
        request_id: str,
        model: str,
        *,
        streaming: bool = False,
        item: str = "",
    ) -> Made:
        """Count a generation."""
        made = Made(
            operation=operation,
            id=name,
            request_id=request_id,
            model=model,
            streaming=streaming,
            provider=self.provider,
            key=ask.key,
            item=item,
        )
        self.generations.append(made)
        return made


Handler = Callable[..., Reply]


@dataclass(frozen=True, slots=True)
class Door:
    """One operation of a stub: where it is asked for, and who answers."""

    method: str
    pattern: re.Pattern[str]
    handler: str


def doors(table: str) -> list[Door]:
    """Read a table of `METHOD path handler`; `{id}` in a path stands for one segment."""
    found = []
    for line in table.strip().splitlines():
        method, path, handler = line.split()
        pattern = re.compile(
            "".join(
                "([^/]+)" if piece.startswith("{") else re.escape(piece)
                for piece in re.split(r"(\{[^}]*\})", path)
            )
        )
        found.append(Door(method, pattern, handler))
    return found


class Stub:
    """One provider: finds who answers, and gives answers their form."""

    NAME = ""
    DOORS: tuple[Door, ...] = ()

    def __init__(self, generations: list[Generation], name: str = "") -> None:
        self.name = name or self.NAME
        self.world = World(self.name, generations=generations)

    def reply(self, ask: Ask) -> Reply:
        """Return the whole answer to *ask*."""
        request_id = "req_" + self.world.seed("request")[:24]
        try:
            self.require_key(ask)
            return self.route(ask, request_id)
        except WrongRequestError as wrong:
            return self.error(wrong.status, wrong.kind, str(wrong), request_id)

    def route(self, ask: Ask, request_id: str) -> Reply:
        """Return what the first door that fits answers."""
        for door in self.DOORS:
            if door.method == ask.method and (found := door.pattern.fullmatch(ask.path)):
                handler: Handler = getattr(self, door.handler)
                return handler(ask, request_id, *found.groups())
        raise bad(f"unknown request: {ask.method} {ask.path}", 404)

    def require_key(self, ask: Ask) -> None:
        """Refuse who shows no credential."""
        if not ask.key:
            raise bad("no API key was given", 401)

    # What each provider dresses in its own way.

    def headers(self, request_id: str) -> dict[str, str]:
        """Return the headers that every answer has."""
        return {"x-request-id": request_id}

    def error(self, status: int, kind: str, message: str, request_id: str) -> Reply:
        """Return an error in the provider's shape."""
        raise NotImplementedError

    def error_event(self, path: str) -> bytes:
        """Return an error as it comes inside a stream."""
        raise NotImplementedError

    # Forms of answers.

    def whole(
        self,
        value: Any,
        request_id: str,
        generation: Generation | None = None,
        *,
        status: int = 200,
        more: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return a JSON body."""
        return Reply(
            status=status,
            content_type="application/json",
            headers={**self.headers(request_id), **(more or {})},
            pieces=(line(value),),
            generation=generation,
        )

    def binary(
        self,
        content: bytes,
        kind: str,
        request_id: str,
        generation: Generation | None = None,
        more: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return bytes in pieces."""
        size = 4096
        pieces = [content[at : at + size] for at in range(0, len(content), size)] or [b""]
        return Reply(
            status=200,
            content_type=kind,
            headers={**self.headers(request_id), **(more or {})},
            pieces=tuple(pieces),
            generation=generation,
        )

    def stream(
        self,
        pieces: Iterable[bytes],
        request_id: str,
        generation: Generation | None = None,
        kind: str = "text/event-stream; charset=utf-8",
    ) -> Reply:
        """Return server-sent events, or whatever *kind* says."""
        return Reply(
            status=200,
            content_type=kind,
            headers={**self.headers(request_id), "cache-control": "no-cache"},
            pieces=tuple(pieces),
            streaming=True,
            generation=generation,
        )


def line(value: Any) -> bytes:
    """Return *value* as JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def data(value: Any) -> bytes:
    """Return an event without a name."""
    return b"data: %b\n\n" % line(value)


def named(event: Json) -> bytes:
    """Return an event that is named by its type."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), line(event))


def page(things: list[Json], ask: Ask, limit: int = 20) -> tuple[list[Json], bool]:
    """Return the page of *things* that is asked for, and whether more follow."""
    things = things if ask.said("order") == "asc" else list(reversed(things))
    names = [thing["id"] for thing in things]
    after = ask.said("after") or ask.said("after_id")
    begin = names.index(after) + 1 if after in names else 0
    count = int(ask.said("limit") or limit)
    return things[begin : begin + count], len(things) > begin + count


def pieces_of(text: str) -> list[str]:
    """Return *text* word by word."""
    return re.findall(r"\s*\S+", text)


def fragments(text: str, characters: int = 9) -> Iterator[str]:
    """Yield *text* in short pieces."""
    for at in range(0, len(text), characters):
        yield text[at : at + characters]


def png(seed: str, width: int = 16) -> bytes:
    """Return a small picture whose colours depend on *seed*, and whose size does not."""
    shades = hashlib.sha256(seed.encode()).digest() * width
    rows = b"".join(b"\0" + shades[row : row + 3 * width] for row in range(0, width * 3, 3))

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checked)

    head = struct.pack(">IIBBBBB", width, width, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows, 0))
        + chunk(b"IEND", b"")
    )


def sound(seed: str, count: int = 6000) -> bytes:
    """Return bytes that stand for sound."""
    block = hashlib.sha512(seed.encode()).digest()
    return (block * (count // len(block) + 1))[:count]


def vector(text: str, dimensions: int = 8) -> list[float]:
    """Return *dimensions* numbers that 32-bit floats can hold."""
    found = b""
    while len(found) < dimensions:
        found += hashlib.sha256(text.encode() + b"%d" % len(found)).digest()
    return [byte / 128 - 1 for byte in found[:dimensions]]


def query_of(target: str) -> tuple[str, dict[str, list[str]]]:
    """Return the path and the query of a request's target."""
    path, _, query = target.partition("?")
    return path, parse_qs(query, keep_blank_values=True)
