# SPDX-License-Identifier: Apache-2.0
"""A policy by name: a checkpoint of ours, or any callable of anybody's, given as "module:name"."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from omnistream.errors import ConfigError
from omnistream.policy.default import DEFAULT, policy_folder

from .convention import Convention
from .protocols import Policy


def policy_maker(
    policy: str | Callable[..., Any], options: dict[str, Any], convention: Convention | None = None
) -> tuple[Callable[[], Policy], str]:
    """What makes the policy in a worker, picklable, and the policy's name.

    policy: what `make_policy` takes, or a callable that a worker can import: a policy, or what makes one of `options`.
    convention: of the benchmark's actions, for a checkpoint.
    """
    if isinstance(policy, str):
        if not is_checkpoint(policy):
            return partial(make_policy, policy, **options), policy
        policy = str(_from_anywhere(policy))
        options = {name: _from_anywhere(value) for name, value in options.items()} | {"convention": convention}
        return partial(make_policy, policy, **options), policy
    name = getattr(policy, "__qualname__", repr(policy))
    return partial(_made, policy, name, options), name


def is_checkpoint(name: str) -> bool:
    """Whether this names a checkpoint of ours, and not module:name."""
    return name == DEFAULT or Path(name).expanduser().exists()


def make_policy(name: str, **options: Any) -> Policy:
    """Load a policy.

    name: a checkpoint's folder, `default` (the shipped one), or "module:name" on the Python path. `name` is then a
    policy itself (a function `(observation, instruction) -> actions`), or a class or function that makes one from
    `options`.
    options: for the checkpoint (weights, engine, dtype, device) or for what "module:name" names.

    Raises:
        ConfigError: there is none of them.
        CheckpointError: no default policy is shipped.
    """
    if is_checkpoint(name):
        from .checkpoint_policy import CheckpointPolicy

        return CheckpointPolicy(policy_folder(name), **options)
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"policy {name!r} is neither a folder that exists, nor {DEFAULT!r}, nor module:name")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"policy {name!r}: {error}; expected module:name on the Python path") from error
    if not callable(found):
        raise ConfigError(f"policy {name!r} is a {type(found).__name__}; expected something callable")
    return _made(found, name, options)


def _from_anywhere(value: Any) -> Any:
    """A path that exists, such that a worker in another directory finds it too; anything else as it is."""
    if isinstance(value, str) and value not in ("", DEFAULT) and (path := Path(value).expanduser()).exists():
        return os.path.abspath(path)
    return value


def _made(found: Callable[..., Any], name: str, options: dict[str, Any]) -> Policy:
    if inspect.isclass(found) or not _is_policy(found):
        return found(**options)
    if options:
        raise ConfigError(f"policy {name!r} is a function of observation and instruction; it takes no {list(options)}")
    return found


def _is_policy(function: Any) -> bool:
    """A function of two positional arguments is a policy; any other makes one."""
    required = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty and parameter.kind in (0, 1)
    ]
    return len(required) == 2
