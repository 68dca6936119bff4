"""HTML and SVG as nested calls. Text is escaped because only `Markup` isn't: there is no way to forget it."""

import html


class Markup(str):
    """Text that is markup already; everything else that `element` gets is escaped."""

    __slots__ = ()


Child = str | None


def element(name: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """One element. `class_` becomes class, an underscore a hyphen; an attribute or child of None is left out."""
    opening = name + "".join(
        f' {_attribute_name(key)}="{html.escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if not any(child is not None for child in children):
        return Markup(f"<{opening} />") if name in _VOID else Markup(f"<{opening}></{name}>")
    return Markup(f"<{opening}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Several pieces, one after the other, each escaped unless it is markup."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else html.escape(child, quote=False)
            for child in children
            if child is not None
        )
    )


_VOID = frozenset({"meta", "br", "hr", "line", "circle", "rect", "path", "col"})
_CASED = {"viewbox": "viewBox"}


def _attribute_name(key: str) -> str:
    name = key.rstrip("_").replace("_", "-")
    return _CASED.get(name, name)


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
