"""The images of published networks' training sets that are made of other sets."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from nsr_jax.data.benchmark_sets import some_of, words
from nsr_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """A set known by name.

    Attributes:
        name: as logs print it; a user may write it in any case.
        folders: the names of its images, without extension, by their folder in `data_dir`/train.
        description: what it is, and how it differs from the published one.
    """

    name: str
    folders: Mapping[str, Sequence[str]]
    description: str

    @property
    def images(self) -> int:
        """The number of its images."""
        return sum(map(len, self.folders.values()))

    def choose(self, folder: str, paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
        """Choose from `paths`, all images in a folder, those that belong to the set.

        Raises:
            UserError: some are missing; the line names them.
        """
        found = {path.stem: path for path in paths}
        if missing := [stem for stem in self.folders[folder] if stem not in found]:
            raise UserError(f'{self.name}: {some_of(missing)} missing in the folder {folder}; it is {self.description}')
        return [found[stem] for stem in self.folders[folder]]


# The splits as their authors give them (Arbelaez et al., PAMI 2011), without Set5's woman: 302003, of `train`.
_BSDS500_TRAIN = words(
    '100075 100080 100098 103041 104022 105019 105053 106020 106025 108041 108073 109034 112082 113009 113016 '
    '113044 117054 118020 118035 12003 12074 122048 124084 126039 130034 134008 134052 135037 135069 138032 138078 '
    '140055 140075 144067 145014 145053 147021 147062 15004 15088 151087 153077 153093 155060 156079 157036 159029 '
    '159045 159091 16052 161062 163014 163062 164074 166081 169012 170054 172032 173036 176019 176035 176039 178054 '
    '181018 181079 181091 183055 183087 187003 187029 187039 187071 187083 188005 188063 188091 189003 189011 '
    '196015 198004 198023 198054 20008 202012 207056 209070 2092 216041 216053 216066 22013 22090 22093 225017 '
    '227040 227046 23025 23080 23084 231015 232038 236017 238011 239007 239096 24004 24063 242078 245051 246016 '
    '246053 247085 249061 249087 25098 253036 254033 254054 260081 26031 268002 27059 271008 271031 274007 277095 '
    '28075 28096 285036 286092 292066 293029 299091 301007 309004 310007 311068 311081 314016 317080 323016 326038 '
    '33066 35008 35010 35058 35070 35091 353013 361084 365025 365073 368016 368078 370036 372047 374020 374067 '
    '376001 376020 385028 388016 41004 41025 42044 42078 43070 43083 45077 46076 48055 54005 55067 55075 56028 '
    '59078 60079 61060 61086 65010 65019 65074 65132 66039 66075 67079 68077 71046 76002 78019 80099 8049 8143 '
    '87065 90076 92059 94079 95006 97017'
)
_BSDS500_TEST = words(
    '100007 100039 100099 10081 101027 101084 102062 103006 103029 103078 104010 104055 105027 106005 106047 107014 '
    '107045 107072 108004 108036 108069 109055 112056 112090 117025 118015 118031 118072 120003 120093 123057 '
    '128035 130014 130066 134049 134067 140006 140088 14085 14092 141012 141048 145059 145079 146074 147077 147080 '
    '15011 15062 156054 157032 157087 159002 159022 160006 16004 160067 16068 161045 163004 163096 164046 168084 '
    '17067 175083 176051 179084 181021 183066 185092 187058 187099 188025 189006 189013 189029 189096 196027 196040 '
    '196062 196088 198087 20069 201080 2018 202000 206062 206097 207038 207049 208078 209021 217013 217090 220003 '
    '223004 223060 225022 226022 226033 226043 226060 228076 230063 230098 23050 232076 235098 238025 243095 246009 '
    '247003 247012 249021 250047 250087 253016 253092 257098 258089 259060 267036 268048 268074 277053 279005 28083 '
    '281017 285022 288024 289011 290035 29030 296028 296058 302022 306051 306052 3063 309040 317043 326025 326085 '
    '33044 334025 335088 335094 344010 346016 347031 35028 35049 36046 365072 368037 372019 376086 384022 384089 '
    '385022 388006 388018 388067 393035 41006 41029 41085 41096 43033 43051 45000 48017 48025 49024 5096 51084 6046 '
    '61034 64061 65084 69000 69007 69022 70011 70090 71076 71099 77062 78098 79073 80085 80090 8068 81066 81090 '
    '81095 87015 92014 94095 97010'
)
_T91 = tuple(f't{number}' for number in range(1, 67) if number not in (20, 41))  # there is no t41
_T91 += tuple(f'tt{number}' for number in range(1, 28) if number != 11)  # nor a tt11
_TRAIN400 = tuple(f'test_{number:03d}' for number in range(1, 401))

TRAINING_SETS = (
    TrainingSet(
        't91_bsds200',
        {'T91': _T91, 'BSDS500': _BSDS500_TRAIN},
        'the 291 images of VDSR and DRRN (T91, Yang et al., and the train split of BSDS500) without two: Set5 holds '
        "BSDS500's 302003, and T91's t20, 78x78, is too small for patches of 96x96",
    ),
    TrainingSet(
        'bsds400',
        {'BSDS500': _BSDS500_TRAIN + _BSDS500_TEST},
        'the 400 images of ARCNN (the train and test splits of BSDS500) without 302003, which Set5 holds',
    ),
    TrainingSet('train400', {'Train400': _TRAIN400}, 'the 400 gray images of 180x180 of DnCNN, Zhang et al.'),
)


def find_training_set(name: str) -> TrainingSet | None:
    """The known set of this name, in any case; None for another name."""
    return next((each for each in TRAINING_SETS if each.name == name.lower()), None)
