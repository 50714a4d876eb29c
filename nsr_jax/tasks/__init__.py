"""Tasks by name. A new one is a module that puts a `Task` into `TASKS`; nothing else needs to know of it."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from nsr_jax.errors import UserError
from nsr_jax.tasks import denoise, jpeg, pairs, sr
from nsr_jax.tasks.task import Predictor, Protocol, Published, Task

TASKS: dict[str, Task] = {task.name: task for task in (sr.TASK, denoise.TASK, jpeg.TASK, pairs.TASK)}


def find_task(name: str) -> Task:
    """The task of this name. Raises `UserError` for an unknown one."""
    if name not in TASKS:
        raise UserError(f'unknown task {name!r}: one of {", ".join(TASKS)} needed, or that of a --plugin')
    return TASKS[name]


@dataclasses.dataclass(frozen=True)
class Degradation:
    """A task at a level: what a network should undo in a test, and how much of it.

    Attributes:
        task: in `TASKS`.
        level: the scale, the noise's standard deviation in 1/255 of the range, or the JPEG quality.

    Raises:
        UserError: an unknown task, or a level out of its range.
    """

    task: str
    level: float

    def __post_init__(self):
        task = find_task(self.task)
        if task.check_level:
            task.check_level(self.level)
        elif self.level != int(self.level) or self.level < 1:
            raise UserError(f'the scale of task {self.task} must be a whole number from 1, not {self.level!r}')

    @property
    def scale(self) -> int:
        """Size of the restored image / size of the network's input."""
        return 1 if find_task(self.task).check_level else int(self.level)

    def __str__(self) -> str:
        """What tables print: 'x2', 'sigma 25', 'quality 10'."""
        return find_task(self.task).label(self.level)


def find_degradations(task: str, scale: int, levels: Sequence[float | str]) -> tuple[Degradation, ...]:
    """The degradations that a network is scored on.

    Args:
        task: in `TASKS`.
        scale: of the network; the only level of a task without others.
        levels: of a task with other levels than the scale, as numbers or text.

    Raises:
        UserError: an unknown task, levels for a task that has none, no levels for one that has some, or one out of
            range.
    """
    if find_task(task).check_level is None:
        if levels:
            raise UserError(f'task {task} has no levels besides its scale: {", ".join(map(str, levels))} given')
        return (Degradation(task, scale),)
    if not levels:
        raise UserError(f'no level given to score {task} at: one or more sigmas, qualities or the like needed')
    return tuple(Degradation(task, _number(level)) for level in levels)


def _number(level: float | str) -> float:
    try:
        number = float(level)
        return int(number) if number.is_integer() else number
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f'level {level!r} is not a number') from error


def all_protocols() -> dict[str, Protocol]:
    """The protocols of all tasks by name."""
    return {protocol.name: protocol for task in TASKS.values() for protocol in task.protocols}


def published_so_for(protocol: str) -> list[str]:
    """The models whose published scores follow a protocol, by its name; none for a protocol that no paper here uses."""
    rows = (row for task in TASKS.values() for row in task.published)
    return list(dict.fromkeys(row.model for row in rows if row.protocol == protocol))


def protocol_in_words(name: str) -> str:
    """What a protocol of `all_protocols` compares, and whose scores follow it in papers."""
    models = ', '.join(published_so_for(name))
    papers = f'so in papers for {models}' if models else 'in no paper known here'
    return f'{all_protocols()[name].description}; {papers}'


def find_protocols(task: str, names: Iterable[str]) -> tuple[Protocol, ...]:
    """The protocols of these names. Raises `UserError` if there is no name, or one is unknown or another task's."""
    own = {protocol.name: protocol for protocol in find_task(task).protocols}
    names = tuple(names)
    if not names:
        raise UserError(f'no protocol given: one or more of {", ".join(own)} needed')
    for name in names:
        if name not in own:
            found = 'is of another task' if name in all_protocols() else 'is unknown'
            raise UserError(f'protocol {name!r} {found}: for {task} there are {", ".join(own)}')
    return tuple(own[name] for name in names)


def find_baselines(names: Sequence[str], degradation: Degradation) -> dict[str, Predictor]:
    """The baselines of these names for a degradation.

    Raises:
        UserError: the task has no such baseline, or the baseline does not work at this level.
    """
    known = find_task(degradation.task).baselines
    for name in names:
        if name not in known:
            raise UserError(f'unknown baseline {name!r}: for {degradation.task} there is {", ".join(known)}')
    return {name: known[name](degradation.level) for name in names}


def published_for(dataset: str, degradation: str) -> Iterator[Published]:
    """The published rows of a dataset (its name in any case; B100 is BSD100) and a degradation as it is printed."""
    name = {'b100': 'bsd100'}.get(dataset.lower(), dataset.lower())
    for task in TASKS.values():
        for row in task.published:
            if (row.dataset.lower(), row.degradation) == (name, degradation):
                yield row
