# SPDX-License-Identifier: Apache-2.0
"""The steps that were tried: CALVIN on Linux x86-64, Python 3.11, with and without a GPU."""

from __future__ import annotations

import ctypes.util
import os
import shutil
from pathlib import Path

from omnistream_sim.evaluation.install import Step, clone, installed, pip

from .checkout import PINNED, PINNED_ENV, VARIABLE, Checkout, default_root

CALVIN = "https://github.com/mees/calvin"
ENV = "https://github.com/mees/calvin_env"
REQUIREMENTS = {
    "pybullet": "pybullet==3.2.7",  # has wheels for Python 3.11 and before; compiles elsewhere
    "hydra": "hydra-core==1.3.4",
    "omegaconf": "omegaconf==2.3.1",
    "hydra_plugins": "hydra-colorlog==1.2.0",  # older ones break with hydra 1.3
    "gymnasium": "gymnasium",
    "cv2": "opencv-python-headless",
    "scipy": "scipy",
    "pandas": "pandas",
    "cloudpickle": "cloudpickle",
    "quaternion": "numpy-quaternion",
    "git": "gitpython",
    "rich": "rich",
}


def calvin_steps(root: Path | None = None) -> list[Step]:
    """What `omnistream-sim install calvin` does. Nothing of CALVIN enters this package: it stays in its own folder."""
    folder = root or Path(os.environ.get(VARIABLE) or default_root()).expanduser()
    checkout = Checkout(folder)
    missing = [name for module, name in REQUIREMENTS.items() if not installed(module)()]
    return [
        Step("git", lambda: shutil.which("git") is not None, note="install it with your system's package manager"),
        Step(
            f"calvin {PINNED[:9]} in {folder} (MIT){_another(checkout, 'calvin', PINNED)}",
            lambda: checkout.instructions_file.exists(),
            clone(CALVIN, folder, PINNED),
        ),
        Step(
            f"calvin_env {PINNED_ENV[:9]}, the commit of published numbers, with its scenes (MIT, 30 MB)"
            + _another(checkout, "calvin_env", PINNED_ENV),
            lambda: not checkout.missing(),
            clone(ENV, checkout.environment, PINNED_ENV),
        ),
        # Not --only-binary: antlr4, which hydra needs, has no wheel, and pip would fall back to a hydra that breaks.
        Step("Python packages", installed(*REQUIREMENTS), (pip(*missing),)),
        Step(
            "OpenGL without a display, for --renderer egl (the renderer of published numbers)",
            lambda: ctypes.util.find_library("EGL") is not None,
            optional=True,
            note="on Debian and Ubuntu: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri",
        ),
    ]


def _another(checkout: Checkout, name: str, commit: str) -> str:
    """What is there instead, if it is another commit."""
    found = checkout.commits()[name]
    return "" if found in (commit, "unknown") else f"; there it is {found[:9]}, and reports say so"
