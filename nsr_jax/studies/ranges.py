"""Ranges from which a search draws the values of fields.

RANGES = {
    'learning_rate': ('log', 1e-4, 1e-2),          a float, whose logarithm is uniform
    'optimizer.b2': ('uniform', 0.9, 0.999),       a float
    'model.num_blocks': ('int', 2, 8),             a whole number, both ends included
    'batch_size': ('choice', 8, 16, 32),           one of these
}
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from nsr_jax.errors import UserError

_FORMS = "('uniform', low, high), ('log', low, high), ('int', low, high) or ('choice', value, value, …)"


@dataclasses.dataclass(frozen=True)
class Range:
    """What a field is drawn from.

    Attributes:
        kind: uniform, log, int or choice.
        values: lowest and highest value, or those to choose from.
    """

    kind: str
    values: tuple

    def __str__(self) -> str:
        if self.kind == 'choice':
            return f'choice of {", ".join(map(str, self.values))}'
        return f'{self.kind} {self.values[0]} to {self.values[1]}'


def parse_ranges(given: Any, where: str) -> dict[str, Range]:
    """The ranges by field.

    Args:
        given: the RANGES of a sweep file.
        where: it is, for error messages.

    Raises:
        UserError: it is no mapping with at least one range, or a range makes no sense.
    """
    if not isinstance(given, Mapping) or not given:
        raise UserError(f'{where} must be a dict of fields, at least one, with their ranges, not {given!r}')
    return {str(name): _parse(each, f'{where}: {name}') for name, each in given.items()}


def _parse(given: Any, where: str) -> Range:
    kind, *values = given if isinstance(given, list | tuple) and given else ('',)
    if kind == 'choice':
        if not values or not all(isinstance(each, bool | int | float | str) for each in values):
            raise UserError(f'{where}: a choice is of numbers, texts or booleans, at least one, not {given!r}')
        return Range(kind, tuple(values))
    if kind not in ('uniform', 'log', 'int') or len(values) != 2:
        raise UserError(f'{where} must be {_FORMS}, not {given!r}')
    wanted = int if kind == 'int' else int | float
    if any(isinstance(each, bool) or not isinstance(each, wanted) or not math.isfinite(each) for each in values):
        raise UserError(f'{where}: {kind} takes {"whole" if kind == "int" else "finite"} numbers, not {given!r}')
    low, high = values if kind == 'int' else map(float, values)
    if not low < high:
        raise UserError(f'{where}: {low} must be below {high}, the end of the range')
    if kind == 'log' and low <= 0:
        raise UserError(f'{where}: a range of logarithms begins above 0, not at {low}')
    return Range(kind, (low, high))
