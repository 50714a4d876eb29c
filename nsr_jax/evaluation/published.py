"""Published scores, to stand beside ours in a table, always marked as published.

SR rows are Y-PSNR in dB as their papers print them (Y rounded to uint8 by most: protocol `sr-y-uint8`; the authors of
the method print their own variant); denoising and JPEG rows follow `denoise` and `jpeg-y`. SSIM is given where the
field computes it one way; JPEG's printed SSIMs mix two implementations and are left out.
"""

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Published:
    """One published mean.

    Attributes:
        model: the name that its paper gives it.
        training: the data that it was trained on; '' where it is not trained.
        dataset: as in `data.benchmarks`.
        degradation: as in `Score.degradation`.
        psnr: in dB.
        ssim: None where none is comparable.
    """

    model: str
    training: str
    dataset: str
    degradation: str
    psnr: float
    ssim: float | None = None


# The protocols of ours whose scores may stand beside published ones.
COMPARABLE = ('sr-y', 'sr-y-uint8', 'sr-luma', 'denoise', 'jpeg-y')

DIV2K, IMAGES_291 = 'DIV2K', '91 + 200 images'


def _rows(model: str, training: str, dataset: str, levels: str, *scores: float | str | None) -> Iterator[Published]:
    """One row for each level (`x2 x3 x4`, say) that has a score: a PSNR, or 'PSNR/SSIM'."""
    for level, score in zip(levels.split(), scores, strict=True):
        if score is not None:
            psnr, _, ssim = str(score).partition('/')
            yield Published(
                model, training, dataset, level.replace('_', ' '), float(psnr), float(ssim) if ssim else None
            )


_SR = 'x2 x3 x4'
_NOISE = 'sigma_15 sigma_25 sigma_50'
_JPEG = 'quality_10 quality_20 quality_30 quality_40'

PUBLISHED = tuple(
    row
    for rows in (
        _rows('EDSR-S + NSR', DIV2K, 'Set5', _SR, 38.11, 34.50, 32.26),
        _rows('EDSR-S + NSR', DIV2K, 'BSD100', _SR, 32.22, 29.14, 27.61),
        _rows('EDSR-S + NSR', DIV2K, 'Urban100', _SR, 32.58, 28.45, 26.18),
        _rows('EDSR-S + NSR', DIV2K, 'Manga109', _SR, 38.95, 33.76, 30.62),
        _rows('WDSR-S', DIV2K, 'Set5', _SR, 38.08, 34.45, 32.22),
        _rows('WDSR-S', DIV2K, 'BSD100', _SR, 32.23, 29.14, 27.61),
        _rows('WDSR-S', DIV2K, 'Urban100', _SR, 32.34, 28.33, 26.21),
        _rows('EDSR-baseline', DIV2K, 'Set5', _SR, '37.99/.9604', None, '32.09/.8938'),
        _rows('EDSR-baseline', DIV2K, 'Set14', _SR, '33.57/.9175', None, '28.58/.7813'),
        _rows('EDSR-baseline', DIV2K, 'BSD100', _SR, '32.16/.8994', None, '27.57/.7357'),
        _rows('EDSR-baseline', DIV2K, 'Urban100', _SR, '31.98/.9272', None, '26.04/.7849'),
        _rows('VDSR', IMAGES_291, 'Set5', _SR, '37.53/.9590', '33.67/.9210', '31.35/.8830'),
        _rows('VDSR', IMAGES_291, 'Set14', _SR, 33.05, 29.78, 28.02),
        _rows('VDSR', IMAGES_291, 'BSD100', _SR, 31.90, 28.83, 27.29),
        _rows('VDSR', IMAGES_291, 'Urban100', _SR, 30.77, 27.14, 25.18),
        _rows('DRRN', IMAGES_291, 'Set5', _SR, 37.74, 34.03, 31.68),
        _rows('DRRN', IMAGES_291, 'Set14', _SR, 33.23, 29.96, 28.21),
        _rows('DRRN', IMAGES_291, 'BSD100', _SR, 32.05, 28.95, 27.38),
        _rows('BM3D', '', 'Set12', _NOISE, 32.37, 29.97, 26.72),
        _rows('BM3D', '', 'BSD68', _NOISE, 31.08, 28.57, 25.60),
        _rows('DnCNN-S', 'Train400', 'Set12', _NOISE, 32.86, 30.44, 27.18),
        _rows('DnCNN-S', 'Train400', 'BSD68', _NOISE, 31.73, 29.23, 26.23),
        _rows('JPEG', '', 'LIVE1', _JPEG, 27.77, 30.07, 31.41, 32.35),
        _rows('JPEG', '', 'Classic5', _JPEG, 27.82, 30.12, 31.48, 32.43),
        _rows('ARCNN', 'BSDS500, 400 images', 'LIVE1', _JPEG, 28.96, 31.29, 32.67, 33.63),
        _rows('ARCNN', 'BSDS500, 400 images', 'Classic5', _JPEG, 29.03, 31.15, 32.51, 33.34),
        _rows('DnCNN-3', IMAGES_291, 'LIVE1', _JPEG, 29.19, 31.59, 32.98, 33.96),
        _rows('DnCNN-3', IMAGES_291, 'Classic5', _JPEG, 29.40, 31.63, 32.91, 33.77),
    )
    for row in rows
)


def published_rows(dataset: str, degradation: str) -> tuple[Published, ...]:
    """What was published for a dataset (its name in any case; B100 is BSD100) and a degradation."""
    name = {'b100': 'bsd100'}.get(dataset.lower(), dataset.lower())
    return tuple(row for row in PUBLISHED if (row.dataset.lower(), row.degradation) == (name, degradation))
