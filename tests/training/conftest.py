"""A tiny run: a folder of 4 images like photographs, a network of one block, a few steps; also started as a command."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import ml_collections
import numpy as np
import pytest
from absl import logging

from configs.base import get_base
from nsr_jax.images.writing import write_image
from nsr_jax.training.loop import train


@pytest.fixture(scope='session')
def image_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    generator = np.random.default_rng(0)
    for index in range(4):
        height, width = (64, 80) if index % 2 else (90, 60)
        rows, columns = np.mgrid[:height, :width] / 10
        waves = np.stack([np.sin(rows * f + index) + np.cos(columns / f) for f in (1, 2, 3)], axis=-1)
        noise = generator.normal(0, 0.1, waves.shape)
        write_image(folder / f'{index}.png', np.clip(127 + 50 * (waves + noise), 0, 255).astype(np.uint8))
    return folder


@pytest.fixture(scope='session')
def tfds_dir(tmp_path_factory):
    return tmp_path_factory.mktemp('datasets')


def tiny_config(image_folder, tfds_dir) -> ml_collections.ConfigDict:
    config = get_base()
    config.task = 'sr'
    config.model.update(scale=2, num_blocks=1, features=8, groups=2, cardinality=4)
    config.data.update(source=str(image_folder), tfds_dir=str(tfds_dir), patch_size=12)
    config.update(
        batch_size=4,
        num_steps=12,
        steps_per_call=2,
        log_every_steps=3,
        evaluate_every_steps=8,
        checkpoint_every_steps=5,
    )
    config.validation.fraction = 0.0
    return config


@pytest.fixture(scope='session')
def make_config(image_folder, tfds_dir):
    return functools.partial(tiny_config, image_folder, tfds_dir)


@pytest.fixture
def config(make_config) -> ml_collections.ConfigDict:
    return make_config()


@pytest.fixture(scope='session')
def finished(tmp_path_factory, make_config):
    """The workdir of a run of 12 steps, without validation, with checkpoints at 5, 10 and 12."""
    workdir = tmp_path_factory.mktemp('finished')
    train(make_config(), workdir)
    return workdir


@pytest.fixture
def said(monkeypatch):
    """What the log says."""
    lines = []
    monkeypatch.setattr(
        logging, 'info', lambda text, *values: lines.append(str(text) % values if values else str(text))
    )
    return lines


class Job:
    """`train.py` in processes of its own, each with one CPU device."""

    def start(self, config, workdir, *arguments, log=subprocess.DEVNULL, prepare=None, held=None, **environment):
        """A process that trains by `config`, after `prepare()` in it; its standard error goes to `log`.

        `held`: the argument of tests/training/held.py, if the process should be held or killed at a certain moment.
        """
        script = ['train.py'] if held is None else ['-m', 'tests.training.held', json.dumps(held)]
        overrides = [f'--config.{name}={value}' for name, value in leaves(config.to_dict()) if value is not None]
        command = [sys.executable, *script, '--config=configs/sr.py', f'--workdir={workdir}', *overrides, *arguments]
        root = pathlib.Path(__file__).parents[2]
        environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1'} | environment
        return subprocess.Popen(command, cwd=root, env=environment, stderr=log, text=True, preexec_fn=prepare)

    def run(self, config, workdir, *arguments, **options):
        """Train in a process and return its exit code and its standard error."""
        process = self.start(config, workdir, *arguments, log=subprocess.PIPE, **options)
        error = process.communicate(timeout=900)[1]
        return process.returncode, error


@pytest.fixture(scope='session')
def job():
    return Job()


@pytest.fixture(scope='session')
def metrics_of():
    """Reads the lines of a workdir's metrics, without the numbers that differ from run to run."""

    def read(workdir):
        lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
        return [
            {name: number for name, number in line.items() if name not in ('images_per_second', 'data_wait')}
            for line in lines
        ]

    return read


def leaves(section, prefix=''):
    for name, value in section.items():
        if isinstance(value, dict):
            yield from leaves(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', value
