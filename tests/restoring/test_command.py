"""The command that restores files: what is written, what is refused, and what a mistake says."""

import base64
import io
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tqdm
from absl import flags

from nsr_jax.atomic_files import TEMPORARY, replacing
from nsr_jax.errors import UserError
from nsr_jax.images.reading import read_photo
from nsr_jax.inference.restorer import Restorer
from nsr_jax.inference.tiling import feathered_tiles
from nsr_jax.restoring import restore_files
from nsr_jax.restoring.plan import Job
from tests.restoring.restored import names_in, save, write

ROOT = pathlib.Path(__file__).parents[2]


def test_command_restores_what_it_can(commands, tmp_path, model):
    """One run over files, a folder, a JPEG, a gray image and a broken file, as a user would start it."""
    colour = write(tmp_path / 'colour.png')
    gray = write(tmp_path / 'folder' / 'gray.bmp', (7, 9))
    write(tmp_path / 'folder' / 'photo.JPG')
    broken = tmp_path / 'folder' / 'broken.png'
    broken.write_bytes((tmp_path / 'colour.png').read_bytes()[:100])
    (tmp_path / 'folder' / 'notes.txt').write_text('not an image')
    output = tmp_path / 'new' / 'out'
    arguments = ['colour.png', 'folder/', '--output=new/out', f'--model={model}']
    code, error, _ = commands('nsr_jax.restore', *arguments, folder=tmp_path)
    assert code == 1, error
    assert re.search(r'^error: .*folder/broken\.png', error, re.MULTILINE)
    assert 'Traceback' not in error
    assert re.search(r'3 of 4 images restored to new/out: \d+\.\d s, \S+ megapixels of output a second', error)
    assert names_in(output) == ['colour.png', 'gray.bmp', 'photo.JPG']

    restorer = Restorer.load(model)
    np.testing.assert_array_equal(read_photo(output / 'colour.png').pixels, restorer(colour))
    np.testing.assert_array_equal(read_photo(output / 'gray.bmp').pixels[..., 0], restorer(gray))
    assert read_photo(output / 'photo.JPG').pixels.shape == (14, 18, 3)
    np.testing.assert_array_equal(read_photo(tmp_path / 'colour.png').pixels, colour)


def test_a_dry_run_lists_what_would_be_done(tmp_path, packaged, run, monkeypatch, capsys, caplog):
    caplog.set_level('INFO', logger='absl')
    for name in ('in/a.png', 'in/b.jpg', 'out/a_x2.png'):
        write(tmp_path / name)
    monkeypatch.setattr(Restorer, 'load', None)
    assert run('in', '--output=out', '--scale=2', '--suffix=_x2', '--dry_run') == 0
    assert capsys.readouterr().out == 'in/a.png -> out/a_x2.png (already there)\nin/b.jpg -> out/b_x2.jpg\n'
    assert names_in(tmp_path / 'out') == ['a_x2.png']
    assert caplog.messages == ['1 of 2 images to restore, 0.0 MB of files, 0.0 megapixels of input in 1 tiles']


@pytest.mark.parametrize('flag', ['--dry_run', '--format=png'])
def test_it_is_said_before_work_how_many_pixels_and_tiles_there_are(tmp_path, model, run, caplog, flag):
    """Sizes come from headers: of a file that ends after its header, too, but of no image that will be refused."""
    caplog.set_level('INFO', logger='absl')
    large = write(tmp_path / 'in' / 'a.jpg', (300, 500, 3))
    height, width = large.shape[:2]
    header = (tmp_path / 'in' / 'a.jpg').read_bytes()[:1000]
    (tmp_path / 'in' / 'b.jpg').write_bytes(header)
    (tmp_path / 'in' / 'c.jpg').write_bytes(header[:20])
    write(tmp_path / 'in' / 'd.png', (600, 500))
    run('in', '--output=out', f'--model={model}', '--largest_pixels=200000', flag)
    (line,) = [each for each in caplog.messages if 'images to restore' in each]
    size = sum(path.stat().st_size for path in (tmp_path / 'in').iterdir()) / 1e6
    tiles = 2 * len(feathered_tiles(height, width, 2, 96, 16))
    assert line.endswith(
        f'4 of 4 images to restore, {size:.1f} MB of files, 0.3 megapixels of input in {tiles} tiles, '
        'not counting 2 whose size is unknown or too large'
    )


def test_one_image_may_become_a_named_file(tmp_path, model, run):
    pixels = write(tmp_path / 'a.png')
    assert run('a.png', '--output=new/large.tif', f'--model={model}') == 0
    assert names_in(tmp_path / 'new') == ['large.tif']
    assert (tmp_path / 'new' / 'large.tif').read_bytes()[:2] in (b'II', b'MM')
    np.testing.assert_array_equal(read_photo(tmp_path / 'new' / 'large.tif').pixels, Restorer.load(model)(pixels))


def test_what_is_done_is_done_once(tmp_path, model, run):
    write(tmp_path / 'in' / 'a.png')
    write(tmp_path / 'in' / 'b.png')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'a.png').write_text('of an earlier run')
    assert run('in', '--output=out', f'--model={model}') == 0
    assert (tmp_path / 'out' / 'a.png').read_text() == 'of an earlier run'
    assert names_in(tmp_path / 'out') == ['a.png', 'b.png']
    assert run('in', '--output=out', f'--model={model}', '--overwrite') == 0
    assert read_photo(tmp_path / 'out' / 'a.png').pixels.shape == (14, 18, 3)


def test_what_killed_runs_have_left_is_removed_and_what_living_ones_write_is_not(tmp_path, model, run):
    for name in ('a.png', 'x/b.png'):
        write(tmp_path / 'in' / name)
        (tmp_path / 'out' / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / 'out' / name).with_name(f'{TEMPORARY}0123').write_bytes(b'half')
    with replacing(tmp_path / 'out' / 'x' / 'c.png') as file:
        assert run('in', '--output=out', f'--model={model}', '--recursive') == 0
        file.write(b'of the other run')
    assert names_in(tmp_path / 'out') == ['a.png', 'x/b.png', 'x/c.png']


def test_folders_of_folders_and_patterns(tmp_path, model, run):
    for name in ('a.png', 'x/a.png', 'x/y/c.jpg'):
        write(tmp_path / 'in' / name)
    assert run('in', '--output=in/out', f'--model={model}', '--recursive') == 0
    assert names_in(tmp_path / 'in' / 'out') == ['a.png', 'x/a.png', 'x/y/c.jpg']
    assert run('in/**/a.*', '--output=other', f'--model={model}') == 0
    assert names_in(tmp_path / 'other') == ['a.png', 'out/a.png', 'out/x/a.png', 'x/a.png']


def test_huge_images_are_refused_before_they_are_decoded(tmp_path, model, run, capsys):
    write(tmp_path / 'in' / 'a.png')
    write(tmp_path / 'in' / 'large.png', (8, 9, 3))
    assert run('in', '--output=out', f'--model={model}', '--largest_pixels=63') == 1
    assert re.search(r'error: in/large\.png: 9x8 pixels', capsys.readouterr().err)
    assert names_in(tmp_path / 'out') == ['a.png']


def test_gray_network_refuses_colours_by_name(tmp_path, run, capsys):
    save(tmp_path / 'model', 'denoise', scale=1, channels=1)
    write(tmp_path / 'in' / 'colour.png', (8, 8, 3))
    write(tmp_path / 'in' / 'gray.png', (8, 8))
    assert run('in', '--output=out', '--model=model') == 1
    assert 'error: in/colour.png: a network for gray images' in capsys.readouterr().err
    assert names_in(tmp_path / 'out') == ['gray.png']


def test_too_little_memory_is_told_by_name(tmp_path, model, run, monkeypatch, capsys):
    write(tmp_path / 'in' / 'a.png')
    write(tmp_path / 'in' / 'b.png', (7, 10, 3))
    strips = Restorer.strips

    def hungry(self, pixels, alpha=None, **options):
        if pixels.shape[1] == 9:
            raise MemoryError
        return strips(self, pixels, alpha, **options)

    monkeypatch.setattr(Restorer, 'strips', hungry)
    assert run('in', '--output=out', f'--model={model}') == 1
    assert 'error: in/a.png: too little memory' in capsys.readouterr().err
    assert names_in(tmp_path / 'out') == ['b.png']


def test_tasks_take_the_weights_that_come_with_the_package(tmp_path, packaged, run, capsys):
    colour, gray = write(tmp_path / 'in' / 'colour.png'), write(tmp_path / 'in' / 'gray.png', (7, 9))
    for arguments, name_of_colour, name_of_gray in [
        (('--task=sr', '--scale=2'), 'sr_x2', 'sr_x2'),
        (('--scale=2',), 'sr_x2', 'sr_x2'),
        (('--model=sr_x2', '--task=sr'), 'sr_x2', 'sr_x2'),
        (('--task=denoise',), 'denoise_colour', 'denoise_gray'),
        (('--task=jpeg', '--scale=1'), 'jpeg_colour', 'jpeg_gray'),
    ]:
        assert run('in', '--output=out', '--overwrite', *arguments) == 0
        for name, image, model in (('colour', colour, name_of_colour), ('gray', gray, name_of_gray)):
            restored = read_photo(tmp_path / 'out' / f'{name}.png').pixels
            np.testing.assert_array_equal(restored.squeeze(), Restorer.load(model)(image))
    capsys.readouterr()
    assert run('--models') == 0
    listed = capsys.readouterr().out
    for said in (
        'sr_x2: enlarges x2',
        '30 steps',
        'sr_x2 (tiling feathered 96/16) 30.00 dB',
        'bicubic 28.00 dB',
        'protocol sr-y',
        'non-commercial',
    ):
        assert said in listed


@pytest.mark.parametrize(
    ('name', 'of_task'),
    [('sr_x2', ['--scale=2']), ('denoise', ['--task=denoise']), ('jpeg', ['--task=jpeg']), ('denoise_gray', None)],
)
def test_a_name_that_a_folder_here_has_too_is_refused(tmp_path, packaged, run, name, of_task):
    image = write(tmp_path / 'a.png', (7, 9))
    package = Restorer.load(name)(image)
    changes = {'scale': 2 if name == 'sr_x2' else 1, 'channels': 1, 'features': 8}
    folder = Restorer.load(save(tmp_path / name, 'sr' if name == 'sr_x2' else name[:7], **changes))(image)
    assert np.any(folder != package)
    other = f'write ./{name} for the folder, {name.upper()} for the network'
    with pytest.raises(UserError, match=f'^{name} is a folder here and also a network of the package: {other}$'):
        run('a.png', '--output=out', f'--model={name}')
    for arguments, expected in [
        ([f'--model=./{name}'], folder),
        ([f'--model={name}/'], folder),
        ([f'--model={name.upper()}'], package),
        (of_task or [f'--model={name.upper()}'], package),
    ]:
        assert run('a.png', '--output=out', '--overwrite', *arguments) == 0
        np.testing.assert_array_equal(read_photo(tmp_path / 'out' / 'a.png').pixels[..., 0], expected)
    os.rename(tmp_path / name, tmp_path / name.upper())
    with pytest.raises(UserError, match=f'./{name.upper()} for the folder, {name} for the network$'):
        run('a.png', '--output=out', f'--model={name.upper()}')


def test_options_reach_the_restorer(tmp_path, model, run, monkeypatch):
    write(tmp_path / 'a.png')
    asked = {}
    load = Restorer.load
    monkeypatch.setattr(Restorer, 'load', lambda name, **options: asked.update(options) or load(name, **options))
    assert (
        run('a.png', '--output=out', f'--model={model}', '--which=last', '--tile=40', '--ensemble', '--dtype=bfloat16')
        == 0
    )
    assert asked == {'which': 'last', 'tile': 40, 'ensemble': True, 'dtype': 'bfloat16', 'device': None}


def test_mistakes_are_told_before_work(tmp_path, model, packaged, run, monkeypatch):
    write(tmp_path / 'a.png')
    write(tmp_path / 'more' / 'a.png')
    write(tmp_path / 'more' / 'b.jpg')
    (tmp_path / 'empty').mkdir()
    before = (tmp_path / 'a.png').read_bytes()
    network, out = f'--model={model}', '--output=out'
    mistakes = [
        (['a.png', network], 'give --output=FOLDER for the restored images'),
        ([out, network], 'nothing to restore'),
        (['a.png', out], 'say what to do: --task=sr'),
        (['a.png', 'absent.png', out, network], 'absent.png: no such'),
        (['empty', out, network], 'empty: no image'),
        (['a.png', 'more', out, network], r'a\.png and more/a\.png would both become'),
        (['a.png', '--output=.', network], 'would overwrite the input'),
        (['a.png', 'more/b.jpg', '--output=-', network], 'standard output takes only one image'),
        (['gs://bucket/a.png', out, network], 'an input: gs://bucket/a.png is a URL'),
        (['~nosuchuser/a.png', out, network], r'an input: ~nosuchuser/a\.png does not begin with a known home'),
        (['', out, network], 'an input is empty'),
        (['a.png', '--output=', network], '--output is empty'),
        (['a.png', out, '--model='], 'model is empty'),
        (['a.png', out, f'--model={"x" * 300}'], 'no model x+: neither a folder nor weights'),
        (['x' * 300, out, network], 'cannot be read: File name too long'),
        (['a.png', out, '--model=no_model'], 'no model no_model: neither a folder nor weights .* are: sr_x2, denoise'),
        (['a.png', out, '--task=sr'], '--task=sr needs a --scale: 2, 3 or 4'),
        (['a.png', out, '--scale=3'], 'no weights called sr_x3 come with the package; there are: sr_x2, denoise_gray'),
        (['a.png', out, '--scale=5'], 'no weights called sr_x5'),
        (['a.png', out, '--task=denoise', '--scale=2'], '--task=denoise keeps the size: --scale=2'),
        (['a.png', out, '--model=jpeg', '--task=sr'], '--model=jpeg is for --task=jpeg, not sr'),
        (['a.png', out, '--model=sr_x2', '--scale=3'], '--model=sr_x2 has scale 2, not 3'),
        (['a.png', out, network, '--format=gif'], 'format'),
        (['a.png', out, network, '--quality=50'], 'PNG .* takes no quality'),
        (['more/b.jpg', out, network, '--quality=50', '--format=tiff'], 'TIFF .* takes no quality'),
        (['a.png', out, network, '--format=jpeg', '--quality=101'], 'quality must be .* 100, not 101'),
        (['more', out, network, '--quality=0'], 'quality must be .* 100, not 0'),
        (['-', '--output=-', network, '--quality=0'], 'quality must be .* 100, not 0'),
        (['a.png', out, network, '--tile=1'], 'tile'),
        (['a.png', out, network, '--dtype=int8'], 'dtype'),
        (['a.png', out, network, '--device=abacus'], "no device 'abacus' here; there is cpu"),
        (['-', out, network, '--compare'], '--compare needs files as input'),
        (['a.png', '--output=b.png', network, '--compare'], 'a folder as --output'),
        (['a.png', '--output=a.png', network], 'a.png would overwrite the input a.png'),
        (['a.png', '--output=-', network, '--compare'], '--compare needs files as input'),
    ]
    monkeypatch.setattr(Restorer, 'load', None)
    for arguments, message in mistakes:
        with pytest.raises((UserError, flags.Error), match=message) as caught:
            run(*arguments)
        assert '\n' not in str(caught.value)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    # These are seen when the checkpoint's own config is read, or the folder is tried, and still before any image.
    for arguments, message in [
        (['a.png', out, network, '--scale=4'], 'has scale 2, not 4'),
        (['a.png', out, network, '--task=jpeg'], 'is for --task=sr, not jpeg'),
        (['a.png', out, '--model=empty'], 'no checkpoint at .*empty'),
        (['a.png', '--output=a.png/out', network], 'cannot be written into'),
    ]:
        with pytest.raises(UserError, match=message):
            run(*arguments)
    assert not (tmp_path / 'out').exists()
    assert (tmp_path / 'a.png').read_bytes() == before


def test_a_page_shows_before_and_after(tmp_path, model, run, capsys):
    image = write(tmp_path / 'in' / 'a.png')
    write(tmp_path / 'in' / 'b.jpg', (6, 6))
    (tmp_path / 'in' / 'broken.png').write_bytes(b'\x89PNG\r\n\x1a\n')
    assert run('in/b.jpg', '--output=out', f'--model={model}') == 0
    assert run('in', '--output=out', f'--model={model}', '--compare') == 1
    page = (tmp_path / 'out' / 'compare.html').read_text()
    assert re.findall('<figcaption>(.*?)<', page) == ['in/a.png', 'in/b.jpg']
    uris = re.findall(r'src="data:image/webp;base64,(.*?)"', page)
    assert len(uris) == 4
    after = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(uris[1]))))
    np.testing.assert_array_equal(after, Restorer.load(model)(image))


def test_the_bar_counts_what_there_is_to_do(tmp_path, model, monkeypatch):
    """Every image moves it by its file's size, also one that fails, each tile by its share; it ends with the last."""
    shapes = {'a': (7, 9, 3), 'b': (110, 300, 3)}
    for name, shape in shapes.items():
        write(tmp_path / f'{name}.png', shape)
    (tmp_path / 'c.png').write_bytes(bytes(1000))
    bars = []

    class Bar(tqdm.tqdm):
        def __init__(self, **options):
            super().__init__(**options | {'disable': False, 'file': io.StringIO()})
            self.seen = []
            bars.append(self)

        def update(self, n=1):
            super().update(n)
            self.seen.append(self.n)

    monkeypatch.setattr(restore_files.tqdm, 'tqdm', Bar)
    jobs = [Job(tmp_path / f'{name}.png', tmp_path / 'out' / f'{name}.png') for name in 'abc']
    assert restore_files.restore_files(jobs, Restorer.load(model))[0] == [jobs[2]]
    (bar,) = bars
    sizes = [job.source.stat().st_size for job in jobs]
    assert bar.total == sum(sizes)
    ends = np.cumsum(sizes)
    assert bar.seen[-1] == pytest.approx(ends[-1])
    assert np.isclose(bar.seen, ends[0]).any()
    between = [seen for seen in bar.seen if ends[0] < seen < ends[1] - 1]
    assert len(between) == 2 * 4 - 1
    assert sorted(bar.seen) == bar.seen


@pytest.mark.slow
def test_a_huge_image_needs_little_memory(tmp_path):
    """8000x8000 pixels become 16000x16000 in less memory than half of the 4 GB that are promised."""
    save(tmp_path / 'model', features=2, groups=1, cardinality=1)
    row = np.random.RandomState(0).randint(0, 256, (1, 8000, 3)).astype(np.uint8)
    PIL.Image.fromarray(np.repeat(row, 8000, axis=0)).save(tmp_path / 'huge.png', compress_level=1)
    code = (
        'import atexit, sys\n'
        'atexit.register(lambda: sys.stderr.write(open("/proc/self/status").read()))\n'  # of this process alone
        'from nsr_jax.restore import start\n'
        'start()'
    )
    command = [sys.executable, '-c', code, 'huge.png', '--output=out', '--model=model']
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    peak = int(re.search(r'VmHWM:\s+(\d+) kB', ended.stderr)[1]) * 1024
    assert 3e8 < peak < 2e9
    header = (tmp_path / 'out' / 'huge.png').open('rb').read(24)
    assert [int.from_bytes(header[place : place + 4]) for place in (16, 20)] == [16000, 16000]


def test_paths_begin_at_home_and_names_are_bytes(tmp_path, model, run, monkeypatch):
    """A home directory in each place where a path may stand; names of the greatest length, and such as are no UTF-8."""
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    names = [b'lat\xefn.png', b'n' * 251 + b'.png', b'a[1].png', b'-.png']
    for name in names:
        write(tmp_path / 'home' / 'in[2]' / os.fsdecode(name))
    (tmp_path / 'home' / 'run').symlink_to(model)
    assert run('~/in[2]', '--output=~/out[*]', '--model=~/run', '--compare') == 0
    written = {os.fsencode(path.name) for path in (tmp_path / 'home' / 'out[*]').iterdir()}
    assert written == {*names, b'compare.html'}
    assert [path.name for path in tmp_path.iterdir()] == ['home']
