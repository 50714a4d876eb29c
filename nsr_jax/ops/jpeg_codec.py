"""JPEG compression followed by decompression, in JAX, bit for bit as libjpeg does them.

The integer arithmetic is that of libjpeg(-turbo)'s defaults ('islow' DCT, standard tables, 'fancy' upsampling of
chroma that is stored at half the resolution), so the pixels equal those of Pillow. Entropy coding loses nothing and is
left out.
"""

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 8
SUBSAMPLINGS = ('4:2:0', '4:4:4')  # chroma at half the resolution along both axes, or at the full one
# Quantisation tables of quality 50: ITU-T T.81, annex K.1, rows from low to high vertical frequency.
LUMINANCE_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.int32,
)
CHROMINANCE_TABLE = np.array(
    [
        [17, 18, 24, 47, 99, 99, 99, 99],
        [18, 21, 26, 66, 99, 99, 99, 99],
        [24, 26, 56, 99, 99, 99, 99, 99],
        [47, 66, 99, 99, 99, 99, 99, 99],
        *[[99, 99, 99, 99, 99, 99, 99, 99]] * 4,
    ],
    np.int32,
)
# The DCT's constants have 13 fractional bits, the values between its two passes have 2.
_CONSTANT_BITS, _PASS_BITS = 13, 2


def _islow_matrix() -> np.ndarray:
    """The 8-point DCT of Loeffler, Ligtenberg and Moschytz in libjpeg's 13-bit constants, times sqrt(8): int32 (8, 8).

    libjpeg's chain of additions and multiplications loses nothing before its last shift, so it equals this matrix. It
    differs from the rounded cosine matrix, because constants are rounded before they are added. The inverse runs the
    same chain backwards, and is the transpose.
    """

    def fixed(constant: float) -> int:
        return round(constant * (1 << _CONSTANT_BITS))

    inputs = np.eye(BLOCK, dtype=np.int32)
    sums, differences = inputs[:4] + inputs[7:3:-1], inputs[:4] - inputs[7:3:-1]
    even_sums, even_differences = sums[:2] + sums[3:1:-1], sums[:2] - sums[3:1:-1]
    rotated = (even_differences[0] + even_differences[1]) * fixed(0.541196100)
    a, b, c, d = differences[3], differences[2], differences[1], differences[0]
    all_four = (a + b + c + d) * fixed(1.175875602)
    outer, inner = (a + d) * -fixed(0.899976223), (b + c) * -fixed(2.562915447)
    first, second = (a + c) * -fixed(1.961570560) + all_four, (b + d) * -fixed(0.390180644) + all_four
    return np.stack(
        [
            (even_sums[0] + even_sums[1]) << _CONSTANT_BITS,
            d * fixed(1.501321110) + outer + second,
            rotated + even_differences[0] * fixed(0.765366865),
            c * fixed(3.072711026) + inner + first,
            (even_sums[0] - even_sums[1]) << _CONSTANT_BITS,
            b * fixed(2.053119869) + inner + second,
            rotated - even_differences[1] * fixed(1.847759065),
            a * fixed(0.298631336) + outer + first,
        ]
    )


_DCT = _islow_matrix()


def quantisation_table(table: np.ndarray, quality: jax.Array | int) -> jax.Array:
    """A table of quality 50 scaled to another quality by libjpeg's rule, within a baseline file's 1 to 255.

    Args:
        table: int32 (8, 8).
        quality: integers (...) from 1 to 100.

    Returns:
        int32 (..., 8, 8).
    """
    quality = jnp.asarray(quality, jnp.int32)[..., None, None]
    percent = jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    table = np.expand_dims(table, tuple(range(percent.ndim - 2)))
    return jnp.clip((table * percent + 50) // 100, 1, 255)


def jpeg(images: jax.Array, quality: jax.Array | int, subsampling: str = '4:2:0') -> jax.Array:
    """Compress images and decompress them again.

    Args:
        images: uint8 (..., H, W, C) on [0, 255], gray (C = 1) or RGB (C = 3), with sides that are multiples of 8, or of
            16 where chroma is halved.
        quality: integers from 1 to 100 (not checked where they are traced), one for all or one for each image (...).
        subsampling: of the chroma of RGB images, one of `SUBSAMPLINGS`.

    Returns:
        uint8 (..., H, W, C).

    Raises:
        ValueError: another type, shape or subsampling.
    """
    if subsampling not in SUBSAMPLINGS:
        raise ValueError(f'subsampling must be one of {", ".join(SUBSAMPLINGS)}, not {subsampling!r}')
    is_halved = subsampling == '4:2:0'
    multiple = {1: BLOCK, 3: 2 * BLOCK if is_halved else BLOCK}.get(images.shape[-1] if images.ndim >= 3 else 0)
    if images.dtype != jnp.uint8 or multiple is None:
        raise ValueError(f'images must be uint8 (..., H, W, 1 or 3), got {images.dtype} {images.shape}')
    if images.shape[-3] % multiple or images.shape[-2] % multiple:
        raise ValueError(f'sides must be multiples of {multiple}, got {images.shape[-3:]}')
    planes = jnp.moveaxis(images.astype(jnp.int32), -1, 0)
    if len(planes) == 1:
        return _code(planes[0], quantisation_table(LUMINANCE_TABLE, quality))[..., None].astype(jnp.uint8)
    luma, *chroma = _to_ycc(*planes)
    luma = _code(luma, quantisation_table(LUMINANCE_TABLE, quality))
    table = quantisation_table(CHROMINANCE_TABLE, quality)
    if is_halved:
        chroma = [_upsample(_code(_downsample(plane), table)) for plane in chroma]
    else:
        chroma = [_code(plane, table) for plane in chroma]
    return jnp.stack(_to_rgb(luma, *chroma), axis=-1).astype(jnp.uint8)


def _code(plane: jax.Array, table: jax.Array) -> jax.Array:
    """Transform and quantise, then dequantise and transform back: (..., H, W) on [0, 255] to the same."""
    height, width = plane.shape[-2:]
    blocks = plane.reshape(*plane.shape[:-2], height // BLOCK, BLOCK, width // BLOCK, BLOCK).swapaxes(-3, -2) - 128
    rows = _shift(_transform(blocks, -1, _DCT), _CONSTANT_BITS - _PASS_BITS)
    coefficients = _shift(_transform(rows, -2, _DCT), _CONSTANT_BITS + _PASS_BITS)
    table = table[..., None, None, :, :]
    divisor = table * 8  # the two passes each gave sqrt(8) times the orthonormal DCT
    magnitudes = (jnp.abs(coefficients) + divisor // 2) // divisor
    dequantised = jnp.sign(coefficients) * magnitudes * table
    columns = _shift(_transform(dequantised, -2, _DCT.T), _CONSTANT_BITS - _PASS_BITS)
    decoded = _shift(_transform(columns, -1, _DCT.T), _CONSTANT_BITS + _PASS_BITS + 3)
    return jnp.clip(decoded + 128, 0, 255).swapaxes(-3, -2).reshape(plane.shape)


def _transform(blocks: jax.Array, axis: int, matrix: np.ndarray) -> jax.Array:
    equation = {-1: '...rc,kc->...rk', -2: '...rc,kr->...kc'}[axis]
    return jnp.einsum(equation, blocks, jnp.asarray(matrix))


def _shift(values: jax.Array, bits: int) -> jax.Array:
    """Divide by 2 ** bits, rounded half up."""
    return (values + (1 << (bits - 1))) >> bits


def _fixed16(constant: float) -> int:
    return int(constant * (1 << 16) + 0.5)


def _to_ycc(red: jax.Array, green: jax.Array, blue: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """JFIF's full-range YCbCr, chroma centred on 128, in libjpeg's 16-bit constants (which it rounds to 5 digits)."""
    luma = _shift(_fixed16(0.299) * red + _fixed16(0.587) * green + _fixed16(0.114) * blue, 16)
    centre = (128 << 16) + (1 << 15) - 1  # chroma is rounded half down
    cb = (-_fixed16(0.16874) * red - _fixed16(0.33126) * green + _fixed16(0.5) * blue + centre) >> 16
    cr = (_fixed16(0.5) * red - _fixed16(0.41869) * green - _fixed16(0.08131) * blue + centre) >> 16
    return luma, cb, cr


def _to_rgb(luma: jax.Array, cb: jax.Array, cr: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    cb, cr = cb - 128, cr - 128
    red = luma + _shift(_fixed16(1.402) * cr, 16)
    green = luma + _shift(-_fixed16(0.34414) * cb - _fixed16(0.71414) * cr, 16)
    blue = luma + _shift(_fixed16(1.772) * cb, 16)
    return jnp.clip(red, 0, 255), jnp.clip(green, 0, 255), jnp.clip(blue, 0, 255)


def _downsample(plane: jax.Array) -> jax.Array:
    """Means of 2x2 pixels; halves are rounded down in even columns and up in odd ones, so that the mean stays."""
    height, width = plane.shape[-2:]
    sums = plane.reshape(*plane.shape[:-2], height // 2, 2, width // 2, 2).sum(axis=(-3, -1), dtype=jnp.int32)
    is_odd = np.expand_dims(np.arange(width // 2, dtype=np.int32) % 2, tuple(range(sums.ndim - 1)))
    return (sums + 1 + is_odd) >> 2


def _upsample(plane: jax.Array) -> jax.Array:
    """Double the size with a triangular filter: 3/4 of the nearest sample and 1/4 of the next one along each axis."""
    above = jnp.concatenate([plane[..., :1, :], plane[..., :-1, :]], axis=-2)
    below = jnp.concatenate([plane[..., 1:, :], plane[..., -1:, :]], axis=-2)
    rows = jnp.stack([3 * plane + above, 3 * plane + below], axis=-2)
    rows = rows.reshape(*plane.shape[:-2], 2 * plane.shape[-2], plane.shape[-1])
    left = jnp.concatenate([rows[..., :1], rows[..., :-1]], axis=-1)
    right = jnp.concatenate([rows[..., 1:], rows[..., -1:]], axis=-1)
    pixels = jnp.stack([(3 * rows + left + 8) >> 4, (3 * rows + right + 7) >> 4], axis=-1)
    return pixels.reshape(*rows.shape[:-1], 2 * rows.shape[-1])
