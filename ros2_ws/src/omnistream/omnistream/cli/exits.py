# SPDX-License-Identifier: Apache-2.0
"""How commands on recordings and checkpoints end: one exit code for each cause, and one sentence on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from omnistream.cli.report import one_sentence
from omnistream.errors import CheckpointError, ConfigError, ContractError, EngineError, InputError

OK, USAGE, INPUT, CHECKPOINT, HERE, OUTPUT, INTERRUPTED = 0, 2, 3, 4, 5, 6, 130
"""Done; an option is wrong; the input cannot be read; nor the checkpoint; it cannot run here; the results cannot be
written; Ctrl-C. 1 is left for what a command finds."""


class Exits:
    """Of the command `name`.

    Args:
        name: begins every sentence.
        interrupted: what is said after Ctrl-C.
    """

    def __init__(self, name: str, interrupted: str = "interrupted") -> None:
        self._name, self._interrupted = name, interrupted

    def fail(self, code: int, error: object) -> int:
        """Says why, and returns the code."""
        print(f"{self._name}: {error}", file=sys.stderr)
        return code

    def run(self, command: Callable[[], int], out: object = None) -> int:
        """What `command` returns, or the code of what it raised. out: where results go, for errors that do not say."""
        try:
            return command()
        except KeyboardInterrupt:
            return self.fail(INTERRUPTED, self._interrupted)
        except ConfigError as error:
            return self.fail(USAGE, error)
        except (CheckpointError, ContractError) as error:
            return self.fail(CHECKPOINT, error)
        except EngineError as error:
            return self.fail(HERE, error)
        except InputError as error:
            from omnistream.io.extras import MissingExtra

            return self.fail(HERE if isinstance(error, MissingExtra) else INPUT, error)
        except BrokenPipeError:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  or Python complains once more when it flushes at exit
            return self.fail(OUTPUT, "standard output was closed by its reader")
        except OSError as error:
            return self.fail(OUTPUT, error if out is None else f"{out}: {error}")
        except (RuntimeError, MemoryError) as error:  # what torch and allocators raise: out of memory, device lost, ...
            return self.fail(HERE, f"cannot run here: {one_sentence(error)}")
