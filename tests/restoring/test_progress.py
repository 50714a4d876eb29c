"""Lines about how long a restore will take, by a clock that the test sets."""

import pytest
from absl import logging

from nsr_jax.restoring.progress import Progress


@pytest.fixture
def lines(monkeypatch):
    told = []
    monkeypatch.setattr(logging, 'info', lambda text, *values: told.append(text % values))
    return told


def restore(sizes, tiles, seconds_a_tile, compiling=0.0, **options):
    """Images of these sizes, in tiles that take some time each; gives the seconds at which each tile was done."""
    now, times = compiling, []
    with Progress(sizes, clock=lambda: now, **options) as progress:
        for _ in sizes:
            progress.start_next()
            for tile in range(tiles):
                now += seconds_a_tile
                times.append(now)
                progress.tell((tile + 1) / tiles)
            progress.end()
    return times


def test_a_long_restore_is_announced_after_the_first_tiles(lines):
    """100 tiles of 6 s in one image; the minute before the first one, in which is compiled, does not count."""
    restore([1000], 100, 6, compiling=60)
    assert lines[0] == 'image 1 of 1: 2% of all is done, about 10 minutes left'
    assert len(lines) == 1 + 97 // 5  # every fifth tile is half a minute
    assert lines[-1] == 'image 1 of 1: 97% of all is done, about 18 seconds left'


def test_images_count_by_their_size(lines):
    restore([100, 200, 100], 4, 1800)
    assert lines[0] == 'image 1 of 3: 12% of all is done, about 7 hours left'
    assert lines[5] == 'image 2 of 3: 62% of all is done, about 2 hours left'
    assert len(lines) == 10


def test_what_is_short_or_not_to_be_shown_goes_without_a_line(lines):
    restore([1000], 25, 1)
    restore([1] * 30, 1, 1)
    restore([1000], 100, 60, is_shown=False)
    assert lines == []
