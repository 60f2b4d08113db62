"""Write the digests of a text that was just read into `terms.yaml`, and nothing else.

The file is legal's: their comments, order and line ends stay; only the lines of one
document's `snapshot` are put in or replaced. What comes out is read again and compared with
what was meant, so that an unforeseen way of writing YAML is an error and never a change.

Not here: making the digests (`snapshot.py`), writing the file (`cli/watch.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gateway.errors import MalformedPolicyError
from gateway.policy.model import Snapshot
from gateway.policy.source import Keyed, Listing, Node, node_at, plain, read

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_BEGIN: Final = re.compile(r"[ ]*(?:-[ ]+)?")


def with_snapshot(text: str, file: str, document: str, snapshot: Snapshot) -> str:
    """Return the text of a `terms.yaml` with *snapshot* as that of *document*.

    Raises:
        MalformedPolicyError: the document is not there, or is not written key by line.
    """
    node = read(text, file)
    index, keys = _document(node, file, document)
    lines = text.split("\n")
    indent = _indent(keys, lines, file)
    begin = keys.key_lines.get("snapshot", 0)
    following = [line for line in keys.key_lines.values() if line > begin]
    end = min(following) if begin and following else _end(node, index, len(lines))
    while end - 1 > keys.line and _is_between(lines[end - 2], indent):
        end -= 1
    ending = "\r" if lines[0].endswith("\r") else ""
    if end - 1 == len(lines):  # the file's last line has no end
        lines[end - 2] += ending
        lines.append("")
    written = [f"{' ' * indent}{line}{ending}" for line in snapshot_lines(snapshot)]
    lines[(begin or end) - 1 : end - 1] = written
    made = "\n".join(lines)
    _check(node, made, file, index, snapshot, keys.line)
    return made


def snapshot_lines(snapshot: Snapshot) -> Iterator[str]:
    """Yield *snapshot* as the lines of `terms.yaml`, without their indentation."""
    yield "snapshot:"
    yield f"  file: {_scalar(snapshot.file)}"
    if snapshot.file_sha256 is not None:
        yield f"  file_sha256: {_scalar(snapshot.file_sha256)}"
    if snapshot.sha256 is not None:
        yield f"  sha256: {_scalar(snapshot.sha256)}"
    if snapshot.passages:
        yield "  passages:"
        for quoted, digest in snapshot.passages.items():
            yield f"    {json.dumps(quoted, ensure_ascii=False)}: {_scalar(digest)}"


def check_snapshot(text: str, file: str, document: str, snapshot: Snapshot) -> None:
    """Check what the schema can't: digests are digests, and the file lies below a folder.

    Raises:
        MalformedPolicyError: names the line in the `terms.yaml` that *text* spells.
    """
    _, keys = _document(read(text, file), file, document)
    here = node_at(keys, "snapshot")
    assert isinstance(here, Keyed)  # noqa: S101 # INVARIANT: the struct was made of it.
    parts = snapshot.file.split("/")
    if not all(parts) or {".", ".."} & set(parts) or re.search(r"[\\\x00-\x1f]", snapshot.file):
        raise MalformedPolicyError(
            file,
            here.key_lines["file"],
            f"`{snapshot.file[:80]}` is not the path of a file below a folder of terms",
            hint="write it as `ChatGPT/Commercial Terms.md`",
        )
    found: dict[str, tuple[str | None, int]] = {}
    for key in ("file_sha256", "sha256"):
        found[key] = (getattr(snapshot, key), here.key_lines.get(key, here.line))
    passages = node_at(here, "passages")
    for quoted, digest in snapshot.passages.items():
        line = passages.key_lines[quoted] if isinstance(passages, Keyed) else here.line
        found[quoted] = (digest, line)
    for name, (value, line) in found.items():
        if value is not None and not _DIGEST.fullmatch(value):
            raise MalformedPolicyError(
                file,
                line,
                f"`{name[:80]}` is not a digest of 64 hex digits",
                hint="leave digests to `gateway policy watch DIR --record`",
            )


def _document(node: Node, file: str, document: str) -> tuple[int, Keyed]:
    listing = node_at(node, "documents")
    for index, item in enumerate(listing.items if isinstance(listing, Listing) else ()):
        if isinstance(item, Keyed) and plain(item).get("id") == document:
            return index, item
    raise MalformedPolicyError(file, 1, f"there is no document `{document}`")


def _indent(keys: Keyed, lines: Sequence[str], file: str) -> int:
    """Return the column in which every key of the document begins."""
    columns = set()
    for name, number in keys.key_lines.items():
        line = lines[number - 1]
        begin = _BEGIN.match(line)
        column = begin.end() if begin else 0
        if line[column:].startswith((f"{name}:", f'"{name}"', f"'{name}'")):
            columns.add(column)
        else:
            columns.add(-1)
    if (
        len(columns) != 1
        or -1 in columns
        or len(set(keys.key_lines.values())) < len(keys.entries)
    ):
        raise MalformedPolicyError(
            file,
            keys.line,
            "a document whose keys do not stand on lines of their own",
            hint="write one key a line, then `--record` can add to it",
        )
    return columns.pop()


def _end(node: Node, index: int, count: int) -> int:
    """Return the number of the line after the document at *index*."""
    listing = node_at(node, "documents")
    after = node_at(node, "documents", index + 1)
    if isinstance(after, Keyed) and after.key_lines:
        return min(after.key_lines.values())
    if isinstance(node, Keyed) and isinstance(listing, Listing):
        return min(
            (line for line in node.key_lines.values() if line > listing.line),
            default=count + 1,
        )
    return count + 1


def _is_between(line: str, indent: int) -> bool:
    """Tell whether *line* is blank, or a comment that does not belong to the document."""
    stripped = line.strip()
    outside = len(line) - len(line.lstrip()) < indent
    return not stripped or (
        outside and stripped.startswith(("#", "-")) and stripped[1:2] != " "
    )


def _check(node: Node, made: str, file: str, index: int, snapshot: Snapshot, line: int) -> None:
    meant: Any = plain(node)
    expected: Mapping[str, Any] = {
        "file": snapshot.file,
        "file_sha256": snapshot.file_sha256,
        "sha256": snapshot.sha256,
        "passages": dict(snapshot.passages) or None,
    }
    meant["documents"][index]["snapshot"] = {
        key: value for key, value in expected.items() if value is not None
    }
    if plain(read(made, file)) != meant:
        raise MalformedPolicyError(
            file, line, "a document to which no snapshot can be added", hint="add it by hand"
        )


def _scalar(word: str) -> str:
    """Return *word* as YAML, in quotes only where it needs them."""
    simple = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ./_()&+,-]*[A-Za-z0-9.)]", word)
    if simple and ": " not in word and not re.fullmatch(r"[0-9]+|null|true|false", word):
        return word
    return json.dumps(word, ensure_ascii=False)
