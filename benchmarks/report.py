"""What the benchmark commands share: their flags, and the report that they print and write."""

import json
import pathlib
import sys
from collections.abc import Mapping
from importlib import util
from typing import Any

import jax
from absl import flags
from jax.experimental.compilation_cache import compilation_cache

from benchmarks.environment import environment
from nsr_jax.atomic_files import write_atomically
from nsr_jax.errors import UserError

TORCH_MODES = ('eager', 'default', 'reduce-overhead')


def define_flags() -> None:
    """Flags of every benchmark that takes turns."""
    flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of convolutions; PyTorch: under autocast.')
    flags.DEFINE_integer('rounds', 7, 'How often each candidate is timed.', lower_bound=3)
    flags.DEFINE_integer('calls', 0, 'In one timing, without waiting between; 0: as many as needed.', lower_bound=0)
    flags.DEFINE_bool('torch', None, 'Whether PyTorch takes part; default: where it is installed.')
    modes = "'eager', or a mode of torch.compile; reduce-overhead: with CUDA graphs."
    flags.DEFINE_multi_enum('torch_mode', ['eager', 'default'], TORCH_MODES, f'How PyTorch runs, repeatable: {modes}')
    flags.DEFINE_string('output', None, 'JSON file for every time; the tables are written beside it as .md.')


def compile_anew() -> None:
    """Nothing compiled by an earlier run is used, so that times of compilation are what they are called."""
    jax.config.update('jax_enable_compilation_cache', False)
    compilation_cache.reset_cache()  # JAX looks at the option once


def torch_variants(options: flags.FlagValues) -> list[Any]:
    """How PyTorch takes part: `torch_peers.Variant`s, none where it does not.

    Raises:
        UserError: it was asked for and is not installed, or cannot run on the device of JAX.
    """
    installed = util.find_spec('torch') is not None
    if options.torch and not installed:
        raise UserError('--torch: PyTorch is not installed (pip install torch)')
    if not installed or options.torch is False:
        return []
    from benchmarks import torch_peers

    return torch_peers.variants(options.torch_mode)


class Report:
    """Tables, printed as they come; all that has come so far is in the files, should a later one fail.

    Attributes:
        output: path of the JSON file, or None.
        contents: what is written to it.
        exit_code: 1 where a candidate failed.
    """

    def __init__(self, output: str | None, dtype: str):
        """Print where this runs.

        Raises:
            UserError: `output` does not end in .json, or its folder does not exist.
        """
        if output is not None and not output.endswith('.json'):
            raise UserError(f'--output must end in .json (the tables are written beside it as .md), not {output!r}')
        if output is not None and not pathlib.Path(output).absolute().parent.is_dir():
            raise UserError(f'--output={output}: its folder does not exist')
        self.output = output
        self.contents = {'command': sys.argv, 'environment': environment(dtype), 'tables': []}
        self.exit_code = 0
        self._markdown = ''
        line = ', '.join(f'{name} {value}' for name, value in self.contents['environment'].items())
        self._print(f'`{" ".join(["python -m", *_command()])}`\n\n{line}\n')

    def add(self, table: Mapping[str, Any], markdown: str) -> None:
        """Print a table and write all files anew.

        Args:
            table: with 'rows'; one whose 'failure' is not empty makes the exit code 1.
            markdown: the same to read.
        """
        self.contents['tables'].append(table)
        self._print(f'\n{markdown}')
        if any(row.get('failure') for row in table['rows']):
            self.exit_code = 1
        if self.output is not None:
            write_atomically(self.output, json.dumps(self.contents, indent=1) + '\n')
            write_atomically(pathlib.Path(self.output).with_suffix('.md'), self._markdown)

    def _print(self, markdown: str) -> None:
        sys.stdout.write(markdown)
        sys.stdout.flush()
        self._markdown += markdown


def _command() -> list[str]:
    """The command line without the path of the interpreter's file."""
    return [f'benchmarks.{pathlib.Path(sys.argv[0]).stem}', *sys.argv[1:]]
