"""What a path means, wherever it is typed: in a flag, in a field of a config, in the environment."""

import os
import re

from nsr_jax.errors import UserError

# A scheme has two letters or more; pathlib makes one slash of two.
_URL = re.compile('[A-Za-z][A-Za-z0-9+.-]+:/')
# What Orbax, TensorStore or TFDS take for a pattern or a separator in the path of a folder that they write or read.
_NOT_FOR_LIBRARIES = re.compile(r'[][*?\\\ud800-\udfff]')


def local_path(path: str | os.PathLike, what: str) -> str:
    """A path that somebody typed as Python takes it: `~` and `~user` at its start are expanded, here and nowhere else.

    The result stays text, because pathlib makes `~` of `./~`, and `-` of `./-`, which are to mean files.

    Args:
        path: from a flag, a field of a config, the environment or a caller.
        what: where it comes from, for the error's line.

    Raises:
        UserError: it is no path, empty, a URL, holds a NUL character, or begins with a user who is not known.
    """
    try:
        text = os.fsdecode(path)
    except TypeError as error:
        raise UserError(f'{what}: {path!r} is not a path') from error
    if not text:
        raise UserError(f'{what} is empty: a file or folder must be named')
    if _URL.match(text):
        raise UserError(f'{what}: {text} is a URL; only files and folders of this machine are read and written')
    if '\0' in text:
        raise UserError(f'{what}: {text} holds a character that no path can have')
    expanded = os.path.expanduser(text)
    if text.startswith('~') and expanded == text:
        raise UserError(
            f'{what}: {text} has no home directory to begin with; ./{text} is a file or folder of this name'
        )
    return expanded


def check_for_libraries(path: str | os.PathLike, what: str) -> None:
    """Refuse a folder whose absolute path the libraries that keep checkpoints and records in it would misread.

    Raises:
        UserError: the path has a character of patterns, a backslash, or bytes that are no UTF-8.
    """
    resolved = os.path.realpath(path)
    if found := _NOT_FOR_LIBRARIES.search(resolved):
        raise UserError(
            f'{what}: {resolved} has {found[0]!r} in it, which libraries that write there take for something else; '
            'choose a path without [ ] * ? and backslashes, in UTF-8'
        )
