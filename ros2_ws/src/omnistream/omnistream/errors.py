# SPDX-License-Identifier: Apache-2.0
"""Errors of this package. All are `ValueError`s: each names the thing, the value found and what was expected."""


class OmniStreamError(ValueError):
    """Base of every error that this package raises on purpose."""


class StreamFull(OmniStreamError):
    """A `full:N` stream was given its frame N+1. Reset it, or choose a policy that evicts (`window`, `sink_window`)."""


class CheckpointError(OmniStreamError):
    """A checkpoint is missing, damaged, foreign, of a newer format, or does not fit the model it names."""


class InputError(OmniStreamError):
    """A recording, image or topic cannot be read; names the file or topic and the reason."""


class ConfigError(OmniStreamError):
    """A configuration value is out of range or contradicts another; both are named."""


class OptionError(InputError, ConfigError):
    """An option of an input is out of range, or does not go with that input: not the input is at fault."""


class EngineError(OmniStreamError):
    """An engine is not available here, or does not fit the model; says why and how to get it."""


class ContractError(OmniStreamError):
    """A contract file is damaged, of a newer version, or disagrees with another contract; both sides are printed."""
