# SPDX-License-Identifier: Apache-2.0
"""`omnistream-eval`: how good a model is, by published protocols and beside its baselines.

exit codes: 0 done; 1 `check` found damage, or `compare` more than --within; 2 wrong usage; 3 the data cannot be read;
4 the checkpoint cannot be used; 5 it cannot run here; 6 the results cannot be written; 130 interrupted (run the same
command again to go on)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from omnistream.cli.exits import OK, Exits
from omnistream_training.evaluation.options import Geometry, Twins
from omnistream_training.evaluation.probe.options import Probe

DAMAGED = DIFFERENT = 1
"""Exit code of a finding."""
Data = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]


def check(data: Data, /, *, out: Path, protocol: str = "recordings") -> int:
    """Read all reference data of a protocol: counts, ranges, first pictures, and what is damaged.

    Args:
        data: The data set's folder.
        out: Folder for what is remembered, so that a stopped check goes on; an evaluation can share it.
        protocol: Which sequences and frames; `omnistream-eval protocols` lists them.
    """
    from omnistream_training.evaluation.findings import DAMAGE, summary
    from omnistream_training.evaluation.table import align_columns, findings_text

    outcome, _ = _look(data, out, protocol)
    cells = [["sequence", "frames", "size", "depth", "range m", "poses", "path m", "first picture"]]
    for found in outcome.surveys:
        path = next(iter(found.paths.values()))
        span = "-" if found.depth_range is None else f"{found.depth_range[0]:.2f}..{found.depth_range[1]:.2f}"
        size = "-" if found.size is None else f"{found.size[1]}x{found.size[0]}"
        counts = (str(found.frames), size, str(found.depth_frames), span, str(found.pose_frames))
        cells.append([found.name, *counts, f"{path['path']:.2f}" if path else "-", found.first_image[:12]])
    print("\n".join([*align_columns(cells), "", *findings_text(summary(outcome.findings))]))
    return DAMAGED if any(finding.kind in DAMAGE for finding in outcome.findings) else OK


def depth_map(data: Data, /, *, out: Path, protocol: str = "recordings") -> int:
    """Write the mean depth map of a training set: a baseline for `geometry --depth-map`.

    Args:
        data: The training set's folder.
        out: The .npz file to write; what is remembered meanwhile goes into a folder of that name with .work behind it.
        protocol: Which sequences and frames.
    """
    from omnistream_training.evaluation.depth_map import save_map, total_map

    outcome, rules = _look(data, out.with_name(f"{out.name}.work"), protocol)
    source = f"{data.name}: {len(outcome.surveys)} sequences; {rules.line}"
    save_map(out, total_map(outcome.surveys), source)
    print(f"{out}: mean depth of {source}")
    return OK


def compare(
    *,
    a: tuple[Path, ...],
    b: tuple[Path, ...],
    method_a: str,
    method_b: str,
    within: float | None = None,
    out: Path | None = None,
) -> int:
    """Is one better? Paired over the sequences of reports of the same data and protocol.

    Args:
        a: results.json files (or their folders): one per training seed.
        b: The same for the other side.
        method_a: Which row of A, as in "window:16".
        method_b: Which row of B, as in "frame by frame".
        within: Exit with 1 where a number of A differs by more than so many per cent from B's, as two engines or
            number formats of one model should not.
        out: Also write the numbers there, as JSON.
    """
    from omnistream.cli.report import environment, write_report
    from omnistream_training.evaluation.compare import compare as compare_reports
    from omnistream_training.evaluation.compare import comparison_text, differing, load_report
    from omnistream_training.evaluation.table import align_columns

    sides = [[load_report(path) for path in side] for side in (a, b)]
    found = compare_reports(sides[0], sides[1], method_a, method_b)
    line = sides[0][0]["protocol"]["line"]
    print(f"protocol  {line}\nA         {method_a}, {len(a)} report(s)\nB         {method_b}, {len(b)} report(s)\n")
    print("\n".join(align_columns(comparison_text(found))))
    if out is not None:
        files = {"a": [str(path) for path in a], "b": [str(path) for path in b]}
        about = {"environment": environment(), "protocol": line, "methods": [method_a, method_b], **files}
        write_report(out, about | {"comparison": found})
    if within is None:
        return OK
    beyond = differing(found, within)
    print(f"\nall within {within:g} %" if not beyond else "\n".join([f"\nmore than {within:g} % apart:", *beyond]))
    return DIFFERENT if beyond else OK


def card(
    run: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")],
    /,
    *,
    results: tuple[Path, ...],
    out: Path,
    name: str = "The default weights",
    weights: Path | None = None,
) -> int:
    """Write the model card of a training run: what it is, data, cost, numbers beside baselines, limits.

    Args:
        run: Directories of training runs, each begun with the weights of the one before.
        results: Reports of `geometry`, `probe`, `twins` and `make eval-default`, in the order of the card.
        out: The Markdown file to write.
        name: Its heading.
        weights: The model, if it was made from what the last run wrote (an average); default: that itself.
    """
    from omnistream_training.evaluation.card import write_card

    write_card(run, results, out, name, weights)
    print(out)
    return OK


def policy_card(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
    /,
    *,
    results: Path,
    out: Path,
    name: str = "The default policy",
) -> int:
    """Write the card of a policy: what it is, data, cost, closed-loop numbers beside what they have to be, limits.

    Args:
        folder: What `make policy-default` made.
        results: Acceptance of `make eval-policy-default`.
        out: The Markdown file to write.
        name: Its heading.
    """
    from omnistream_training.evaluation.policy_card import write_policy_card

    write_policy_card(folder.expanduser(), results, out, name)
    print(out)
    return OK


def protocols() -> int:
    """List the protocols, with the layout of their data on disk."""
    from omnistream_training.evaluation import benchmarks, folders
    from omnistream_training.evaluation.protocols import PROTOCOLS

    for found in PROTOCOLS.values():
        print(f"{found.line}\n    source: {found.source}\n    layout: {found.layout}\n")
    print(benchmarks.__doc__)
    print(folders.__doc__)
    return OK


def main(args: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    commands: dict[str, Any] = {
        "geometry": Geometry,
        "probe": Probe,
        "twins": Twins,
        "check": check,
        "depth-map": depth_map,
        "compare": compare,
        "card": card,
        "policy-card": policy_card,
        "protocols": protocols,
    }

    def command() -> int:
        chosen = tyro.extras.subcommand_cli_from_dict(
            commands, prog="omnistream-eval", description=__doc__, args=args, config=(tyro.conf.FlagCreatePairsOff,)
        )
        return _run(chosen) if isinstance(chosen, (Geometry, Probe, Twins)) else int(chosen)

    return Exits("omnistream-eval", "interrupted; run the same command again to go on").run(command)


def _run(options: Geometry | Probe | Twins) -> int:
    if isinstance(options, Probe):
        from omnistream_training.evaluation.probe.command import run_probe

        run_probe(options)
    elif isinstance(options, Twins):
        from omnistream_training.evaluation.twins import run_twins

        run_twins(options)
    else:
        from omnistream_training.evaluation.geometry_command import evaluate

        evaluate(options)
    return OK


def _look(data: Path, out: Path, name: str) -> tuple[Any, Any]:
    """The surveys of a data set, damage counted and not raised."""
    from omnistream_training.evaluation.protocols import protocol
    from omnistream_training.evaluation.run import Plan, survey_all
    from omnistream_training.evaluation.survey import ALL

    rules = protocol(name)
    return survey_all(Plan(data=data, out=out, protocol=rules, lengths=(rules.count or ALL,), on_error="skip")), rules


if __name__ == "__main__":
    sys.exit(main())
