"""Whether programs accept command lines: a JSON list of [program, arguments] comes in, answers go out.

    python -m tests.documentation.accept

Each program runs as it would from a shell, up to the point where it would read images or weights, or train. The answer
holds what it wrote to standard error if it refused a command, else '', and the names of all flags.
"""

import contextlib
import importlib
import io
import itertools
import json
import runpy
import sys
import types

import jax
from absl import flags

from nsr_jax import command_line, shipped
from nsr_jax.errors import UserError
from nsr_jax.plugins import load_plugins
from nsr_jax.training import run


class AcceptedError(BaseException):
    """A command has checked all that it can check at once."""


# Functions with which each program's work begins. Of others only the flags are read.
BEGINNINGS = {
    'train.py': ('evaluation.validation.open_validation', 'training.profile.profile', 'training.replay.replay'),
    'eval.py': ('data.sources.open_source',),
    'nsr_jax.restore': ('restoring.plan.plan', 'restoring.serve.Limits'),
    'nsr_jax.score': ('evaluation.folders.match',),
    'nsr_jax.sweep': (
        'studies.study.claim_workdir',
        'studies.collecting.collect',
        'studies.timing.time_members',
        'evaluation.validation.open_held_out',
    ),
    'nsr_jax.export': ('shipped.load_part',),
    'nsr_jax.import_torch': ('torch_file.read_torch_checkpoint',),
    'nsr_jax.package_weights': ('trained.load_model',),
    'nsr_jax.hub_folder': ('shipped.find_shipped',),
}
# What a page may leave out when it shows a flag.
LEFT_OUT = {
    'train.py': {'--config': 'configs/sr.py', '--workdir': 'runs/x2'},
    'eval.py': {'--config': 'configs/sr.py', '--checkpoint': 'runs/x2', '--output': 'runs/x2/eval'},
    'nsr_jax.restore': {'--output': 'restored/', '--task': 'denoise'},
    'nsr_jax.export': {'--checkpoint': 'runs/x2', '--output': 'x2.stablehlo'},
}


def completed(program, arguments):
    """The arguments with what the page has left out, or has written as … or as a variable of the shell."""
    filled = []
    for argument in arguments:
        name, _, value = argument.partition('=')
        value = LEFT_OUT.get(program, {}).get(name, 'x') if value == '…' else value.replace('$i', '0')
        filled.append(f'{name}={value}' if '=' in argument else argument)
    given = {argument.partition('=')[0] for argument in filled}
    stands_for = {
        '--task': {'--model', '--scale', '--models'},
        '--output': {'--serve', '--compile_for'},
        '--checkpoint': {'--shipped', '--baselines'},
    }
    left_out = LEFT_OUT.get(program, {}).items()
    return [f'{name}={value}' for name, value in left_out if not given & {name, *stands_for.get(name, ())}] + filled


def ask(program, arguments, main):
    """What is written to standard error if the command is refused."""
    for name in list(flags.FLAGS):
        if name.startswith('config.'):
            delattr(flags.FLAGS, name)  # what the last one has overridden
        else:
            flags.FLAGS[name].unparse()
    flags.FLAGS.unparse_flags()
    sys.argv = [program, *completed(program, arguments)]
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            rest = command_line.parse_flags(list(sys.argv))
            if program in BEGINNINGS:
                main(rest)
        except AcceptedError:
            return ''
        except (UserError, SystemExit) as error:
            return errors.getvalue() or str(error)
    return ''


def begin(*args, **options):
    """Stands for the functions of `BEGINNINGS`."""
    raise AcceptedError


def ask_all(program, commands):
    """The answers of one program to lists of arguments, and the names of its flags."""
    answers, names, common = [], set(), set(flags.FLAGS)
    devices = jax.config.values['jax_num_cpu_devices']
    parts = [each.rpartition('.') for each in BEGINNINGS.get(program, ())]
    modules = [(importlib.import_module(f'nsr_jax.{module}'), function) for module, _, function in parts]
    kept = [getattr(*each) for each in modules]
    for each in modules:
        setattr(*each, begin)

    def answer(main, computes=None):
        names.update(flags.FLAGS)
        answers.extend(ask(program, arguments, main) for arguments in commands)

    command_line.run = answer
    if program.endswith('.py'):
        runpy.run_path(program, run_name='__main__')
    else:
        runpy.run_module(program, run_name='__main__')
    for (module, function), value in zip(modules, kept, strict=True):
        setattr(module, function, value)
    for name in set(flags.FLAGS) - common:
        delattr(flags.FLAGS, name)
    if jax.config.values['jax_num_cpu_devices'] != devices:
        jax.config.update('jax_num_cpu_devices', devices)
    return answers, names


if __name__ == '__main__':
    run.check_warm_start = lambda config, workdir: None  # reads the weights
    run.find_differences = lambda workdir, config: {}  # reads the run
    shipped.load_named = lambda *asked: {}  # reads the weights
    for extra in ('bm3d', 'wandb', 'mlflow'):
        sys.modules.setdefault(extra, types.ModuleType(extra))
    load_plugins(['deblur.py'])
    asked, answers, names = json.load(sys.stdin), {}, set()
    order = sorted(range(len(asked)), key=lambda index: asked[index][0])
    for program, group in itertools.groupby(order, key=lambda index: asked[index][0]):
        indices = list(group)
        given, flags_of_program = ask_all(program, [asked[index][1] for index in indices])
        answers |= dict(zip(indices, given, strict=True))
        names |= flags_of_program
    json.dump({'answers': [answers[index] for index in range(len(asked))], 'flags': sorted(names)}, sys.stdout)
