"""Reads and writes the tensors of PyTorch checkpoints without PyTorch, and without running code from a file."""

import io
import math
import os
import pathlib
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Iterator, Mapping
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

# More than any checkpoint has (some thirty for a convolution and its optimizer): hashing very many tuples, each within
# the next, would overflow Python's stack.
_MOST_TUPLES = 20_000
_MOST_AXES = 64  # of a NumPy array
_LONGEST_REASON = 200

# Files by torch.save of PyTorch before 1.6 start with this pickled magic number.
_LEGACY_START = b'\x80\x02\x8a\nl\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19'
_TAR_MARK = slice(257, 262)  # and those before 0.1.10 are tar files


def read_torch_checkpoint(path: str | pathlib.Path) -> dict[str, Any]:
    """The dictionary in a file by `torch.save`: nested dicts, lists and numbers, with tensors as NumPy arrays.

    The reader accepts only tensors, their storages, `OrderedDict` and `Counter` (which become dicts); a file that names
    anything else is refused before the name is looked up. Keys keep their order; arrays have the file's dtype, are
    read-only and may share memory, so that no file becomes larger in memory than it is.

    Raises:
        UserError: the file does not exist, is not in PyTorch's zip format (new in 1.6), is damaged or compressed, names
            something else, has a tensor that reaches beyond its storage, or does not hold a dictionary.
    """
    path = pathlib.Path(path)
    if not os.path.isfile(path):  # pathlib would raise for a name that is too long
        raise UserError(f'{path} is not a file; give a checkpoint written by torch.save')
    try:
        with path.open('rb') as file:
            contents = _read_file(file)
    except UserError as error:
        raise UserError(f'{path}: {_one_line(error)}') from error
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror or _one_line(error)}') from error
    except zipfile.BadZipFile as error:
        raise UserError(f'{path} is not a whole checkpoint of torch.save (its zip: {error})') from error
    # A damaged or hostile pickle may make the unpickler raise nearly any exception.
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


class _Records:
    """The records of a zip file, none compressed and together no longer than the file.

    torch.save writes such files; others could unpack to any size, or contain overlapping records.
    """

    def __init__(self, archive: zipfile.ZipFile, size: int):
        self._archive, self._room = archive, size
        self.names = archive.namelist()

    def read(self, name: str) -> bytes:
        """The bytes of a record; raises `KeyError` if it is missing."""
        record = self._archive.getinfo(name)
        if record.compress_type != zipfile.ZIP_STORED:
            raise UserError(f'its record {name} is compressed, which torch.save never does')
        self._room -= max(record.file_size, record.compress_size)
        if self._room < 0:
            raise UserError('its records are longer than the file')
        return self._archive.read(record)


def _read_file(file: BinaryIO) -> Any:
    start = file.read(_TAR_MARK.stop)
    size = file.seek(0, io.SEEK_END)
    if start.startswith(_LEGACY_START) or (start[_TAR_MARK] == b'ustar' and not zipfile.is_zipfile(file)):
        raise UserError('in the format of PyTorch before 1.6; load it and torch.save it again with a newer version')
    with zipfile.ZipFile(file) as archive:
        return _read_records(_Records(archive, size))


def _read_records(records: _Records) -> Any:
    pickles = [name for name in records.names if name.count('/') == 1 and name.endswith('/data.pkl')]
    if len(pickles) != 1:
        raise UserError('this zip is not one of torch.save: it holds no single NAME/data.pkl')
    folder = pickles[0].removesuffix('data.pkl')
    if f'{folder}byteorder' in records.names and records.read(f'{folder}byteorder') != b'little':
        raise UserError('its numbers are big-endian; save it again on a little-endian machine')
    program, tuples = records.read(pickles[0]), 0
    for opcode, argument, _ in pickletools.genops(program):
        # The unpickler allocates a table up to the largest number given to an object.
        if opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT') and int(argument or 0) > len(program):
            raise UserError(f'its pickle numbers an object {argument}')
        tuples += opcode.name.startswith('TUPLE')
    if tuples > _MOST_TUPLES:
        raise UserError(f'its pickle holds {tuples} tuples; a checkpoint of weights has fewer than {_MOST_TUPLES}')
    return _Unpickler(io.BytesIO(program), records, folder).load()


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows only the few stand-ins below, which are new for each file."""

    def __init__(self, stream: BinaryIO, records: _Records, folder: str):
        super().__init__(stream)
        self._records = records
        self._folder = folder
        self._storages: dict[str, _Storage] = {}
        # Stand-ins that belong to this unpickler, because a pickle may set attributes of them.
        self._globals: dict[tuple[str, str], Any] = {
            ('collections', 'OrderedDict'): type('OrderedDict', (dict,), {}),
            ('collections', 'Counter'): type('Counter', (dict,), {}),
            ('torch._utils', '_rebuild_tensor_v2'): lambda *arguments: _rebuild_tensor(*arguments),
            ('torch._utils', '_rebuild_parameter'): lambda *arguments: _rebuild_parameter(*arguments),
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
            try:
                contents = self._records.read(f'{self._folder}data/{key}')
            except KeyError as error:
                raise UserError(f'storage {key} is missing') from error
            if len(contents) % dtype.itemsize:
                raise UserError(f'storage {key} is not a plain row of {dtype} numbers')
            self._storages[key] = _Storage(np.frombuffer(contents, dtype))
        elements = self._storages[key].elements
        if elements.size != count or elements.dtype != dtype:
            raise UserError(f'storage {key} holds {elements.size} of {elements.dtype}, not {count} of {dtype}')
        return self._storages[key]


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
    if not isinstance(storage, _Storage):
        raise UserError(f'a tensor is made from a {type(storage).__name__}, not from a storage')
    if len(shape) != len(strides) or len(shape) > _MOST_AXES:
        raise UserError(f'a tensor has {len(shape)} axes and {len(strides)} strides')
    if not all(type(value) is int and 0 <= value < 2**63 for value in (offset, *shape, *strides)):
        raise UserError(f'a tensor has offset {offset}, shape {shape} and strides {strides}')
    elements = storage.elements
    count = int(np.prod([int(size) for size in shape], dtype=object))
    if count == 0:
        return np.zeros(shape, elements.dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    # A tensor with more elements than its storage is expanded by zero strides: small in the file, huge in memory.
    if last >= elements.size or count > elements.size:
        raise UserError(f'a tensor of shape {shape} reaches beyond its storage of {elements.size} numbers')
    byte_strides = [stride * elements.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(elements[offset:], shape, byte_strides, writeable=False)


def _rebuild_parameter(data: Any, *_: Any) -> np.ndarray:
    if not isinstance(data, np.ndarray):
        raise UserError(f'a parameter is made from a {type(data).__name__}, not from a tensor')
    return data


def _one_line(error: Exception) -> str:
    line = ' '.join(str(error).split())
    return line if len(line) <= _LONGEST_REASON else f'{line[:_LONGEST_REASON]}…'


# --- Writing ---

_ARCHIVE = 'archive'  # the folder that all records lie in, as torch.save calls it


def encode_torch_checkpoint(state_dict: Mapping[str, np.ndarray]) -> bytes:
    """The contents of a file like that of `torch.save({'model_state_dict': OrderedDict(state_dict)}, file)`.

    `torch.load(file, weights_only=True)` reads it, and `read_torch_checkpoint`. The same arrays give the same bytes.

    Args:
        state_dict: arrays by name, of the types above; tensors are written row by row.
    """
    storages = {np.dtype(dtype): name for name, dtype in _STORAGE_DTYPES.items()}
    arrays = {name: np.asarray(array) for name, array in state_dict.items()}
    items = []
    for index, (name, array) in enumerate(arrays.items()):
        items += [_text(name), *_tensor(storages[array.dtype], str(index), array.shape)]
    state = [*_EMPTY_ORDERED_DICT, pickle.MARK, *items, pickle.SETITEMS]
    program = [pickle.PROTO, b'\2', pickle.EMPTY_DICT, _text('model_state_dict'), *state, pickle.SETITEM, pickle.STOP]
    records = {'data.pkl': b''.join(program), 'byteorder': b'little'}
    records |= {
        f'data/{index}': array.astype(array.dtype.newbyteorder('<')).tobytes()
        for index, array in enumerate(arrays.values())
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, contents in (records | {'version': b'3\n'}).items():
            archive.writestr(zipfile.ZipInfo(f'{_ARCHIVE}/{name}'), contents)  # which has no time
    return buffer.getvalue()


def _tensor(storage_type: str, key: str, shape: tuple[int, ...]) -> Iterator[bytes]:
    """The part of a pickle that rebuilds a tensor from the storage `key`, which it fills."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    count = math.prod(shape)
    yield _global('torch._utils', '_rebuild_tensor_v2')
    yield pickle.MARK
    yield from (pickle.MARK, _text('storage'), _global('torch', storage_type), _text(key), _text('cpu'), _number(count))
    yield from (pickle.TUPLE, pickle.BINPERSID)
    yield _number(0)  # the offset
    for sizes in (shape, strides):
        yield from (pickle.MARK, *map(_number, sizes), pickle.TUPLE)
    yield from (pickle.NEWFALSE, *_EMPTY_ORDERED_DICT)  # needs no gradient, has no hooks
    yield from (pickle.TUPLE, pickle.REDUCE)


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f'{module}\n{name}\n'.encode()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return pickle.BINUNICODE + struct.pack('<I', len(encoded)) + encoded


def _number(number: int) -> bytes:
    return pickle.BININT + struct.pack('<i', number)


_EMPTY_ORDERED_DICT = (_global('collections', 'OrderedDict'), pickle.EMPTY_TUPLE, pickle.REDUCE)
