"""The meaning of paths that users give in flags, configs and the environment."""

import os
import re

from nsr_jax.errors import UserError

# A scheme has two letters or more; pathlib makes one slash of two.
_URL = re.compile('[A-Za-z][A-Za-z0-9+.-]+:/')
# Characters that Orbax, TensorStore or TFDS take for a pattern or a separator in a folder's path.
_NOT_FOR_LIBRARIES = re.compile(r'[][*?\\\ud800-\udfff]')


def local_path(path: str | os.PathLike, what: str) -> str:
    """A user's path with `~` or `~user` at its start expanded, which happens nowhere else.

    The result stays text, because pathlib turns `./~` into `~` and `./-` into `-`, although they mean files.

    Args:
        path: from a flag, a field of a config, the environment or a caller.
        what: where it comes from, for error messages.

    Raises:
        UserError: it is not a path, empty, a URL, contains a NUL character, or begins with an unknown user.
    """
    try:
        text = os.fsdecode(path)
    except TypeError as error:
        raise UserError(f'{what}: {path!r} is not a path') from error
    if not text:
        raise UserError(f'{what} is empty: a file or folder must be named')
    if _URL.match(text):
        raise UserError(
            f'{what}: {text} is a URL; only files and folders of this machine are read and written: mount the bucket '
            'as a folder, or copy what is there'
        )
    if '\0' in text:
        raise UserError(f'{what}: {text} contains a character that no path can have')
    expanded = os.path.expanduser(text)
    if text.startswith('~') and expanded == text:
        raise UserError(
            f'{what}: {text} does not begin with a known home directory; ./{text} is a file or folder of this name'
        )
    return expanded


def is_folder_here(name: str) -> bool:
    """Whether a name without a slash is that of a folder in the present one, in its very case.

    Some file systems take a name in another case for it, too.
    """
    if name != os.path.basename(name) or not os.path.isdir(name):
        return False
    try:
        return name in os.listdir()
    except PermissionError:  # the folders here can be entered, but not listed
        return True


def has_two_meanings(name: str, other: str, kind: str) -> UserError:
    """The error for a name that `is_folder_here`, and that stands in any case for something else, too.

    Args:
        name: as the user has given it.
        other: what else it is, after 'also'.
        kind: of this, in a word.
    """
    recased = name.upper() if name != name.upper() else name.lower()
    return UserError(
        f'{name} is a folder here and also {other}: write ./{name} for the folder, {recased} for the {kind}'
    )


def check_for_libraries(path: str | os.PathLike, what: str) -> None:
    """Refuse a folder whose absolute path would be misread by the libraries that keep checkpoints and records in it.

    Raises:
        UserError: the path has a wildcard, a backslash, or bytes that are not UTF-8.
    """
    resolved = os.path.realpath(path)
    if found := _NOT_FOR_LIBRARIES.search(resolved):
        raise UserError(
            f'{what}: {resolved} has {found[0]!r} in it, which libraries that write there would misread; '
            'choose a path without [ ] * ? and backslashes, in UTF-8'
        )
