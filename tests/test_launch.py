"""The scripts of examples/launch: that they start what docs/launch.md says, with stand-ins for Slurm's and Google's own
commands, and real training where nothing stands in for it."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from configs import sr
from nsr_jax.images.writing import write_image
from nsr_jax.studies.study import read_study
from nsr_jax.trained import load_model
from tests.processes import SLURM_PORT, free_port

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / 'examples' / 'launch'
SCRIPTS = sorted(LAUNCH.glob('*.sh'))
TEXTS = [*LAUNCH.iterdir(), ROOT / 'docs' / 'launch.md']

# Starts as many processes as $TASKS says, with the variables by which Slurm describes them; ends as srun does, with the
# highest of their exit codes.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do echo "$1" >>"$RECORD/srun"; shift; done
for ((i = 0; i < TASKS; i++)); do
    SLURM_STEP_NODELIST=127.0.0.1 SLURM_STEP_NUM_NODES=1 SLURM_NTASKS=$TASKS SLURM_PROCID=$i SLURM_LOCALID=$i \\
        "$@" 2>"$RECORD/$i.log" &
    pids+=($!)
    echo $! >"$RECORD/$i.pid"
done
highest=0
for pid in "${pids[@]}"; do
    code=0
    wait "$pid" || code=$?
    ((code <= highest)) || highest=$code
done
exit "$highest"
"""
SCONTROL = '#!/usr/bin/env bash\necho "$*" >>"$RECORD/scontrol"\n'
GCLOUD = """#!/usr/bin/env bash
echo "${*:1:7}" >>"$RECORD/gcloud"
cd && bash -c "${8#--command=}"
"""
PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "$@" >"$RECORD/python"
env >"$RECORD/environment"
[ "$CODE" = wait ] || exit "$CODE"
trap 'echo >"$RECORD/stopped"; exit 75' TERM
echo >"$RECORD/ready"
for _ in {1..20000}; do sleep 0.05; done
"""


@pytest.fixture
def place(tmp_path):
    """A folder of stand-ins that comes first in the path, and the environment that a script is started in."""
    programs = tmp_path / 'bin'
    programs.mkdir()
    for name, text in {'srun': SRUN, 'scontrol': SCONTROL, 'gcloud': GCLOUD, 'python': PYTHON}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(('SLURM_', 'XLA_'))}
    return tmp_path, environment | {
        'PATH': f'{programs}:{os.environ["PATH"]}',
        'RECORD': str(tmp_path),
        'TASKS': '1',
        'PYTHON': str(programs / 'python'),
        'SHARED': str(tmp_path / 'shared'),
        'HOME': str(tmp_path),
        'SLURM_JOB_ID': str(free_port() - SLURM_PORT),
        'SLURM_ARRAY_TASK_ID': '3',
        'TPU': 'slice',
        'ZONE': 'zone',
        'FOLDER': str(ROOT),
        'JAX_PLATFORMS': 'cpu',
        'JAX_NUM_CPU_DEVICES': '1',
    }


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    """Arguments of a training that ends after 6 steps."""
    images = tmp_path_factory.mktemp('images')
    generator = np.random.default_rng(0)
    for index in range(3):
        write_image(images / f'{index}.png', generator.integers(0, 256, (48, 56, 3), np.uint8))
    fields = {'model.num_blocks': 1, 'model.features': 8, 'model.groups': 1, 'model.cardinality': 1, 'batch_size': 4}
    fields |= {'data.source': images, 'data.patch_size': 8, 'validation.fraction': 0.0, 'num_steps': 6}
    fields |= {'steps_per_call': 1, 'log_every_steps': 1, 'checkpoint_every_steps': 3}
    return ['--config=configs/sr.py', *(f'--config.{name}={value}' for name, value in fields.items())]


ENDLESS = ['--config.num_steps=1000000', '--config.checkpoint_every_steps=1000000']


def run(script, environment, *arguments):
    """The exit code of one of the scripts, run to its end in the project's folder."""
    command = ['bash', LAUNCH / script, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, timeout=900).returncode


def lines(path):
    return path.read_text(encoding='utf-8').splitlines() if path.exists() else []


def wait_for_steps(count, workdir, process):
    while len(lines(workdir / 'metrics.jsonl')) < count:
        assert process.poll() is None
        time.sleep(0.05)


def end_all(process):
    """Whatever a script has left behind, should a test fail."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_for(path):
    end = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < end, f'no {path.name}'
        time.sleep(0.02)


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_the_scripts_are_shell(path):
    subprocess.run(['bash', '-n', path], check=True)
    assert os.access(path, os.X_OK) == path.read_text(encoding='utf-8').startswith('#!/usr/bin/env bash\n')
    if shutil.which('shellcheck'):
        subprocess.run(['shellcheck', '-e', 'SC1091', path], check=True)


@pytest.mark.parametrize('path', TEXTS, ids=lambda path: path.name)
def test_flags_and_fields_in_scripts_and_documentation_exist(path):
    """Of this project's commands, of Slurm's and Google's, and of the config."""
    files = (
        'train.py',
        'eval.py',
        'nsr_jax/command_line.py',
        'nsr_jax/sweep.py',
        'benchmarks/scaling.py',
        'benchmarks/train_step.py',
    )
    known = {
        name
        for file in files
        for name in re.findall(r"DEFINE_\w+\(\s*'(\w+)'", (ROOT / file).read_text(encoding='utf-8'))
    }
    known |= {'array', 'nodes', 'ntasks', 'output', 'requeue', 'signal', 'time'} | {'command', 'worker', 'zone'}
    names = re.findall(r'(?<![\w-])--(\w[\w.]*\w)(?![\w-])', path.read_text(encoding='utf-8'))
    for name in names:
        assert name in known | fields(sr.get_config(), 'config.') | {'config.mesh'}


def fields(config, prefix=''):
    found = set()
    for name, value in config.items():
        found |= fields(value, f'{prefix}{name}.') if hasattr(value, 'items') else {f'{prefix}{name}'}
    return found


def test_sigterm_to_the_script_of_one_host_reaches_python(place):
    folder, environment = place
    command = ['bash', LAUNCH / 'one_host.sh', '--workdir=a b']
    process = subprocess.Popen(command, cwd=folder, env=environment | {'CODE': 'wait'}, start_new_session=True)
    try:
        wait_for(folder / 'ready')
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 75
    finally:
        end_all(process)
    assert lines(folder / 'python') == ['train.py', '--workdir=a b']


@pytest.mark.slow
def test_one_host_trains_until_it_is_stopped(place, tiny):
    folder, environment = place
    environment['PYTHON'] = sys.executable
    command = ['bash', LAUNCH / 'one_host.sh', *tiny, *ENDLESS, f'--workdir={folder / "run"}']
    options = {'cwd': folder, 'env': environment, 'stderr': subprocess.DEVNULL, 'start_new_session': True}
    process = subprocess.Popen(command, **options)
    try:
        wait_for_steps(1, folder / 'run', process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 75
    finally:
        end_all(process)
    last = json.loads(lines(folder / 'run' / 'metrics.jsonl')[-1])['step']
    assert load_model(folder / 'run').step == last
    assert (folder / 'shared' / 'datasets').is_dir()


def test_several_nodes_become_one_job(place):
    """They find each other, and then all end, because of a mistake: the next test lets them train."""
    folder, environment = place
    environment |= {'PYTHON': sys.executable, 'TASKS': '2', 'SLURM_CPUS_PER_TASK': '8'}
    arguments = ['--config=configs/sr.py', '--config.batch_size=0', f'--workdir={folder / "run"}']
    code = run('slurm_multi_node.sh', environment, *arguments)
    logs = [(folder / f'{index}.log').read_text(encoding='utf-8') for index in range(2)]
    assert code == 2, logs
    assert 'process 0 of 2, with 1 of 2 devices' in logs[0]
    for log in logs:
        assert log.splitlines()[-1].startswith('error: config.batch_size must be')
    assert lines(folder / 'srun') == ['--cpus-per-task=8', '--kill-on-bad-exit=0', '--gpu-bind=none']
    assert not lines(folder / 'scontrol')


@pytest.mark.slow
def test_several_nodes_that_slurm_stops_are_queued_again_and_go_on(place, tiny):
    folder, environment = place
    environment |= {'PYTHON': sys.executable, 'TASKS': '2'}
    arguments = [*tiny, *ENDLESS, f'--workdir={folder / "run"}']
    reached = 0
    for number in (1, 2):
        command = ['bash', LAUNCH / 'slurm_multi_node.sh', *arguments]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
        try:
            wait_for_steps(reached + 3, folder / 'run', process)
            for index in range(2):  # as slurmd does: every process of the step, not the shell
                os.kill(int((folder / f'{index}.pid').read_text(encoding='utf-8')), signal.SIGTERM)
            assert process.wait(timeout=300) == 75
        finally:
            end_all(process)
        assert lines(folder / 'scontrol') == [f'requeue {environment["SLURM_JOB_ID"]}'] * number
        log = (folder / '0.log').read_text(encoding='utf-8')
        assert (f'continuing from step {reached}' in log) == bool(reached)
        reached = load_model(folder / 'run').step
        assert len(lines(folder / 'run' / 'metrics.jsonl')) == reached


@pytest.mark.parametrize('script', ['slurm_array.sh', 'slurm_sweep.sh', 'slurm_multi_node.sh'])
@pytest.mark.parametrize(
    ('code', 'restarts', 'again'),
    [(75, None, True), (134, 49, True), (75, 50, False), (0, None, False), (2, None, False), (137, None, False)],
)
def test_slurm_queues_again_what_can_go_on(place, script, code, restarts, again):
    folder, environment = place
    environment |= {'CODE': str(code)} | ({} if restarts is None else {'SLURM_RESTART_COUNT': str(restarts)})
    assert run(script, environment, '--workdir=a b') == code
    assert lines(folder / 'scontrol') == [f'requeue {environment["SLURM_JOB_ID"]}'] * again


def test_a_task_of_an_array_has_its_own_seed_and_workdir(place):
    folder, environment = place
    assert run('slurm_array.sh', environment | {'CODE': '0'}, '--config=configs/sr.py:scale=2') == 0
    own = ['--config.seed=3', f'--workdir={folder / "shared" / "seed_3"}']
    assert lines(folder / 'python') == ['train.py', '--config=configs/sr.py:scale=2', *own]
    check_options('slurm_array.sh')


def test_a_task_of_an_array_is_one_run_of_a_sweep(place):
    folder, environment = place
    assert run('slurm_sweep.sh', environment | {'CODE': '0'}, 'configs/sweeps/gates.py', '--scale=laptop') == 0
    own = [f'--workdir={folder / "shared" / "gates"}', '--index=3']
    assert lines(folder / 'python') == ['-m', 'nsr_jax.sweep', 'configs/sweeps/gates.py', '--scale=laptop', *own]
    check_options('slurm_sweep.sh')


def check_options(script):
    options = dict(line.removeprefix('#SBATCH --').split('=') for line in sbatch_lines(script) if '=' in line)
    assert options['signal'] == 'TERM@120'
    assert options['gpus-per-node'] == options['ntasks'] == '1'
    assert '#SBATCH --requeue' in sbatch_lines(script)


def sbatch_lines(script):
    return [line for line in lines(LAUNCH / script) if line.startswith('#SBATCH')]


def test_a_pod_slice_is_started_and_stopped_on_every_host(place):
    folder, environment = place
    environment |= {'CODE': 'wait', 'NSR_DATA_DIR': '/data/of others'}
    del environment['JAX_COMPILATION_CACHE_DIR']
    arguments = ['--config=configs/sr.py:scale=2', "--workdir=it's here"]
    assert run('tpu_pod.sh', environment, 'start', *arguments) == 0
    wait_for(folder / 'ready')
    assert lines(folder / 'python') == ['train.py', '--distributed', *arguments]
    folders = {'TFDS_DATA_DIR': 'datasets', 'JAX_COMPILATION_CACHE_DIR': 'compiled'}
    expected = {f'{name}={folder}/shared/{value}' for name, value in folders.items()}
    assert {'NSR_DATA_DIR=/data/of others', *expected} <= set(lines(folder / 'environment'))
    assert run('tpu_pod.sh', environment, 'stop') == 0
    wait_for(folder / 'stopped')
    assert lines(folder / 'gcloud') == ['compute tpus tpu-vm ssh slice --zone=zone --worker=all'] * 2
    assert run('tpu_pod.sh', environment, 'restart') == 2


@pytest.fixture
def manifest():
    service, job = yaml.safe_load_all((LAUNCH / 'kubernetes_indexed_job.yaml').read_text(encoding='utf-8'))
    return service, job, job['spec']['template']['spec']


def test_pods_find_each_other_and_are_started_again(manifest):
    service, job, pod = manifest
    name, pods = job['metadata']['name'], job['spec']['completions']
    assert service['metadata']['name'] == pod['subdomain']
    assert service['spec']['selector'] == {'job-name': name}
    assert service['spec']['clusterIP'] == 'None'
    assert job['spec']['completionMode'] == 'Indexed'
    (container,) = pod['containers']
    interpreter, script, *arguments = container['command']  # no shell between Kubernetes and Python
    assert (interpreter, script) == ('python', 'train.py')
    assert f'--coordinator_address={name}-0.{pod["subdomain"]}:9876' in arguments
    assert f'--num_processes={pods}' in arguments and job['spec']['parallelism'] == pods
    assert pod['restartPolicy'] == 'Never'  # what podFailurePolicy asks for
    rules = job['spec']['podFailurePolicy']['rules']
    (by_code,) = (rule for rule in rules if 'onExitCodes' in rule)
    assert by_code['action'] == 'Ignore'
    assert by_code['onExitCodes'] == {'containerName': container['name'], 'operator': 'In', 'values': [75, 134]}
    assert {each['name'] for each in container['volumeMounts']} == {each['name'] for each in pod['volumes']}


def test_each_pod_of_a_sweep_is_one_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    job = yaml.safe_load((LAUNCH / 'kubernetes_sweep.yaml').read_text(encoding='utf-8'))
    pod = job['spec']['template']['spec']
    (container,) = pod['containers']
    interpreter, option, command, sweep, *flags = container['command']  # no shell between Kubernetes and Python
    assert (interpreter, option, command) == ('python', '-m', 'nsr_jax.sweep')
    assert '--index=$(JOB_COMPLETION_INDEX)' in flags
    assert job['spec']['completions'] == len(read_study(sweep).runs)
    rules = [rule for rule in job['spec']['podFailurePolicy']['rules'] if 'onExitCodes' in rule]
    assert {rule['action']: rule['onExitCodes']['values'] for rule in rules} == {'Ignore': [75], 'FailIndex': [2]}
    assert {each['name'] for each in container['volumeMounts']} == {each['name'] for each in pod['volumes']}


@pytest.mark.slow
def test_the_command_of_the_pods_trains(place, tiny, manifest):
    folder, environment = place
    _, job, pod = manifest
    (container,) = pod['containers']
    address = f'--coordinator_address=127.0.0.1:{free_port()}'
    own = {'--coordinator_address': [address], '--workdir': [f'--workdir={folder / "run"}'], '--config': tiny}
    processes = []
    for index in range(job['spec']['completions']):
        command = [sys.executable]
        for argument in container['command'][1:]:
            name = argument.partition('=')[0]
            if not name.startswith('--config.'):
                command += own.get(name, [argument.replace('$(JOB_COMPLETION_INDEX)', str(index))])
        options = {'cwd': ROOT, 'env': environment | {'KUBERNETES_SERVICE_HOST': '127.0.0.1'}}
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options))
    logs = [process.communicate(timeout=900)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], logs
    assert 'process 0 of 2, with 1 of 2 devices' in logs[0]
    assert load_model(folder / 'run').step == 6
