"""XML read as a stream of records, by expat, for files that nobody here wrote.

Guarantees: a document type, and with it every entity, is refused before it is expanded; one token, one
record and the depth are bounded while they are read; nothing external is ever opened; a file that ends early
is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO
from xml.parsers import expat

from allod.kyc.screening.lists.damage import damaged
from allod.limits import LIST_DEPTH_MAX, LIST_RECORD_BYTES_MAX, LIST_TOKEN_BYTES_MAX

_PIECE = 64 * 1024


class Node:
    """An element of a record: its name without namespace, its attributes, its text and its children."""

    __slots__ = ("attributes", "children", "line", "tag", "text")

    def __init__(self, tag: str, attributes: dict[str, str], line: int) -> None:
        self.tag = tag
        self.attributes = attributes
        self.line = line
        self.text = ""
        self.children: list[Node] = []

    def all(self, tag: str) -> Iterator[Node]:
        """The children of this name, in order."""
        return (c for c in self.children if c.tag == tag)

    def first(self, *path: str) -> str:
        """The text at the end of a path, without white space around it; empty where there is none."""
        node: Node | None = self
        for tag in path:
            node = next(node.all(tag), None) if node else None
        return " ".join(node.text.split()) if node else ""

    def values(self, tag: str) -> list[str]:
        """Every `VALUE` within the children of this name, without the empty ones."""
        found = [" ".join(v.text.split()) for child in self.all(tag) for v in child.all("VALUE")]
        return [text for text in found if text]


class Reader:
    """Reads records out of one document. `root` may carry a namespace as `namespace}name`."""

    def __init__(self, file: BinaryIO, name: str, *, roots: frozenset[str], records: frozenset[str]) -> None:
        self._file, self._name = file, name
        self._roots, self._records = roots, records
        self._open: list[Node] = []
        self._ready: list[Node] = []
        self._depth = self._bytes = 0
        self.root: dict[str, str] = {}
        self._expat = expat.ParserCreate(namespace_separator="}")
        self._expat.buffer_text = True
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._characters
        self._expat.StartDoctypeDeclHandler = self._doctype

    def records(self) -> Iterator[Node]:
        """Each record once it is complete. Raises Unprocessable `kyc.list-damaged`."""
        fed = 0
        try:
            while piece := self._file.read(_PIECE):
                self._expat.Parse(piece, False)
                fed += len(piece)
                if fed - max(0, self._expat.CurrentByteIndex) > LIST_TOKEN_BYTES_MAX:
                    raise self._damaged(f"one tag is longer than {LIST_TOKEN_BYTES_MAX} bytes")
                yield from self._taken()
            self._expat.Parse(b"", True)
        except expat.ExpatError as e:
            reason = expat.ErrorString(e.code)
            raise damaged(self._name, e.lineno, f"this is not well-formed XML ({reason})") from e
        yield from self._taken()

    def _taken(self) -> list[Node]:
        ready, self._ready = self._ready, []
        return ready

    def _damaged(self, reason: str) -> Exception:
        return damaged(self._name, self._expat.CurrentLineNumber, reason)

    def _doctype(self, *_: Any) -> None:
        raise self._damaged("it declares a document type; no official list does, and entities stay unread")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 1:
            if tag not in self._roots:
                raise self._damaged(f"the root is <{_local(tag)}>, which is not this list's format")
            self.root = {_local(k): v for k, v in attributes.items()}
            return
        if self._depth > LIST_DEPTH_MAX:
            raise self._damaged(f"elements are nested deeper than {LIST_DEPTH_MAX}")
        local = _local(tag)
        if not self._open and local not in self._records:
            return
        self._grow(sum(len(k) + len(v) for k, v in attributes.items()) + len(local))
        node = Node(local, {_local(k): v for k, v in attributes.items()}, self._expat.CurrentLineNumber)
        if self._open:
            self._open[-1].children.append(node)
        self._open.append(node)

    def _end(self, _tag: str) -> None:
        self._depth -= 1
        if self._open:
            node = self._open.pop()
            if not self._open:
                self._ready.append(node)
                self._bytes = 0

    def _characters(self, text: str) -> None:
        if self._open:
            self._grow(len(text))
            self._open[-1].text += text

    def _grow(self, count: int) -> None:
        self._bytes += count
        if self._bytes > LIST_RECORD_BYTES_MAX:
            raise self._damaged(f"one entry is larger than {LIST_RECORD_BYTES_MAX} bytes")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
