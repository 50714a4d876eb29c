"""Imports JAX for a command: what of the environment JAX does not take is one line, and the end of the command.

Commands import this before anything that imports JAX. Who imports the library sees JAX's own error.
"""

import sys

try:
    import jax  # noqa: F401
except ValueError as error:
    sys.stderr.write(f'error: the environment has what JAX does not take: {" ".join(str(error).split())}\n')
    sys.exit(2)
