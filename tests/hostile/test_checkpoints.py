"""Checkpoints from strangers: PyTorch files, Orbax folders and packaged weights; no code of theirs runs."""

import collections
import hashlib
import io
import json
import os
import pathlib
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import types
import zipfile

import jax
import ml_collections
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsr_jax import shipped, torch_file, trained
from nsr_jax.errors import UserError
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.restore import list_models
from nsr_jax.torch_file import read_torch_checkpoint
from nsr_jax.trained import load_model
from nsr_jax.training.checkpoints import save_model
from tests.hostile.changes import ODD_VALUES, changed, changes, examples, is_one_line, with_odd_value
from tests.memory import run_within

ROOT = pathlib.Path(torch_file.__file__).parents[1]
REFERENCE = ROOT / 'tests' / 'reference'


# --- PyTorch files ---


def zip_of(records, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', compression) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def read_or_refuse(path, data):
    """Empty where the file was read, else why it was not: one line that names it."""
    path.write_bytes(data)
    try:
        assert isinstance(read_torch_checkpoint(path), dict)
    except UserError as error:
        assert is_one_line(str(error))
        assert str(error).startswith(str(path))
        return str(error)
    return ''


with zipfile.ZipFile(REFERENCE / 'wdsr_x2.pth') as archive:
    RECORDS = {name: archive.read(name) for name in archive.namelist()}
(PROGRAM,) = (name for name in RECORDS if name.endswith('/data.pkl'))
WHOLE = (REFERENCE / 'wdsr_x2.pth').read_bytes()
OPCODES = sorted(value for name, value in vars(pickle).items() if isinstance(value, bytes) and len(value) == 1)


def fuzz_pickles(number):
    inserted = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(OPCODES), st.binary(max_size=4)), max_size=3)

    @examples(number)
    @given(changes, inserted)
    def test(tmp_path, changes, inserted):
        program = bytearray(changed(RECORDS[PROGRAM], changes[:2]))
        for place, opcode, argument in inserted:
            place = int(place * len(program))
            program[place:place] = opcode + argument
        read_or_refuse(tmp_path / 'a.pth', zip_of(RECORDS | {PROGRAM: bytes(program)}))

    return test


def fuzz_containers(number):
    @examples(number)
    @given(changes, st.integers(0, 4000))
    def test(tmp_path, changes, tail):
        """Most of it at the end, where a zip file's own directory is."""
        place = len(WHOLE) - tail
        read_or_refuse(tmp_path / 'a.pth', WHOLE[:place] + changed(WHOLE[place:], changes))

    return test


test_changed_pickles_are_read_or_refused = fuzz_pickles(150)
test_changed_pickles_are_read_or_refused_long = pytest.mark.slow(fuzz_pickles(20_000))
test_changed_containers_are_read_or_refused = fuzz_containers(150)
test_changed_containers_are_read_or_refused_long = pytest.mark.slow(fuzz_containers(20_000))


class Runs:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('function', [os.system, eval, exec, open, os.mkdir, __import__, subprocess.Popen, print])
def test_no_code_runs(tmp_path, function, protocol):
    sentinel = tmp_path / 'sentinel'
    argument = {
        os.system: f'touch {sentinel}', eval: f'open({str(sentinel)!r}, "w")', exec: f'open({str(sentinel)!r}, "w")',
        open: str(sentinel), os.mkdir: str(sentinel), __import__: 'antigravity', print: 'printed',
        subprocess.Popen: ['touch', str(sentinel)],
    }[function]  # fmt: skip
    program = pickle.dumps({'a': Runs(function, argument)}, protocol)
    assert 'which is not part of a checkpoint' in read_or_refuse(tmp_path / 'a.pth', zip_of({'a/data.pkl': program}))
    assert not sentinel.exists()
    assert 'antigravity' not in sys.modules


TENSOR = (
    b'ctorch._utils\n_rebuild_tensor_v2\nq\x00((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu'
    b'J%(count)btQq\x01K\0J%(count)b\x85q\x02K\x01\x85q\x03\x89}tq\x04R'
)


def one_storage_many_times(tensors, count=2**21):
    """A file of 8 MB whose tensors, copied, would take gigabytes."""
    first = TENSOR % {b'count': struct.pack('<i', count)}
    more = b''.join(b'J' + struct.pack('<i', key) + b'h\x00h\x04R' for key in range(1, tensors))
    return zip_of({'a/data.pkl': b'\x80\x02}(K\x00' + first + more + b'u.', 'a/data/0': bytes(4 * count)})


def records_over_one_another(number, size=2**22):
    """A zip file whose directory names one long record very often."""
    program = b'\x80\x02}(' + b''.join(
        b'J%b' % struct.pack('<i', key)
        + b'ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x06\0\0\0%06d' % key
        + b'X\x03\0\0\0cpuJ%btQK\0)' % struct.pack('<i', size // 4)
        + b')\x89}tR'
        for key in range(number)
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        archive.writestr('a/data.pkl', program + b'u.')
        archive.writestr('a/data/000000', bytes(size))
        record = archive.getinfo('a/data/000000')
        for key in range(1, number):
            name = f'a/data/{key:06}'
            other = zipfile.ZipInfo(name)
            for field in ('CRC', 'compress_size', 'file_size', 'header_offset'):
                setattr(other, field, getattr(record, field))
            other.orig_filename = record.orig_filename
            archive.filelist.append(other)
            archive.NameToInfo[name] = other
    return buffer.getvalue()


def hostile_torch_files():
    """Files that would crash the interpreter or fill the memory, by name."""
    tuples = 1_000_000 * b'\x85'  # each in the next
    return {
        'hash of nested tuples': zip_of({'a/data.pkl': b'\x80\x02}K\x00' + tuples + b'K\x01s.'}),
        'storage of nested tuples': zip_of({'a/data.pkl': b'\x80\x02}(X\x07\0\0\0storage)' + tuples + b'K\0K\0K\0tQ.'}),
        'nested lists': zip_of({'a/data.pkl': b'\x80\x02}K\x00' + 500_000 * b']' + 499_999 * b'a' + b's.'}),
        'inflating pickle': zip_of({'a/data.pkl': bytes(2**28)}, zipfile.ZIP_DEFLATED),
        'inflating byteorder': zip_of({'a/data.pkl': b'\x80\x02}.', 'a/byteorder': bytes(2**28)}, zipfile.ZIP_DEFLATED),
        'one storage in many tensors': one_storage_many_times(500),
        'records over one another': records_over_one_another(2000),
        'long bytes': zip_of({'a/data.pkl': b'\x80\x04}\x8e' + struct.pack('<Q', 2**40) + b'x.'}),
        'long bytearray': zip_of({'a/data.pkl': b'\x80\x05}\x96' + struct.pack('<Q', 2**40) + b'x.'}),
        'large memo': zip_of({'a/data.pkl': b'\x80\x02}r\xff\xff\xff\x7f.'}),
    }


REASONS = {
    'hash of nested tuples': 'its pickle holds 1000000 tuples',
    'storage of nested tuples': 'its pickle holds 1000001 tuples',
    'nested lists': '^$',
    'inflating pickle': r'its record a/data\.pkl is compressed',
    'inflating byteorder': r'its record a/byteorder is compressed',
    'one storage in many tensors': '^$',
    'records over one another': 'its records are longer than the file',
    'long bytes': 'ValueError: expected',
    'long bytearray': 'ValueError: expected',
    'large memo': 'its pickle numbers an object 2147483647',
}


def read_hostile_torch_files():
    with tempfile.TemporaryDirectory() as folder:
        for name, data in hostile_torch_files().items():
            print(name, read_or_refuse(pathlib.Path(folder) / 'a.pth', data), sep='=', flush=True)


def test_hostile_torch_files_stay_within_bounds():
    """One process, given 1 GiB, survives them all."""
    answers = dict(line.split('=', 1) for line in run_within(read_hostile_torch_files, 2**30))
    assert answers.keys() == REASONS.keys()
    for name, reason in REASONS.items():
        assert re.search(reason, answers[name]), name


@pytest.mark.parametrize(
    ('offset', 'shape', 'strides'),
    [
        (0, (2**62,) * 3, (0,) * 3),
        (0, (1,) * 1000, (1,) * 1000),
        (0, (2**64,), (1,)),
        (2**64, (1,), (1,)),
        (0, (1,), (10**5000,)),
        (0, (True,), (1,)),
        (0, (1.0,), (1,)),
        (0, 'aa', 'aa'),
        (0, (-1,), (1,)),
        (0, (2, 2), (3, 1)),
        (4, (1,), (1,)),
    ],
)
def test_tensors_reach_no_further_than_their_storage(tmp_path, monkeypatch, offset, shape, strides):
    """In files as torch.save writes them, with other numbers."""
    names = {'torch': 'FloatStorage', 'torch._utils': '_rebuild_tensor_v2'}
    for module, name in names.items():
        thing = type(name, (), {'__module__': module})
        monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{name: thing}))
    storage, buffer = object(), io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ('storage', sys.modules['torch'].FloatStorage, '0', 'cpu', 4) if value is storage else None

    rebuild = sys.modules['torch._utils']._rebuild_tensor_v2
    Pickler(buffer, 2).dump({'a': Runs(rebuild, storage, offset, shape, strides, False, {})})
    file = zip_of({'a/data.pkl': buffer.getvalue(), 'a/data/0': bytes(16)})
    reason = read_or_refuse(tmp_path / 'a.pth', file)
    assert reason and 'which is not part of a checkpoint' not in reason


def test_a_long_reason_is_cut(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_bytes(zip_of({'a/data.pkl': b'\x80\x02}S' + b'x' * 100_000 + b'\n.'}))
    with pytest.raises(UserError) as caught:
        read_torch_checkpoint(path)
    assert len(str(caught.value)) < 500


# --- Orbax folders ---

MODEL = {
    'scale': 2, 'channels': 3, 'num_blocks': 1, 'features': 4, 'width_multiplier': 1, 'groups': 2, 'cardinality': 2,
    'gate': 'softmax',
}  # fmt: skip


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A folder with one checkpoint of a tiny network, and its parameters."""
    config = ml_collections.ConfigDict({'task': 'sr', 'model': MODEL, 'data': {'source': 'x'}})
    generator = np.random.RandomState(0)
    shapes = parameter_shapes(build_network(config.model))
    params = jax.tree.map(lambda leaf: generator.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
    folder = tmp_path_factory.mktemp('checkpoint')
    save_model(folder, params, config, step=5)
    return folder, params


def copy_of(folder, tmp_path):
    shutil.rmtree(tmp_path / 'copy', ignore_errors=True)
    return shutil.copytree(folder, tmp_path / 'copy')


def load_or_refuse(folder, params):
    """Whether it was loaded; then with the parameters that were saved, whatever was changed."""
    try:
        loaded = load_model(folder)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        return False
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    return True


def fuzz_folders(number):
    @examples(number)
    @given(st.floats(0, 0.9999), st.sampled_from(['change', 'empty', 'gone', 'folder', 'JSON']), changes, st.data())
    def test(tmp_path, checkpoint, place, kind, changes, data):
        folder = copy_of(checkpoint[0], tmp_path)
        files = sorted(path for path in folder.rglob('*') if path.is_file())
        path = files[int(place * len(files))]
        contents = path.read_bytes()
        if kind == 'JSON' and contents[:1] in (b'{', b'['):
            value = data.draw(st.sampled_from(ODD_VALUES))
            path.write_text(with_odd_value(contents, data.draw(st.floats(0, 1)), value))
        elif kind in ('change', 'JSON'):
            path.write_bytes(changed(contents, changes))
        elif kind == 'empty':
            path.write_bytes(b'')
        else:
            path.unlink()
            if kind == 'folder':
                path.mkdir()
        load_or_refuse(folder, checkpoint[1])

    return test


test_changed_folders_are_loaded_whole_or_refused = fuzz_folders(12)
test_changed_folders_are_loaded_whole_or_refused_long = pytest.mark.slow(fuzz_folders(1000))


def forge(folder, path, value):
    """Change the config that a checkpoint names, and make its digest right again."""
    (file,) = folder.rglob('metadata/metadata')
    metadata = json.loads(file.read_text())
    metadata.pop('sha256')
    section = metadata
    for name in path[:-1]:
        section = section[name]
    section[path[-1]] = value
    file.write_text(json.dumps(metadata | {'sha256': trained.digest(metadata)}))


@pytest.mark.parametrize(
    ('path', 'value'),
    [
        (('config',), None),
        (('config',), []),
        (('config', 'task'), 5),
        (('config', 'model'), 'x'),
        (('config', 'model'), None),
        (('config', 'model', '__class__'), 'x'),
        (('config', 'model', 'a.b'), 'x'),
        (('config', 'model', 'name'), 'x'),
        (('config', 'model', 'parent'), 'x'),
        (('config', 'model', 'gate'), {}),
        (('config', 'model', 'architecture'), {}),
        (('config', 'model', 'num_blocks'), 10**9),
        (('config', 'model', 'features'), 2**40),
        (('fingerprints',), {}),
        (('fingerprints',), 'x'),
        (('step',), []),
        (('config', 'model', 'scale'), '2'),
        (('config', 'model', 'scale'), 2.0),
        (('config', 'model', 'features'), -4),
        (('config', 'model', 'features'), 8),
        (('config', 'model', 'gate'), '__import__'),
        (('config', 'model', 'setup'), 'x'),
        (('config', 'model', 'dtype'), 'object'),
        (('config', 'model', 'cardinality'), None),
        (('config', 'model', 'architecture'), '../../x'),
    ],
)
def test_configs_that_describe_no_network_are_refused(checkpoint, tmp_path, path, value):
    folder = copy_of(checkpoint[0], tmp_path)
    forge(folder, path, value)
    assert not load_or_refuse(folder, checkpoint[1])


@pytest.mark.parametrize('name', ['metadata/metadata', 'metrics/metrics', 'params/_METADATA', 'params/manifest.ocdbt'])
def test_links_out_of_the_folder_are_not_followed(checkpoint, tmp_path, name):
    folder = copy_of(checkpoint[0], tmp_path)
    (file,) = folder.rglob(f'5/{name}')
    file.unlink()
    file.symlink_to('/dev/zero')
    with pytest.raises(UserError, match='is a link'):
        load_model(folder)


# --- Packaged weights ---


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the weights that come with the package, in their place."""
    folder = shutil.copytree(shipped.FOLDER, tmp_path / 'weights')
    monkeypatch.setattr(shipped, 'FOLDER', folder)
    return folder


def fuzz_packages(number):
    @examples(number)
    @given(st.sampled_from(['card', 'header', 'file']), st.floats(0, 1), st.sampled_from(ODD_VALUES), changes)
    def test(package, kind, place, value, changes):
        name = shipped.shipped_names()[0]
        card, tensors = package / f'{name}.json', package / f'{name}.safetensors'
        honest = card.read_text(), tensors.read_bytes()
        data = honest[1]
        if kind == 'card':
            card.write_text(with_odd_value(honest[0], place, value))
        elif kind == 'header':
            (size,) = struct.unpack_from('<Q', data)
            header = with_odd_value(data[8 : 8 + size], place, value).encode()
            data = struct.pack('<Q', len(header)) + header + data[8 + size :]
        else:
            data = changed(data, changes)
        if kind != 'card':  # and the digest made right
            tensors.write_bytes(data)
            card.write_text(json.dumps(json.loads(honest[0]) | {'sha256': hashlib.sha256(data).hexdigest()}))
        try:
            for use in (list_models, lambda: shipped.load_shipped(name)):
                try:
                    use()
                except UserError as error:
                    assert is_one_line(str(error))
        finally:
            card.write_text(honest[0])
            tensors.write_bytes(honest[1])

    return test


test_changed_packages_are_read_or_refused = fuzz_packages(10)
test_changed_packages_are_read_or_refused_long = pytest.mark.slow(fuzz_packages(500))


def test_a_card_of_another_network_is_refused(package):
    first, *_ = shipped.shipped_names()
    other = next(name for name in shipped.SHIPPED if name != first)
    (package / f'{other}.json').write_text((package / f'{first}.json').read_text())
    with pytest.raises(UserError, match=f"not the card of a network: it describes '{first}'"):
        shipped.read_card(other)


def test_shipped_weights_need_both_files(package):
    name = shipped.shipped_names()[0]
    (package / f'{name}.safetensors').unlink()
    with pytest.raises(UserError, match=r'\.safetensors: cannot be read: No such file'):
        list_models()


def test_dictionaries_of_torch_are_plain(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_bytes(zip_of({'a/data.pkl': pickle.dumps({'a': collections.OrderedDict(b=1)}, 2)}))
    assert read_torch_checkpoint(path) == {'a': {'b': 1}}
