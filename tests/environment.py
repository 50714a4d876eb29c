"""Takes out of the environment what a user may have set and no test's outcome may depend on; imported before JAX.

JAX's checks of dtype and rank promotion stay: the suite can be run with both.
"""

import atexit
import os
import shutil
import signal
import site
import tempfile

_PREFIXES = ('JAX_', 'XLA_', 'TF_', 'TFDS_', 'SLURM_', 'OMPI_', 'KUBERNETES_', 'TPU_', 'XDG_', 'MPL')
_NAMES = {
    'COLUMNS', 'LINES', 'NO_COLOR', 'FORCE_COLOR', 'PYTHONDEVMODE', 'PYTHONINSPECT', 'PYTHONOPTIMIZE',
    'PYTHONSAFEPATH', 'PYTHONVERBOSE', 'PYTHONWARNINGS', 'PYTHONIOENCODING',
}  # fmt: skip
_KEPT = {'JAX_NUMPY_DTYPE_PROMOTION', 'JAX_NUMPY_RANK_PROMOTION'}

for name in list(os.environ):
    if (name.startswith(_PREFIXES) or name in _NAMES) and name not in _KEPT:
        del os.environ[name]

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['no_proxy'] = os.environ['NO_PROXY'] = '127.0.0.1,localhost'  # where processes of a job find each other
if 'NSR_DATA_DIR' in os.environ:
    os.environ['NSR_DATA_DIR'] = os.path.abspath(os.environ['NSR_DATA_DIR'])

# A shell that starts the tests in the background has them and their children pass over these.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)

# Whatever libraries keep in the home folder, they find and leave nothing there. Packages installed for the user stay.
os.environ.setdefault('PYTHONUSERBASE', site.getuserbase())
os.environ['HOME'] = tempfile.mkdtemp(prefix='home')
with open(f'{os.environ["HOME"]}/.gitconfig', 'w', encoding='utf-8') as file:
    file.write('[safe]\ndirectory = *\n')  # the checkout may be another user's
atexit.register(shutil.rmtree, os.environ['HOME'], ignore_errors=True)
