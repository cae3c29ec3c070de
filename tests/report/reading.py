"""A page as a tree, read by Python's own parser, which knows nothing of how it was written."""

import dataclasses
from collections.abc import Iterator
from html.parser import HTMLParser

VOID = {"br", "img", "input", "meta", "path", "line"}


@dataclasses.dataclass
class Node:
    """An element: tag, attributes, and what is in it in order."""

    tag: str
    attributes: dict[str, str | None]
    children: "list[Node | str]" = dataclasses.field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag: str, **attributes: str) -> "list[Node]":
        """Returns the elements below with a tag and attributes, in order."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            node for node in self._below() if node.tag == tag and wanted.items() <= node.attributes.items()
        ]

    def one(self, tag: str, **attributes: str) -> "Node":
        (node,) = self.all(tag, **attributes)
        return node

    def rows(self) -> list[list[str]]:
        """Returns the texts of a table's cells."""
        return [[cell.text for cell in row.children if isinstance(cell, Node)] for row in self.all("tr")]

    def _below(self) -> "Iterator[Node]":
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child._below()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Node("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        node = Node(tag, dict(attrs))
        self._open[-1].children.append(node)
        if tag not in VOID:
            self._open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID, tag
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)

    def close(self) -> None:
        super().close()
        assert self._open == [self.root]


def read(page: str) -> Node:
    """Returns the page's html element; every element must be closed, in order."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader.root.one("html")
