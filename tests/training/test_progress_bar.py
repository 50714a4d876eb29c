"""What training shows: never a time before one is known, and lines where there is no terminal."""

from nsr_jax.training.loop import train
from nsr_jax.training.progress_bar import ProgressBar


def test_lines_come_every_half_a_minute_with_the_time_that_is_left_when_it_is_known(said):
    now = [0.0]
    progress = ProgressBar(1000, 10, clock=lambda: now[0])
    progress.say('compiling the train step')
    now[0] = 500.0
    progress.begin(20)
    progress.update(20, 'loss 1')  # before a step was timed
    for step, time in ((30, 520), (40, 540), (50, 560), (1000, 561)):
        now[0] = float(time)
        progress.update(step, f'loss {step}')
    progress.write('step 1000: validation 30')
    progress.close()
    assert said == [
        'compiling the train step',
        'step 20 of 1000: loss 1',
        'step 40 of 1000, 32:00 left: loss 40',
        'step 1000 of 1000: loss 1000',
        'step 1000: validation 30',
    ]


def test_other_processes_show_nothing(said, capfd):
    progress = ProgressBar(10, 0, is_shown=False)
    progress.say('compiling')
    progress.begin(1)
    progress.update(10, 'loss')
    progress.write('scores')
    progress.close()
    assert said == [] and capfd.readouterr().err == ''


def test_a_bar_on_a_terminal_begins_to_count_when_all_is_compiled(monkeypatch, capfd):
    monkeypatch.setattr('sys.stderr.isatty', lambda: True)
    progress = ProgressBar(1000, 0)
    progress.say('compiling')
    progress.begin(10)
    progress.update(10, 'loss 1')
    progress.close()
    shown = capfd.readouterr().err
    assert 'compiling' in shown and '10/1000' in shown
    assert '?step/s' in shown  # and no time left


def test_a_run_tells_what_it_does_and_does_not_count_the_compilation(tmp_path, config, metrics_of, said, monkeypatch):
    config.update(num_steps=4, steps_per_call=1, log_every_steps=1, evaluate_every_steps=4, checkpoint_every_steps=4)
    written = []
    monkeypatch.setattr(
        'nsr_jax.training.loop.MetricsWriter.write', lambda self, step, **numbers: written.append(numbers)
    )
    train(config, tmp_path, lambda params: (30.0, {'psnr': 30.0}))
    order = ['compiling the train step', 'evaluating', 'step 4: psnr 30']
    assert [line for line in said if line in order] == order
    assert any(line.startswith('step 4 of 4: loss ') and line.endswith(' images/s') for line in said)
    speeds = [numbers.get('images_per_second') for numbers in written]
    assert speeds[0] is None and all(speed > 0 for speed in speeds[1:4])
    assert all(0 <= numbers['data_wait'] <= 1 for numbers in written[1:4])
