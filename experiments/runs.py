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


def _sr(scale: int, network: str) -> Run:
    ending = '_nsr' if network == 'edsr_s_nsr' else ''
    return Run(
        name=f'sr_x{scale}{ending}',
        file='sr',
        argument=f'scale={scale},network={network}',
        datasets=('set5', 'set14', 'bsd100'),
        protocols=('sr-y', 'sr-y-uint8'),
        rivals=('VDSR', 'DRRN'),
        warm_start=f'sr_x2{ending}' if scale > 2 else '',
    )


def _denoise(sigma: int, network: str) -> Run:
    return Run(
        name=f'denoise_{sigma}{network.removeprefix("resnet").removeprefix("_nsr")}',
        file='denoise',
        argument=f'sigma={sigma},network={network}',
        datasets=('set12', 'bsd68'),
        protocols=('denoise',),
        rivals=('DnCNN-S',),
    )


def _jpeg(network: str) -> Run:
    return Run(
        name=f'jpeg{network.removeprefix("resnet").removeprefix("_nsr")}',
        file='jpeg',
        argument=f'network={network}',
        datasets=('live1', 'classic5'),
        protocols=('jpeg-y',),
        rivals=('ARCNN', 'DnCNN-3'),
    )


_RESTORERS = ('resnet_nsr_capacity', 'resnet_nsr_efficient', 'resnet')
# In the order of training: the most informative runs come first.
RUNS = {
    run.name: run
    for run in (
        _sr(2, 'edsr_s_nsr'),
        _sr(2, 'edsr_s'),
        *(_denoise(25, network) for network in _RESTORERS),
        _jpeg('resnet_nsr_capacity'),
        *(_sr(scale, network) for network in ('edsr_s_nsr', 'edsr_s') for scale in (4, 3)),
        *(_denoise(sigma, network) for sigma in (50, 15) for network in _RESTORERS),
        *(_jpeg(network) for network in _RESTORERS[1:]),
    )
}
