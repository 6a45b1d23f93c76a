"""An unpickler that knows tensors and nothing else, for content that nobody vouches for.

A pickle is a program. Three gates stand before it: its opcodes are listed first, without running
them, and any that PyTorch does not use is refused; every name it asks for must be in a short table
of inert stand-ins of this module; and the stand-ins accept only what describes a tensor inside its
storage. PyTorch's own code never runs.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, ClassVar, NoReturn

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.weights.checkpoint import BFLOAT16, MAX_RANK

# The description of the largest variant takes 0.4 MB, a training checkpoint's about 1.5 MB. Larger
# ones are refused: a byte of pickle can cost 64 bytes of memory.
MAX_PICKLE_BYTES = 4 * 2**20
MAX_COUNT = 2**40

STORAGE_TYPES: dict[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": BFLOAT16,
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}

# what PyTorch's pickles consist of
# fmt: off
OPCODES = frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT",
    "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "EMPTY_TUPLE",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT",
    "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID", "BINPUT",
    "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET",
))
# fmt: on


class _Inert:
    """A stand-in whose state a pickle cannot set behind the checks of its constructor."""

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"state for a {type(self).__name__}")


@dataclass(frozen=True)
class Storage(_Inert):
    """A run of numbers in the file."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class Tensor(_Inert):
    """A strided view into a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _StorageType(_Inert):
    dtype: np.dtype[Any]


class _StateDict(OrderedDict[str, Any]):
    """PyTorch sets an attribute (`_metadata`) on its dictionaries; it is not needed."""

    def __setstate__(self, state: Any) -> None:
        del state


def _new_dict() -> _StateDict:
    """Takes no argument, as PyTorch writes it: copying dictionaries would multiply a small file."""
    return _StateDict()


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage) or len(shape) != len(strides) or len(shape) > MAX_RANK:
        raise pickle.UnpicklingError("a tensor without a storage or with an impossible rank")
    numbers = (offset, *shape, *strides)
    if any(type(number) is not int or not 0 <= number < MAX_COUNT for number in numbers):
        raise pickle.UnpicklingError("a tensor with an impossible offset, shape or stride")
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    # no overlapping views: a short storage must not unfold into terabytes
    if (math.prod(shape) and last >= storage.count) or math.prod(shape) > storage.count:
        raise pickle.UnpicklingError(f"a tensor of shape {shape} in a storage of {storage.count}")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return data


class TensorUnpickler(pickle.Unpickler):
    """Admits tensor descriptions and nothing else."""

    ALLOWED: ClassVar[Mapping[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): _new_dict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        **{("torch", name): _StorageType(dtype) for name, dtype in STORAGE_TYPES.items()},
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise WeightsError(
                "Expected a checkpoint that holds tensors only. It asks for the Python object "
                f"{module}.{name}, which was not loaded. Get the weights from their publisher, or, where you "
                "trust the file, save its state dict alone: torch.save(model.state_dict(), path)."
            )
        return self.ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        kind, storage_type, key, _, count = pid[:5]
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError(f"an unknown persistent object {kind!r}")
        if type(count) is not int or not 0 <= count < MAX_COUNT or not isinstance(key, str):
            raise pickle.UnpicklingError(f"a storage with impossible size {count!r}")
        return Storage(key, storage_type.dtype, count)


def load(content: bytes) -> Any:
    """Read one pickle that nobody vouches for.

    Raises:
        WeightsError: it asks for anything but tensors.
        pickle.UnpicklingError, and most others: malformed.
    """
    return load_next(io.BytesIO(content))


def load_next(file: IO[bytes]) -> Any:
    """Read the next pickle of a file, as `load`; the file is then behind it."""
    start = file.tell()
    largest_memo = 0
    for opcode, argument, position in pickletools.genops(file):
        if opcode.name not in OPCODES:
            raise pickle.UnpicklingError(f"the opcode {opcode.name}, which no state dict needs")
        if (position or 0) - start > MAX_PICKLE_BYTES:
            raise pickle.UnpicklingError(f"a description of more than {MAX_PICKLE_BYTES} bytes")
        if opcode.name == "LONG_BINPUT":
            largest_memo = max(largest_memo, int(argument or 0))
    size = file.tell() - start
    # CPython makes room for every memo number up to the largest one
    if largest_memo > size:
        raise pickle.UnpicklingError(f"memo number {largest_memo} in a pickle of {size} bytes")
    file.seek(start)
    return TensorUnpickler(io.BytesIO(file.read(size))).load()
