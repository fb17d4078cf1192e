# SPDX-License-Identifier: Apache-2.0
"""`omnistream-data`: from what robots record to data sets that policies are trained on.

    omnistream-data topics BAG                                    what is in a bag, and a mapping to start from
    omnistream-data record --mapping robot.yaml --directory bags  a node that records episodes (ROS 2)
    omnistream-data import BAG... --mapping robot.yaml --out SET  bags to a data set (LeRobot v3)
    omnistream-data convert SRC --out SET                         LeRobot, RLDS, CALVIN to LeRobot v3 or RLDS
    omnistream-data check SET                                     rates, gaps, ranges, outliers, frozen pictures, ...
    omnistream-data bench                                         how fast all this is here

exit codes: 0 done; 1 `check` found errors, or an import lost something (it is named); 2 wrong usage; 3 the data cannot
be read; 4 a mapping or contract does not fit; 6 the results cannot be written; 130 interrupted
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from omnistream.errors import ConfigError, ContractError, InputError

OK, FINDINGS, USAGE, INPUT, CONTRACT, OUTPUT, INTERRUPTED = 0, 1, 2, 3, 4, 6, 130
SHOWN = 12
"""Lines about losses that are printed."""
Bags = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="BAG")]
Bag = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BAG")]
Data = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
Storage = Literal["image", "jpeg", "video"]


def topics(bag: Bag, /, *, mapping: Path | None = None) -> int:
    """List a bag's topics; with --mapping, write a mapping to start from.

    Args:
        bag: A rosbag2 folder or file (mcap, sqlite3), or a ROS 1 bag.
        mapping: YAML file to write: the topics found, with what only you know marked by `unspecified`.
    """
    from omnistream.io.bag_reader import BagReader, topic_table
    from omnistream_training.robot_data.draft import draft_mapping

    with BagReader(bag, salvage=True) as reader:
        print(topic_table(reader.topics))
        for line in reader.lost:
            print(f"LOST: {line}")
        if mapping is not None:
            if mapping.exists():
                raise ConfigError(f"{mapping} exists already; choose another name")
            mapping.write_text(draft_mapping(reader))
            print(f"wrote {mapping}; read it through before you use it")
        return FINDINGS if reader.lost else OK


def record(*, mapping: Path, directory: Path = Path("episodes"), instruction: str = "") -> int:
    """Start the recorder node: one mcap bag per episode. Needs ROS 2; Ctrl-C ends it.

    Begin and end episodes with `ros2 service call /recorder/start std_srvs/srv/Trigger`, then success, failure, stop or
    discard in place of start.

    Args:
        mapping: Which topics mean what.
        directory: Folder that gets the bags.
        instruction: What the robot is told, until an instruction comes on the mapping's topic.
    """
    from omnistream.sync import load_mapping_file

    load_mapping_file(mapping)
    parameters = [f"mapping:={mapping.absolute()}", f"directory:={directory.absolute()}"]
    parameters += [f"instruction:={json.dumps(instruction)}"] if instruction else []  # YAML reads JSON's quotes
    words = [word for parameter in parameters for word in ("-p", parameter)]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "omnistream_ros.up", "recorder", "--ros-args", *words])


def import_(
    bags: Bags,
    /,
    *,
    mapping: Path,
    out: Path,
    storage: Storage = "image",
    robot: str = "unknown",
) -> int:
    """Make a data set of bags, aligned as the robot's node aligns them; prints what was kept, cut and lost.

    Args:
        bags: Bags, or folders of bags. Damaged ones are read as far as they go.
        mapping: Which topics mean what; the recorder node reads the same file.
        out: Folder to make.
        storage: image: PNG, without loss. jpeg: quality 95. video: H.264, smallest.
        robot: Name of the robot, for other people's readers.
    """
    from omnistream.sync import load_mapping_file
    from omnistream_training.robot_data import import_report
    from omnistream_training.robot_data.bag_import import BagImporter, find_bags

    rules = load_mapping_file(mapping)
    importer = BagImporter(out, rules, storage=storage, robot=robot)
    refused: list[str] = []
    try:
        for bag in find_bags(bags):
            try:
                print(import_report.text_of(importer.add(bag)), flush=True)
            except InputError as error:
                if len(bags) == 1:
                    raise
                refused.append(str(error))
                print(f"{bag}: REFUSED: {error}", flush=True)
        importer.close()
    except BaseException:
        importer.abort()
        raise
    import_report.save(out, importer.reports, mapping.read_text())
    assert importer.writer is not None
    print(f"{out}: {importer.writer.episodes} episodes, {importer.writer.frames} steps")
    lost = refused or any(report.lost or report.pictures_lost for report in importer.reports)
    return FINDINGS if lost else OK


def convert(
    data: Data,
    /,
    *,
    out: Path,
    to: Literal["lerobot", "rlds"] = "lerobot",
    storage: Storage = "image",
    contract: Path | None = None,
    protocol: Literal["auto", "bridge", "bridge_oxe", "plain"] = "auto",
    split: str = "train",
    rate: float | None = None,
    cameras: tuple[str, ...] | None = None,
) -> int:
    """Convert a data set of another format.

    Args:
        data: LeRobot v3 or v2.1, an RLDS set (TFRecord), or a split of CALVIN.
        out: Folder to make.
        to: lerobot (v3), or rlds.
        storage: Of lerobot's pictures; image is PNG, without loss.
        contract: YAML file that says what the numbers mean, where the format cannot.
        protocol: What the features of an RLDS set mean; auto: by its name.
        split: Of an RLDS set.
        rate: Hz, of an RLDS set whose protocol does not know it.
        cameras: Those to take, of RLDS and CALVIN; by default all, or the protocol's.
    """
    from omnistream.contract import load_contract
    from omnistream_training.robot_data.convert import convert_dataset
    from omnistream_training.robot_data.formats import open_any

    known = None if contract is None else load_contract(contract)
    dataset = open_any(data, contract=known, split=split, protocol=protocol, rate=rate, cameras=cameras)
    print(dataset.description)
    lost = [*dataset.lost, *convert_dataset(dataset, out, to=to, storage=storage)]
    for line in lost[:SHOWN]:
        print(f"LOST: {line}")
    if len(lost) > SHOWN:
        print(f"LOST: and {len(lost) - SHOWN} more")
    return FINDINGS if lost else OK


def check(
    data: Data,
    /,
    *,
    report: Path | None = None,
    picture: Path | None = None,
    pictures: int | None = None,
    split: str = "train",
    protocol: Literal["auto", "bridge", "bridge_oxe", "plain"] = "auto",
    rate: float | None = None,
) -> int:
    """Look a data set over: rates, gaps, jitter, ranges, outliers, saturation, idling, frozen pictures.

    Args:
        data: A data set of any format that `convert` reads.
        report: JSON file to write.
        picture: PNG file to write: first pictures and histograms.
        pictures: Look at so many pictures per episode and camera; by default at all, 0 for none.
        split: Of an RLDS set.
        protocol: What the features of an RLDS set mean.
        rate: Hz, of an RLDS set whose protocol does not know it.
    """
    from omnistream.cli.report import write_report
    from omnistream_training.robot_data.check import check_dataset, save_picture, text_of
    from omnistream_training.robot_data.formats import open_any

    dataset = open_any(data, split=split, protocol=protocol, rate=rate)
    checked = check_dataset(dataset, pictures=pictures)
    print(text_of(checked))
    if report is not None:
        write_report(report, checked.report)
    if picture is not None:
        save_picture(picture, checked, (dataset.contract.state_names, dataset.contract.action_names))
    return FINDINGS if checked.errors else OK


def bench(*, megabytes: float = 300.0, report: Path | None = None) -> int:
    """Measure reading, aligning, decoding and encoding on generated bags.

    Args:
        megabytes: Size of the bags of raw pictures.
        report: JSON file to write.
    """
    from omnistream.cli.report import environment, write_report
    from omnistream_training.robot_data import bench as measuring

    found = measuring.bench(megabytes)
    print(measuring.text_of(found))
    if report is not None:
        write_report(report, found | {"environment": environment()})
    return OK


def main(args: list[str] | None = None) -> int:
    """Entry point; returns the exit status, and raises SystemExit(2) for wrong usage."""
    commands: dict[str, Any] = {
        "topics": topics,
        "record": record,
        "import": import_,
        "convert": convert,
        "check": check,
        "bench": bench,
    }
    try:
        return int(
            tyro.extras.subcommand_cli_from_dict(
                commands,
                prog="omnistream-data",
                description=__doc__,
                args=args,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
        )
    except KeyboardInterrupt:
        return _fail(INTERRUPTED, "interrupted; nothing was written")
    except ContractError as error:
        return _fail(CONTRACT, error)
    except InputError as error:
        return _fail(INPUT, error)
    except ConfigError as error:
        return _fail(USAGE, error)
    except OSError as error:
        return _fail(OUTPUT, error)


def _fail(code: int, error: object) -> int:
    print(f"omnistream-data: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
