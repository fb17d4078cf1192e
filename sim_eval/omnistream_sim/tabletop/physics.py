# SPDX-License-Identifier: Apache-2.0
"""PyBullet, imported late, and one physics client as an object: several scenes live in one process without meeting."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from omnistream.errors import OmniStreamError

INSTALL = 'pip install "omnistream[sim]" (PyBullet has wheels for Python 3.11 only)'


class PhysicsMissing(OmniStreamError):
    """PyBullet or Gymnasium is not installed."""


@functools.cache
def pybullet() -> ModuleType:
    """The module `pybullet`.

    Raises:
        PhysicsMissing: it is not installed; the message says how to install it.
    """
    try:
        with _silence():
            return importlib.import_module("pybullet")
    except ImportError as error:
        raise PhysicsMissing(f"the tabletop needs PyBullet, which is not installed: {INSTALL}") from error


@functools.cache
def data_folder() -> Path:
    """Where PyBullet's own models lie.

    Raises:
        PhysicsMissing: PyBullet is not installed.
    """
    try:
        return Path(importlib.import_module("pybullet_data").getDataPath())
    except ImportError as error:
        raise PhysicsMissing(f"the tabletop needs pybullet_data, which is not installed: {INSTALL}") from error


class Client:
    """A physics client of its own: `client.stepSimulation()` is `pybullet.stepSimulation(physicsClientId=...)`."""

    def __init__(self) -> None:
        self._id = -1
        self._bullet = pybullet()
        self._id = self._bullet.connect(self._bullet.DIRECT)
        if self._id < 0:
            raise OmniStreamError("PyBullet gives no more physics clients; expected fewer open scenes in one process")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._bullet, name)
        if callable(value):
            value = functools.partial(value, physicsClientId=self._id)
        setattr(self, name, value)  # found directly from now on
        return value

    def close(self) -> None:
        """Free the client; more than once is fine."""
        if self._id >= 0:
            self._bullet.disconnect(physicsClientId=self._id)
            self._id = -1

    def __del__(self) -> None:
        # at interpreter exit the module may be gone already
        if not sys.is_finalizing():
            self.close()


@contextmanager
def _silence() -> Iterator[None]:
    """When imported, PyBullet tells the process's standard error, not Python's, when it was built."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
