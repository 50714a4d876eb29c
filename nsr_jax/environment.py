"""Imports JAX for a command, which ends with a one-line error if JAX rejects the environment.

Commands import this before anything that imports JAX. Users of the library see JAX's own error.
"""

import sys

try:
    import jax  # noqa: F401
except ValueError as error:
    sys.stderr.write(f'error: JAX rejects the environment: {" ".join(str(error).split())}\n')
    sys.exit(2)
