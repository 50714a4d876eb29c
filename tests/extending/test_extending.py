"""What a user adds in one file each works everywhere: training, checkpoints, validation, tables, report and restoring.

The files of `plugins/` lie in a folder outside the package, and no file of the package knows their names.
"""

import json
import shutil

import numpy as np
import pytest

from configs.base import get_base
from nsr_jax.data.sources import open_source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.cells import Sweep, network_contenders, run_sweep
from nsr_jax.evaluation.validation import open_validation
from nsr_jax.inference.restorer import Restorer
from nsr_jax.inference.tiling import Tiling
from nsr_jax.metrics import find_metrics
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import count_multi_adds, count_parameters
from nsr_jax.tasks import find_degradations, find_protocols, find_task
from nsr_jax.trained import load_model
from nsr_jax.training.loop import train

CONFIG = """
import ml_collections
from configs.base import get_base

def get_config():
    config = get_base()
    config.task = 'deblur'
    config.model.update(num_blocks=1, features=8, groups=2, cardinality=4, gate='squares')
    config.loss.update(l1=0.0, smooth=1.0)
    config.degradation = ml_collections.ConfigDict({'blur': 1.2})
    config.validation.update(protocol='deblur', levels=(1.2,), metric='worst')
    config.evaluation.update(protocol='deblur', levels=(1.2,), metrics='psnr,worst')
    config.update(batch_size=2, num_steps=4, log_every_steps=1, evaluate_every_steps=2, checkpoint_every_steps=2)
    return config
"""


def run_twice(config, workdir):
    """Train to the end, lose the last checkpoint, and continue from the one before."""
    validation = open_validation(config)
    train(config, workdir, validation.evaluate, validation.measured_on)
    whole = read_metrics(workdir)
    shutil.rmtree(workdir / 'checkpoints' / '4')
    train(config, workdir, validation.evaluate, validation.measured_on)
    assert read_metrics(workdir) == whole
    return whole


def read_metrics(workdir):
    """Lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()]
    return [{key: line[key] for key in line if key not in ('images_per_second', 'data_wait')} for line in lines]


def score(config, workdir, dataset, folder):
    """A sweep over one dataset as eval.py would run it, and its tables."""
    model = load_model(workdir)
    network = build_network(model.config.model)
    degradations = find_degradations(config.task, config.model.scale, config.evaluation.levels)
    source = open_source(
        dataset, '', config.model.scale, inputs=find_task(config.task).inputs, tfds_dir=config.data.tfds_dir
    )
    contenders = network_contenders('mine', network, model.params, model.step, [Tiling('whole')], [1])
    protocols = find_protocols(config.task, [config.evaluation.protocol])
    metrics = find_metrics(config.evaluation.metrics.split(','))
    scores = run_sweep(Sweep(contenders, [source], protocols, degradations, metrics), folder)
    return scores, (folder / 'scores.md').read_text(encoding='utf-8')


def test_a_network_without_weight_norm_learns_from_folders_of_pairs(folder, load, tmp_path):
    load('plain_network', 'worst_pixel')
    config = get_base()
    config.task = 'pairs'
    config.model = {'architecture': 'plain', 'scale': 1, 'channels': 3, 'features': 4}
    config.data.update(source=str(folder / 'pairs'), tfds_dir=str(folder / 'prepared'), patch_size=16)
    config.validation.update(protocol='pairs-rgb', metric='worst', fraction=0.2)
    config.evaluation.update(protocol='pairs-rgb', metrics='psnr,worst', datasets=str(folder / 'pairs'))
    config.update(batch_size=2, num_steps=4, log_every_steps=1, evaluate_every_steps=2, checkpoint_every_steps=2)
    lines = run_twice(config, tmp_path / 'run')
    assert {'validation/pairs-rgb/pairs/worst', 'validation/pairs-rgb/pairs/psnr'} <= set().union(*lines)

    network = build_network(config.model)
    assert count_parameters(network) == 2 * 9 * 3 * 4 + 4 + 3
    assert count_multi_adds(network).total == 2 * 9 * 3 * 4 * 720 * 1280
    scores, table = score(config, tmp_path / 'run', str(folder / 'pairs'), tmp_path)
    assert len(scores) == 5 and 'worst pixel' in table and 'pairs-rgb' in table
    image = np.full((20, 30, 3), 90, np.uint8)
    assert Restorer.load(tmp_path / 'run')(image).shape == image.shape


def test_a_task_a_loss_a_metric_and_a_gate_by_the_commands(commands, folder, tmp_path):
    (folder / 'deblur_config.py').write_text(CONFIG, encoding='utf-8')
    loaded = [f'--plugin={folder / name}.py' for name in ('deblur', 'smooth_loss', 'worst_pixel', 'square_gate')]
    shared = [f'--config={folder / "deblur_config.py"}', f'--config.data.tfds_dir={folder / "prepared"}', *loaded]

    def run(*command):
        code, error, _ = commands(*command)
        assert code == 0, error

    small = ['--config.data.patch_size=16', f'--config.data.source={folder / "photos"}']
    run('train.py', f'--workdir={tmp_path / "run"}', *shared, *small)
    lines = read_metrics(tmp_path / 'run')
    assert {'loss/smooth', 'validation/deblur/blur 1.2/worst'} <= set().union(*lines)
    run(
        'eval.py', *shared, f'--checkpoint={tmp_path / "run"}', f'--datasets={folder / "photos"}', '--report',
        f'--output={tmp_path / "scores"}', '--baselines=degraded', '--pictures=1',
    )  # fmt: skip
    table = (tmp_path / 'scores' / 'scores.md').read_text(encoding='utf-8')
    assert 'blur 1.2' in table and 'worst pixel' in table and 'degraded' in table
    assert 'worst pixel' in (tmp_path / 'scores' / 'index.html').read_text(encoding='utf-8')
    run(
        'nsr_jax.restore', str(folder / 'photos' / '0.png'), f'--output={tmp_path / "sharp"}',
        f'--model={tmp_path / "run"}', *loaded,
    )  # fmt: skip
    assert (tmp_path / 'sharp' / '0.png').is_file()


def test_a_checkpoint_says_which_plug_in_it_misses():
    config = get_base()
    config.model = {'architecture': 'plain', 'scale': 1, 'channels': 3}
    with pytest.raises(UserError, match=r"'plain': one of .*, or that of a --plugin"):
        build_network(config.model)
