"""The report in a real Chromium, opened from the file system."""

import json
import pathlib

import numpy as np
import pytest

from nsr_jax.evaluation.report import Picture, write_report
from nsr_jax.evaluation.scores import Score
from nsr_jax.restoring.before_after import make_preview, write_page
from nsr_jax.studies.table import Section, to_html
from nsr_jax.tasks.task import Published
from tests.browser import start_browser

HOSTILE = '<script>window.hostile=1</script>"><img src=x onerror="window.hostile=1">'


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    with start_browser(tmp_path_factory.mktemp('chromium')) as started:
        yield started


@pytest.fixture(scope='module')
def report(tmp_path_factory) -> pathlib.Path:
    """A report with hostile names, and a picture whose pixels tell from where in which image they come."""
    folder = tmp_path_factory.mktemp('report')
    scores = [
        Score(dataset, 'x2', model, protocol, f'{HOSTILE}{i}.png', {'psnr': psnr + i, 'ssim': 0.9})
        for dataset, protocol in (('Set5', 'sr-y'), (HOSTILE, 'sr-rgb'))
        for model, psnr in (('bicubic', 8.5), (HOSTILE, 33.0), ('perfect', float('inf')), ('broken', float('nan')))
        for i in range(2)
    ]
    rows, columns = np.mgrid[:100, :200].astype(np.uint8)
    images = {
        label: np.stack([rows, columns, np.full_like(rows, 10 * i)], -1)
        for i, label in enumerate(('low resolution', 'bicubic', HOSTILE, 'true image'))
    }
    picture = Picture(HOSTILE, HOSTILE, images, {'bicubic': {'psnr': 8.5, 'ssim': 0.9}}, (20, 90))
    metrics = folder / 'metrics.jsonl'
    metrics.write_text(''.join(f'{{"step": {step}, "loss": {1 / step}, "a/psnr": {step}}}\n' for step in range(1, 9)))
    published = Published('p', HOSTILE, 'sr-y', 'Set5', 'x2', 33.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('nsr_jax.evaluation.report.published_for', lambda name, _: [published] if name == 'Set5' else [])
        write_report(folder, HOSTILE, scores, [picture], {HOSTILE: metrics})
    return folder / 'index.html'


@pytest.fixture
def page(browser, report):
    browser.show(1200, 'light')
    browser.open(report.as_uri())
    return browser


def column(page, table, index):
    rows = f'[...document.querySelector("{table}").tBodies[0].rows].filter(row => !row.hidden)'
    return page.run(f'{rows}.map(row => row.cells[{index}].textContent.trim())')


def test_the_page_asks_for_nothing_and_complains_about_nothing(page, report):
    assert page.run('document.title') == HOSTILE
    assert page.run('document.querySelectorAll("canvas").length') == 4
    assert page.complaints == []
    assert {url for url in page.requests if not url.startswith('data:')} == {report.as_uri()}


def test_requests_and_complaints_of_a_page_are_noticed(browser, tmp_path):
    bad = tmp_path / 'bad.html'
    bad.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("a"); missing()</script>')
    browser.open(bad.as_uri())
    assert 'http://127.0.0.1:9/x.png' in browser.requests
    assert len(browser.complaints) >= 2


def test_the_page_may_not_ask_for_anything(page, report, tmp_path):
    changed = tmp_path / 'changed.html'
    text = report.read_text(encoding='utf-8').replace('</main>', '<img src="http://127.0.0.1:9/x.png"></main>')
    changed.write_text(text, encoding='utf-8')
    page.open(changed.as_uri())
    assert 'Content Security Policy' in str(page.complaints)


def test_names_are_text(page):
    assert page.run('window.hostile') is None
    assert page.run('document.querySelector("h1").textContent') == HOSTILE
    assert HOSTILE in column(page, '#scores', 0)
    assert column(page, 'details table', 0) == [f'{HOSTILE}0.png', f'{HOSTILE}1.png']


def test_a_click_on_a_heading_sorts_by_number(page):
    heading = '#scores th:nth-child(6) button'
    psnr = column(page, '#scores', 5)
    page.click(heading)
    falling = ['∞', '∞', '33.50', '33.50', '33.20', '9.00', '9.00', 'not a number', 'not a number']
    assert column(page, '#scores', 5) == falling != psnr
    assert page.run('document.querySelector("[aria-sort]").textContent') == 'PSNR (dB)'
    page.click(heading)
    assert column(page, '#scores', 5) == falling[6::-1] + falling[7:]  # 9.00 before 33.20: not sorted by text
    page.click('#scores th:nth-child(3) button')
    models = [model.split()[0] for model in column(page, '#scores', 2)]
    hostile = HOSTILE.split()[0]
    assert models == [hostile, hostile, 'bicubic', 'bicubic', 'broken', 'broken', 'p', 'perfect', 'perfect']
    assert page.run('document.querySelectorAll("[aria-sort]").length') == 1


def test_the_table_of_images_sorts(page):
    page.run('document.querySelector("details").open = true')
    page.click('details thead tr:nth-child(2) th:nth-child(3) button')  # the second model's PSNR
    assert column(page, 'details table', 3) == ['34.00', '33.00']


def choose(page, selector, value):
    """Choose in a select element. Its list of options is not part of the page, so the mouse cannot reach it."""
    code = f'select.value = {json.dumps(value)}; select.dispatchEvent(new Event("change"));'
    page.run(f'(select => {{{code}}})(document.querySelector({json.dumps(selector)}))')


def test_filters_leave_what_was_chosen(page):
    choose(page, '#filters [data-column="0"]', '=Set5')
    assert column(page, '#scores', 0) == ['Set5'] * 5
    choose(page, '#filters [data-column="3"]', '=sr-rgb')  # published rows stay
    assert [model[:11] for model in column(page, '#scores', 2)] == ['p published']
    choose(page, '#filters [data-column="0"]', '')
    assert column(page, '#scores', 0) == [HOSTILE] * 4 + ['Set5']


def clip(page):
    return page.run('getComputedStyle(document.querySelector(".stage .right")).clipPath')


def test_the_line_follows_the_mouse(page):
    assert clip(page) == 'inset(0px 0px 0px 50%)'
    x, y, width, height = page.place('.stage')
    page.mouse('mousePressed', x + width / 2, y + height / 2)
    page.mouse('mouseMoved', x + width * 0.8, y + height / 3)
    page.mouse('mouseReleased', x + width * 0.8, y + height / 3)
    assert clip(page) == 'inset(0px 0px 0px 80%)'
    assert page.run('document.querySelector(".picture input[type=range]").value') == '80'


def test_the_slider_moves_the_line(page):
    page.run('document.querySelector(".picture input[type=range]").focus()')
    page.press('ArrowRight')
    assert clip(page) == 'inset(0px 0px 0px 51%)'


def test_another_image_is_chosen(page):
    shown = '["left", "right"].map(side => document.querySelector(".stage ." + side)?.alt)'
    assert page.run(shown) == ['low resolution', HOSTILE]
    choose(page, 'select[data-side=left]', '3')
    assert page.run(shown) == ['true image', HOSTILE]
    choose(page, 'select[data-side=right]', '3')
    assert page.run(shown) == ['true image', None]


def first_pixels(page):
    pixels = 'canvas => [...canvas.getContext("2d").getImageData(0, 0, 1, 1).data].slice(0, 3)'
    return page.run(f'[...document.querySelectorAll("canvas")].map({pixels})')


def test_the_same_pixels_of_all_images_are_zoomed(page):
    assert first_pixels(page) == [[20, 90, 10 * i] for i in range(4)]  # without loss
    page.click('.stage', right=0.25, down=0.5)  # row 50, column 50 in the middle of 64 pixels
    assert first_pixels(page) == [[18, 18, 10 * i] for i in range(4)]
    page.run('document.querySelector(".frame").focus()')
    for key in ('ArrowDown', 'ArrowLeft'):
        page.press(key)
    assert first_pixels(page) == [[22, 14, 10 * i] for i in range(4)]
    page.click('.stage', right=0.99, down=0.99)
    assert first_pixels(page) == [[100 - 64, 200 - 64, 10 * i] for i in range(4)]


def test_differences_from_the_true_image_are_shown_larger(page):
    page.click('.picture input[type=checkbox]')
    assert first_pixels(page) == [[0, 0, 8 * 10 * (3 - i)] for i in range(3)] + [[20, 90, 30]]
    page.click('.picture input[type=checkbox]')
    assert first_pixels(page) == [[20, 90, 10 * i] for i in range(4)]


@pytest.fixture(scope='module')
def pages(report, tmp_path_factory):
    """A page of each kind, with long names and wide tables."""
    folder = tmp_path_factory.mktemp('pages')
    image = np.random.default_rng(0).integers(0, 256, (300, 700, 3), np.uint8)
    write_page(folder / 'before_after.html', HOSTILE, [make_preview('long' * 50, image, image)], 2)
    head, rows = ['member', *(f'score {i}' for i in range(20))], [['name' * 20, *('30.12 ± 0.22' for _ in range(20))]]
    section = Section('Scores:', head, rows, left=1)
    table = to_html(HOSTILE, [section], [])
    (folder / 'table.html').write_text(table, encoding='utf-8')
    return {'report': report, 'before and after': folder / 'before_after.html', 'table': folder / 'table.html'}


@pytest.mark.parametrize(
    ('element', 'barriers'),
    [
        ('<img src="data:,">', 1),
        ('<input>', 1),
        ('<a href="."> </a>', 1),
        ('<div style="overflow-x: auto; width: 9px">broad</div>', 1),
        ('<h1>another</h1>', 1),
        ('<p hidden><input></p>', 0),
        ('<label>name <input></label>', 0),
    ],
)
def test_what_keeps_users_out_is_noticed(browser, tmp_path, element, barriers):
    (tmp_path / 'page.html').write_text(f'<!doctype html><html lang="en"><h1>a</h1><main>{element}</main>')
    browser.open((tmp_path / 'page.html').as_uri())
    assert len(browser.find_barriers()) == barriers


@pytest.mark.parametrize('kind', ['report', 'before and after', 'table'])
def test_all_pages_have_labels_for_screen_readers_and_are_scrolled_by_keys(browser, pages, kind):
    browser.show(360, 'light')
    browser.open(pages[kind].as_uri())
    assert browser.complaints == []
    assert browser.run('window.hostile') is None
    assert browser.find_barriers() == []


@pytest.mark.parametrize('colours', ['light', 'dark'])
@pytest.mark.parametrize('kind', ['report', 'before and after', 'table'])
def test_they_fit_a_phone_in_light_and_dark(browser, pages, kind, colours):
    page = browser
    page.show(360, colours)
    page.open(pages[kind].as_uri())
    assert page.run('document.documentElement.scrollWidth') == 360
    paper, ink = page.run('(style => [style.backgroundColor, style.color])(getComputedStyle(document.body))')
    brightness = [sum(map(int, colour[4:-1].split(','))) for colour in (paper, ink)]
    assert (brightness[0] > brightness[1]) == (colours == 'light')
