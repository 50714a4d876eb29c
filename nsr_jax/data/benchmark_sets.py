"""The image sets that the field reports scores on: their purpose, their images and where to get them."""

import dataclasses
import pathlib
from collections.abc import Sequence

from nsr_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A set known by name.

    Attributes:
        name: as tables print it; a user may write it in any case.
        tasks: for which scores on it are reported: 'sr', 'denoise', 'jpeg'.
        colour: 'RGB' or 'gray', and exceptions.
        origin: where to get it.
        stems: its files' names without extension, so that an error can name missing ones; empty if the names differ
            from copy to copy.
        other_name: by which some papers know it.
    """

    name: str
    tasks: tuple[str, ...]
    images: int
    colour: str
    origin: str
    stems: tuple[str, ...] = ()
    other_name: str = ''

    def __str__(self) -> str:
        return f'{self.name} ({self.images} images, {self.colour}, for {" and ".join(self.tasks)})'

    def check(self, names: Sequence[str], place: str | pathlib.Path) -> None:
        """Check that the set is complete.

        Args:
            names: of the image files that were found, with or without extension.
            place: where they were found.

        Raises:
            UserError: there are more or fewer images than the set has. If the files have their usual names, the line
                names those that are missing and those that do not belong there.
        """
        if len(names) == self.images:
            return
        message = f'{place}: {len(names)} images found, {self.images} needed for {self.name}'
        found = {pathlib.PurePosixPath(name).stem.lower(): name for name in names}
        missing = [stem for stem in self.stems if stem not in found]
        surplus = [name for stem, name in found.items() if stem not in self.stems]
        # If no file has its usual name, the names do not tell which are missing.
        if len(missing) < len(self.stems):
            message += f'; missing: {some_of(missing)}' if missing else ''
            message += f'; not of the set: {some_of(surplus)}' if surplus else ''
        raise UserError(f'{message}; it comes from {self.origin}')


def some_of(names: Sequence[str]) -> str:
    """The first eight names, and how many more there are."""
    return ', '.join(names[:8]) + (f' and {len(names) - 8} more' if len(names) > 8 else '')


def words(text: str) -> tuple[str, ...]:
    """The words of a text: a long list of names is easier to read in this form."""
    return tuple(text.split())


_BSD = 'the Berkeley Segmentation Dataset, https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/'
_BSD68_STEMS = words(
    '101085 101087 102061 103070 105025 106024 108005 108070 108082 109053 119082 12084 123074 126007 130026 '
    '134035 14037 143090 145086 147091 148026 148089 157055 159008 160068 16077 163085 167062 167083 170057 '
    '175032 175043 182053 189080 19021 196073 197017 208001 210088 21077 216081 219090 220075 223061 227092 '
    '229036 236037 24077 241004 241048 253027 253055 260058 271035 285079 291000 295087 296007 296059 299086 '
    '300091 302008 304034 304074 306005 3096 33039 351093'
)
_BSD100_STEMS = _BSD68_STEMS + words(
    '156065 361010 37073 376043 38082 38092 385039 41033 41069 42012 42049 43074 45096 54082 55073 58060 62096 '
    '65033 66053 69015 69020 69040 76053 78004 8023 85048 86000 86016 86068 87046 89072 97033'
)
_LIVE1_STEMS = words(
    'bikes building2 buildings caps carnivaldolls cemetry churchandcapitol coinsinfountain dancers flowersonih35 '
    'house lighthouse2 lighthouse3 manfishing monarch ocean paintedhouse parrots plane rapids sailing1 sailing2 '
    'sailing3 sailing4 statue stream studentsculpture woman womanhat'
)
_SET14_STEMS = words('baboon barbara bridge coastguard comic face flowers foreman lenna man monarch pepper ppt3 zebra')


def _numbered(pattern: str, images: int, first: int = 1) -> tuple[str, ...]:
    return tuple(pattern.format(number) for number in range(first, first + images))


DIV2K_VALIDATION = Benchmark(
    'DIV2K', ('sr',), 100, 'RGB',
    'https://data.vision.ee.ethz.ch/cvl/DIV2K/, its validation images (Agustsson and Timofte, 2017)',
    _numbered('{:04d}', 100, first=801),
)  # fmt: skip
BENCHMARKS = (
    Benchmark(
        'Set5', ('sr',), 5, 'RGB', 'Bevilacqua et al., BMVC 2012', ('baby', 'bird', 'butterfly', 'head', 'woman')
    ),
    Benchmark('Set14', ('sr',), 14, 'RGB, bridge gray', 'Zeyde et al., Curves and Surfaces 2010', _SET14_STEMS),
    Benchmark('BSD100', ('sr',), 100, 'RGB', f'the test images of {_BSD} (Martin et al., 2001)', _BSD100_STEMS, 'B100'),
    Benchmark(
        'Urban100', ('sr', 'denoise'), 100, 'RGB', 'https://github.com/jbhuang0604/SelfExSR (Huang et al., CVPR 2015)',
        _numbered('img_{:03d}', 100),
    ),
    Benchmark('Manga109', ('sr',), 109, 'RGB', 'http://www.manga109.org, on request (Matsui et al., 2017)'),
    DIV2K_VALIDATION,
    Benchmark(
        'Set12', ('denoise',), 12, 'gray', 'https://github.com/cszn/DnCNN (Zhang et al., 2017)',
        _numbered('{:02d}', 12),
    ),
    Benchmark(
        'BSD68', ('denoise',), 68, 'gray', 'https://github.com/cszn/DnCNN (Roth and Black, 2009; Zhang et al., 2017)',
        _numbered('test{:03d}', 68),
    ),
    Benchmark('CBSD68', ('denoise',), 68, 'RGB', f'{_BSD} (the images of BSD68 in colour)', _BSD68_STEMS),
    Benchmark('Kodak24', ('denoise',), 24, 'RGB', 'http://r0k.us/graphics/kodak/', _numbered('kodim{:02d}', 24)),
    Benchmark('McMaster', ('denoise',), 18, 'RGB', 'Zhang et al., Journal of Electronic Imaging 20(2), 2011'),
    Benchmark(
        'LIVE1', ('jpeg',), 29, 'RGB',
        'the reference images of https://live.ece.utexas.edu/research/quality/ (Sheikh et al., 2006)',
        _LIVE1_STEMS,
    ),
    Benchmark(
        'Classic5', ('jpeg',), 5, 'gray', 'Foi et al., IEEE Transactions on Image Processing 16(5), 2007',
        ('baboon', 'barbara', 'boats', 'lena', 'peppers'),
    ),
)  # fmt: skip


def find_benchmark(name: str) -> Benchmark | None:
    """The known set of this name, in any case; None for another name."""
    known = {other.lower(): benchmark for benchmark in BENCHMARKS for other in (benchmark.name, benchmark.other_name)}
    return known.get(name.lower()) if name else None
