# SPDX-License-Identifier: Apache-2.0
"""numpy files from strangers. Pickled ones go through an unpickler that knows arrays and builtin containers alone."""

from __future__ import annotations

import codecs
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError

LARGEST = 2**30
"""Bytes of one array or one pickle."""

_DAMAGED = (ValueError, OSError, EOFError, KeyError, TypeError, IndexError, AttributeError, MemoryError, OverflowError)


def read_npy(path: Path) -> NDArray[Any]:
    """A .npy file without objects. InputError if it is damaged, or holds objects (which are not looked at)."""
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: {path.stat().st_size} bytes; expected at most {LARGEST}")
        return np.load(path, allow_pickle=False)
    except InputError:
        raise
    except (*_DAMAGED, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as an array: {error}") from error


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """The named arrays of a .npz file. InputError names the array that is missing, damaged, too large or of objects."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            for name in names:
                size = sizes.get(f"{name}.npy")
                if size is None:
                    there = sorted(entry.removesuffix(".npy") for entry in sizes)
                    raise InputError(f"{path}: no array {name!r}; there are {', '.join(there)}")
                if size > LARGEST:
                    raise InputError(f"{path}: array {name!r} has {size} bytes; expected at most {LARGEST}")
                with archive.open(f"{name}.npy") as file:
                    data = file.read(size + 1)
                found[name] = np.load(io.BytesIO(data), allow_pickle=False)
    except InputError:
        raise
    except (*_DAMAGED, zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return found


def read_pickled_npy(path: Path) -> Any:
    """What a .npy file of objects holds: dictionaries, lists, tuples, text, numbers and arrays.

    InputError, and nothing is executed, if the pickle names anything else.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path.stat().st_size} bytes; expected at most {LARGEST}")
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            if not dtype.hasobject:
                return read_npy(path)
            value = _Unpickler(file).load()
    except InputError as error:
        raise InputError(f"{path}: refused: {error}") from error
    except (*_DAMAGED, pickle.UnpicklingError, RecursionError, SyntaxError) as error:
        raise InputError(f"{path}: refused: {error}") from error
    if not isinstance(value, np.ndarray) or value.shape != shape:
        raise InputError(f"{path}: holds a {type(value).__name__}; expected an array of shape {list(shape)}")
    return value.item() if value.shape == () else value


class _Array:
    """Stands for numpy.ndarray in a pickle, which shall not construct arrays of its own choice of size."""


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]  # typeshed has the one in C alone
    """Admits what numpy needs to rebuild plain arrays. Everything else is refused when it is named, before any call.

    The one in Python: that in C makes room for as many remembered objects as a number in the pickle says.
    """

    def find_class(self, module: str, name: str) -> Any:
        """The few callables that a pickle may name."""
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in ("_reconstruct", "scalar"):
            return _reconstruct if name == "_reconstruct" else _scalar
        if module == "numpy" and name in ("ndarray", "dtype"):
            return _Array if name == "ndarray" else np.dtype
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return _frombuffer  # how protocol 5 writes arrays
        if module in ("builtins", "__builtin__") and name in ("set", "frozenset"):
            return set if name == "set" else frozenset  # how protocols before 4 write them
        if (module, name) == ("_codecs", "encode"):
            return _encode  # how protocol 2 writes bytes
        raise InputError(f"the pickle names {module}.{name}; only arrays and builtin containers are admitted")

    def persistent_load(self, pid: Any) -> Any:
        """No references to the outside."""
        raise InputError("the pickle refers to something outside of it")


def _reconstruct(kind: Any, shape: Any, code: Any) -> NDArray[Any]:
    """numpy's own starts from an empty array, and so must a pickle."""
    if kind is not _Array or shape != (0,):
        raise InputError(f"the pickle rebuilds {kind!r} of shape {shape!r}; expected an empty numpy array")
    return np.ndarray((0,), "b")


def _scalar(dtype: np.dtype[Any], data: bytes = b"") -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(data, bytes) or len(data) != dtype.itemsize:
        raise InputError("the pickle holds a scalar that is no plain number or text")
    return np.frombuffer(data, dtype)[0]


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> NDArray[Any]:
    if not isinstance(data, (bytes, bytearray)) or not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise InputError("the pickle holds an array that is not made of plain bytes")
    return np.frombuffer(data, dtype).reshape(shape, order=order).copy()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8"):
        raise InputError(f"the pickle encodes {type(text).__name__} as {encoding!r}; expected text as latin1")
    return codecs.encode(text, encoding)
