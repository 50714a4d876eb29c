"""What each format can hold, told before any work."""

import numpy as np
import pytest

from nsr_jax.errors import UserError
from nsr_jax.images.formats import FORMATS, SUFFIXES, check_output, check_quality, suffix_of


def test_every_suffix_of_a_new_file_leads_back():
    assert set(SUFFIXES.values()) == set(FORMATS)
    for name in FORMATS:
        assert SUFFIXES[suffix_of(name)] == name


def test_an_unknown_format_is_named():
    for call in (lambda: suffix_of('GIF'), lambda: check_quality('GIF', None), lambda: check('GIF')):
        with pytest.raises(UserError, match="unknown format 'GIF': one of PNG, JPEG, TIFF, WEBP, BMP needed"):
            call()


def check(form, height=10, width=10, channels=3, dtype=np.uint8):
    check_output(form, height, width, channels, dtype, 'out.x')


@pytest.mark.parametrize(
    ('form', 'options', 'reason', 'able'),
    [
        ('JPEG', {'channels': 4}, 'transparency', 'PNG, TIFF and WEBP can'),
        ('JPEG', {'channels': 2}, 'transparency', 'PNG, TIFF and WEBP can'),
        ('JPEG', {'dtype': np.uint16}, '16 bits', 'PNG and TIFF can'),
        ('JPEG', {'width': 65_501}, r'65501x10 pixels .*65,500', 'PNG, TIFF and BMP can'),
        ('WEBP', {'dtype': np.uint16}, '16 bits', 'PNG and TIFF can'),
        ('WEBP', {'height': 16_384}, r'10x16384 pixels .*16,383', 'PNG, JPEG, TIFF and BMP can'),
        ('BMP', {'channels': 4}, 'transparency', 'PNG, TIFF and WEBP can'),
        ('BMP', {'dtype': np.uint16, 'channels': 1}, '16 bits', 'PNG and TIFF can'),
        ('BMP', {'height': 40_000, 'width': 40_000}, r'4 GiB', 'PNG, JPEG and TIFF can'),
    ],
)
def test_what_a_format_cannot_hold_is_named_and_which_can(form, options, reason, able):
    with pytest.raises(UserError, match=rf'^out\.x: {form} cannot hold .*{reason}.*; {able}$'):
        check(form, **options)


def test_what_formats_can_hold_passes():
    for form in ('PNG', 'TIFF'):
        for channels in (1, 2, 3, 4):
            for dtype in (np.uint8, np.uint16):
                check(form, 100_000, 100_000, channels, dtype)
    check('JPEG', 65_500, 65_500)
    check('WEBP', 16_383, 16_383, 4)
    check('BMP', 30_000, 30_000)


@pytest.mark.parametrize('options', [{'height': 0}, {'channels': 5}, {'dtype': np.float32}])
def test_what_is_no_image_is_a_mistake_of_the_caller(options):
    with pytest.raises(ValueError, match='not a uint8 or uint16 image') as caught:
        check('PNG', **options)
    assert not isinstance(caught.value, UserError)


def test_quality():
    for form in ('JPEG', 'WEBP'):
        for quality in (1, 100, None):
            check_quality(form, quality)
        for quality in (0, 101, 50.0, True):
            with pytest.raises(UserError, match=f'from 1 to 100, not {quality!r}'):
                check_quality(form, quality)
    for form in ('PNG', 'TIFF', 'BMP'):
        check_quality(form, None)
        with pytest.raises(UserError, match=f'{form} .* takes no quality; JPEG and WEBP do'):
            check_quality(form, 90)
