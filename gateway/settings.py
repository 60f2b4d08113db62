"""One file, `gateway.yaml`, read once; every key has a default that serves on one machine.

Order: default, file, environment (`GATEWAY__KEY__SUBKEY=value`), flag. Secrets stand here only
by reference (`env:NAME`, `file:path`). No key loosens a ruling.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from gateway.budget.model import (
    MEASURES,
    SCOPES,
    WINDOWS,
    Limit,
    Rule,
    Scope,
    amount_of,
    micros,
)
from gateway.budget.prices import Price, Prices
from gateway.day import parse_day
from gateway.errors import BadProofError, MalformedPolicyError, SettingError
from gateway.limits import COPIES_MAX, WITNESSES_MAX, WORKERS_MAX
from gateway.policy.source import Keyed, Node, Scalar, convert, line_at, read
from gateway.tlog.cosignature import parse_cosignature_vkey

FILE_NAME: Final = "gateway.yaml"
PREFIX: Final = "GATEWAY__"
_AMOUNTS: Final = (
    "input",
    "cached_input",
    "output",
    "reasoning",
    "characters",
    "request",
    "image",
    "second",
)
"""Keys of a price that are amounts of money."""
DATABASE_SCHEMES: Final = ("postgres://", "postgresql://")


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files of the door's certificate chain and its private key, PEM."""

    cert: str
    key: str


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider: an entry overrides the built-in catalogue or adds to it."""

    base_url: str | None = None
    dialect: Literal["openai", "azure", "anthropic", "gemini"] | None = None
    credential: str | None = None
    """`env:NAME` or `file:path`; what goes upstream where keys are managed."""
    agreement: str | None = None
    """The agreement under which the credential was issued, for terms bind accounts."""
    route: (
        Literal[
            "first-party",
            "cloud",
            "aggregator",
            "host",
            "self-hosted",
            "consumer",
            "subscription",
        ]
        | None
    ) = None
    account_tier: (
        Literal["free", "paid", "trial", "preview", "discounted", "enterprise"] | None
    ) = None
    """Under what sort of account the provider is called."""
    policy: str | None = None
    """The policy that binds it, where that is not the one of its own name."""
    student: str | None = None
    """The folder of the student that answers there; its receipts name its manifest."""
    ca_bundle: str | None = None
    """A PEM file of the authorities that its certificate may come from, instead of others."""


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The way to the providers."""

    ca_bundle: str | None = None
    """A PEM file of the authorities to trust, instead of the system's."""
    proxy: str | None = None
    """An HTTP proxy that leads out: `http://host:port`, or a reference to that."""
    no_proxy: tuple[str, ...] = ()
    """Hosts and networks that are reached without it; this machine always is."""


class WitnessSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One witness of the ledger's checkpoints: where it answers, and its public key."""

    url: str
    vkey: str


class TimestampSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Authorities that stamp checkpoints with the time (RFC 3161)."""

    urls: tuple[str, ...]
    certificates: str
    """A PEM file: their roots, and what stands between."""
    every_hours: int = 24


class CheckpointSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who else keeps the ledger's checkpoints, so that nobody can take it back."""

    copies: tuple[str, ...] = ()
    """Files on other media."""
    witnesses: tuple[WitnessSettings, ...] = ()
    quorum: int | None = None
    """How many witnesses must have cosigned what is published; more than half if absent."""
    start_unwitnessed: bool = False
    """Whoever sets this says that the ledger here is its newest copy."""
    timestamps: TimestampSettings | None = None

    @property
    def needed(self) -> int:
        """How many witnesses must have cosigned what is published."""
        return len(self.witnesses) // 2 + 1 if self.quorum is None else self.quorum


class SigningSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the long-lived signing keys are; absent: in the data folder."""

    log: str | None = None
    """`file:path`, `env:NAME`, or a `pkcs11:` URI; an Ed25519 key."""
    manifest: str | None = None
    """The same; an ECDSA P-256 key."""


class CountSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many in each window."""

    minute: int | None = None
    hour: int | None = None
    day: int | None = None
    month: int | None = None


class MoneySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much in each window, in the currency of the prices."""

    minute: str | int | None = None
    hour: str | int | None = None
    day: str | int | None = None
    month: str | int | None = None


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What each key, project or declaration that fits may use in a window of the calendar."""

    key: str | None = None
    """Ids of gateway keys; `*` stands for any characters."""
    project: str | None = None
    declaration: str | None = None
    requests: CountSettings = CountSettings()
    tokens: CountSettings = CountSettings()
    money: MoneySettings = MoneySettings()


class PriceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What models cost, in one file of its own; amounts of money like `2.50`."""

    model: str
    """Its name; `*` stands for any characters."""
    provider: str = "*"
    input: str | int = 0
    """A million tokens of what is asked."""
    cached_input: str | int | None = None
    output: str | int = 0
    """A million tokens of what is answered."""
    reasoning: str | int | None = None
    characters: str | int = 0
    """A million characters of what is spoken."""
    request: str | int = 0
    image: str | int = 0
    second: str | int = 0
    """Of audio."""
    output_max: int | None = None
    """The longest answer in tokens."""


class PriceListSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file of prices; of several that fit, the first counts."""

    currency: str
    as_of: str
    """The day on which they were read, for people."""
    models: tuple[PriceSettings, ...]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything an operator can set; an empty file is a valid one."""

    listen: str = "127.0.0.1:8080"
    tls: TlsSettings | None = None
    behind_tls_proxy: bool = False
    """Whoever sets this says that TLS ends before the gateway."""
    public_url: str | None = None
    """What callers reach the gateway by, where that is not what they say in `Host`."""
    data: str = "./gateway-data"
    ledger: str = "sqlite"
    """`sqlite`, or the database that replicas share: `postgres://…`, or a reference to that."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    signing: SigningSettings = SigningSettings()
    keys: Literal["passthrough", "managed"] = "passthrough"
    policies: str = "builtin"
    """`builtin`, or a folder."""
    own_policies: str | None = None
    """A folder of the organisation's own, read beside `policies`: more policies and models."""
    overlays: tuple[str, ...] = ()
    """Overlays of the library that bind every use beside the providers' policies."""
    providers: dict[str, ProviderSettings] = {}
    upstream: UpstreamSettings = UpstreamSettings()
    unknown_operations: Literal["opaque", "forbid"] = "opaque"
    ephemeral_keys: Literal["forbid", "allow"] = "forbid"
    """Operations by which a provider lets somebody talk to it past the gateway."""
    undeclared: Literal["inference", "forbid"] = "inference"
    on_hang_up: Literal["cancel", "drain"] = "cancel"
    tiktoken_encoding: str | None = None
    """Such as `o200k_base`, to count what a provider did not; tiktoken reads it from the folder
    TIKTOKEN_CACHE_DIR or fetches it. Absent: not counted."""
    limits: tuple[LimitSettings, ...] = ()
    """How much may be used; nothing is limited where nothing is said."""
    prices: str | None = None
    """The file that says what models cost; needed where money is limited."""
    workers: int = 1
    """Door processes; of more than one, a process of its own writes the ledger for them."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Sourced(msgspec.Struct, frozen=True, kw_only=True):
    """The settings, and for each key where its value came from."""

    settings: Settings
    sources: dict[str, str]
    file: Path | None
    """The file that was read; relative paths in it start from its folder."""

    def path(self, text: str) -> Path:
        """Return *text* as a path; a relative one starts at the file's folder."""
        base = self.file.parent if self.file is not None else Path()
        return base / text

    def database(self) -> str | None:
        """Return the URL of the database that the ledger is in, or `None` for a file.

        Raises:
            SettingError: it refers to nothing, or to what is no such URL.
        """
        named = self.settings.ledger
        if named == "sqlite":
            return None
        url = named if named.startswith(DATABASE_SCHEMES) else self.secret(named, "ledger")
        if not url.startswith(DATABASE_SCHEMES):
            raise SettingError(
                "`ledger` refers to what is not the URL of a database",
                hint="it begins with postgres://",
            )
        return url

    def outgoing_proxy(self) -> str | None:
        """Return the URL of the proxy that leads out, with what it wants to be told.

        Raises:
            SettingError: it holds a password in plain text, or refers to nothing.
        """
        named = self.settings.upstream.proxy
        if named is None or ("://" in named and "@" not in named):
            return named
        return self.secret(named, "upstream.proxy")

    def rules(self) -> tuple[Rule, ...]:
        """Return the limits of the settings."""
        return tuple(_rule(place, one) for place, one in enumerate(self.settings.limits))

    def prices(self) -> Prices | None:
        """Return what models cost, or `None` where no file says so.

        Raises:
            SettingError: it can't be read; names file and line.
        """
        named = self.settings.prices
        return None if named is None else _prices(self.path(named))

    def signing_key(self, reference: str | None, key: str) -> bytes | str | None:
        """Return the PEM that *reference* refers to, or a `pkcs11:` URI as it is.

        Raises:
            SettingError: it is not a reference, or refers to nothing.
        """
        if reference is None or reference.startswith("pkcs11:"):
            return reference
        kind, _, name = reference.partition(":")
        return pem(f"file:{self.path(name)}" if kind == "file" else reference, key)

    def secret(self, reference: str, key: str) -> str:
        """Return what *reference* (`env:NAME` or `file:path`) refers to.

        Raises:
            SettingError: it is not a reference, or refers to nothing.
        """
        kind, _, name = reference.partition(":")
        return secret(f"file:{self.path(name)}" if kind == "file" else reference, key)


def load(
    file: Path | None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Sourced:
    """Read the settings from *file* (or `gateway.yaml` here, if there is one).

    Raises:
        SettingError: what is wrong, with file and line, or the variable's name.
    """
    if environment is None:
        environment = os.environ  # noqa: TID251  the one place that reads it
    if file is None and Path(FILE_NAME).is_file():
        file = Path(FILE_NAME)
    root: Node = Keyed(entries={}, key_lines={}, line=1)
    if file is not None:
        try:
            root = read(file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
            raise SettingError(
                f"can't read the settings file {file}: {reason}",
                hint="name another with --config, or write one",
            ) from exc
        except MalformedPolicyError as exc:
            raise SettingError(exc.message, hint=exc.hint) from exc
    if not isinstance(root, Keyed):
        raise SettingError(f"{file}:1: the settings file must be a mapping of keys")
    sources = {name: f"{file}:{line}" for name, line in root.key_lines.items()}
    # What came from outside the file stands in lines below zero: the places of this list.
    outside: list[str] = []
    for variable, value in sorted(environment.items()):
        if variable.startswith(PREFIX):
            outside.append(variable)
            names = variable.removeprefix(PREFIX).lower().split("__")
            root = _set(root, names, value, outside)
            sources[names[0]] = variable
    for name, value in (flags or {}).items():
        outside.append(f"--{name}")
        root = _set(root, [name], value, outside)
        sources[name] = f"--{name}"
    try:
        settings = convert(root, Settings, str(file or FILE_NAME))
    except MalformedPolicyError as exc:
        raise SettingError(_blame(exc, outside), hint=exc.hint) from exc
    everything = {name: sources.get(name, "default") for name in Settings.__struct_fields__}
    _check(settings)
    return Sourced(settings=settings, sources=everything, file=file)


def with_ledger(sourced: Sourced, named: str) -> Sourced:
    """Return *sourced* with the ledger in the database *named*, as `ledger` would name it.

    Raises:
        SettingError: it names none.
    """
    settings = msgspec.structs.replace(sourced.settings, ledger=named)
    _check_ledger(settings)
    if named == "sqlite":
        raise SettingError("`sqlite` is where the ledger is", hint="name a database")
    return msgspec.structs.replace(sourced, settings=settings)


def address(text: str, key: str) -> tuple[str, int]:
    """Return host and port of `host:port`.

    Raises:
        SettingError: it is not one.
    """
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isascii() or not port.isdecimal() or len(port) > 5:
        raise SettingError(f"`{key}` is not host:port: `{text}`", hint="like 127.0.0.1:8080")
    if int(port) > 65535:
        raise SettingError(f"`{key}` has a port over 65535: `{text}`")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Tell whether *host* is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def secret(reference: str, key: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what *reference* (`env:NAME` or `file:path`) refers to.

    Raises:
        SettingError: it is not a reference, or refers to nothing.
    """
    _, _, name = reference.partition(":")
    return _said(_referred(reference, key, environment), key, name)


def pem(reference: str, key: str, environment: Mapping[str, str] | None = None) -> bytes:
    """Return the private key in PEM that *reference* (`env:NAME` or `file:path`) refers to.

    In a variable its lines may be divided by a backslash and an `n`.

    Raises:
        SettingError: it is not a reference, or refers to nothing.
    """
    return _referred(reference, key, environment).replace("\\n", "\n").encode()


def _referred(reference: str, key: str, environment: Mapping[str, str] | None) -> str:
    if environment is None:
        environment = os.environ  # noqa: TID251  the one place that reads it
    kind, _, name = reference.partition(":")
    if kind == "env":
        value = environment.get(name)
        if value is None:
            raise SettingError(
                f"`{key}` refers to the variable {name}, which is not set",
                hint=f"set {name}, or use file:<path>",
            )
        return value
    if kind == "file":
        try:
            return Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise SettingError(f"`{key}` refers to {name}, which can't be read") from exc
    raise SettingError(
        f"`{key}` holds a secret in plain text",
        hint="write env:NAME or file:<path>; secrets never stand in the settings",
    )


def _said(text: str, key: str, name: str) -> str:
    said = text.strip()
    if not said or not said.isprintable():
        raise SettingError(
            f"`{key}` refers to {name}, which holds no secret in one line",
            hint="write the secret there and nothing else",
        )
    return said


def _check(settings: Settings) -> None:
    if not 1 <= settings.workers <= WORKERS_MAX:
        raise SettingError(
            f"`workers` must be a number from 1 to {WORKERS_MAX}, not `{settings.workers}`",
            hint="one for each core that callers should keep busy; 1 is a single process",
        )
    _check_limits(settings)
    _check_public_url(settings.public_url)
    _check_ledger(settings)
    _check_checkpoint(settings.checkpoint)
    host, _ = address(settings.listen, "listen")
    if is_loopback(host):
        return
    if settings.keys != "managed":
        raise SettingError(
            f"listening on {host} needs `keys: managed`",
            hint="or listen on 127.0.0.1; a passthrough door must not be open to others",
        )
    if settings.tls is None and not settings.behind_tls_proxy:
        raise SettingError(
            f"listening on {host} needs `tls: {{cert, key}}`",
            hint="or `behind_tls_proxy: true` where TLS ends before the gateway",
        )


def _check_limits(settings: Settings) -> None:
    rules = [_rule(place, one) for place, one in enumerate(settings.limits)]
    if settings.prices is None and any(
        limit.measure == "money" for rule in rules for limit in rule.limits
    ):
        raise SettingError(
            "`limits` limits money, and nothing says what models cost",
            hint="name a file of prices in `prices`; docs/guides/limits.md shows one",
        )


def _rule(place: int, one: LimitSettings) -> Rule:
    """Return what one entry of `limits` says.

    Raises:
        SettingError: it binds nobody, or more than one kind, or is no amount.
    """
    where = f"limits[{place}]"
    named: list[tuple[Scope, str]] = []
    for scope, names in zip(SCOPES, (one.key, one.project, one.declaration), strict=True):
        if names is not None:
            named.append((scope, names))
    if len(named) != 1:
        raise SettingError(
            f"`{where}` names {len(named)} of `key`, `project` and `declaration`",
            hint='name one of them; project: "*" is each project by itself',
        )
    limits = []
    for measure, windows in zip(MEASURES, (one.requests, one.tokens, one.money), strict=True):
        for window in WINDOWS:
            said: str | int | None = getattr(windows, window)
            if said is None:
                continue
            amount = amount_of(measure, said)
            if amount is None:
                raise SettingError(
                    f"`{where}.{measure}.{window}` is no amount: `{str(said)[:40]}`",
                    hint="write a whole number; of money, up to six decimals: 12.50",
                )
            limits.append(Limit(measure, window, amount))
    if not limits:
        raise SettingError(
            f"`{where}` limits nothing",
            hint="write how much: requests: {minute: 60}, tokens: …, money: …",
        )
    return Rule(scope=named[0][0], names=named[0][1], limits=tuple(limits))


def _prices(file: Path) -> Prices:
    try:
        node = read(file.read_text(encoding="utf-8"), str(file))
        said = convert(node, PriceListSettings, str(file))
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise SettingError(
            f"can't read the prices {file}: {reason}", hint="name another file in `prices`"
        ) from exc
    except MalformedPolicyError as exc:
        raise SettingError(exc.message, hint=exc.hint) from exc
    if parse_day(said.as_of) is None:
        raise SettingError(
            f"{file}:{line_at(node, 'as_of')}: `as_of` is not a day: `{said.as_of[:40]}`",
            hint="write the day on which the prices were read, like 2026-11-22",
        )
    return Prices(
        said.currency,
        [_price(file, node, place, one) for place, one in enumerate(said.models)],
    )


def _price(file: Path, node: Node, place: int, one: PriceSettings) -> Price:
    amounts: dict[str, int | None] = {}
    for name in _AMOUNTS:
        written = getattr(one, name)
        amount = None if written is None else micros(written)
        if written is not None and amount is None:
            line = line_at(node, "models", place, name)
            raise SettingError(
                f"{file}:{line}: `{name}` is no amount of money: `{str(written)[:40]}`",
                hint="write it with up to six decimals, like 2.50",
            )
        amounts[name] = amount
    return Price(
        provider=one.provider,
        model=one.model,
        input=amounts["input"] or 0,
        cached_input=amounts["cached_input"],
        output=amounts["output"] or 0,
        reasoning=amounts["reasoning"],
        characters=amounts["characters"] or 0,
        request=amounts["request"] or 0,
        image=amounts["image"] or 0,
        second=amounts["second"] or 0,
        output_max=one.output_max,
    )


def _check_public_url(url: str | None) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as bad:
        raise SettingError(f"`public_url` is not an address: {bad}") from bad
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise SettingError(
            f"`public_url` is not an address: `{url}`", hint="like https://gateway.example"
        )
    if not url.isascii() or url.endswith("/"):
        raise SettingError(
            f"`public_url` ends with a slash, or is not ASCII: `{url}`",
            hint="paths like /openai/v1/… are put behind it",
        )


def _check_ledger(settings: Settings) -> None:
    named = settings.ledger
    if named == "sqlite":
        return
    if not named.startswith((*DATABASE_SCHEMES, "env:", "file:")):
        raise SettingError(
            f"`ledger` is neither `sqlite` nor a database: `{named[:80]}`",
            hint="write postgres://account@host/database, or env:NAME or file:<path>",
        )
    if named.startswith(DATABASE_SCHEMES) and _has_password(named):
        raise SettingError(
            "`ledger` holds a password in plain text",
            hint="write env:NAME or file:<path> for the whole URL, or let a .pgpass hold it",
        )
    if settings.workers != 1:
        raise SettingError(
            "`workers` share a ledger in a file; in PostgreSQL, replicas share it",
            hint="set `workers: 1`, and run another gateway with a data folder of its own",
        )


def _has_password(url: str) -> bool:
    parts = urlsplit(url)
    account, at, _ = parts.netloc.rpartition("@")
    return (bool(at) and ":" in account) or "password=" in parts.query


def _check_checkpoint(settings: CheckpointSettings) -> None:
    witnesses, stamps = settings.witnesses, settings.timestamps
    for place, one in enumerate(witnesses):
        _check_url(one.url, f"checkpoint.witnesses[{place}].url")
        try:
            parse_cosignature_vkey(one.vkey)
        except BadProofError as bad:
            raise SettingError(
                f"`checkpoint.witnesses[{place}].vkey`: {bad.message}",
                hint="it is the line that `gateway ledger witness` prints at its start",
            ) from bad
    if len({one.vkey.partition("+")[0] for one in witnesses}) < len(witnesses):
        raise SettingError(
            "`checkpoint.witnesses` names a witness twice", hint="count each of them once"
        )
    for count, most, key in (
        (len(witnesses), WITNESSES_MAX, "checkpoint.witnesses"),
        (len(settings.copies), COPIES_MAX, "checkpoint.copies"),
    ):
        if count > most:
            raise SettingError(f"`{key}` has {count} entries, at most {most} are taken")
    if settings.quorum is not None and not 1 <= settings.quorum <= len(witnesses):
        raise SettingError(
            f"`checkpoint.quorum` is {settings.quorum}, with {len(witnesses)} witnesses",
            hint="at least one, and no more than there are",
        )
    if stamps is None:
        return
    for place, url in enumerate(stamps.urls):
        _check_url(url, f"checkpoint.timestamps.urls[{place}]")
    if not stamps.urls or stamps.every_hours < 1:
        raise SettingError(
            "`checkpoint.timestamps` needs `urls`, and `every_hours` of 1 or more"
        )


def _check_url(url: str, key: str) -> None:
    """Check that *url* can be posted to, over TLS unless it stays on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as bad:
        raise SettingError(f"`{key}` is not an address: {bad}") from bad
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.fragment:
        raise SettingError(f"`{key}` is not an address: `{url}`", hint="like https://host/path")
    if parts.scheme == "http" and not is_loopback(host):
        raise SettingError(
            f"`{key}` is not https: `{url}`",
            hint="whoever can change its answers could keep the gateway from working",
        )


def _set(node: Node, names: list[str], value: str, outside: list[str]) -> Keyed:
    """Return *node* with *value* at *names*; a missing mapping on the way is made.

    The value comes from the last of *outside*.
    """
    line = -len(outside)
    if not isinstance(node, Keyed):
        raise SettingError(f"{outside[-1]} sets a part of something that has no parts")
    name, rest = names[0].replace("-", "_"), names[1:]
    if name not in node.entries:
        dashed = name.replace("_", "-")
        name = dashed if dashed in node.entries else name
    child: Node = Scalar(value=value, line=line)
    if rest:
        below = node.entries.get(name, Keyed(entries={}, key_lines={}, line=line))
        child = _set(below, rest, value, outside)
    known = node.key_lines.get(name, line)
    return Keyed(
        entries={**node.entries, name: child},
        key_lines={**node.key_lines, name: known if rest else line},
        line=node.line,
    )


def _blame(exc: MalformedPolicyError, outside: Sequence[str]) -> str:
    """Name the variable or flag where the fault came from there, not from the file."""
    if exc.line >= 0:
        return exc.message
    said = exc.message.partition(f":{exc.line}: ")[2]
    return f"{outside[-exc.line - 1]}: {said}"


def shown(sourced: Sourced) -> list[tuple[str, str, str]]:
    """Return (key, value, source) of every setting; there is no secret to leave out."""
    values: dict[str, Any] = msgspec.to_builtins(sourced.settings)
    return [(name, _text(values[name]), sourced.sources[name]) for name in values]


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
