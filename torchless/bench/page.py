"""The frame of a page with charts and tables: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

__all__ = ["figure", "html_table", "page"]


def page(title: str, subtitle: str, parts: Sequence[str]) -> str:
    """The page's HTML; `parts` is what stands below the title."""
    style = files("torchless.bench").joinpath("report.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>torchless {escape(title)}</title>",
            f"<style>\n{style}</style></head><body><main>",
            f"<h1>{escape(title.partition(': ')[2] or title)}</h1>",
            f'<p class="machine">{escape(subtitle)}</p>',
            *parts,
            "</main></body></html>",
            "",
        ]
    )


def figure(title: str, note: str, chart: str) -> str:
    """A chart under its title."""
    return f"<figure><figcaption><h2>{escape(title)}</h2><p>{escape(note)}</p></figcaption>{chart}</figure>"


def html_table(markdown: str) -> str:
    """A Markdown table as HTML."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    head = "".join(f"<th>{escape(cell)}</th>" for cell in lines[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines[2:]
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
