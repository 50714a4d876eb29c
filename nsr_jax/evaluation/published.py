"""Published scores, to stand beside ours in a table, always marked as published and with the protocol that they follow.

SSIM is given where the field computes it one way; JPEG's printed SSIMs mix two implementations and are left out.
"""

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Published:
    """One published mean.

    Attributes:
        model: the name that its paper gives it.
        training: the data that it was trained on; '' where it is not trained.
        protocol: the one of `protocols.PROTOCOLS` that is nearest to how its paper scores. Networks of Y alone see the
            low-resolution Y (`sr-luma`). The noise of `denoise` is of the same strength and drawn anew by each paper.
        dataset: as in `data.benchmark_sets`.
        degradation: as in `Score.degradation`.
        psnr: in dB.
        ssim: None where none is comparable.
    """

    model: str
    training: str
    protocol: str
    dataset: str
    degradation: str
    psnr: float
    ssim: float | None = None


# The protocols of ours whose scores may stand beside published ones.
COMPARABLE = ('sr-y', 'sr-y-uint8', 'sr-luma', 'denoise', 'jpeg-y')

DIV2K, IMAGES_291, BSD_400 = 'DIV2K', '91 + 200 images', 'BSDS500, 400 images'
# What restoration networks of many millions of parameters are trained on.
LARGE = 'DIV2K, Flickr2K, BSD, WED'

_SR = 'x2 x3 x4'
_NOISE = 'sigma_15 sigma_25 sigma_50'
_JPEG = 'quality_10 quality_20 quality_30 quality_40'


def _rows(model: str, training: str, protocol: str, levels: str, **scores: str) -> Iterator[Published]:
    """The rows of one model.

    Args:
        model: as in `Published`, and so are the next two.
        training: likewise.
        protocol: likewise.
        levels: degradations with spaces between, their own spaces as underscores.
        **scores: by dataset, one for each level with spaces between: a PSNR, 'PSNR/SSIM', or '-' where none was
            published.
    """
    for dataset, line in scores.items():
        for level, score in zip(levels.split(), line.split(), strict=True):
            if score != '-':
                psnr, _, ssim = score.partition('/')
                degradation = level.replace('_', ' ')
                number = float(ssim) if ssim else None
                yield Published(model, training, protocol, dataset, degradation, float(psnr), number)


PUBLISHED = (
    # Super-resolution.
    *_rows(
        'Bicubic', '', 'sr-y-uint8', _SR,
        Set5='33.66 30.39 28.42', Set14='30.24 27.55 26.00', BSD100='29.56 27.21 25.96',
        Urban100='26.87 24.45 23.14', Manga109='30.80 26.95 24.89',
    ),
    *_rows(
        'EDSR-S + NSR', DIV2K, 'authors', _SR,
        Set5='38.11 34.50 32.26', BSD100='32.22 29.14 27.61', Urban100='32.58 28.45 26.18',
        Manga109='38.95 33.76 30.62',
    ),
    *_rows(
        'WDSR-S', DIV2K, 'authors', _SR,
        Set5='38.08 34.45 32.22', BSD100='32.23 29.14 27.61', Urban100='32.34 28.33 26.21',
    ),
    *_rows(
        'EDSR-baseline', DIV2K, 'sr-y-uint8', 'x2 x4',
        Set5='37.99/.9604 32.09/.8938', Set14='33.57/.9175 28.58/.7813', BSD100='32.16/.8994 27.57/.7357',
        Urban100='31.98/.9272 26.04/.7849',
    ),
    *_rows('IDN (DIV2K)', DIV2K, 'sr-luma', 'x2', Set5='37.85', Set14='33.58', BSD100='32.11', Urban100='31.95'),
    *_rows(
        'IMDN', DIV2K, 'sr-y-uint8', 'x2 x4',
        Set5='38.00 32.21', Set14='33.63 28.58', BSD100='32.19 27.56', Urban100='32.17 26.04',
    ),
    *_rows(
        'SwinIR-light', DIV2K, 'sr-y', _SR,
        Set5='38.14 34.62 32.44', Set14='33.86 30.54 28.77', BSD100='32.31 29.20 27.69', Urban100='32.76 28.66 26.47',
    ),
    *_rows(
        'VDSR', IMAGES_291, 'sr-luma', _SR,
        Set5='37.53/.9590 33.67/.9210 31.35/.8830', Set14='33.05 29.78 28.02', BSD100='31.90 28.83 27.29',
        Urban100='30.77 27.14 25.18',
    ),
    *_rows(
        'DRRN', IMAGES_291, 'sr-luma', _SR,
        Set5='37.74 34.03 31.68', Set14='33.23 29.96 28.21', BSD100='32.05 28.95 27.38', Urban100='31.23 - -',
    ),
    *_rows(
        'IDN', IMAGES_291, 'sr-luma', _SR,
        Set5='37.83 34.11 31.82', Set14='33.30 29.99 28.25', BSD100='32.08 28.95 27.41', Urban100='31.27 27.42 25.41',
    ),
    *_rows('MemNet', IMAGES_291, 'sr-luma', 'x2', Set5='37.78', Set14='33.28', BSD100='32.08', Urban100='31.31'),
    *_rows('DnCNN-3', IMAGES_291, 'sr-luma', 'x2', Set5='37.58', Set14='33.03', BSD100='31.90', Urban100='30.74'),
    # Denoising.
    *_rows('BM3D', '', 'denoise', _NOISE, Set12='32.37 29.97 26.72', BSD68='31.08 28.57 25.60'),
    *_rows('DnCNN-S', 'Train400', 'denoise', _NOISE, Set12='32.86 30.44 27.18', BSD68='31.73 29.23 26.23'),
    *_rows('NLRN', 'BSD, 400 images', 'denoise', _NOISE, Set12='33.16 30.80 27.64', BSD68='31.88 29.41 26.47'),
    *_rows(
        'FFDNet', 'BSD, ImageNet, WED', 'denoise', _NOISE,
        Set12='32.75 30.43 27.32', BSD68='31.63 29.19 26.29', CBSD68='33.87 31.21 27.96',
    ),
    *_rows(
        'DRUNet', LARGE, 'denoise', _NOISE,
        Set12='33.25 30.94 27.90', BSD68='31.91 29.48 26.59', CBSD68='34.30 31.69 28.51',
    ),
    *_rows('DnCNN', 'BSD, 432 images', 'denoise', _NOISE, CBSD68='33.90 31.24 27.95'),
    # JPEG artifacts.
    *_rows('JPEG', '', 'jpeg-y', _JPEG, LIVE1='27.77 30.07 31.41 32.35', Classic5='27.82 30.12 31.48 32.43'),
    *_rows('ARCNN', BSD_400, 'jpeg-y', _JPEG, LIVE1='28.96 31.29 32.67 33.63', Classic5='29.03 31.15 32.51 33.34'),
    *_rows(
        'DnCNN-3', IMAGES_291, 'jpeg-y', _JPEG, LIVE1='29.19 31.59 32.98 33.96', Classic5='29.40 31.63 32.91 33.77'
    ),
    *_rows('DRUNet', LARGE, 'jpeg-y', _JPEG, LIVE1='29.79 32.17 33.59 34.58', Classic5='30.16 32.39 33.59 34.41'),
    *_rows('SwinIR', LARGE, 'jpeg-y', _JPEG, LIVE1='29.86 32.25 33.69 34.67', Classic5='30.27 32.52 33.73 34.52'),
)  # fmt: skip


def published_rows(dataset: str, degradation: str) -> tuple[Published, ...]:
    """What was published for a dataset (its name in any case; B100 is BSD100) and a degradation."""
    name = {'b100': 'bsd100'}.get(dataset.lower(), dataset.lower())
    return tuple(row for row in PUBLISHED if (row.dataset.lower(), row.degradation) == (name, degradation))


def describe(row: Published) -> str:
    """The model and, in brackets, that it is published, by which protocol, and what it was trained on."""
    trained = f', trained on {row.training}' if row.training else ''
    return f'{row.model} (published, {row.protocol}{trained})'
