"""Settings: one strict file, then the environment, then flags; mistakes name their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from gateway.errors import SettingError
from gateway.settings import (
    Settings,
    Sourced,
    address,
    is_loopback,
    load,
    secret,
    shown,
)


def wrote(folder: Path, text: str) -> Path:
    """Return a settings file that holds *text*."""
    file = folder / "gateway.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def failing(folder: Path, text: str, environment: dict[str, str] | None = None) -> SettingError:
    """Return why settings of *text* can't be read."""
    with pytest.raises(SettingError) as raised:
        load(wrote(folder, text), environment or {})
    assert "\n" not in str(raised.value)
    assert not raised.value.message.endswith(".")
    return raised.value


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "{}\n"])
def test_an_empty_file_is_a_valid_one(text: str, tmp_path: Path) -> None:
    """Every key has a default that serves on one machine."""
    sourced = load(wrote(tmp_path, text), {})

    assert Settings() == sourced.settings
    assert {"default"} == set(sourced.sources.values())


def test_without_a_file_there_are_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no gateway.yaml nothing is missing."""
    monkeypatch.chdir(tmp_path)

    assert Sourced(settings=Settings(), sources=load(None, {}).sources, file=None) == load(
        None, {}
    )


def test_later_words_win_and_each_is_named(tmp_path: Path) -> None:
    """Default, file, environment, flag: the later wins, and is shown as the source."""
    file = wrote(
        tmp_path, "data: here\nkeys: managed\nlisten: 127.0.0.1:1\nundeclared: forbid\n"
    )
    environment = {
        "GATEWAY__KEYS": "passthrough",
        "GATEWAY__LISTEN": "127.0.0.1:2",
        "OTHER": "x",
    }
    sourced = load(file, environment, {"listen": "127.0.0.1:3"})
    settings, sources = sourced.settings, sourced.sources

    assert ("here", "passthrough", "127.0.0.1:3", "forbid") == (
        settings.data,
        settings.keys,
        settings.listen,
        settings.undeclared,
    )
    assert (f"{file}:1", "GATEWAY__KEYS", "--listen", "default") == (
        sources["data"],
        sources["keys"],
        sources["listen"],
        sources["tls"],
    )


def test_a_provider_can_be_set_from_the_environment(tmp_path: Path) -> None:
    """Nested values are overridden one by one, and names with dashes are found."""
    file = wrote(
        tmp_path,
        "providers:\n  my-vllm:\n    base_url: http://127.0.0.1:1\n    dialect: openai\n",
    )
    environment = {
        "GATEWAY__PROVIDERS__MY_VLLM__BASE_URL": "http://127.0.0.1:2",
        "GATEWAY__PROVIDERS__OPENAI__CREDENTIAL": "env:KEY",
    }
    providers = load(file, environment).settings.providers

    assert ("http://127.0.0.1:2", "openai") == (
        providers["my-vllm"].base_url,
        providers["my-vllm"].dialect,
    )
    assert "env:KEY" == providers["openai"].credential


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("false", False)])
def test_a_yes_or_no_can_come_from_the_environment(
    value: str,
    expected: bool,  # noqa: FBT001 - pytest passes it by name
    tmp_path: Path,
) -> None:
    """The environment's words are read as the file's are."""
    environment = {"GATEWAY__BEHIND_TLS_PROXY": value}

    assert expected is load(wrote(tmp_path, ""), environment).settings.behind_tls_proxy


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("listen: 127.0.0.1:1\nlissten: x\n", 2, "lissten"),
        ("keys: open\n", 1, "keys"),
        ("data: a\ndata: b\n", 2, "data"),
        ("data: a\nproviders:\n  openai:\n    base: x\n", 4, "base"),
        ("a: [", 2, ""),
        ("- a\n", 1, ""),
        ("word\n", 1, ""),
        ("data: a\nbehind_tls_proxy: perhaps\n", 2, "behind_tls_proxy"),
        ("data: a\ntls: {cert: a}\n", 2, "tls"),
        ("x: &a 1\ny: *a\n", 1, ""),
        ("data: a\n---\ndata: b\n", 2, ""),
    ],
)
def test_a_mistake_names_file_and_line(text: str, line: int, word: str, tmp_path: Path) -> None:
    """Whoever wrote a setting wrong is told where, in one line."""
    error = failing(tmp_path, text)

    assert f"gateway.yaml:{line}: " in error.message
    assert word in str(error)


@pytest.mark.parametrize("text", ["", "data: here\n"], ids=["empty file", "file"])
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GATEWAY__KEYS", "open"),
        ("GATEWAY__NO_SUCH", "1"),
        ("GATEWAY__DATA__MORE", "1"),
        ("GATEWAY__PROVIDERS__OPENAI__DIALECT", "latin"),
        ("GATEWAY__", "1"),
        ("GATEWAY__PROVIDERS", "x"),
        ("GATEWAY__PROVIDERS__OPENAI__NO_SUCH", "x"),
        ("GATEWAY__BEHIND_TLS_PROXY", "perhaps"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    variable: str, value: str, text: str, tmp_path: Path
) -> None:
    """A bad value that came from the environment is not blamed on the file."""
    error = failing(tmp_path, text, {variable: value})

    assert variable in error.message
    assert "gateway.yaml:" not in error.message


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("listen: 127.0.0.1:8080", True),
        ("listen: '[::1]:8080'", True),
        ("listen: localhost:8080", True),
        ("listen: 0.0.0.0:8080", False),
        ("listen: 0.0.0.0:8080\nkeys: managed", False),
        ("listen: 0.0.0.0:8080\nbehind_tls_proxy: true", False),
        ("listen: 0.0.0.0:8080\nkeys: managed\nbehind_tls_proxy: true", True),
        ("listen: 10.0.0.1:443\nkeys: managed\ntls: {cert: a, key: b}", True),
        ("listen: gateway.example:443", False),
        ("listen: '::8080'", False),
        ("listen: 127.0.0.1", False),
        ("listen: 127.0.0.1:x", False),
        ("listen: 127.0.0.1:65536", False),
        ("listen: 127.0.0.1:-1", False),
        ("listen: ':8080'", False),
        ("listen: ''", False),
        ("listen: '127.0.0.1:٣'", False),
    ],
)
def test_a_door_that_is_open_to_others_is_closed_by_default(
    text: str,
    fine: bool,  # noqa: FBT001 - pytest passes it by name
    tmp_path: Path,
) -> None:
    """Anything but loopback needs managed keys, and TLS or somebody who says it ends before."""
    if fine:
        assert load(wrote(tmp_path, text), {}).settings.listen
    else:
        assert "listen" in str(failing(tmp_path, text))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_is_this_machine_alone(host: str) -> None:
    """All of 127/8 and ::1 are loopback."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", ""])
def test_what_is_not_loopback_is_not(host: str) -> None:
    """A name that only looks local is not."""
    assert not is_loopback(host)


def test_an_address_is_host_and_port() -> None:
    """Both halves come back, an IPv6 host without its brackets."""
    assert [("127.0.0.1", 80), ("::1", 0)] == [
        address("127.0.0.1:80", "listen"),
        address("[::1]:0", "listen"),
    ]


def test_a_secret_is_a_reference(tmp_path: Path) -> None:
    """A secret comes from the environment or a file, without the blanks around it."""
    file = tmp_path / "key"
    file.write_text("sk-1\n")

    assert "sk-2" == secret("env:KEY", "credential", {"KEY": " sk-2\n"})
    assert "sk-1" == secret(f"file:{file}", "credential", {})


@pytest.mark.parametrize(
    "reference",
    [
        "sk-plain-text",
        "env:NOT_SET",
        "env:",
        "env:EMPTY",
        "env:TWO",
        "file:/no/such/file",
        "file:",
        "",
    ],
)
def test_a_secret_in_plain_text_or_nowhere_is_refused(reference: str) -> None:
    """A secret that stands in the settings, or refers to nothing, is an error without it."""
    with pytest.raises(SettingError) as raised:
        secret(reference, "providers.openai.credential", {"EMPTY": " ", "TWO": "a\nb"})

    assert "providers.openai.credential" in str(raised.value)
    assert "plain-text" not in str(raised.value)


def test_a_secrets_file_may_stand_beside_the_settings(tmp_path: Path) -> None:
    """A relative path in the settings starts at their folder, a secret's too."""
    (tmp_path / "key").write_text("sk-1")
    sourced = load(wrote(tmp_path, ""), {})

    assert "sk-1" == sourced.secret("file:key", "credential")
    assert "sk-1" == sourced.secret(f"file:{tmp_path / 'key'}", "credential")


def test_a_mistake_is_blamed_on_who_made_it(tmp_path: Path) -> None:
    """With several variables and a file at work, the one with the mistake is named alone."""
    environment = {"GATEWAY__DATA": "a", "GATEWAY__KEYS": "open", "GATEWAY__POLICIES": "b"}
    error = failing(tmp_path, "listen: 127.0.0.1:1\nkeys: managed\n", environment)
    inside = failing(tmp_path, "data: a\nkeys: open\n", {"GATEWAY__DATA": "b"})

    assert error.message.startswith("GATEWAY__KEYS: ")
    assert f"{tmp_path / 'gateway.yaml'}:2: " in inside.message


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    """Where the settings say `./data` they mean beside themselves."""
    sourced = load(wrote(tmp_path, "data: ./data\n"), {})

    assert tmp_path / "data" == sourced.path(sourced.settings.data)
    assert Path("/srv/data") == sourced.path("/srv/data")


@pytest.mark.parametrize("name", ["missing.yaml", ""])
def test_a_file_that_cant_be_read_is_named(name: str, tmp_path: Path) -> None:
    """A named file that is missing, or a folder, is one line for the operator."""
    with pytest.raises(SettingError, match="can't read the settings file"):
        load(tmp_path / name, {})


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """Settings are UTF-8."""
    file = tmp_path / "gateway.yaml"
    file.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(SettingError, match="not UTF-8"):
        load(file, {})


def test_every_setting_is_shown(tmp_path: Path) -> None:
    """Each key is shown once, as text, with its source."""
    rows = shown(load(wrote(tmp_path, "keys: managed\n"), {}))

    assert list(Settings.__struct_fields__) == [name for name, _, _ in rows]
    assert ("keys", "managed", f"{tmp_path / 'gateway.yaml'}:1") in rows
    assert ("tls", "-", "default") in rows
    assert ("behind_tls_proxy", "false", "default") in rows


@profile(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["data:", " a", "\n", "- ", "{", "'"])).map("".join),
    st.dictionaries(
        st.lists(st.sampled_from(["data", "listen", "providers", "x", ""]), max_size=3).map(
            lambda names: "GATEWAY__" + "__".join(names)
        ),
        st.text(max_size=9),
        max_size=2,
    ),
)
def test_any_text_is_settings_or_one_error(
    tmp_path: Path, text: str, environment: dict[str, str]
) -> None:
    """Whatever stands in the file or the environment, there is a value or one line."""
    file = tmp_path / "gateway.yaml"
    file.write_text(text, encoding="utf-8")
    try:
        sourced = load(file, environment)
    except SettingError as error:
        told = str(error)
    else:
        told = " ".join(sourced.sources)

    assert "\n" not in told


WITNESS = "witness.example/w1+6b02e6d8+BPC5j668WFMxHclbQaY8/AIy4DNtM/iyAQUUnm+EC06e"


def test_witnesses_are_read_whole(tmp_path: Path) -> None:
    """An address and a vkey each; without a word on it more than half must cosign."""
    text = f"checkpoint: {{witnesses: [{{url: 'https://w.example/a', vkey: '{WITNESS}'}}]}}"
    checkpoint = load(wrote(tmp_path, text), {}).settings.checkpoint

    assert ("https://w.example/a", WITNESS, 1) == (
        checkpoint.witnesses[0].url,
        checkpoint.witnesses[0].vkey,
        checkpoint.needed,
    )
    assert load(
        wrote(tmp_path, text), {"GATEWAY__CHECKPOINT__START_UNWITNESSED": "true"}
    ).settings.checkpoint.start_unwitnessed


@pytest.mark.parametrize(
    ("checkpoint", "says"),
    [
        ("quorum: 1", "with 0 witnesses"),
        ("witnesses: [{url: 'https://w', vkey: 'x'}]", "witnesses[0].vkey"),
        (f"witnesses: [{{url: 'http://w.example', vkey: '{WITNESS}'}}]", "not https"),
        (f"witnesses: [{{url: 'ftp://w.example', vkey: '{WITNESS}'}}]", "not an address"),
        (f"witnesses: [{{url: 'https://w:x', vkey: '{WITNESS}'}}]", "not an address"),
        (f"witnesses: [{{url: 'https://w', vkey: '{WITNESS}'}}], quorum: 2", "quorum"),
        (f"witnesses: [{{url: 'https://w', vkey: '{WITNESS}'}}], quorum: 0", "quorum"),
        (
            f"witnesses: [{', '.join([f'{{url: https://w, vkey: {WITNESS!r}}}'] * 2)}]",
            "names a witness twice",
        ),
        (f"copies: {['x'] * 9}", "at most 8"),
        ("timestamps: {urls: [], certificates: x}", "urls"),
        ("timestamps: {urls: ['http://tsa.example'], certificates: x}", "not https"),
        (
            "timestamps: {urls: ['https://tsa'], certificates: x, every_hours: 0}",
            "every_hours",
        ),
    ],
)
def test_checkpoints_that_nobody_could_keep_are_refused(
    checkpoint: str, says: str, tmp_path: Path
) -> None:
    """A witness, a quorum or an address that can't be names itself."""
    assert says in failing(tmp_path, f"checkpoint: {{{checkpoint}}}").message


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://gateway.example", True),
        ("http://gateway.example:8080", True),
        ("https://gateway.example/behind/here", True),
        ("https://gateway.example/", False),
        ("gateway.example", False),
        ("ftp://gateway.example", False),
        ("https://", False),
        ("https://gateway.example?a=b", False),
        ("https://gateway.example#a", False),
        ("https://gateway.example:port", False),
        ("https://gäteway.example", False),
    ],
)
def test_a_public_address_is_one(url: str, tmp_path: Path, *, good: bool) -> None:
    """What callers are led to is an address that paths can be put behind."""
    text = f"public_url: {url}\n"
    if good:
        assert url == load(wrote(tmp_path, text), {}).settings.public_url
    else:
        assert "public_url" in str(failing(tmp_path, text))
