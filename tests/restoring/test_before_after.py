"""The page of images before and after: what is shown, how large it gets, and that it works where it is opened."""

import base64
import html
import io
import json
import os
import re
import shutil
import subprocess

import numpy as np
import PIL.Image
import pytest

from nsr_jax.errors import UserError
from nsr_jax.images.writing import write_photo
from nsr_jax.ops.imresize import imresize
from nsr_jax.restoring.before_after import LARGEST_NUMBER, SIDE, make_preview, write_comparison, write_page
from nsr_jax.restoring.plan import Job

HOSTILE = '<script>document.title="hostile"</script>"><img src=x onerror="document.title=\'hostile\'">.png'


def decoded(uri):
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(uri.partition(',')[2]))))


def random_pixels(*shape, seed=0, dtype=np.uint8):
    return np.random.RandomState(seed).randint(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def test_small_images_are_shown_whole_and_exactly():
    before, after = random_pixels(7, 9, 3), random_pixels(14, 18, 3, seed=1)
    preview = make_preview('a', before, after)
    np.testing.assert_array_equal(decoded(preview.before), imresize(before, 2))
    np.testing.assert_array_equal(decoded(preview.after), after)
    assert (preview.height, preview.width, preview.cut) == (14, 18, '')


@pytest.mark.parametrize('place', [(0, 0), (130, 700), (290, 500)])
def test_of_large_images_the_part_with_the_most_detail_is_shown(place):
    before = np.full((300, 800, 3), 90, np.uint8)
    row, column = place
    before[row : row + 6, column : column + 6] = random_pixels(6, 6, 3)
    after = before.repeat(3, axis=0).repeat(3, axis=1)
    preview = make_preview('a', before, after)
    shown = decoded(preview.after)
    assert shown.shape == (510, 510, 3)
    assert (shown != 90).any(axis=2).sum() > 100
    assert preview.cut == '510×510 of 2400×900 pixels'
    assert decoded(preview.before).shape == shown.shape


def test_gray_alpha_and_16_bits_are_shown():
    gray = random_pixels(8, 8, 1)
    np.testing.assert_array_equal(decoded(make_preview('a', gray, gray).after), gray.repeat(3, axis=2))
    transparent = random_pixels(8, 8, 4)
    np.testing.assert_array_equal(decoded(make_preview('a', transparent, transparent).after), transparent)
    both = random_pixels(8, 8, 2)
    np.testing.assert_array_equal(decoded(make_preview('a', both, both).after), both[..., [0, 0, 0, 1]])
    deep = random_pixels(8, 8, 3, dtype=np.uint16)
    np.testing.assert_array_equal(decoded(make_preview('a', deep, deep).after), np.rint(deep / 65535 * 255))


@pytest.mark.parametrize('shape', [(15, 18, 3), (14, 18, 1), (6, 9, 3), (14, 27, 3)])
def test_two_images_are_told_from_one(shape):
    with pytest.raises(UserError, match='a: before and after do not fit each other'):
        make_preview('a', random_pixels(7, 9, 3), random_pixels(*shape))


def write(path, pixels):
    height, width, channels = pixels.shape
    write_photo(path, [pixels], height=height, width=width, channels=channels, dtype=pixels.dtype, format='PNG')
    return path


def test_a_page_of_many_images_stays_small(tmp_path, capsys):
    before, after = write(tmp_path / 'before.png', random_pixels(8, 8, 3)), tmp_path / 'after.png'
    write(after, random_pixels(16, 16, 3))
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'')
    jobs = [Job(before, after), Job(before, broken), *[Job(before, after)] * LARGEST_NUMBER]
    assert write_comparison(tmp_path / 'page.html', jobs, 'Title', 10**6) == LARGEST_NUMBER - 1
    assert re.search(r'^error: not in .*page\.html: .*broken\.png: an empty file', capsys.readouterr().err)
    page = (tmp_path / 'page.html').read_text()
    assert page.count('<figure>') == LARGEST_NUMBER - 1
    assert '3 more images are not shown here' in page
    # Noise is the worst that can be shown.
    worst = make_preview('a', random_pixels(SIDE, SIDE, 3), random_pixels(SIDE, SIDE, 3))
    assert LARGEST_NUMBER * (len(worst.before) + len(worst.after)) < 60e6


def test_the_page_fetches_nothing_and_runs_no_name(tmp_path):
    preview = make_preview(HOSTILE, random_pixels(8, 8, 3), random_pixels(8, 8, 3))
    write_page(tmp_path / 'page.html', HOSTILE, [preview], 0)
    page = (tmp_path / 'page.html').read_text()
    assert not re.search(r'https?:|//\w|@import|url\(', page.replace(preview.before, '').replace(preview.after, ''))
    assert "default-src 'none'" in page
    assert page.count('<script>') == 1
    assert html.escape(HOSTILE, quote=False).split('"')[0] in page


MOVE = """
<script>
const stage = document.querySelector('.stage'), range = document.querySelector('input');
const split = () => Number(getComputedStyle(stage).getPropertyValue('--split'));
const said = [split()];
range.focus();
said.push(document.activeElement === range, range.getAttribute('aria-label') !== '');
range.value = 20;
range.dispatchEvent(new Event('input'));
said.push(split(), getComputedStyle(document.querySelector('.before')).clipPath);
const box = stage.getBoundingClientRect();
stage.setPointerCapture = () => {};
stage.hasPointerCapture = () => true;
const at = part => ({clientX: box.left + part * box.width, clientY: box.top + 1, pointerId: 1});
stage.dispatchEvent(new PointerEvent('pointerdown', at(0.75)));
said.push(split(), Number(range.value));
stage.dispatchEvent(new PointerEvent('pointermove', at(2)));
said.push(split(), box.width, box.height, [...document.images].every(image => image.naturalWidth === 40));
document.documentElement.dataset.said = JSON.stringify(said);
</script>
"""


def test_the_slider_moves_in_a_browser(tmp_path):
    """A real Chromium, from the file system: by the slider, which keys move too, and by dragging over the picture."""
    browser = shutil.which('chromium')
    if browser is None:
        if os.environ.get('NSR_REQUIRE_CHROMIUM'):
            pytest.fail('there is no Chromium, and NSR_REQUIRE_CHROMIUM is set')
        pytest.skip('there is no Chromium')
    preview = make_preview(HOSTILE, random_pixels(10, 20, 3), random_pixels(20, 40, 3))
    write_page(tmp_path / 'page.html', HOSTILE, [preview], 0)
    page = (tmp_path / 'page.html').read_text()
    (tmp_path / 'driven.html').write_text(page.replace('</body>', f'{MOVE}</body>'))
    flags = [
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-dev-shm-usage',
        f'--user-data-dir={tmp_path}/profile',
    ]
    command = [browser, *flags, '--dump-dom', (tmp_path / 'driven.html').as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
    said = json.loads(html.unescape(re.search('data-said="(.*?)"', shown)[1]))
    assert said == [50, True, True, 20, 'inset(0px 80% 0px 0px)', 75, 75, 100, 40, 20, True]
    assert '<title>hostile' not in shown


def test_a_name_that_is_no_text_is_shown(tmp_path):
    before = write(tmp_path / os.fsdecode(b'lat\xefn.png'), random_pixels(8, 8, 3))
    page = tmp_path / 'page.html'
    assert write_comparison(page, [Job(before, before)], f'Restored by {before.parent}\udcff', 10**6) == 1
    assert 'lat\\udcefn.png' in page.read_text(encoding='utf-8')
