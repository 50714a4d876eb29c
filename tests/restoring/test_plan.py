"""Which image becomes which file: folders, patterns, links, and what is refused."""

import os
import pathlib

import pytest

from nsr_jax.errors import UserError
from nsr_jax.restoring.plan import Job, plan


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Files of these names, which hold nothing: a plan does not look into them."""
    names = (
        'in/a.png', 'in/b.JPG', 'in/notes.txt', 'in/.hidden.png', 'in/.cache/a.png', 'in/2020/a.png',
        'in/2020/may/c.tiff', 'other/a.bmp', 'in/x.y.webp', 'photo[1].png',
    )  # fmt: skip
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(inputs, output='out', **options):
    return [tuple(path and path.as_posix() for path in job) for job in plan(inputs, output, **options)]


def test_folders(tree):
    """Names are sorted, capitals do not matter, dots in names stay, hidden files and others are passed over."""
    own = [('in/a.png', 'out/a.png'), ('in/b.JPG', 'out/b.JPG'), ('in/x.y.webp', 'out/x.y.webp')]
    assert planned(['in']) == own
    assert planned(['in/'], suffix='.tif') == [
        ('in/a.png', 'out/a.tif'),
        ('in/b.JPG', 'out/b.tif'),
        ('in/x.y.webp', 'out/x.y.tif'),
    ]
    below = [('in/2020/a.png', 'out/2020/a.png'), ('in/2020/may/c.tiff', 'out/2020/may/c.tiff')]
    assert planned(['in'], recursive=True) == [*below, *own]
    assert planned(['other/a.bmp', 'in/2020/may']) == [
        ('other/a.bmp', 'out/a.bmp'),
        ('in/2020/may/c.tiff', 'out/c.tiff'),
    ]


def test_an_ending_comes_before_the_suffix(tree):
    assert planned(['in'], ending='_x2') == [
        ('in/a.png', 'out/a_x2.png'),
        ('in/b.JPG', 'out/b_x2.JPG'),
        ('in/x.y.webp', 'out/x.y_x2.webp'),
    ]
    assert planned(['other'], 'other', ending='_x2') == [('other/a.bmp', 'other/a_x2.bmp')]
    (tree / 'other' / 'a_x2.bmp').write_bytes(b'')  # may be an original
    with pytest.raises(UserError, match=r'other/a_x2\.bmp would overwrite the input other/a_x2\.bmp'):
        plan(['other'], 'other', ending='_x2')
    assert planned(['-'], ending='_x2') == [(None, 'out/stdin_x2.png')]
    for output, ending in (('out', '/x2'), ('-', '_x2'), ('b.png', '_x2')):
        with pytest.raises(UserError, match=f'--suffix={ending}'):
            plan(['in/a.png'], output, ending=ending)


def test_one_input_may_become_a_named_file(tree):
    assert planned(['in/a.png'], 'new/b.jpg') == [('in/a.png', 'new/b.jpg')]
    assert planned(['-'], 'b.tif', suffix='.tif') == [(None, 'b.tif')]
    (tree / 'folder.png').mkdir()
    for inputs, output, target in (
        (['in/a.png'], 'folder.png', 'folder.png/a.png'),  # a folder stays one
        (['in/a.png'], 'b.png/', 'b.png/a.png'),
        (['in/a.png'], 'b.new', 'b.new/a.png'),
        (['in/2020'], 'b.png', 'b.png/a.png'),
        (['in/a.png', 'in/b.JPG'], 'b.png', 'b.png/a.png'),
    ):
        assert planned(inputs, output)[0][1] == target
    with pytest.raises(UserError, match=r'--output=b\.png does not fit --format=jpeg'):
        plan(['in/a.png'], 'b.png', suffix='.jpg')
    with pytest.raises(UserError, match=r'in/a\.png would overwrite the input in/a\.png'):
        plan(['in/a.png'], 'in/a.png')


def test_names_that_say_no_format_become_png(tree):
    for name in ('scan', 'scan.dat', 'x.png.orig'):
        (tree / name).write_bytes(b'')
    targets = [('scan', 'out/scan.png'), ('x.png.orig', 'out/x.png.png')]
    assert planned(['scan', 'x.png.orig']) == targets
    assert planned(['scan.dat']) == [('scan.dat', 'out/scan.png')]
    assert planned(['scan.dat'], suffix='.jpg') == [('scan.dat', 'out/scan.jpg')]


STARTS = {
    'PNG': b'\x89PNG\r\n\x1a\n', 'JPEG': b'\xff\xd8\xff\xe0', 'TIFF': b'II\x2a\0', 'WEBP': b'RIFF\1\0\0\0WEBP',
    'BMP': b'BM' + bytes(12) + b'\x28\0\0\0',
}  # fmt: skip


def test_images_of_unknown_suffixes_are_told_by_their_contents(tree, caplog):
    """And what is none is counted and named in one line, whatever it is: nothing but files is opened."""
    caplog.set_level('INFO', logger='absl')
    folder = tree / 'mixed'
    folder.mkdir()
    for name, start in {
        'scan': 'PNG',
        'a.JPG_original': 'JPEG',
        'b.unknown': 'TIFF',
        'c.x': 'WEBP',
        'd.y': 'BMP',
    }.items():
        (folder / name).write_bytes(STARTS[start])
    for name in ('a.JPG', 'e.jfif', 'f.jpe', 'g.dib'):  # as their names say
        (folder / name).write_bytes(b'')
    (folder / 'raw.NEF').write_bytes(STARTS['TIFF'])
    (folder / 'BMW.txt').write_bytes(b'BMW and others, a text of some length')
    (folder / 'of\ntwo lines').write_bytes(b'')
    (folder / 'nowhere').symlink_to('absent')
    (folder / 'nothing.png').symlink_to('/dev/null')
    os.mkfifo(folder / 'pipe')
    expected = {
        'a.JPG': 'a.JPG', 'a.JPG_original': 'a.JPG_original.png', 'b.unknown': 'b.unknown.png', 'c.x': 'c.x.png',
        'd.y': 'd.y.png', 'e.jfif': 'e.jfif', 'f.jpe': 'f.jpe', 'g.dib': 'g.dib', 'scan': 'scan.png',
    }  # fmt: skip
    assert planned(['mixed']) == [(f'mixed/{name}', f'out/{target}') for name, target in expected.items()]
    (line,) = [record.message for record in caplog.records]
    assert line == (
        "mixed: skipping 6 files that are not images: 'BMW.txt', 'nothing.png', 'nowhere', "
        "'of\\ntwo lines', 'pipe', "
        "'raw.NEF'"
    )
    assert planned(['mixed/a*'], suffix='.jpg') == [
        ('mixed/a.JPG', 'out/a.jpg'),
        ('mixed/a.JPG_original', 'out/a.JPG_original.jpg'),
    ]
    assert planned(['mixed/b.unknown']) == [('mixed/b.unknown', 'out/b.png')]
    for number in range(20):
        (folder / f'{number:02}.txt').touch()
    caplog.clear()
    plan(['mixed'], 'out')
    assert "skipping 26 files that are not images: '00.txt'" in caplog.text
    assert "'09.txt' and 16 more" in caplog.text


def test_images_of_one_stem_keep_apart_by_their_suffixes(tree):
    (tree / 'in' / 'a.jpg').write_bytes(b'')
    both = [('in/a.jpg', 'out/a.jpg'), ('in/a.png', 'out/a.png')]
    assert planned(['in/a.*']) == both
    assert planned(['in/a.png', 'other']) == [('in/a.png', 'out/a.png'), ('other/a.bmp', 'out/a.bmp')]
    with pytest.raises(UserError, match=r'^in/a\.jpg and in/a\.png would both become out/a\.png: '):
        plan(['in/a.*'], 'out', suffix='.png')


def test_a_job_knows_the_format_of_its_target():
    for name, form in [('a.JPG', 'JPEG'), ('a.jpeg', 'JPEG'), ('a.tif', 'TIFF'), ('a.webp', 'WEBP'), ('a', None)]:
        assert Job(None, pathlib.Path(name)).format == form
    assert Job(pathlib.Path('a.jpg'), None).format is None


def test_patterns_keep_places_below_what_has_no_wildcard(tree):
    assert planned(['in/*.JPG']) == [('in/b.JPG', 'out/b.JPG')]
    assert planned(['in/**/a*']) == [('in/2020/a.png', 'out/2020/a.png'), ('in/a.png', 'out/a.png')]
    assert planned(['*/a.*']) == [('in/a.png', 'out/in/a.png'), ('other/a.bmp', 'out/other/a.bmp')]
    assert planned([f'{tree}/in/20[12]0/*']) == [(f'{tree}/in/2020/a.png', 'out/2020/a.png')]
    assert planned(['photo[1].png']) == [('photo[1].png', 'out/photo[1].png')]


def test_standard_streams(tree):
    assert planned(['-'], '-') == [(None, None)]
    assert planned(['-', 'in/a.png']) == [(None, 'out/stdin.png'), ('in/a.png', 'out/a.png')]
    assert planned(['-'], suffix='.jpg') == [(None, 'out/stdin.jpg')]
    assert planned(['in/a.png'], '-') == [('in/a.png', None)]
    with pytest.raises(UserError, match='standard output takes only one image'):
        plan(['in'], '-')
    assert str(Job(None, None)) == 'standard input'


def test_an_image_that_is_named_twice_is_restored_once(tree):
    assert planned(['in/a.png', 'in/a.png', 'in/a*']) == [('in/a.png', 'out/a.png')]
    assert planned(['in/a.png', './in/../in/a.png']) == [('in/a.png', 'out/a.png')]


def test_what_was_restored_is_no_input(tree):
    """The output folder may lie in an input folder: a second run takes the same images."""
    first = planned(['in'], 'in/out', recursive=True)
    for _, target in first:
        pathlib.Path(target).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(target).write_bytes(b'')
    assert planned(['in'], 'in/out', recursive=True) == first
    assert all(job.is_done for job in plan(['in'], 'in/out', recursive=True))
    assert planned(['in/**/*.png'], 'in/out') == [each for each in first if each[0].endswith('.png')]
    # Asked for by name, it is taken.
    assert planned(['in/out'], 'out2') == [
        (f'in/out/{name}', f'out2/{name}') for name in ('a.png', 'b.JPG', 'x.y.webp')
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('inputs', 'output', 'message'),
    [
        ([], 'out', 'nothing to restore'),
        (['in/a.png', 'absent.png'], 'out', '^absent.png: no such file or folder$'),
        (['*.gif'], 'out', r'^\*.gif: no image matches; images are files that end in .*png.*webp'),
        (['empty'], 'out', '^empty: no image in this folder; images'),
        (['in/a.png', 'in/2020'], 'out', r'^in/a.png and in/2020/a.png would both become out/a.png: '),
        (['in/a.png'], 'in', 'in/a.png would overwrite the input in/a.png: give another --output'),
        (['in/a.png'], 'hard', 'hard/a.png would overwrite the input in/a.png'),
        (['in/a.png'], 'soft', 'soft/a.png would overwrite the input in/a.png'),
        (['in/b.JPG'], 'soft', 'soft/b.JPG would overwrite the input'),
        (['in/a.png'], 'taken', 'taken/a.png is a folder: in/a.png cannot be restored to it'),
    ],
)
def test_what_is_refused(tree, inputs, output, message):
    for name in ('empty', 'hard', 'taken/a.png'):
        (tree / name).mkdir(parents=True)
    os.link('in/a.png', 'hard/a.png')
    (tree / 'soft').mkdir()
    (tree / 'soft' / 'a.png').symlink_to(tree / 'in' / 'a.png')
    (tree / 'soft' / 'b.JPG').symlink_to(tree / 'in' / 'b.JPG')
    with pytest.raises(UserError, match=message) as caught:
        plan(inputs, output)
    assert '\n' not in str(caught.value)


def test_an_output_that_is_a_later_input_is_refused(tree):
    (tree / 'out').mkdir()
    (tree / 'out' / 'a.png').write_bytes(b'')
    with pytest.raises(UserError, match=r'out/a\.png would overwrite the input out/a\.png'):
        plan(['in/a.png', 'out/a.png'], 'out')


def test_links_to_folders_end_no_walk(tree):
    (tree / 'in' / '2020' / 'up').symlink_to(tree / 'in')
    (tree / 'linked').symlink_to(tree / 'in')
    assert ('in/2020/a.png', 'out/2020/a.png') in planned(['in'], recursive=True)
    assert len(planned(['in'], recursive=True)) == 5
    assert planned(['linked'])[0] == ('linked/a.png', 'out/a.png')
    with pytest.raises(UserError, match='would overwrite the input'):
        plan(['in/a.png'], 'linked')


def test_a_folder_that_may_not_be_read_is_named(tree, monkeypatch):
    def forbidden(_):
        raise PermissionError(13, 'Permission denied', 'in/2020')

    monkeypatch.setattr(os, 'scandir', forbidden)
    with pytest.raises(UserError, match='in/2020: cannot be read: Permission denied'):
        plan(['in'], 'out', recursive=True)


def test_what_is_there_is_meant_by_its_name(tree):
    (tree / 'scans[2024]').mkdir()
    for name in ('a.png', 'b.tif', 'a[1].png', 'a1.png'):
        (tree / 'scans[2024]' / name).write_bytes(b'')
    assert planned(['scans[2024]/a[1].png']) == [('scans[2024]/a[1].png', 'out/a[1].png')]
    assert planned(['scans[2024]/*.tif', 'scans[2024]/a[0-9].png']) == [
        ('scans[2024]/b.tif', 'out/b.tif'),
        ('scans[2024]/a1.png', 'out/a1.png'),
    ]
    assert planned(['scans[2024]'], 'out[1]')[0] == ('scans[2024]/a.png', 'out[1]/a.png')
    with pytest.raises(UserError, match=r'^scans\[2024\]/none\.png: no such file or folder$'):
        plan(['scans[2024]/none.png'], 'out')
