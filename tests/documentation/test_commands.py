"""Every command, flag and field that the documentation prints is one that the programs accept."""

import json
import os
import re
import subprocess
import sys

import pytest

from nsr_jax.shipped import SHIPPED
from tests.documentation.printed import BLOCK, PAGES, ROOT, commands, commands_of, python_blocks, spans

COMMANDS = [command for command in commands() if command.program != 'nsr_jax']
FIELD = re.compile(r'--config\.[\w.]+=.+')
# Stand for whatever a user names.
PLACEHOLDERS = {'--config.NAME=VALUE', '--config.mesh.…', '--config.data.source=FOLDER'}
# Of pip, Slurm and other programs.
FOREIGN = {
    '--array', '--data-binary', '--gpu-bind', '--gpus-per-node', '--gpus-per-task', '--help', '--kill-on-bad-exit',
    '--nodes', '--ntasks-per-node', '--requeue', '--signal',
}  # fmt: skip
WRONG = [
    ('train.py', ('--config=configs/sr.py:scale=5', '--workdir=runs/x5')),
    ('train.py', ('--config.data.margin=-1',)),
    ('train.py', ('--config.loss.l3=1',)),
    ('eval.py', ('--protocol=sr-x',)),
    ('eval.py', ('--tilings=whole',)),
    ('nsr_jax.restore', ('a.png', '--task=sr', '--scale=5')),
    ('nsr_jax.score', ('one/', '--scale=2')),
    ('nsr_jax.export', ('--format=onnx',)),
    ('nsr_jax.export', ('--output=x2.tflite',)),
    ('nsr_jax.export', ('--gate=fixed',)),
    ('nsr_jax.export', ('--images=set5',)),
    ('nsr_jax.export', ('--levels=25',)),
    ('benchmarks.tiling', ('--tile=48',)),
]


def options(command):
    """The values of a command's flags by their names."""
    return dict(argument.lstrip('-').split('=', 1) for argument in command.arguments if '=' in argument)


CONFIGS = {
    options(command)['workdir']: options(command)['config']
    for command in COMMANDS
    if command.program == 'train.py' and {'workdir', 'config'} <= options(command).keys()
}


def asked(command):
    """Program and arguments; for the config in a checkpoint or card stands that of the training that is printed."""
    given, arguments = options(command), command.arguments
    if command.program == 'eval.py' and 'config' not in given:
        known = CONFIGS | {'': f'configs/shipped.py:model={given.get("shipped", "sr_x2")}'}
        arguments += (f'--config={known.get(given.get("checkpoint", "").split(",")[0], "configs/sr.py")}',)
    return command.program, arguments


def printed_fields():
    texts = {path: path.read_text(encoding='utf-8') for path in PAGES}
    found = {(path.name, span) for path, text in texts.items() for span in spans(text) if FIELD.fullmatch(span)}
    return sorted((page, span) for page, span in found if span not in PLACEHOLDERS)


def printed_flags():
    """The names of flags that stand alone in a sentence, with their pages."""
    for path in PAGES:
        for span in spans(path.read_text(encoding='utf-8')):
            if match := re.match(r'--[a-z][\w-]*', span):
                yield path.name, match[0]


@pytest.fixture(scope='module')
def told(tmp_path_factory):
    """What the programs answer in a user's folder: to each printed command, each printed field, and to mistakes."""
    folder = tmp_path_factory.mktemp('user')
    (folder / 'configs').symlink_to(ROOT / 'configs')
    for name in ('train.py', 'eval.py'):
        (folder / name).symlink_to(ROOT / name)
    *plugins, config = python_blocks('docs/extending.md')
    (folder / 'deblur.py').write_text('\n'.join(plugins))
    (folder / 'my_config.py').write_text(config)
    (folder / 'my_sweep.py').write_text(''.join(python_blocks('docs/sweeps.md')))
    for command in COMMANDS:
        for name in ('checkpoint', 'model'):
            given = options(command).get(name, '.')
            if given not in SHIPPED:  # which a folder of the same name would make ambiguous
                (folder / given).mkdir(parents=True, exist_ok=True)
    fields = [('train.py', (field,)) for _, field in printed_fields()]
    questions = list(dict.fromkeys([*map(asked, COMMANDS), *fields, *WRONG]))
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '4'}
    command = [sys.executable, '-W', 'ignore', '-m', 'tests.documentation.accept']
    process = subprocess.run(
        command, cwd=folder, env=environment, input=json.dumps(questions), capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    answer = json.loads(process.stdout)
    return dict(zip(questions, answer['answers'], strict=True)), answer['flags']


@pytest.mark.parametrize('command', COMMANDS, ids=str)
def test_every_printed_command_is_accepted(told, command):
    answer = told[0][asked(command)]
    assert answer == '' or ('--compile_for' in answer and 'needs the package' in answer)  # compilers are extras


@pytest.mark.parametrize(('page', 'field'), printed_fields())
def test_every_printed_field_is_accepted(told, page, field):
    assert told[0]['train.py', (field,)] == ''


@pytest.mark.parametrize(('program', 'arguments'), WRONG)
def test_a_wrong_command_is_seen(told, program, arguments):
    assert told[0][program, arguments]


def test_every_printed_flag_exists(told):
    known = {f'--{name}' for name in told[1]} | FOREIGN
    assert not [(page, name) for page, name in printed_flags() if name not in known]


def test_every_printed_target_of_make_exists():
    targets = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.MULTILINE))
    for path in PAGES:
        text = path.read_text(encoding='utf-8')
        code = [*spans(text), *(block for language, block in BLOCK.findall(text) if not language)]
        printed = {name for each in code for name in re.findall(r'(?:^|\s)make ([a-z-]+)', each)}
        assert printed <= targets, path.name


def test_commands_are_found_wherever_they_stand():
    def found(line):
        return [(each.program, each.arguments) for each in commands_of(line, 'a page')]

    assert found('A=1 .venv/bin/python train.py --config=a  # trains') == [('train.py', ('--config=a',))]
    assert found('python -m nsr_jax.restore - --model=m < a.png > b.png') == [('nsr_jax.restore', ('-', '--model=m'))]
    assert found('python eval.py --report …, then python -m nsr_jax.sweep a.py; wait')[1] == (
        'nsr_jax.sweep',
        ('a.py',),
    )
    assert found('examples/launch/tpu_pod.sh start --config=…') == [('train.py', ('--config=…',))]
    assert found('nsr-score a/ b/') == [('nsr_jax.score', ('a/', 'b/'))]
    assert found("eval.py --levels='1 2'") == [('eval.py', ('--levels=1 2',))]
    assert not found('train.py eval.py  parse flags') + found("it's train.py --config=a")
