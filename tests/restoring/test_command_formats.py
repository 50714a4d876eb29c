"""The formats that the command reads and writes, in files and in standard streams."""

import io
import pathlib
import re
import shutil
import sys
import types

import numpy as np
import PIL.Image
import pytest

from nsr_jax.errors import UserError
from nsr_jax.images.reading import read_photo
from nsr_jax.inference.restorer import Restorer
from tests.restoring.restored import names_in, write

ROOT = pathlib.Path(__file__).parents[2]


def test_standard_input_and_output(commands, tmp_path, model, run):
    write(tmp_path / 'a.png')
    assert run('a.png', '--output=out', f'--model={model}', '--format=tiff') == 0
    given = (tmp_path / 'a.png').read_bytes()
    arguments = ['nsr_jax.restore', '-', '--output=-', f'--model={model}']
    ended = commands(*arguments, '--format=TIFF', given=given)
    assert ended.code == 0, ended.error
    assert ended.output == (tmp_path / 'out' / 'a.tif').read_bytes()
    broken = commands(*arguments, given=given[:80])
    assert broken.code == 1
    assert broken.output == b''
    assert 'error: standard input: ' in broken.error


def tables_of(quality):
    """What Pillow's own JPEG encoder quantises with."""
    file = io.BytesIO()
    PIL.Image.new('RGB', (8, 8)).save(file, 'JPEG', quality=quality)
    return PIL.Image.open(file).quantization


def test_standard_output_has_the_format_of_the_input(commands, tmp_path, model, run):
    write(tmp_path / 'a.jpg')
    write(tmp_path / 'a.png')
    assert run('a.jpg', '--output=out', f'--model={model}', '--quality=30') == 0
    photo = (tmp_path / 'a.jpg').read_bytes()
    arguments = ['nsr_jax.restore', '-', '--output=-', f'--model={model}', '--quality=30']
    code, said, restored = commands(*arguments, given=photo)
    assert code == 0, said
    assert restored == (tmp_path / 'out' / 'a.jpg').read_bytes()
    assert PIL.Image.open(io.BytesIO(restored)).quantization == tables_of(30)
    code, said, restored = commands(*arguments, given=(tmp_path / 'a.png').read_bytes())
    assert (code, restored) == (1, b'')
    assert 'error: standard input: PNG is lossless and takes no quality; JPEG and WEBP do' in said


def test_every_image_keeps_its_format(tmp_path, model, run, capsys):
    """A mixed folder, with a quality for what can lose something, and one image that its format cannot hold."""
    formats = {
        'a.jpg': 'JPEG', 'a.png': 'PNG', 'b.JPEG': 'JPEG', 'c.bmp': 'BMP', 'd.tif': 'TIFF', 'e.webp': 'WEBP',
    }  # fmt: skip
    for name in formats:
        write(tmp_path / 'in' / name, quality=80)
    shutil.copy(ROOT / 'tests' / 'reference' / 'images' / 'bmp_rgba.bmp', tmp_path / 'in' / 'f.bmp')
    assert read_photo(tmp_path / 'in' / 'f.bmp').alpha is not None
    (tmp_path / 'scan').write_bytes((tmp_path / 'in' / 'a.jpg').read_bytes())
    restorer = Restorer.load(model)
    sizes = {}
    for quality in (None, 20, 90):
        output = tmp_path / f'out{quality}'
        asked = [] if quality is None else [f'--quality={quality}']
        assert run('in', 'scan', f'--output={output}', f'--model={model}', *asked) == 1
        complaints = capsys.readouterr().err
        assert re.search(
            r'^error: .*f\.bmp: BMP cannot hold transparency; PNG, TIFF and WEBP can$', complaints, re.MULTILINE
        )
        assert complaints.count('error: ') == 1
        assert names_in(output) == sorted([*formats, 'scan.png'])
        for name, form in {**formats, 'scan.png': 'PNG'}.items():
            image = PIL.Image.open(output / name)
            assert image.format == form
            if form == 'JPEG':
                assert image.quantization == tables_of(quality or 95)
            elif form != 'WEBP' or quality is None:
                source = 'scan' if name == 'scan.png' else f'in/{name}'
                np.testing.assert_array_equal(np.asarray(image), restorer(read_photo(tmp_path / source).pixels))
        sizes[quality] = (output / 'e.webp').stat().st_size
    assert sizes[20] < sizes[90] < sizes[None]


def test_a_file_by_the_name_of_another_format_is_told(tmp_path, model, run, capsys, caplog):
    write(tmp_path / 'in' / 'clear.webp', (7, 9, 4))
    write(tmp_path / 'in' / 'plain.png')
    (tmp_path / 'in' / 'clear.webp').rename(tmp_path / 'in' / 'clear.jpg')
    (tmp_path / 'in' / 'plain.png').rename(tmp_path / 'in' / 'plain.jpg')
    assert run('in', '--output=out', f'--model={model}') == 1
    assert re.search(
        r'^error: .*clear\.jpg: a WEBP file by its contents \(--format=webp keeps that format\): JPEG cannot hold',
        capsys.readouterr().err,
        re.MULTILINE,
    )
    assert (
        'plain.jpg: a PNG file by its contents (--format=png keeps that format); writing JPEG, as its name says'
        in caplog.text
    )
    assert PIL.Image.open(tmp_path / 'out' / 'plain.jpg').format == 'JPEG'
    caplog.clear()
    assert run('in', '--output=webp', f'--model={model}', '--format=webp') == 0
    assert not caplog.records
    assert names_in(tmp_path / 'webp') == ['clear.webp', 'plain.webp']


def test_a_quality_that_no_output_could_use_is_refused(tmp_path, model, run, monkeypatch):
    for name in ('a.png', 'b.tif', 'c.bmp'):
        write(tmp_path / 'in' / name)
    monkeypatch.setattr(Restorer, 'load', None)
    with pytest.raises(UserError, match=r'^BMP is lossless and takes no quality; JPEG and WEBP do$'):
        run('in', '--output=out', f'--model={model}', '--quality=50')
    assert not (tmp_path / 'out').exists()


def test_images_are_kept_as_they_came(tmp_path, model, run, capsys):
    """Alpha and 16 bits; what a format cannot hold is told by name, and the rest goes on."""
    transparent = write(tmp_path / 'in' / 'alpha.png', (7, 9, 4))
    deep = (np.arange(63).reshape(7, 9) * 1000).astype(np.uint16)
    PIL.Image.fromarray(deep).save(tmp_path / 'in' / 'deep.png')
    write(tmp_path / 'in' / 'plain.png', icc_profile=b'', dpi=(300, 300))
    assert run('in', '--output=out', f'--model={model}') == 0
    restorer = Restorer.load(model)
    photo = read_photo(tmp_path / 'out' / 'alpha.png')
    np.testing.assert_array_equal(np.dstack([photo.pixels, photo.alpha]), restorer(transparent))
    np.testing.assert_array_equal(read_photo(tmp_path / 'out' / 'deep.png').pixels[..., 0], restorer(deep))
    assert PIL.Image.open(tmp_path / 'out' / 'plain.png').info['dpi'] == pytest.approx((300, 300), abs=0.01)

    assert run('in', '--output=jpeg', f'--model={model}', '--format=jpeg', '--quality=90') == 1
    complaints = capsys.readouterr().err
    assert re.search(r'error: .*alpha\.jpg: JPEG cannot hold transparency', complaints)
    assert re.search(r'error: .*deep\.jpg: JPEG cannot hold 16 bits', complaints)
    assert names_in(tmp_path / 'jpeg') == ['plain.jpg']
    assert PIL.Image.open(tmp_path / 'jpeg' / 'plain.jpg').format == 'JPEG'


def test_standard_input_that_is_a_terminal_is_not_waited_for(model, run, monkeypatch):
    monkeypatch.setattr(sys, 'stdin', types.SimpleNamespace(isatty=lambda: True))
    with pytest.raises(UserError, match='standard input is a terminal: send an image there'):
        run('-', '--output=out', f'--model={model}')
