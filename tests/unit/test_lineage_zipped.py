"""Zip files are written in one way, and a hostile one is refused before it costs anything."""

from __future__ import annotations

import io
import random
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import OperatorError
from gateway.limits import PACK_FILES_MAX
from gateway.lineage.zipped import MalformedPackError, Zipped, write_zip

FILES = [("a.txt", b"one"), ("b/c.txt", b"two" * 1000), ("z", b"")]


def opened(path: Path) -> dict[str, bytes]:
    """Return everything that a zip file holds."""
    zipped = Zipped(path)
    try:
        return {name: zipped.read(name, 1 << 20) for name in zipped.sizes}
    finally:
        zipped.close()


def hostile(path: Path, build: Callable[[zipfile.ZipFile], None]) -> Path:
    """Write a zip file with other people's tools."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        build(zipped)
    path.write_bytes(buffer.getvalue())
    return path


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    """Return an entry as ours are."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Names, order and contents survive, and ordinary tools read them too."""
    write_zip(tmp_path / "pack.zip", FILES)

    assert dict(FILES) == opened(tmp_path / "pack.zip")
    with zipfile.ZipFile(tmp_path / "pack.zip") as ordinary:
        assert ([name for name, _ in FILES], None) == (ordinary.namelist(), ordinary.testzip())


def test_the_same_contents_are_the_same_file(tmp_path: Path) -> None:
    """No clock, owner or path of this machine is in it."""
    (tmp_path / "b").write_bytes(b"two" * 1000)
    write_zip(tmp_path / "one.zip", FILES)
    write_zip(tmp_path / "two.zip", [FILES[0], ("b/c.txt", tmp_path / "b"), FILES[2]])

    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_what_stands_already_stays(tmp_path: Path) -> None:
    """A file of that name is not replaced, and nothing is left beside it."""
    (tmp_path / "pack.zip").write_text("mine")

    with pytest.raises(OperatorError, match="already stands"):
        write_zip(tmp_path / "pack.zip", FILES)

    assert ["pack.zip"] == [path.name for path in tmp_path.iterdir()]
    assert "mine" == (tmp_path / "pack.zip").read_text()


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    """A content that can't be read leaves no half of a file."""
    with pytest.raises(OperatorError):
        write_zip(tmp_path / "pack.zip", [*FILES, ("q", tmp_path / "nothing")])

    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    ["../up", "/etc/passwd", "a/../b", "a//b", ".hidden", "a b", "a\\b", "ä", "a\n", "x" * 400],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    """No name leads upwards, to a root, to something hidden, or can't be shown."""
    path = hostile(tmp_path / "pack.zip", lambda zipped: zipped.writestr(entry(name), b"x"))

    with pytest.raises(MalformedPackError):
        opened(path)


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    """Of two files of one name nobody knows which counts."""

    def build(zipped: zipfile.ZipFile) -> None:
        zipped.writestr(entry("a"), b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            zipped.writestr(entry("a"), b"y")

    with pytest.raises(MalformedPackError, match="twice"):
        opened(hostile(tmp_path / "pack.zip", build))


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    """Only plain files are in a pack."""
    for mode in (stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644, stat.S_IFDIR | 0o755):
        path = hostile(
            tmp_path / "pack.zip",
            lambda zipped, mode=mode: zipped.writestr(entry("a", mode), b"/etc"),  # type: ignore[misc]
        )
        with pytest.raises(MalformedPackError, match="not stored as in packs"):
            opened(path)


def test_what_would_grow_is_refused_before_it_does(tmp_path: Path) -> None:
    """A size that was said is never exceeded, and one that can't be true is refused."""
    write_zip(tmp_path / "pack.zip", [("a", b"\0" * (1 << 20))])
    raw = bytearray((tmp_path / "pack.zip").read_bytes())
    at = raw.index(b"PK\x01\x02") + 24
    raw[at : at + 4] = (1 << 30).to_bytes(4, "little")
    (tmp_path / "pack.zip").write_bytes(raw)

    with pytest.raises(MalformedPackError, match="grow too much"):
        opened(tmp_path / "pack.zip")


def test_a_file_longer_than_wanted_is_not_read(tmp_path: Path) -> None:
    """Whoever reads a file whole says how long it may be."""
    write_zip(tmp_path / "pack.zip", [("a", b"x" * 100)])
    zipped = Zipped(tmp_path / "pack.zip")

    with pytest.raises(MalformedPackError, match="longer than 99"):
        zipped.read("a", 99)
    zipped.close()


def test_no_bit_of_a_header_may_be_another(tmp_path: Path) -> None:
    """Whatever describes the files says what we write, to the bit: nothing is read two ways."""
    write_zip(tmp_path / "pack.zip", FILES)
    raw = (tmp_path / "pack.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "pack.zip") as ordinary:
        infos, directory = ordinary.infolist(), ordinary.start_dir
    told = [
        at
        for info in infos
        for at in range(info.header_offset, info.header_offset + 30 + len(info.filename))
    ]
    for at in (*told, *range(directory, len(raw))):
        for bit in range(8):
            bent = bytearray(raw)
            bent[at] ^= 1 << bit
            (tmp_path / "bent.zip").write_bytes(bent)
            with pytest.raises(MalformedPackError):
                opened(tmp_path / "bent.zip")


@pytest.mark.parametrize("cut", [b"hidden", b""])
def test_nothing_is_hidden_behind_a_file(tmp_path: Path, cut: bytes) -> None:
    """What stands between the end of a file's stream and the next file is refused."""
    write_zip(tmp_path / "pack.zip", [("a", b"x" * 100)])
    raw = (tmp_path / "pack.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "pack.zip") as ordinary:
        (info,), at = ordinary.infolist(), ordinary.start_dir
    stream = raw[31 : 31 + info.compress_size] + cut
    stream = stream if cut else stream[:-1]
    size = len(stream).to_bytes(4, "little")
    directory = raw[at : at + 20] + size + raw[at + 24 : -22]
    end = raw[-22:-6] + (31 + len(stream)).to_bytes(4, "little") + raw[-2:]
    (tmp_path / "pack.zip").write_bytes(raw[:18] + size + raw[22:31] + stream + directory + end)

    with pytest.raises(MalformedPackError):
        opened(tmp_path / "pack.zip")


def test_files_that_overlap_are_refused(tmp_path: Path) -> None:
    """No bytes are two files at once."""
    write_zip(tmp_path / "pack.zip", [("a", b"x" * 100), ("b", b"x" * 100)])
    raw = bytearray((tmp_path / "pack.zip").read_bytes())
    second = raw.rindex(b"PK\x01\x02")
    raw[second + 42 : second + 46] = (0).to_bytes(4, "little")
    (tmp_path / "pack.zip").write_bytes(raw)

    with pytest.raises(MalformedPackError, match="not where it should be"):
        opened(tmp_path / "pack.zip")


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    """The number of files is bounded before their names are read."""

    def build(zipped: zipfile.ZipFile) -> None:
        for number in range(PACK_FILES_MAX + 1):
            zipped.writestr(entry(f"f{number}"), b"")

    with pytest.raises(MalformedPackError, match="more than"):
        opened(hostile(tmp_path / "pack.zip", build))


def test_bytes_before_and_after_are_refused(tmp_path: Path) -> None:
    """A pack is a pack from its first byte to its last: no program before it, no word after."""
    write_zip(tmp_path / "pack.zip", FILES)
    raw = (tmp_path / "pack.zip").read_bytes()

    for odd in (
        b"#!/bin/sh\n" + raw,
        raw + b"more",
        raw[:-1],
        raw[: len(raw) // 2],
        b"",
        b"PK",
    ):
        (tmp_path / "pack.zip").write_bytes(odd)
        with pytest.raises(MalformedPackError):
            opened(tmp_path / "pack.zip")


def test_any_changed_byte_gives_the_same_or_is_refused(tmp_path: Path) -> None:
    """Whatever becomes of the container, no other content comes out of it."""
    write_zip(tmp_path / "pack.zip", FILES)
    raw, chance = (tmp_path / "pack.zip").read_bytes(), random.Random(4)
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1 << chance.randrange(8)
        (tmp_path / "pack.zip").write_bytes(changed)
        try:
            assert set(opened(tmp_path / "pack.zip").values()) <= {one for _, one in FILES}
        except MalformedPackError:
            continue
