"""Make workdirs of what came back from another machine; scores are then made here, by `eval.py`.

    python -m experiments.unpack --input=FOLDER

A finished run becomes runs/same_data/NAME with the weights as they would be shipped, in half precision. The state of an
unfinished one is put where `experiments.piece` looks for it: carry that folder to go on on a fresh machine.
"""

import pathlib
import shutil
import sys
from collections.abc import Sequence

from absl import flags

from experiments import archives
from experiments.comparisons import FOLDER, find_comparison
from experiments.piece import STATE
from nsr_jax import command_line
from nsr_jax.atomic_files import make_output_folder
from nsr_jax.errors import UserError


def main(argv: Sequence[str]) -> None:
    """Unpack all that is there and say how to go on."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    source, folder = pathlib.Path(flags.FLAGS.input), pathlib.Path(FOLDER)
    results, parts = sorted(source.glob('*.zip')), sorted(source.glob('*.state.*'))
    if not results:
        raise UserError(f'{source}: no results in it (NAME.zip)')
    for path in results:
        run = find_comparison(path.stem)
        state = make_output_folder(STATE)
        for old in state.glob(f'{run.name}.state.*'):
            old.unlink()
        workdir = archives.read_results(path, folder)
        if archives.is_finished(workdir):
            sys.stdout.write(f'{run.name} is done; next: python {" ".join(run.evaluate_arguments())}\n')
        else:
            for part in (each for each in parts if each.name.startswith(f'{run.name}.state.')):
                shutil.copyfile(part, state / part.name)
            sys.stdout.write(f'{run.name} is not done; to go on on a fresh machine, carry {STATE}\n')


if __name__ == '__main__':
    flags.DEFINE_string('input', None, 'Folder with what experiments.piece wrote.')
    flags.mark_flag_as_required('input')
    command_line.run(main)
