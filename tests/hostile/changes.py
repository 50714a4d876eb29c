"""Changes of bytes and of JSON that turn honest files into hostile ones, for hypothesis."""

import copy
import json
import struct

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 65_500, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ODD_VALUES = (
    None, True, 0, -1, 1.5, 2**70, 10**9, '', 'x', '../../../etc/passwd', 'antigravity.X', '{SPLIT}', [], [1], {},
    {'a': 1},
)  # fmt: skip

# What is done, where (as a part of the length), and with what.
one_change = st.one_of(
    st.tuples(st.just('cut'), st.floats(0, 1), st.none()),
    st.tuples(st.just('flip'), st.floats(0, 1), st.integers(0, 7)),
    st.tuples(st.just('put'), st.floats(0, 1), st.binary(min_size=1, max_size=4)),
    st.tuples(st.just('insert'), st.floats(0, 1), st.binary(min_size=1, max_size=30)),
    st.tuples(st.just('drop'), st.floats(0, 1), st.sampled_from([1, 2, 4, 10, 100])),
    st.tuples(st.just('repeat'), st.floats(0, 1), st.sampled_from([1, 4, 12, 100])),
    st.tuples(
        st.sampled_from(['<H', '>H', '<I', '>I']),
        st.floats(0, 1).map(lambda place: place**3),  # headers stand in front
        st.sampled_from(NUMBERS),
    ),
)
changes = st.lists(one_change, min_size=1, max_size=5)


def changed(data, changes):
    """The bytes after all changes, one after another."""
    data = bytearray(data)
    for kind, place, what in changes:
        place = min(int(place * len(data)), max(len(data) - 1, 0))
        if not data:
            break
        if kind == 'cut':
            del data[place:]
        elif kind == 'flip':
            data[place] ^= 1 << what
        elif kind == 'put':
            data[place : place + len(what)] = what
        elif kind == 'insert':
            data[place:place] = what
        elif kind == 'drop':
            del data[place : place + what]
        elif kind == 'repeat':
            data[place:place] = data[place : place + what] * 3
        else:
            size = struct.calcsize(kind)
            data[place : place + size] = struct.pack(kind, what & (256**size - 1))
    return bytes(data)


def places_in(tree, path=()):
    """The path of every value in a JSON tree."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places_in(value, (*path, key))


def with_odd_value(text, place, value):
    """JSON text with another value at one of its places, which `place` from 0 to 1 chooses."""
    tree = json.loads(text)
    paths = list(places_in(tree))
    path = paths[min(int(place * len(paths)), len(paths) - 1)]
    value = copy.deepcopy(value)
    if not path:
        return json.dumps(value)
    branch = tree
    for key in path[:-1]:
        branch = branch[key]
    branch[path[-1]] = value
    return json.dumps(tree)


def examples(number):
    """Settings of hypothesis for so many examples, however long each takes under load."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=number, deadline=None, suppress_health_check=checks)


def is_one_line(text):
    """Whether a message is one line that a terminal shows as it is, and not a page."""
    return 0 < len(text) < 2000 and len(text.splitlines()) == 1
