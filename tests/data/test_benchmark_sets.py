"""The known sets against the real ones, and the errors for missing images."""

import pytest

from nsr_jax.data.benchmark_sets import BENCHMARKS, find_benchmark
from nsr_jax.data.sources import open_source
from nsr_jax.errors import UserError
from nsr_jax.images.reading import list_images, read_image
from nsr_jax.images.writing import write_image
from nsr_jax.tasks import TASKS

HERE = ('BSD100', 'BSD68', 'CBSD68', 'Classic5', 'LIVE1', 'Set12', 'Set14', 'Set5')


@pytest.mark.parametrize('name', HERE)
def test_real_sets_are_what_is_known_of_them(data_dir, name):
    paths = list_images(data_dir / 'test' / name / 'HR')
    benchmark = find_benchmark(name)
    assert benchmark.name == name and benchmark.images == len(paths)
    assert set(benchmark.stems) == {path.stem for path in paths}
    channels = {read_image(path).shape[-1] for path in paths}
    assert channels == {'RGB': {3}, 'gray': {1}, 'RGB, bridge gray': {1, 3}}[benchmark.colour]


def test_every_task_has_sets_and_names_are_whole():
    assert {task for benchmark in BENCHMARKS for task in benchmark.tasks} == TASKS.keys() - {'pairs'}
    for benchmark in BENCHMARKS:
        assert find_benchmark(benchmark.name) is benchmark  # no other one has its name
        assert len(set(benchmark.stems)) in (0, benchmark.images)
        assert benchmark.origin and benchmark.colour.startswith(('RGB', 'gray'))


def test_names_in_any_case():
    assert find_benchmark('bsd100') is find_benchmark('B100') is find_benchmark('BSD100')
    assert find_benchmark('KODAK24').images == 24
    assert find_benchmark('') is None and find_benchmark('set55') is None


def test_a_whole_set_may_have_other_file_names():
    find_benchmark('Set5').check([f'{index}.bmp' for index in range(5)], 'Set5')
    find_benchmark('manga109').check([f'{index}.png' for index in range(109)], 'Manga109')


def test_missing_images_are_named_where_they_can_be():
    set5, manga = find_benchmark('set5'), find_benchmark('manga109')
    with pytest.raises(UserError, match=r'^x/HR: 3 images found, 5 needed for Set5; missing: bird, woman; it comes'):
        set5.check(['baby.png', 'Butterfly.PNG', 'head.png'], 'x/HR')
    with pytest.raises(UserError, match=r'6 images found, 5 needed for Set5; not of the set: b\.png; it comes'):
        set5.check([f'{name}.png' for name in ('a', 'b', *set5.stems)[1:]], 'x')
    with pytest.raises(UserError, match=r'^x: 2 images found, 5 needed for Set5; it comes from Bevilacqua'):
        set5.check(['1.png', '2.png'], 'x')
    with pytest.raises(UserError, match=r'^x: 108 images found, 109 needed for Manga109; it comes from http'):
        manga.check([str(index) for index in range(108)], 'x')
    kodak = find_benchmark('Kodak24')
    with pytest.raises(UserError, match=r'missing: kodim03, kodim04, .*, kodim10 and 14 more; it'):
        kodak.check(['kodim01.png', 'kodim02.png'], 'x')


def test_an_incomplete_set_is_refused_before_anything_is_prepared(data_dir, tmp_path):
    for name in ('baby', 'bird', 'head', 'woman'):
        image = read_image(data_dir / 'test' / 'Set5' / 'HR' / f'{name}.png')
        write_image(tmp_path / 'test' / 'Set5' / 'HR' / f'{name}.png', image)
    with pytest.raises(UserError, match='Set5/HR: 4 images found, 5 needed for Set5; missing: butterfly'):
        open_source('set5', '', 1, data_dir=tmp_path, tfds_dir=tmp_path / 'tfds')
    assert not (tmp_path / 'tfds').exists()
    # The same folder by its path is a folder like any other.
    assert len(open_source(tmp_path / 'test' / 'Set5', '', 1, tfds_dir=tmp_path / 'tfds')) == 4


def test_a_known_set_that_is_not_there_says_where_to_get_it(tmp_path):
    with pytest.raises(UserError, match=r'Urban100 \(100 images, RGB, for sr and denoise\).*test/Urban100/HR.*github'):
        open_source('urban100', '', 2, data_dir=tmp_path, tfds_dir=tmp_path)
