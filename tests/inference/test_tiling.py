"""Places and weights of tiles, and how outputs are blended."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsr_jax.errors import UserError
from nsr_jax.inference.tiling import Tiling, authors_tiles, blend, count_feathered, feathered_tiles, shape_for


@settings(max_examples=40, deadline=None)
@given(st.integers(192, 700), st.integers(192, 700))
def test_authors_patches_cover_every_pixel_and_stay_inside(height, width):
    weights = np.zeros((height, width))
    tiles = authors_tiles(height, width, 1)
    for tile in tiles:
        assert 0 <= tile.row <= height - 40 and 0 <= tile.column <= width - 40
        weights[tile.row : tile.row + 40, tile.column : tile.column + 40] += np.outer(
            tile.row_weights, tile.column_weights
        )
    assert weights.min() >= 0.3 - 1e-6
    n_h, n_w = (height - 40) // 32 + 1, (width - 40) // 32 + 1
    assert len(tiles) == n_h * n_w + 2 * n_h + 2 * n_w
    assert [tile.row for tile in tiles] == sorted(tile.row for tile in tiles)


sizes = st.integers(2, 40).flatmap(lambda tile: st.tuples(st.just(tile), st.integers(1, tile // 2)))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 130), st.integers(1, 130), sizes, st.integers(1, 3))
def test_feathered_weights_sum_to_one_and_fade_smoothly(height, width, tile_and_overlap, scale):
    size, overlap = tile_and_overlap
    down, across = min(size, height), min(size, width)
    total = np.zeros((scale * height, scale * width))
    alone = np.zeros_like(total, int)
    steepest = np.pi / 2 / (scale * overlap)
    tiles = feathered_tiles(height, width, scale, size, overlap)
    assert count_feathered(height, width, size, overlap) == len(tiles)
    assert [tile.row for tile in tiles] == sorted(tile.row for tile in tiles)
    for tile in tiles:
        assert 0 <= tile.row <= height - down and 0 <= tile.column <= width - across
        for first, side, edge, weights in (
            (tile.row, down, height, tile.row_weights),
            (tile.column, across, width, tile.column_weights),
        ):
            assert weights.shape == (scale * side,) and weights.min() >= 0
            # An edge inside the image appears out of nothing; one that is the image's own does not fade.
            padded = np.pad(weights, (int(first > 0), int(first + side < edge)))
            assert np.abs(np.diff(padded)).max(initial=0) <= steepest + 1e-6
        weight = np.outer(tile.row_weights, tile.column_weights)
        place = (
            slice(scale * tile.row, scale * (tile.row + down)),
            slice(scale * tile.column, scale * (tile.column + across)),
        )
        total[place] += weight
        alone[place] += weight > 0
        assert (weight <= 1).all()
    np.testing.assert_allclose(total, 1, atol=1e-6)
    np.testing.assert_array_equal(total[alone == 1], 1)


def test_feathered_weights_by_hand():
    """Two and a half tiles' worth of pixels: raised cosines over four pixels, right in the middle of what is shared."""
    (first, second) = feathered_tiles(8, 13, 1, 8, 2)
    ramp = np.sin(np.pi / 2 * np.array([0.25, 0.75])) ** 2
    assert (first.row, first.column, second.row, second.column) == (0, 0, 0, 5)
    np.testing.assert_array_equal(first.row_weights, np.ones(8))
    # They share columns 5 to 7 and fade over 5 and 6.
    np.testing.assert_allclose(second.column_weights, [*ramp, 1, 1, 1, 1, 1, 1], atol=1e-7)
    np.testing.assert_allclose(first.column_weights, [1, 1, 1, 1, 1, *(1 - ramp), 0], atol=1e-7)


@pytest.mark.parametrize('rule', ['authors', 'feathered'])
@pytest.mark.parametrize('scale', [1, 2])
def test_blending_what_was_cut_gives_the_image_in_strips(rule, scale):
    height, width = 219, 245
    tiles = authors_tiles(height, width, scale) if rule == 'authors' else feathered_tiles(height, width, scale, 60, 9)
    image = np.random.default_rng(0).uniform(0, 1, (scale * height, scale * width, 3)).astype(np.float32)

    def cut(tile):
        row, column = scale * tile.row, scale * tile.column
        return image[row : row + len(tile.row_weights), column : column + len(tile.column_weights)]

    strips = list(blend(((tile, cut(tile)) for tile in tiles), width, scale))
    assert len(strips) > 3
    assert max(map(len, strips)) <= len(tiles[0].row_weights)
    np.testing.assert_allclose(np.concatenate(strips), image, atol=1e-6)


def test_strips_come_as_soon_as_their_rows_are_finished():
    tiles = feathered_tiles(100, 20, 1, 20, 4)
    taken = []

    def outputs():
        for tile in tiles:
            taken.append(tile)
            yield tile, np.zeros((20, 20, 1), np.float32)

    strips = blend(outputs(), 20, 1)
    next(strips)
    assert len(taken) == 2


def test_few_shapes_hold_all_sizes():
    sizes = [(height, width) for height in range(1, 400, 3) for width in range(1, 400, 7)]
    for largest in (None, 96, 64, 7, 300):
        fitting = [size for size in sizes if largest is None or max(size) <= largest]
        shapes = [shape_for(*size, largest) for size in fitting]
        for size, shape in zip(fitting, shapes, strict=True):
            assert all(side <= most for side, most in zip(size, shape, strict=True))
            assert largest is None or max(shape) <= largest
            if largest is None and min(size) >= 96:  # one size in four steps to each doubling
                assert all(most - side < side / 4 for side, most in zip(size, shape, strict=True))
        assert len(set(shapes)) <= {None: 101, 96: 2, 64: 2, 7: 1, 300: 65}[largest]
    assert shape_for(48, 1) == (48, 48)
    assert shape_for(49, 1, 96) == (96, 96)
    assert shape_for(97, 225) == (112, 256)
    assert shape_for(128, 160) == (128, 160)


def test_names():
    assert str(Tiling('whole')) == 'whole'
    assert str(Tiling('authors', tile=64)) == 'authors'
    assert str(Tiling('feathered', 64, 12)) == 'feathered 64/12'
    assert Tiling('feathered', 64, 12) == Tiling('feathered', 64, 12)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('tiled',), "'tiled'.*whole, authors, feathered"),
        (('feathered', 1), 'tile.*from 2, not 1'),
        (('feathered', 48.0), r'tile.*48\.0'),
        (('feathered', 48, 0), 'overlap.*from 1, not 0'),
        (('feathered', 48, True), 'overlap.*True'),
        (('feathered', 48, 25), 'overlap 25 is more than half of tile 48'),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        Tiling(*arguments)
