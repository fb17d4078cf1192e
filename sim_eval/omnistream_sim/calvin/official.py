# SPDX-License-Identifier: Apache-2.0
"""The CALVIN project's own code, imported from its checkout and used unchanged."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from omnistream.errors import InputError

from .checkout import INSTALL, Checkout, NoCalvin

CAMERAS = ("static", "gripper")


def calvin_module(checkout: Checkout, name: str) -> ModuleType:
    """Import a module of calvin_env. NoCalvin naming what is not installed.

    calvin_env imports `gym`, which nobody maintains, for a base class and a random generator; gymnasium has both.
    """
    if str(checkout.environment) not in sys.path:
        sys.path.insert(0, str(checkout.environment))
    try:
        if "gym" not in sys.modules and importlib.util.find_spec("gym") is None:
            for part in ("", ".utils", ".utils.seeding"):
                sys.modules[f"gym{part}"] = importlib.import_module(f"gymnasium{part}")
        hook = sys.excepthook
        module = importlib.import_module(name)
        sys.excepthook = hook  # calvin_env installs its own, which prints every local variable
    except ImportError as error:
        raise NoCalvin(f"CALVIN needs a package that is not here ({error}): {INSTALL}") from error
    return module


def official_oracle(checkout: Checkout) -> Any:
    """calvin_env's `Tasks` with the table of the evaluation."""
    table = yaml.safe_load(checkout.tasks_file.read_text(encoding="utf-8"))["tasks"]
    return calvin_module(checkout, "calvin_env.envs.tasks").Tasks(table)


def official_environment(checkout: Checkout, *, scene: str, egl: bool, dataset: Path | None) -> Any:
    """calvin_env's `PlayTableSimEnv` with static and gripper camera.

    scene: such as "calvin_scene_D_eval"; without a data set the configuration is that of calvin_env's repository.
    egl: render with OpenGL (as for the published numbers), or with the software renderer.
    dataset: a folder of CALVIN's data (task_ABC_D): its validation configuration is used, as the original does.

    Raises:
        NoCalvin: a package is missing.
        InputError: the data set has no configuration.
    """
    calvin_module(checkout, "calvin_env.envs.play_table_env")
    hydra = importlib.import_module("hydra")
    logging.getLogger("calvin_env").setLevel(logging.WARNING)
    if dataset is None:
        config = _composed(checkout, scene, egl)
    else:
        path = dataset / "validation" / ".hydra" / "merged_config.yaml"
        if not path.exists():
            raise InputError(f"{path} is missing; expected a folder of CALVIN's data such as task_ABC_D")
        config = importlib.import_module("omegaconf").OmegaConf.load(path)
        for camera in [name for name in config.cameras if name not in CAMERAS]:
            del config.cameras[camera]
        config.data_path = str(checkout.environment / "data")
        config.env.use_egl = egl
    return hydra.utils.instantiate(config.env, show_gui=False, use_vr=False, use_scene_info=True)


def save_configuration(checkout: Checkout, scene: str, path: Path) -> None:
    """Write what a data set of this scene has as .hydra/merged_config.yaml; `dataset` above reads it."""
    calvin_module(checkout, "calvin_env.envs.play_table_env")
    config = _composed(checkout, scene, egl=False)
    config.data_path = "data"  # of whoever reads it
    path.parent.mkdir(parents=True, exist_ok=True)
    importlib.import_module("omegaconf").OmegaConf.save(config, path)


def _composed(checkout: Checkout, scene: str, egl: bool) -> Any:
    hydra = importlib.import_module("hydra")
    overrides = [
        "cameras=static_and_gripper",
        f"scene={scene}",
        "use_vr=false",
        f"data_path={checkout.environment / 'data'}",
        f"env.use_egl={str(egl).lower()}",
    ]
    with hydra.initialize_config_dir(str(checkout.environment / "conf"), version_base=None):
        return hydra.compose("config_data_collection", overrides=overrides)
