"""HTML by composition: what is not markup already is escaped, so that no name can break a page."""

import html
import json


class Markup(str):
    """Text that is HTML and is not escaped again."""

    __slots__ = ()


VOID = ("br", "img", "input", "meta", "path", "line")
"""Elements without content."""


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Returns an element.

    Args:
        tag: Its name.
        children: Text, which is escaped, or `Markup`; None and False are left out.
        attributes: By name, with `_` for `-`, and `class_` and `for_` for what Python reserves. True stands
            for an attribute without a value; None and False leave it out.

    Example:
        >>> element("p", "a < b", class_="note")
        '<p class="note">a &lt; b</p>'
    """
    written = "".join(
        _attribute(name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items()
    )
    if tag in VOID:
        return Markup(f"<{tag}{written}>" if tag not in ("path", "line") else f"<{tag}{written}/>")
    return Markup(f"<{tag}{written}>{join(*children)}</{tag}>")


def join(*children: object) -> Markup:
    """Returns children side by side, escaped where they are not markup; None and False are left out."""
    return Markup(
        "".join(
            str(child) if isinstance(child, Markup) else html.escape(str(child))
            for child in children
            if _there(child)
        )
    )


def embedded_json(value: object) -> Markup:
    """Returns JSON for a script element, which no text in it can close."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _attribute(name: str, value: object) -> str:
    if not _there(value):
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'


def _there(value: object) -> bool:
    return value is not None and value is not False
