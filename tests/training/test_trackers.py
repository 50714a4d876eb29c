"""Weights & Biases and MLflow beside TensorBoard: what they are told, and that a resumed run stays one run."""

import json
import logging
import struct

import numpy as np
import pytest

from nsr_jax.errors import UserError
from nsr_jax.training import trackers
from nsr_jax.training.history import write_config
from nsr_jax.training.run import check_changes, check_run
from nsr_jax.training.workdir import MetricsWriter

BLOCK = 2**15
IMAGE = np.arange(8 * 24 * 3, dtype=np.uint8).reshape(8, 24, 3)


class Fake:
    """A service in memory: a list of what each run was told."""

    def __init__(self):
        self.runs, self.breaks = {}, False

    def __call__(self, workdir, config, known):
        return FakeTracker(self, known or f'run_{len(self.runs)}')


class FakeTracker:
    def __init__(self, service, id):
        self.id, self._service = id, service
        self._told = service.runs.setdefault(id, [])

    def write(self, step, numbers):
        if self._service.breaks:
            raise ConnectionError('no network')
        self._told.append((step, dict(numbers)))

    def write_images(self, step, images):
        self._told.append((step, {name: image.shape for name, image in images.items()}))

    def close(self, done):
        self._told.append('done' if done else 'stopped')


@pytest.fixture
def fake(monkeypatch, config):
    service = Fake()
    monkeypatch.setitem(trackers.TRACKERS, 'fake', service)
    config.trackers = 'fake'
    return service


def test_a_resumed_run_goes_on_in_the_same_one_and_tells_no_step_twice(tmp_path, config, fake):
    writer = MetricsWriter(tmp_path, 0, config)
    writer.write(3, loss=1.0)
    writer.write(6, loss=0.5)
    writer.write_images(6, {'a': IMAGE})
    writer.close()
    writer = MetricsWriter(tmp_path, 3, config)  # step 6 was not saved
    writer.write(6, loss=0.5)
    writer.write_images(6, {'a': IMAGE})
    writer.write(config.num_steps, loss=0.25)
    writer.close()
    assert fake.runs == {
        'run_0': [
            (3, {'loss': 1.0}),
            (6, {'loss': 0.5}),
            (6, {'a': (8, 24, 3)}),
            'stopped',
            (config.num_steps, {'loss': 0.25}),
            'done',
        ]
    }
    assert json.loads((tmp_path / 'trackers.json').read_text()) == {'fake': 'run_0'}
    MetricsWriter(tmp_path / '..' / tmp_path.name, 0, config).close()
    assert len(fake.runs) == 1
    assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 0


def test_a_service_that_fails_does_not_end_the_training(tmp_path, config, fake, caplog):
    writer = MetricsWriter(tmp_path, 0, config)
    fake.breaks = True
    with caplog.at_level(logging.WARNING):
        writer.write(3, loss=1.0)
    assert 'fake failed and is told no more of this run: no network' in caplog.text
    fake.breaks = False
    writer.write(6, loss=0.5)
    writer.close()
    assert fake.runs == {'run_0': []}
    assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 2


def test_a_service_that_does_not_start_is_one_line(tmp_path, config, fake, monkeypatch):
    def refuse(workdir, config, known):
        raise RuntimeError('no key')

    monkeypatch.setitem(trackers.TRACKERS, 'broken', refuse)
    config.trackers = 'fake,broken'
    with pytest.raises(UserError, match=r'config.trackers: broken cannot be started: no key'):
        MetricsWriter(tmp_path, 0, config)
    assert fake.runs == {'run_0': ['stopped']}
    (tmp_path / 'trackers.json').write_text('[1]')
    with pytest.raises(UserError, match=r'trackers.json cannot be read: remove it to begin new runs'):
        MetricsWriter(tmp_path, 0, config)


def test_trackers_are_checked_before_training_starts(tmp_path, config, monkeypatch):
    config.trackers = 'wandb,neptune'
    monkeypatch.setitem(trackers.sys.modules, 'wandb', trackers)
    with pytest.raises(UserError, match=r"^config.trackers: 'neptune' is none of wandb, mlflow$"):
        check_run(config, tmp_path / 'run')
    monkeypatch.delitem(trackers.sys.modules, 'wandb')
    monkeypatch.setattr(trackers.importlib.util, 'find_spec', lambda name: None)
    config.trackers = 'wandb'
    with pytest.raises(
        UserError, match=r'^config.trackers=wandb needs the package wandb: pip install "nsr-jax\[wandb\]"'
    ):
        check_run(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_trackers_may_be_switched_on_later(tmp_path, config):
    write_config(tmp_path, config)
    config.trackers = 'wandb'
    check_changes(tmp_path, config, [])


def run_twice(tmp_path, config):
    """A run that stops after step 3 and is resumed; returns the id of its run."""
    for start, steps in ((0, (3, 6)), (3, (6, config.num_steps))):
        writer = MetricsWriter(tmp_path, start, config)
        for step in steps:
            writer.write(step, loss=step / 10, gradient_norm=float('inf'))
            writer.write(step, **{'validation/sr-y/x2/psnr': 30.0 + step})
            writer.write_images(step, {'validation/sample_0': IMAGE})
        writer.close()
    return json.loads((tmp_path / 'trackers.json').read_text())[config.trackers]


def records_of(path):
    """The messages in a file of Weights & Biases: pieces with checksum, length and kind in blocks, as in LevelDB."""
    data, place, message = path.read_bytes(), 7, b''
    while place + 7 <= len(data):
        length, kind = struct.unpack('<HB', data[place + 4 : place + 7])
        message += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield message
            message = b''
        if (left := BLOCK - place % BLOCK) < 7:
            place += left


def test_weights_and_biases_offline(tmp_path, config, monkeypatch):
    pytest.importorskip('wandb', reason='the extra `wandb` is not installed')
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setenv('WANDB_PROJECT', 'mine')
    config.trackers = 'wandb'
    id = run_twice(tmp_path, config)
    parts = sorted((tmp_path / 'wandb').glob(f'offline-run-*-{id}/run-{id}.wandb'))
    assert len(parts) == 2  # `wandb sync` joins what has the same id
    steps, losses, projects = [], [], set()
    for part in parts:
        for message in records_of(part):
            record = Record.FromString(message)
            if record.run.project:
                projects.add(record.run.project)
            items = {item.key or '/'.join(item.nested_key): item.value_json for item in record.history.item}
            if items:
                steps.append(record.history.step.num)
                losses.append(json.loads(items['loss']))
                assert float(json.loads(items['validation/sr-y/x2/psnr'])) == 30 + steps[-1]
                assert items['validation/sample_0/width'] == '24'
    assert projects == {'mine'}
    assert steps == [3, 6, config.num_steps] and losses == [0.3, 0.6, config.num_steps / 10]


def test_mlflow_in_a_database(tmp_path, config, monkeypatch):
    mlflow = pytest.importorskip('mlflow', reason='the extra `mlflow` is not installed')
    monkeypatch.chdir(tmp_path)  # where its artifacts go
    monkeypatch.setenv('MLFLOW_TRACKING_URI', f'sqlite:///{tmp_path}/mlflow.db')
    monkeypatch.setenv('MLFLOW_EXPERIMENT_NAME', 'mine')
    config.trackers = 'mlflow'
    id = run_twice(tmp_path, config)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name('mine')
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == id and run.info.status == 'FINISHED'
    assert run.data.params['model.features'] == '8'
    history = client.get_metric_history(id, 'validation/sr-y/x2/psnr')
    assert [(each.step, each.value) for each in history] == [(3, 33.0), (6, 36.0), (12, 42.0)]
    images = [artifact.path for artifact in client.list_artifacts(id, 'images')]
    assert len([path for path in images if path.endswith('.png')]) == 3
