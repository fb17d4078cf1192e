# SPDX-License-Identifier: Apache-2.0
"""Files that PyBullet wants on disk: the low-poly Panda, flat meshes, textures, the table of a layout.

They are made when first needed, in a temporary folder of the process that is removed at its end.
"""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.util import Finalize
from pathlib import Path

from PIL import Image

from .physics import data_folder
from .textures import texture

_QUAD = """v -.5 -.5 0\nv .5 -.5 0\nv .5 .5 0\nv -.5 .5 0
vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nvn 0 0 1
f 1/1/1 2/2/1 3/3/1\nf 1/1/1 3/3/1 4/4/1
"""


@functools.cache
def folder() -> Path:
    """The temporary folder of this process."""
    path = Path(tempfile.mkdtemp(prefix="omnistream-tabletop-"))
    # atexit is not run in the workers of a pool; this is run in both
    Finalize(None, shutil.rmtree, args=(path,), kwargs={"ignore_errors": True}, exitpriority=0)
    return path


@functools.cache
def panda_urdf() -> Path:
    """pybullet_data's Panda with its collision meshes as visual ones: 3,400 triangles instead of 100,000.

    The software renderer's time follows the triangles; it still looks like a Panda.
    """
    source = data_folder() / "franka_panda"
    text = (source / "panda.urdf").read_text().replace("package://", f"{source}/")
    text = text.replace("meshes/visual/", "meshes/collision/")
    text = re.sub(r'filename="(?!/)', f'filename="{source}/', text)
    path = folder() / "panda.urdf"
    path.write_text(text)
    return path


@functools.cache
def quad_mesh() -> Path:
    """A unit square in z = 0, about the origin."""
    path = folder() / "quad.obj"
    path.write_text(_QUAD)
    return path


@functools.cache
def slab_mesh() -> Path:
    """A unit box hanging below z = 0, without the face underneath that nobody sees."""
    corners = [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]
    normals = [(0, 0, 1), (0, -1, 0), (1, 0, 0), (0, 1, 0), (-1, 0, 0)]
    lines = [f"v {x} {y} {z}" for z in (0, -1) for x, y in corners]
    lines += ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1", "vt 1 0.03", "vt 0 0.03"]
    lines += [f"vn {x} {y} {z}" for x, y, z in normals]
    lines += ["f 1/1/1 2/2/1 3/3/1", "f 1/1/1 3/3/1 4/4/1"]
    for i in range(4):
        a, b, n = i + 1, (i + 1) % 4 + 1, i + 2
        lines += [f"f {a + 4}/1/{n} {b + 4}/2/{n} {b}/5/{n}", f"f {a + 4}/1/{n} {b}/5/{n} {a}/6/{n}"]
    path = folder() / "slab.obj"
    path.write_text("\n".join(lines) + "\n")
    return path


@functools.cache
def texture_file(name: str) -> Path:
    """PNG of a texture, see `textures.texture`."""
    path = folder() / f"{name}.png"
    Image.fromarray(texture(name)).save(path)
    return path


@contextmanager
def urdf_file(text: str) -> Iterator[Path]:
    """A file with that text, while it is needed."""
    with tempfile.NamedTemporaryFile("w", suffix=".urdf", dir=folder()) as file:
        file.write(text)
        file.flush()
        yield Path(file.name)
