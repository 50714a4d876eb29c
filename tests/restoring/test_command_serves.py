"""The command as a server: what its flags do, and what does not fit."""

import json
import pathlib

import pytest

from nsr_jax.errors import UserError
from nsr_jax.inference.restorer import Restorer
from nsr_jax.restoring.serve import Limits, Server

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def servers(monkeypatch):
    """The servers that commands would have run."""
    found = []
    monkeypatch.setattr(Server, 'run', lambda server: found.append(server) or server.server_close())
    return found


def test_the_command_serves(tmp_path, packaged, run, servers, caplog):
    caplog.set_level('INFO', logger='absl')
    assert run('--serve', '--scale=2', '--port=0') == 0
    assert run('--serve', '--task=jpeg', '--port=0', '--format=webp', '--quality=50', '--largest_pixels=63',
               '--largest_upload=3', '--queue=0', '--host=localhost', '--serve_as=studio.local') == 0  # fmt: skip
    first, second = servers
    assert (first.restorer.task, first.restorer.scale, first.output_format, first.quality) == ('sr', 2, None, None)
    assert first.limits == Limits(64, 25_000_000, 8)
    assert f'{first.url} restores by sr_x2; Ctrl-C ends it' in caplog.text
    assert (second.restorer.task, second.output_format, second.quality) == ('jpeg', 'WEBP', 50)
    assert second.limits == Limits(3, 63, 0)
    assert 'studio.local' in second.names - first.names
    assert 'over a network' not in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {'runs', 'shipped'}  # the package


def test_what_does_not_fit_a_server_is_told_before_work(packaged, run, servers, monkeypatch):
    monkeypatch.setattr(Restorer, 'load', None)
    for arguments, message in [
        (['a.png'], '--serve restores what is sent to it: a.png does not fit'),
        (['--output=out'], '--serve restores what is sent to it: --output does not fit'),
        (['--compare'], '--serve restores what is sent to it: --compare does not fit'),
        (['--quality=0'], 'quality must be .* 100, not 0'),
        (['--format=png', '--quality=50'], 'PNG is lossless'),
        (['--scale=5'], 'no weights called sr_x5'),
    ]:
        with pytest.raises(UserError, match=message):
            run('--serve', '--scale=2', *arguments)
    assert servers == []


@pytest.mark.parametrize('flag', ['--host=0.0.0.0', '--port=9000', '--serve_as=a', '--largest_upload=3', '--queue=2'])
def test_what_fits_a_server_alone_is_told_without_one(packaged, run, flag):
    with pytest.raises(UserError, match=rf'^{flag.partition("=")[0]} is of use with --serve alone$'):
        run('a.png', '--output=out', '--scale=2', flag)


def test_the_container_starts_a_server(packaged, run, servers, caplog):
    words = {}
    for line in (ROOT / 'Containerfile').read_text(encoding='utf-8').splitlines():
        name, _, value = line.partition(' ')
        if name in ('ENTRYPOINT', 'CMD'):
            words[name] = json.loads(value)
    assert words['ENTRYPOINT'] == ['nsr-restore']
    assert run(*words['CMD'], '--port=0') == 0
    assert servers[0].server_address[0] == '0.0.0.0'
    assert 'whoever reaches http://0.0.0.0:' in caplog.text
