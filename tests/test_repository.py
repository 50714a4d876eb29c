"""Files for continuous integration, pre-commit and citations agree with the rest of the repository."""

import pathlib
import re
import tomllib

import yaml

import nsr_jax

ROOT = pathlib.Path(__file__).parents[1]


def text_of(name):
    return (ROOT / name).read_text(encoding='utf-8')


def read_yaml(name):
    return yaml.safe_load(text_of(name))


def test_pre_commit_runs_the_pinned_ruff():
    (repository,) = read_yaml('.pre-commit-config.yaml')['repos']
    assert f'ruff=={repository["rev"].removeprefix("v")}\n' in text_of('requirements.txt')


def test_the_workflow_calls_targets_of_the_makefile_on_supported_versions():
    job = read_yaml('.github/workflows/test.yml')['jobs']['test']
    oldest = tomllib.loads(text_of('pyproject.toml'))['project']['requires-python']
    assert oldest == f'>={job["strategy"]["matrix"]["python"][0]}'
    calls = [step['run'] for step in job['steps'] if 'run' in step]
    targets = re.findall(r'^(\w[\w-]*):', text_of('Makefile'), re.MULTILINE)
    assert {'test'} < {call.removeprefix('make ') for call in calls} <= set(targets)


def test_the_citation_is_of_this_version():
    citation = read_yaml('CITATION.cff')
    project = tomllib.loads(text_of('pyproject.toml'))['project']
    assert (citation['version'], citation['license']) == (nsr_jax.__version__, project['license'])
    assert {'cff-version', 'message', 'title', 'authors'} <= citation.keys()
    assert citation['references']  # the paper


def test_the_changelog_begins_with_this_version():
    heading = re.search(r'^## (\S+?),', text_of('CHANGELOG.md'), re.MULTILINE)
    assert heading and heading[1] == nsr_jax.__version__
