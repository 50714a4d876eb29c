"""The list of commands: whole, one line each, and quick."""

import pathlib
import subprocess
import sys

from nsr_jax.__main__ import describe_commands, list_commands

ROOT = pathlib.Path(__file__).parents[1]


def test_every_command_has_one_line():
    calls = dict(list_commands())
    guarded = {
        path.stem
        for path in (ROOT / 'nsr_jax').glob('[!_]*.py')
        if "\nif __name__ == '__main__'" in path.read_text('utf-8')
    }
    modules = {call.removeprefix('python -m nsr_jax.') for call in calls} - {'python train.py', 'python eval.py'}
    assert modules == guarded >= {'restore', 'export', 'sweep', 'import_torch'}
    assert calls['python train.py'] == 'Train a restoration network, or resume its training.'
    assert all(each.endswith('.') and '\n' not in each for each in calls.values())
    assert len(describe_commands().splitlines()) == len(calls) + 2


def test_the_list_imports_no_framework():
    code = 'import sys, runpy; runpy.run_module("nsr_jax", run_name="__main__"); print("jax" in sys.modules)'
    command = [sys.executable, '-c', code]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert listed == describe_commands() + 'False\n'
