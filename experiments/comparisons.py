"""The runs that stand beside published networks of the same training data, in the order of their worth."""

import dataclasses
import importlib

import ml_collections

from nsr_jax.errors import UserError

FOLDER = 'runs/same_data'


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One training run.

    Attributes:
        name: of its folder in `FOLDER` and of its files.
        rank: 1 is run first.
        file: a config in configs/same_data, without its ending.
        argument: of the config, without the number of steps.
        datasets: that it is scored on when it is done.
        rivals: the published networks of the same data, as `evaluation.published` calls them.
        warm_start: the comparison that it begins with; '' for random weights.
    """

    name: str
    rank: int
    file: str
    argument: str
    datasets: tuple[str, ...]
    rivals: tuple[str, ...]
    warm_start: str = ''

    def config_flag(self, steps: int | None = None) -> str:
        """What follows `--config=`; `steps` None is the config's own number."""
        return f'configs/same_data/{self.file}.py:{self._argument(steps)}'

    def config(self, steps: int | None = None) -> ml_collections.ConfigDict:
        """The config itself."""
        return importlib.import_module(f'configs.same_data.{self.file}').get_config(self._argument(steps))

    def train_arguments(self, steps: int | None = None, folder: str = FOLDER) -> list[str]:
        """What follows `python`, from the root of the repository; `folder` holds the run and what it begins with."""
        arguments = ['train.py', f'--config={self.config_flag(steps)}', f'--workdir={folder}/{self.name}']
        return arguments + ([f'--config.warm_start={folder}/{self.warm_start}'] if self.warm_start else [])

    def evaluate_arguments(self, steps: int | None = None) -> list[str]:
        """The same for its scores; float32, by the weights in half precision that came back."""
        protocols = {'sr': 'sr-y,sr-y-uint8', 'denoise': 'denoise', 'jpeg': 'jpeg-y'}
        return [
            'eval.py',
            f'--config={self.config_flag(steps)}',
            '--config.compute_dtype=float32',
            f'--checkpoint={FOLDER}/{self.name}',
            f'--datasets={",".join(self.datasets)}',
            f'--protocol={protocols[self.file]}',
            f'--output={FOLDER}/{self.name}/eval',
            '--report',
        ]

    def _argument(self, steps: int | None) -> str:
        return self.argument if steps is None else f'{self.argument},steps={steps}'


def _sr(rank: int, scale: int, network: str, warm_start: str = '') -> Comparison:
    name = f'sr_x{scale}' + ('_nsr' if network == 'edsr_s_nsr' else '')
    argument = f'scale={scale},network={network}'
    return Comparison(name, rank, 'sr', argument, ('set5', 'set14', 'bsd100'), ('VDSR', 'DRRN'), warm_start)


def _denoise(rank: int, sigma: int, network: str) -> Comparison:
    name = f'denoise_{sigma}{network.removeprefix("resnet").removeprefix("_nsr")}'
    return Comparison(name, rank, 'denoise', f'sigma={sigma},network={network}', ('set12', 'bsd68'), ('DnCNN-S',))


def _jpeg(rank: int, network: str) -> Comparison:
    name = f'jpeg{network.removeprefix("resnet").removeprefix("_nsr")}'
    return Comparison(name, rank, 'jpeg', f'network={network}', ('live1', 'classic5'), ('ARCNN', 'DnCNN-3'))


_RESTORERS = ('resnet_nsr_capacity', 'resnet_nsr_efficient', 'resnet')
COMPARISONS = (
    _sr(1, 2, 'edsr_s_nsr'),
    _sr(1, 2, 'edsr_s'),
    *(_denoise(2, 25, network) for network in _RESTORERS),
    _jpeg(3, 'resnet_nsr_capacity'),
    _sr(4, 4, 'edsr_s_nsr', 'sr_x2_nsr'),
    _sr(4, 3, 'edsr_s_nsr', 'sr_x2_nsr'),
    _sr(5, 4, 'edsr_s', 'sr_x2'),
    _sr(5, 3, 'edsr_s', 'sr_x2'),
    *(_denoise(5, sigma, network) for sigma in (50, 15) for network in _RESTORERS),
    *(_jpeg(5, network) for network in _RESTORERS[1:]),
)


def find_comparison(name: str) -> Comparison:
    """The comparison of this name.

    Raises:
        UserError: there is none.
    """
    known = {each.name: each for each in COMPARISONS}
    if name not in known:
        raise UserError(f'unknown run {name!r}: one of {", ".join(known)}')
    return known[name]
