"""Tables in Markdown, as all reports and commands of the project print them."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """A table, each line with its end.

    Args:
        head: one cell for each column.
        rows: as many cells each; anything that has a text.
        left: how many columns are of text and aligned on the left; those after them are of numbers.
    """
    alignment = ['---' if index < left else '---:' for index in range(len(head))]
    lines = [[_escape(cell) for cell in head], alignment, *([_escape(cell) for cell in row] for row in rows)]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def _escape(cell: object) -> str:
    return str(cell).replace('|', '\\|')
