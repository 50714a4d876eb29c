import os

import pytest

from nsr_jax.errors import UserError
from nsr_jax.files import make_output_folder, write_atomically


def test_output_folder_is_made_and_left_empty(tmp_path):
    assert list(make_output_folder(tmp_path / 'a' / 'b').iterdir()) == []


def test_output_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='file'):
        make_output_folder(tmp_path / 'file' / 'below')


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / 'scores.json'
    write_atomically(path, 'old')

    def no_space(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', no_space)
    with pytest.raises(UserError, match='No space left'):
        write_atomically(path, 'new')
    assert [file.name for file in tmp_path.iterdir()] == ['scores.json']
    assert path.read_text() == 'old'


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match='missing'):
        write_atomically(tmp_path / 'missing' / 'scores.json', 'new')
