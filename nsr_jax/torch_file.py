"""Reading the tensors of a PyTorch checkpoint without PyTorch, and without running what the file says."""

import io
import pathlib
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from nsr_jax.errors import UserError

_STORAGE_DTYPES = {
    'FloatStorage': np.dtype(np.float32),
    'DoubleStorage': np.dtype(np.float64),
    'HalfStorage': np.dtype(np.float16),
    'BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
    'LongStorage': np.dtype(np.int64),
    'IntStorage': np.dtype(np.int32),
    'ShortStorage': np.dtype(np.int16),
    'CharStorage': np.dtype(np.int8),
    'ByteStorage': np.dtype(np.uint8),
    'BoolStorage': np.dtype(np.bool_),
}

# How a file of torch.save starts that was written before PyTorch 1.6: a pickled magic number.
_LEGACY_START = b'\x80\x02\x8a\nl\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19'


def read_torch_checkpoint(path: str | pathlib.Path) -> dict[str, Any]:
    """What `torch.save(dictionary, path)` wrote: nested dicts, lists and numbers, tensors as NumPy arrays.

    Only tensors, their storages, `OrderedDict` and `Counter` (both come back as dicts) are known to the reader; a file
    that names anything else is refused before that is looked up, let alone called. Keys keep their order; arrays are
    copies in C order, with the dtype of the file.

    Raises:
        UserError: there is no such file, it is not in PyTorch's zip format (before 1.6 it was another), it is damaged,
            it names something else than the above, a tensor reaches beyond its storage, or it holds no dictionary.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f'{path} is not a file; give a checkpoint written by torch.save')
    with path.open('rb') as file:
        start = file.read(len(_LEGACY_START))
        file.seek(0)
        if start == _LEGACY_START or (not zipfile.is_zipfile(file) and _looks_like_tar(file)):
            raise UserError(
                f'{path} is in the format of PyTorch before 1.6; load it and torch.save it again with a newer one'
            )
        try:
            with zipfile.ZipFile(file) as archive:
                contents = _read_archive(archive)
        except UserError as error:
            raise UserError(f'{path}: {_one_line(error)}') from error
        except zipfile.BadZipFile as error:
            raise UserError(f'{path} is not a whole checkpoint of torch.save (its zip: {error})') from error
        # A damaged or hostile pickle stream may make the unpickler raise nearly anything.
        except Exception as error:
            raise UserError(
                f'{path} cannot be read as a checkpoint ({type(error).__name__}: {_one_line(error)})'
            ) from error
    if not isinstance(contents, dict):
        raise UserError(f'{path} holds a {type(contents).__name__}; a checkpoint is a dictionary')
    return contents


class _Storage(NamedTuple):
    """The flat elements of one record of the archive."""

    elements: np.ndarray


def _read_archive(archive: zipfile.ZipFile) -> Any:
    pickles = [name for name in archive.namelist() if name.count('/') == 1 and name.endswith('/data.pkl')]
    if len(pickles) != 1:
        raise UserError('this zip is not one of torch.save: it holds no single NAME/data.pkl')
    folder = pickles[0].removesuffix('data.pkl')
    if f'{folder}byteorder' in archive.namelist() and archive.read(f'{folder}byteorder') != b'little':
        raise UserError('its numbers are big-endian; save it again on a little-endian machine')
    program = archive.read(pickles[0])
    # The unpickler makes room for the largest number that an object is kept under, whatever it is.
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT') and argument > len(program):
            raise UserError(f'its pickle numbers an object {argument}')
    return _Unpickler(io.BytesIO(program), archive, folder).load()


class _Unpickler(pickle.Unpickler):
    """An unpickler whose every global is one of the few stand-ins below, made anew for each file."""

    def __init__(self, stream: BinaryIO, archive: zipfile.ZipFile, folder: str):
        super().__init__(stream)
        self._archive = archive
        self._folder = folder
        self._storages: dict[str, _Storage] = {}
        # Stand-ins, not the real classes: a pickle may set attributes on whatever it is handed.
        self._globals: dict[tuple[str, str], Any] = {
            ('collections', 'OrderedDict'): type('OrderedDict', (dict,), {}),
            ('collections', 'Counter'): type('Counter', (dict,), {}),
            ('torch._utils', '_rebuild_tensor_v2'): _own(_rebuild_tensor),
            ('torch._utils', '_rebuild_parameter'): _own(_rebuild_parameter),
        }
        self._globals |= {('torch', name): name for name in _STORAGE_DTYPES}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._globals:
            raise UserError(f'it asks for {module}.{name}, which is not part of a checkpoint of weights; refused')
        return self._globals[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, count = pid
        if kind != 'storage' or storage_type not in _STORAGE_DTYPES or not isinstance(key, str):
            raise UserError(f'it refers to {kind!r} {key!r} of {storage_type!r}, not to a known storage')
        dtype = _STORAGE_DTYPES[storage_type]
        if key not in self._storages:
            self._storages[key] = _Storage(self._read_storage(key, dtype))
        elements = self._storages[key].elements
        if elements.size != count or elements.dtype != dtype:
            raise UserError(f'storage {key} holds {elements.size} of {elements.dtype}, not {count} of {dtype}')
        return self._storages[key]

    def _read_storage(self, key: str, dtype: np.dtype) -> np.ndarray:
        try:
            record = self._archive.getinfo(f'{self._folder}data/{key}')
        except KeyError as error:
            raise UserError(f'storage {key} is missing') from error
        # torch.save never compresses, and a compressed record could unpack to any size.
        if record.compress_type != zipfile.ZIP_STORED or record.file_size % dtype.itemsize:
            raise UserError(f'storage {key} is not a plain row of {dtype} numbers')
        return np.frombuffer(self._archive.read(record), dtype)


def _own(function: Callable) -> Callable:
    """A new function object with the same behaviour, whose attributes belong to one unpickler."""
    return lambda *arguments: function(*arguments)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
    if not isinstance(storage, _Storage):
        raise UserError(f'a tensor is made from a {type(storage).__name__}, not from a storage')
    integers = (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(type(value) is int and value >= 0 for value in integers):
        raise UserError(f'a tensor has offset {offset}, shape {shape} and strides {strides}')
    elements = storage.elements
    count = int(np.prod([int(size) for size in shape], dtype=object))
    if count == 0:
        return np.zeros(shape, elements.dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    # More elements than the storage has would be a tensor expanded by zero strides: small in the file, huge here.
    if last >= elements.size or count > elements.size:
        raise UserError(f'a tensor of shape {shape} reaches beyond its storage of {elements.size} numbers')
    byte_strides = [stride * elements.itemsize for stride in strides]
    view = np.lib.stride_tricks.as_strided(elements[offset:], shape, byte_strides, writeable=False)
    return np.array(view, order='C')


def _rebuild_parameter(data: Any, *_: Any) -> np.ndarray:
    if not isinstance(data, np.ndarray):
        raise UserError(f'a parameter is made from a {type(data).__name__}, not from a tensor')
    return data


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())


def _looks_like_tar(file: BinaryIO) -> bool:
    """Whether a tar header's signature stands at its place: PyTorch wrote tar files before 0.1.10."""
    file.seek(257)
    signature = file.read(5)
    file.seek(0)
    return signature == b'ustar'
