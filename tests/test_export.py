"""Exported networks: they run without the package, at every size and on all platforms, as the documentation says."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import export as jax_export

import nsr_jax
from nsr_jax import export, shipped
from nsr_jax.errors import UserError
from nsr_jax.exporting import stablehlo
from nsr_jax.inference.restorer import Restorer
from nsr_jax.models.cost import count_parameters
from nsr_jax.training.checkpoints import save_model
from tests.exporting.networks import CHAIN, GATED, PLAIN, apply, make_network, random_images

ROOT = pathlib.Path(__file__).parents[1]
SIZES = [(1, 7, 9), (3, 12, 5), (2, 1, 1)]
MODELS = {'gated': GATED, 'hard': GATED | {'gate': 'hard'}, 'plain': PLAIN, 'chain': CHAIN}


def make(name):
    return make_network(MODELS[name], 'sr' if name == 'gated' else 'denoise')


def photograph(name, size):
    """Noise on a ramp from dark to bright, so that tiles have other means than the whole."""
    height, width = {'large': (100, 200), 'small': (20, 30)}[size]
    noise = np.random.RandomState(height).randint(0, 56, (height, width, MODELS[name]['channels']))
    return (noise + np.linspace(0, 199, width).astype(int)[:, None]).astype(np.uint8)


def contents_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope='module')
def folder(tmp_path_factory, commands):
    """A folder for each kind of network, with its checkpoint and what the command writes of it."""
    folder = tmp_path_factory.mktemp('export')
    for name in ('gated', 'plain'):
        config, _, params = make(name)
        run, output = folder / name / 'run', folder / name / 'out' / 'x2.stablehlo'
        save_model(run, params, config, step=7)
        code, error, _ = commands('nsr_jax.export', f'--checkpoint={run}', f'--output={output}')
        assert code == 0, error
    return folder


SERVER = """
import os, pathlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('nsr_jax', 'flax', 'ml_collections', 'orbax'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Blocker())
import numpy as np

for folder in sys.argv[2:]:
    os.chdir(folder)
    server = {}
    exec(pathlib.Path(sys.argv[1]).read_text(), server)
    with np.load('images.npz') as images:
        functions = {'float32': server['network'], 'uint8': server['restore']}
        answers = {name: functions[each.dtype.name](each) for name, each in images.items()}
        answers['by ONNX'] = server['by_onnx'](images['whole'])
    np.savez('answers.npz', **answers)
"""


@pytest.fixture(scope='module')
def answers(folder):
    """What a server without this package, made of the documentation's code, answers for each network."""
    text = (ROOT / 'docs' / 'export.md').read_text()
    code = '\n'.join(re.findall(r'^```python\n(.*?)^```', text, re.DOTALL | re.MULTILINE))
    (folder / 'documented.py').write_text(code)
    for name in ('gated', 'plain'):
        images = {str(size): random_images(MODELS[name]['channels'], size) for size in SIZES}
        images |= {size: photograph(name, size) for size in ('large', 'small')}
        images['whole'] = images['large'][None].astype(np.float32) / 255
        np.savez(folder / name / 'out' / 'images.npz', **images)
        export.write_export(folder / name / 'run', folder / name / 'out' / 'x2.onnx')
    command = [sys.executable, '-c', SERVER, folder / 'documented.py', folder / 'gated/out', folder / 'plain/out']
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=900)
    assert process.returncode == 0, process.stderr
    return {name: dict(np.load(folder / name / 'out' / 'answers.npz')) for name in ('gated', 'plain')}


@pytest.mark.parametrize('name', ['gated', 'plain'])
def test_a_server_without_the_package_answers_as_the_network(answers, name):
    _, network, params = make(name)
    for size in SIZES:
        expected = apply(network, params, random_images(network.channels, size))
        assert np.abs(expected).max() > 0.3
        np.testing.assert_allclose(answers[name][str(size)], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('name', ['gated', 'plain'])
def test_the_documented_server_restores_images_as_the_restore_command(answers, folder, name):
    restorer = Restorer.load(folder / name / 'run')
    for size in ('large', 'small'):
        answer, expected = answers[name][size], restorer(photograph(name, size))
        assert (answer.shape, answer.dtype) == (expected.shape, expected.dtype)
        difference = np.abs(answer.astype(int) - expected)
        assert difference.max() <= 1  # where a float lies on a half
        assert np.mean(difference > 0) < 1e-3
        assert expected.std() > 10


@pytest.mark.parametrize('name', ['gated', 'plain'])
def test_onnx_answers_as_stablehlo(answers, name):
    expected = answers[name]['whole']
    np.testing.assert_allclose(answers[name]['by ONNX'], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_whole_image_is_another_function_where_there_are_gates(answers):
    def distance(name):
        whole = np.rint(255 * answers[name]['whole'][0].clip(0, 1))
        return np.abs(whole - answers[name]['large'])[20:-20, :40].mean()  # away from where tiles meet

    assert distance('gated') > 1
    assert distance('plain') < 0.01


@pytest.mark.parametrize('name', MODELS)
def test_the_programs_for_all_platforms_are_right(name):
    """Those for CUDA and TPUs are computed on a CPU, which the export is told to have their place in its list."""
    _, network, params = make(name)
    exported = stablehlo.export_network(network, params)
    assert exported.platforms == ('cpu', 'cuda', 'tpu')
    images = random_images(network.channels, (3, 12, 5))
    expected = apply(network, params, images)
    is_loop = []
    for index in range(3):
        platforms = ['cuda', 'tpu']
        platforms.insert(index, 'cpu')
        moved = dataclasses.replace(exported, platforms=tuple(platforms))
        compiled = jax.jit(moved.call).lower(images).compile()
        np.testing.assert_allclose(compiled(images), expected, rtol=0, atol=1e-5)
        is_loop.append(' while(' in compiled.as_text())
    assert is_loop == [network.groups > 1, False, False]


@pytest.mark.parametrize('name', MODELS)
def test_the_module_is_portable_and_of_full_precision(name):
    _, network, params = make(name)
    text = stablehlo.export_network(network, params).mlir_module()
    # JAX's own check that sizes are from 1, evaluated before anything is compiled.
    assert set(re.findall(r'custom_call @?"?(\w+)', text)) == {'shape_assertion'}
    assert text.count('custom_call') == text.count('custom_call @shape_assertion') == 3
    products = re.findall(r'stablehlo\.(?:convolution|dot_general)\b.*', text)
    assert products
    assert all('HIGHEST' in line and 'DEFAULT' not in line for line in products)  # else GPUs multiply in TF32


def test_a_file_for_one_platform_and_size_answers_as_the_network_and_refuses_others(folder, tmp_path):
    _, network, params = make('gated')
    card = export.write_export(
        folder / 'gated' / 'run', tmp_path / 'x2.stablehlo', use=stablehlo.Use('cpu', (3, 12, 5))
    )
    assert (card['platforms'], card['input']) == (['cpu'], 'float32 (3, 12, 5, 3), nominally on [0, 1]')
    assert card['output'] == 'float32 (3, 24, 10, 3), not clipped'
    restore = jax.jit(jax_export.deserialize((tmp_path / 'x2.stablehlo').read_bytes()).call)
    images = random_images(3, (3, 12, 5))
    np.testing.assert_allclose(restore(images), apply(network, params, images), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r'expected \(3, 12, 5, 3\) and called with \(1, 12, 5, 3\)'):
        restore(images[:1])


def test_a_file_for_tpus_holds_the_kernels_of_each_layer(tmp_path):
    """Of 32 channels, so that the kernels apply; JAX promises that their form, like StableHLO, can be kept."""
    config, network, params = make_network(GATED | {'features': 32})
    use = stablehlo.Use('tpu', (2, 12, 5))
    exported = jax_export.deserialize(stablehlo.export_network(network, params, use).serialize())
    assert (exported.platforms, exported.disabled_safety_checks) == (('tpu',), ())
    text = exported.mlir_module()
    assert set(re.findall(r'custom_call @?"?([\w.]+)', text)) == {'tpu_custom_call'}
    assert set(re.findall(r'kernel_name = "(\w+)"', text)) == {'sparse_conv'}
    calls = re.findall(r'call @convolve\w*\(', text)
    assert len(calls) == 2 * network.num_blocks
    assert str(ROOT) not in text and 'conv_pallas' not in text  # nothing in it tells of the machine
    with pytest.raises(ValueError, match=r"exported for platforms '\('tpu',\)' but it is used on '\('cpu',\)'\."):
        exported.call(random_images(3, use.size))
    save_model(tmp_path / 'run', params, config, step=7)
    export.write_export(tmp_path / 'run', tmp_path / 'open.stablehlo')
    assert b'tpu_custom_call' not in (tmp_path / 'open.stablehlo').read_bytes()


def test_the_description_is_right(folder):
    out = folder / 'gated' / 'out'
    contents, config = (out / 'x2.stablehlo').read_bytes(), make('gated')[0]
    versions = {package: importlib.metadata.version(package) for package in ('jax', 'jaxlib', 'flatbuffers')}
    assert json.loads((out / 'x2.stablehlo.json').read_text()) == {
        'file': 'x2.stablehlo',
        'sha256': hashlib.sha256(contents).hexdigest(),
        'task': 'sr',
        'scale': 2,
        'channels': 3,
        'mean': 0.5,
        'input': 'float32 (batch, height, width, 3), nominally on [0, 1]',
        'output': 'float32 (batch, 2 * height, 2 * width, 3), not clipped',
        'gated': True,
        'tile': 96,
        'overlap': 16,
        'platforms': ['cpu', 'cuda', 'tpu'],
        'calling_convention': jax_export.deserialize(contents).calling_convention_version,
        'versions': versions | {'nsr_jax': nsr_jax.__version__},
        'checkpoint': str(folder / 'gated' / 'run'),
        'step': 7,
        'weights': 'of the step',
        'parameters': count_parameters(make('gated')[1]),
        'config': config.to_dict(),
    }
    assert json.loads((folder / 'plain' / 'out' / 'x2.stablehlo.json').read_text())['gated'] is False


def test_the_same_network_gives_the_same_file(folder, tmp_path):
    """Here from one device, in the command from one for each core; and nothing in it tells of the machine."""
    export.write_export(folder / 'gated' / 'run', tmp_path / 'x2.stablehlo')
    contents = (tmp_path / 'x2.stablehlo').read_bytes()
    assert contents == (folder / 'gated' / 'out' / 'x2.stablehlo').read_bytes()
    assert b'export.py' not in contents
    assert str(ROOT).encode() not in contents


def test_shipped_weights_are_exported_by_name_with_their_terms(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, 'FOLDER', tmp_path / 'shipped')
    shipped.FOLDER.mkdir()
    config, _, params = make('gated')
    contents = shipped.pack(params)
    (shipped.FOLDER / 'sr_x2.safetensors').write_bytes(contents)
    text = dict.fromkeys(['data', 'hardware', 'command'], '') | {'terms': 'for research', 'name': 'sr_x2', 'scores': []}
    numbers = {'step': 9, 'parameters': 1, 'sha256': hashlib.sha256(contents).hexdigest()}
    (shipped.FOLDER / 'sr_x2.json').write_text(json.dumps({'config': config.to_dict()} | text | numbers))
    card = export.write_export('sr_x2', tmp_path / 'x2.stablehlo')
    assert (card['terms'], card['step'], card['checkpoint']) == ('for research', 9, 'sr_x2')
    with pytest.raises(UserError, match='no weights called sr_x3'):
        export.write_export('sr_x3', tmp_path / 'x3.stablehlo')


def test_mistakes_are_one_line_before_the_work(commands, folder, tmp_path, monkeypatch):
    run = folder / 'gated' / 'run'
    monkeypatch.setattr(stablehlo, 'export_network', lambda *_: pytest.fail('the work has begun'))
    (tmp_path / 'file.stablehlo').write_text('mine')
    (tmp_path / 'b.stablehlo.json').write_text('mine')
    for checkpoint, output, message in [
        ('missing', 'a.stablehlo', 'no model missing: neither a folder nor weights'),
        (tmp_path, 'a.stablehlo', 'no checkpoint at'),
        (run, 'file.stablehlo', 'file.stablehlo already exists: --overwrite replaces it'),
        (run, 'b.stablehlo', 'b.stablehlo.json already exists: --overwrite replaces it'),
        (run, '', 'is a folder: name a file'),
        (run, 'new/', 'is a folder: name a file'),
        (run, '.', 'is a folder: name a file'),
        (run, '../' * 50, 'is a folder: name a file'),
        (run, '../' * 50 + 'dev/null', 'a device or a link to nothing, not a file'),
        (run, 'x' * 300, 'cannot be written: File name too long'),
        ('x' * 300, 'a.stablehlo', 'neither a folder nor weights'),
        ('gs://bucket/run', 'a.stablehlo', 'gs://bucket/run is a URL'),
        (run, 'file.stablehlo/a.stablehlo', 'cannot be written into'),
        (run, 'a.tflite', 'a.tflite must end in .stablehlo, .onnx, .pth, .safetensors, each of which is a format'),
        (run, 'stablehlo', 'stablehlo must end in .stablehlo, '),
    ]:
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            export.write_export(checkpoint, f'{tmp_path}/{output}')
        assert '\n' not in str(caught.value)
    with pytest.raises(UserError, match='which checkpoint must be best or last'):
        export.write_export(run.parent / 'run', tmp_path / 'a.stablehlo', which='first')
    monkeypatch.setitem(sys.modules, 'flatbuffers', None)
    with pytest.raises(UserError, match=r'to write \.stablehlo, the package flatbuffers is needed'):
        export.write_export(run, tmp_path / 'a.stablehlo')
    assert contents_of(tmp_path) == {'file.stablehlo': b'mine', 'b.stablehlo.json': b'mine'}

    code, error, output = commands('nsr_jax.export', '--checkpoint=missing', f'--output={tmp_path / "a.stablehlo"}')
    assert (code, output) == (2, b'')
    lines = [line for line in error.splitlines() if 'compiled programs are kept' not in line]
    assert lines == [next(line for line in lines if line.startswith('error: no model missing'))]


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--compile_for=v5e:2x2'], 'need --size=BATCHxHEIGHTxWIDTH, such as 16x96x96, not None'),
        (['--compile_for=v5e:2x2', '--size=96x96'], 'such as 16x96x96, not 96x96'),
        (['--compile_for=v9:2x2', '--size=1x8x8'], '--compile_for=v9:2x2 names no chips'),
        (['--compile_for=h100', '--size=1x8x8', '--output=a.onnx'], '--compile_for=CHIPS to plan'),
        ([], 'give --output=FILE to write'),
        (['--compile_for=h100', '--size=1x8x8', '--platform=tpu'], 'not that of --compile_for=h100: cuda'),
        (['--output=a.stablehlo', '--platform=tpu'], '--platform need --size=BATCHxHEIGHTxWIDTH'),
        (['--output=a.stablehlo', '--size=1x8x8'], '--size=1x8x8 is of use with --platform or --compile_for alone'),
        (['--compile_for=h100', '--size=1x8x8', '--gate=fixed', '--images=a'], '--gate is of use with --output alone'),
        (['--output=a.onnx', '--platform=tpu', '--size=1x8x8'], 'with .stablehlo alone, not with --output=a.onnx'),
    ],
)
def test_mistakes_in_plans_and_in_uses_are_one_line(commands, folder, arguments, message):
    code, error, output = commands('nsr_jax.export', f'--checkpoint={folder / "gated" / "run"}', *arguments)
    assert (code, output) == (2, b'') and message in error.splitlines()[-1]


def test_a_network_of_the_package_in_capitals_has_its_terms(package, tmp_path):
    package('sr_x2')
    card = export.write_export('SR_X2', tmp_path / 'a.pth')
    assert card['terms'] == shipped.read_card('sr_x2').terms


def test_a_name_for_two_networks_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, 'find_parts', lambda model: ['denoise_gray', 'denoise_colour'])
    with pytest.raises(UserError, match='denoise stands for denoise_gray and denoise_colour: name one of them'):
        export.write_export('denoise', tmp_path / 'a.stablehlo')


def test_files_are_replaced_when_asked_for_and_whole(folder, tmp_path, monkeypatch):
    output = tmp_path / 'x.stablehlo'
    export.write_export(folder / 'plain' / 'run', output)
    before = contents_of(tmp_path)

    def no_space(source, target):
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', no_space)
        with pytest.raises(UserError, match='No space left'):
            export.write_export(folder / 'gated' / 'run', output, overwrite=True)
    assert contents_of(tmp_path) == before
    card = export.write_export(folder / 'gated' / 'run', output, overwrite=True)
    assert contents_of(tmp_path).keys() == before.keys()
    assert card['sha256'] == hashlib.sha256(output.read_bytes()).hexdigest()
    assert output.read_bytes() != before['x.stablehlo']
