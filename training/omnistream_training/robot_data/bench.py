# SPDX-License-Identifier: Apache-2.0
"""How fast recorded data are read, aligned and written on this machine; decoding and encoding apart."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnistream.contract import Action, Camera, Contract, Dimension
from omnistream.episodes import EpisodeWriter, open_dataset
from omnistream.episodes.lerobot_writer import Storage
from omnistream.episodes.pictures import encode_jpeg, encode_png
from omnistream.io.pixels import decode_compressed
from omnistream.sync import Mapping, load_mapping_file
from omnistream_training.evaluation.table import align_columns
from omnistream_training.robot_data.bag_steps import BagStep, BagSteps
from omnistream_training.robot_data.sample_bag import SampleBag, picture, write_sample_bag

PICTURES = 90
"""Pictures that encoders are timed with."""


def bench(megabytes: float, height: int = 480, width: int = 640) -> dict[str, Any]:
    """Times on generated bags of about so many megabytes of raw pictures; all in a temporary folder.

    Files are in the system's cache: what is measured is our code, not a disk.
    """
    frames = max(60, round(megabytes * 1e6 / (height * width * 3)))
    report: dict[str, Any] = {"picture": f"{width}x{height}", "bags": {}, "encode": {}, "data_set": {}}
    with tempfile.TemporaryDirectory() as folder:
        kinds: list[tuple[str, dict[str, Any]]] = [
            ("raw, mcap", {}),
            ("raw, mcap zstd", {"compression": True}),
            ("raw, sqlite3", {"storage": "sqlite3"}),
            ("jpeg, mcap", {"transport": "jpeg"}),
            ("jpeg, sqlite3", {"transport": "jpeg", "storage": "sqlite3"}),
        ]
        for name, options in kinds:
            sample = SampleBag(seconds=frames / 30 - 1, episodes=1, height=height, width=width, **options)
            bag = write_sample_bag(Path(folder) / "bag", sample)
            report["bags"][name] = _read(bag, _mapping(Path(folder), sample))
        report["jpeg_decoder"] = _decoder_limit(height, width)
        images = [_scene(i, height, width) for i in range(PICTURES)]
        report["encode"] = {
            "png": _per_second(images, encode_png),
            "jpeg": _per_second(images, encode_jpeg),
        }
        storages: tuple[Storage, ...] = ("image", "jpeg", "video")
        for storage in storages:
            report["data_set"][storage] = _write_and_read(Path(folder) / storage, images, storage)
    return report


def _scene(number: int, height: int, width: int) -> NDArray[np.uint8]:
    """u8 [H, W, 3] as hard to compress as a camera's picture: slow shading, an edge that moves, noise of a sensor."""
    rows, columns = np.mgrid[:height, :width] / height
    shade = np.stack([np.sin(3 * rows + k + 2 * columns) for k in range(3)], -1) * 60 + 120
    shade[np.hypot(rows - 0.5, columns - 0.3 - number / 200) < 0.2] += [60, -40, -40]
    noise = np.random.default_rng(number).normal(0, 3, shade.shape)
    return (shade + noise).clip(0, 255).astype(np.uint8)


def _mapping(folder: Path, sample: SampleBag) -> Mapping:
    path = folder / "mapping.yaml"
    path.write_text(sample.mapping())
    return load_mapping_file(path)


def _read(bag: Path, mapping: Mapping) -> dict[str, float]:
    """Read, align and decode; nothing is written."""
    steps = BagSteps(bag, mapping)
    count = 0
    with _timed() as elapsed:
        for item in steps:
            if isinstance(item, BagStep):
                item.picture(mapping.cameras[0])
                count += 1
    seconds, cpu = elapsed()
    size = sum(meter.bytes for meter in steps.topics.values()) / 1e6
    return {
        "megabytes": size,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "megabytes_per_second": size / seconds,
        "megabytes_per_cpu_second": size / cpu,
        "steps_per_cpu_second": count / cpu,
    }


def _decoder_limit(height: int, width: int) -> float:
    """JPEG pictures per CPU second that the decoder alone manages."""
    coded = []
    for i in range(30):
        buffer = io.BytesIO()
        Image.fromarray(picture(i, height, width)).save(buffer, "JPEG", quality=90)
        coded.append(np.frombuffer(buffer.getvalue(), np.uint8))
    return _per_second(coded, lambda data: decode_compressed(data, "jpeg"))


def _per_second(items: list[Any], function: Callable[[Any], Any]) -> float:
    function(items[0])
    with _timed() as elapsed:
        for item in items:
            function(item)
    return len(items) / elapsed()[1]


def _write_and_read(path: Path, images: list[NDArray[np.uint8]], storage: Storage) -> dict[str, float]:
    """Pictures per second into and out of a data set, and how faithful they are."""
    contract = build_contract(images[0].shape[0], images[0].shape[1])
    with _timed() as writing, EpisodeWriter(path, contract, storage=storage) as writer:
        writer.begin("measure")
        for i, image in enumerate(images):
            writer.add([float(i)], [float(i)], {"front": image})
        writer.end()
    with _timed() as reading:
        error = 0.0
        read = list(open_dataset(path)[0].frames("front"))
    for image, found in zip(images, read, strict=True):
        error += float(((image.astype(np.float64) - found) ** 2).mean())
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    psnr = 10 * np.log10(255**2 * len(images) / error) if error else np.inf
    return {
        "written_per_cpu_second": len(images) / writing()[1],
        "read_per_cpu_second": len(images) / reading()[1],
        "kilobytes_per_picture": size / len(images) / 1e3,
        "psnr": float(psnr),
    }


def build_contract(height: int, width: int) -> Contract:
    """The smallest contract there is."""
    return Contract(
        rate=30.0,
        cameras=(Camera("front", height, width),),
        state=(Dimension("x", "m"),),
        action=Action((Dimension("dx", "m"),), mode="delta", frame="base_link"),
    )


@contextmanager
def _timed() -> Iterator[Callable[[], tuple[float, float]]]:
    """Gives a function that tells, after the block, its seconds by the clock and its CPU seconds in all threads."""
    found = [0.0, 0.0]
    begun, cpu = time.perf_counter(), time.process_time()
    yield lambda: (found[0], found[1])
    found[:] = [time.perf_counter() - begun, max(time.process_time() - cpu, 1e-9)]


def text_of(report: dict[str, Any]) -> str:
    """The report for a person."""
    cells = [["read, aligned, decoded", "MB", "MB/s", "MB/CPU-s", "steps/CPU-s"]]
    for name, row in report["bags"].items():
        rates = (row["megabytes_per_second"], row["megabytes_per_cpu_second"], row["steps_per_cpu_second"])
        cells.append([name, f"{row['megabytes']:.0f}", *(f"{rate:.0f}" for rate in rates)])
    stored = [["data set", "written/CPU-s", "read/CPU-s", "kB/picture", "PSNR dB"]]
    for name, row in report["data_set"].items():
        keys = ("written_per_cpu_second", "read_per_cpu_second", "kilobytes_per_picture", "psnr")
        stored.append([name, *(f"{row[key]:.1f}" for key in keys)])
    encode = ", ".join(f"{name} {value:.0f}" for name, value in report["encode"].items())
    limit = f"pictures per CPU second: JPEG decoder alone {report['jpeg_decoder']:.0f}; encoders alone: {encode}"
    head = f"pictures of {report['picture']}, files in the cache"
    return "\n".join([head, "", *align_columns(cells), "", limit, "", *align_columns(stored)])
