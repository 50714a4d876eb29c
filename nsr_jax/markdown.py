"""Markdown tables for all reports and commands of the project."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """A table, with a line break after each line.

    Args:
        head: one heading for each column.
        rows: as many cells each, which are converted by `str`.
        left: how many columns at the left hold text, which is aligned left; the others hold numbers.
    """
    alignment = ['---' if index < left else '---:' for index in range(len(head))]
    lines = [[_escape(cell) for cell in head], alignment, *([_escape(cell) for cell in row] for row in rows)]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def _escape(cell: object) -> str:
    return str(cell).replace('|', '\\|')
