"""What every page of the comparison is made of: the document, tables, legends, plots for a desk and a phone, figures as text.

One page with everything in it: no script, and nothing that is loaded from elsewhere.
"""

from collections.abc import Callable, Iterable, Sequence
from importlib import resources

from compare.bill.lines import Variant
from compare.pages.markup import Markup, element, join
from compare.pages.svg import Line, swatch

WIDE, NARROW = 620, 340
VARIANT_STYLES: dict[Variant, str] = {
    "pay per use": "lambda",
    "always on": "ec2",
    "scheduled": "scheduled",
    "scale to zero": "zero",
}
BASIS_WORDS = {
    "measured": "counted or timed in this run, on the code that would run on AWS",
    "emulated": "counted or timed in this run, but against a stand-in for an AWS service; never AWS's own figure",
    "modelled": "computed from the two above with constants from a published source",
    "assumed": "nobody measured it; the number is a stated guess",
}


def document(title: str, kicker: str, right: str, sections: Iterable[Markup | None], footer: str) -> str:
    """The whole page."""
    page = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("title", title),
            element("style", Markup(resources.files("compare.pages").joinpath("style.css").read_text())),
        ),
        element(
            "body",
            element(
                "header",
                element("span", element("strong", "Proctorwire"), f" {kicker}"),
                element("span", right),
                class_="top",
            ),
            element("main", *sections),
            element("footer", footer),
        ),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{page}\n"


def basis_mark(word: str) -> Markup:
    """How a figure came about, as a small mark."""
    return element("span", word, class_=f"basis {word}")


def legend(lines: Iterable[Line]) -> Markup:
    """A piece of each line, with its name."""
    return element(
        "ul", *[element("li", swatch(line.css), element("span", line.label)) for line in lines], class_="legend"
    )


def both_widths(plot: Callable[[int], Markup], wide: int = WIDE) -> Markup:
    """The plot for a desk and for a phone; the style sheet shows one of them."""
    return join(
        element("div", plot(wide), class_="wide"),
        element("div", plot(NARROW), class_="narrow", aria_hidden="true"),
    )


def data_table(
    caption: str | None,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    total: Sequence[str] | None = None,
    words: Sequence[int] = (0,),
    kind: str | None = None,
) -> Markup:
    """A table whose columns are numbers, but for those in `words`; the first cell of a row is its heading."""

    def css(column: int) -> str | None:
        return None if column in words else "number"

    def row(cells: Sequence[str], row_kind: str | None = None) -> Markup:
        return element(
            "tr",
            *[
                element("th", cell, scope="row", class_=css(column))
                if column == 0
                else element("td", cell, class_=css(column))
                for column, cell in enumerate(cells)
            ],
            class_=row_kind,
        )

    head = element("tr", *[element("th", text, scope="col", class_=css(column)) for column, text in enumerate(heads)])
    drawn = element(
        "table",
        element("caption", caption) if caption else None,
        element("thead", head) if any(heads) else None,
        element("tbody", *[row(cells) for cells in rows], row(total, "sum") if total else None),
        class_=kind or ("many" if len(heads) > 5 else None),
    )
    return element("div", drawn, class_="scroll")


# Figures as text


def money(usd: float) -> str:
    """USD with as many digits as matter."""
    if usd < 0:
        return f"-{money(-usd)}"
    if usd and abs(usd) < 0.01:
        return f"${usd:.4f}" if abs(usd) >= 0.0001 else "< $0.0001"
    return f"${usd:,.2f}" if abs(usd) < 1000 else f"${usd:,.0f}"


def unit_money(usd: float) -> str:
    """A unit price to five digits; a tiny one for a million units."""
    if 0 < usd < 0.001:
        return f"{_five_digits(usd * 1e6)} / million"
    return _five_digits(usd)


def _five_digits(usd: float) -> str:
    whole = f"{usd:,.4f}".rstrip("0")
    return f"${whole}" if len(whole.partition(".")[2]) >= 2 else f"${usd:,.2f}"


def milliseconds(value: float) -> str:
    """Tenths below 10 ms, whole ones above."""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def amount(quantity: float) -> str:
    """A quantity of a bill."""
    return f"{quantity:,.0f}" if quantity >= 100 or quantity == int(quantity) else f"{quantity:,.3g}"
