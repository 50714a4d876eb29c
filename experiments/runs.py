"""The runs that are compared with published networks trained on the same data."""

import dataclasses
import importlib
import os

import ml_collections


@dataclasses.dataclass(frozen=True)
class Run:
    """A network to train and compare with published ones.

    Attributes:
        name: of the run, its folder and its record.
        file: name of a config in configs/same_data, without its ending.
        argument: of the config, without the number of steps.
        datasets: the test sets that the rivals were scored on.
        protocols: those by which it is scored.
        rivals: names in `Task.published` of networks that were trained on the same data.
        warm_start: name of the run whose weights it starts with; '' for random weights.
    """

    name: str
    file: str
    argument: str
    datasets: tuple[str, ...]
    protocols: tuple[str, ...]
    rivals: tuple[str, ...]
    warm_start: str = ''

    def config(self, steps: int | None = None) -> ml_collections.ConfigDict:
        """Its config, with this number of steps; None keeps the config's own."""
        return importlib.import_module(f'configs.same_data.{self.file}').get_config(self._argument(steps))

    def train_arguments(self, folder: str | os.PathLike, steps: int | None = None) -> list[str]:
        """Arguments of `python` that train it from the root of the repository; `folder` holds all runs."""
        arguments = ['train.py', self._config_flag(steps), f'--workdir={folder}/{self.name}']
        return arguments + ([f'--config.warm_start={folder}/{self.warm_start}'] if self.warm_start else [])

    def score_arguments(self, folder: str | os.PathLike, steps: int | None = None) -> list[str]:
        """Arguments of `python` that score its weights that are best on the held-out images."""
        return [
            'eval.py',
            self._config_flag(steps),
            '--config.compute_dtype=float32',
            f'--checkpoint={folder}/{self.name}',
            f'--datasets={",".join(self.datasets)}',
            f'--protocol={",".join(self.protocols)}',
            f'--output={folder}/{self.name}/eval',
        ]

    def _config_flag(self, steps: int | None) -> str:
        return f'--config=configs/same_data/{self.file}.py:{self._argument(steps)}'

    def _argument(self, steps: int | None) -> str:
        return self.argument if steps is None else f'{self.argument},steps={steps}'


# Test sets, protocols and rivals, by the file of the config.
_SCORED = {
    'sr': (('set5', 'set14', 'bsd100'), ('sr-y', 'sr-y-uint8'), ('VDSR', 'DRRN')),
    'denoise': (('set12', 'bsd68'), ('denoise',), ('DnCNN-S',)),
    'jpeg': (('live1', 'classic5'), ('jpeg-y',), ('ARCNN', 'DnCNN-3')),
}
# Name, file, argument and warm start of each run in the order of training: the most informative ones come first.
_TABLE = (
    ('sr_x2_nsr', 'sr', 'scale=2,network=edsr_s_nsr', ''),
    ('sr_x2', 'sr', 'scale=2,network=edsr_s', ''),
    ('denoise_25_capacity', 'denoise', 'sigma=25,network=resnet_nsr_capacity', ''),
    ('denoise_25_efficient', 'denoise', 'sigma=25,network=resnet_nsr_efficient', ''),
    ('denoise_25', 'denoise', 'sigma=25,network=resnet', ''),
    ('jpeg_capacity', 'jpeg', 'network=resnet_nsr_capacity', ''),
    ('sr_x4_nsr', 'sr', 'scale=4,network=edsr_s_nsr', 'sr_x2_nsr'),
    ('sr_x3_nsr', 'sr', 'scale=3,network=edsr_s_nsr', 'sr_x2_nsr'),
    ('sr_x4', 'sr', 'scale=4,network=edsr_s', 'sr_x2'),
    ('sr_x3', 'sr', 'scale=3,network=edsr_s', 'sr_x2'),
    ('denoise_50_capacity', 'denoise', 'sigma=50,network=resnet_nsr_capacity', ''),
    ('denoise_50_efficient', 'denoise', 'sigma=50,network=resnet_nsr_efficient', ''),
    ('denoise_50', 'denoise', 'sigma=50,network=resnet', ''),
    ('denoise_15_capacity', 'denoise', 'sigma=15,network=resnet_nsr_capacity', ''),
    ('denoise_15_efficient', 'denoise', 'sigma=15,network=resnet_nsr_efficient', ''),
    ('denoise_15', 'denoise', 'sigma=15,network=resnet', ''),
    ('jpeg_efficient', 'jpeg', 'network=resnet_nsr_efficient', ''),
    ('jpeg', 'jpeg', 'network=resnet', ''),
)
RUNS = {name: Run(name, file, argument, *_SCORED[file], warm_start=begin) for name, file, argument, begin in _TABLE}
