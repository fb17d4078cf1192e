# SPDX-License-Identifier: Apache-2.0
"""`omnistream-eval policy-card`: the card of a policy, filled from the folder that `make policy-default` made and from
its acceptance. No number is typed.

FOLDER holds policy/ (what is shipped), run/ (its training), demos-*/ and blocks-*/ with demos.json, and cost.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnistream.errors import InputError
from omnistream.io.files import write_bytes
from omnistream.policy.checkpoint import POLICY_FILE, WEIGHTS_FILE, LoadedPolicy, load_policy
from omnistream.policy.tokens import WordTokens
from omnistream.weights.files import read_json
from omnistream_training.config_file import load_config
from omnistream_training.evaluation.card_parts import bullets, described, markdown_table, read_report
from omnistream_training.journal import duration
from omnistream_training.policy.config import PolicyRunConfig
from omnistream_training.running import CONFIG

ACCEPTANCE = "omnistream-policy-acceptance"
ERRORS = {
    "error": "the policy",
    "mean_error": "the mean action",
    "repeat_error": "the last action, repeated",
    "blank_error": "the policy, told nothing",
    "other_error": "the policy, told something else",
    "counterfactual_error": "the policy, told another possible task, from what the expert would have done then",
}
LIMITS = (
    "It knows one table: the simulator's shipped scene, arm, cameras and light. It has never seen a real picture, and "
    "nobody has tried it on a real robot.",
    "Its teacher was a script that knows where everything is; what that never does, the policy has not seen.",
    "A chunk is one answer: where demonstrations disagree it gives their middle.",
    "It does not say when it has failed, nor when it is done.",
)
Report = Mapping[str, Any]


def write_policy_card(folder: Path, results: Path, out: Path, name: str) -> None:
    """Write the card. InputError names the file that is missing, foreign, or about another policy."""
    policy = load_policy(folder / "policy")
    acceptance = read_report(results, (ACCEPTANCE,), "policy card")
    stored = read_json(folder / "policy" / POLICY_FILE)
    if acceptance["policy"]["sha256"] != stored["weights_sha256"]:
        raise InputError(
            f"{results} is about another policy ({acceptance['policy']['sha256'][:16]}) than {folder / 'policy'} "
            f"({stored['weights_sha256'][:16]})"
        )
    run = read_report(folder / "run" / "report.json")
    if run["best_step"] != policy.training.get("step"):
        raise InputError(
            f"{folder / 'policy'} is of step {policy.training.get('step')}, the best of {folder / 'run'} is of "
            f"{run['best_step']}; expected the same"
        )
    config = load_config(folder / "run" / CONFIG, PolicyRunConfig())
    parts = (_about(folder, policy), _cost(folder, config, run), _accepted(acceptance), _held_out(run), _limits(policy))
    write_bytes(
        out, ("\n".join([f"# {name}", "", *(line for part in parts for line in part)]).rstrip() + "\n").encode()
    )


def _about(folder: Path, policy: LoadedPolicy) -> list[str]:
    config, contract, vision = policy.config, policy.contract, policy.config.vision
    cameras = ", ".join(f"{camera.name} {camera.width} x {camera.height}" for camera in contract.cameras)
    units = ", ".join(f"{dimension.name} {dimension.unit}" for dimension in contract.action.dimensions)
    seen = f"pictures of about {vision.image_size} x {vision.image_size} pixels"
    if vision.source == "backbone":
        taps = f" and of the heads' tap {' and '.join(map(str, vision.taps))}" if vision.taps else ""
        seen = f"CLS and patches of the last block{taps}, from {seen}; memory {vision.stream}"
    rows = [
        ("what it is", f"a language-conditioned policy on frozen streaming features, trunk {config.trunk}"),
        ("parameters", f"{sum(p.numel() for p in policy.network.parameters()) / 1e6:.2f} M, beside the backbone's"),
        ("backbone", str(contract.backbone)),
        ("sees", seen),
        ("cameras", cameras),
        ("feels", f"{len(contract.state)} numbers: {', '.join(contract.state_names)}" if contract.state else "nothing"),
        ("gives", f"chunks of {config.chunk} actions at {contract.rate:g} Hz: {units}"),
        ("action", f"{contract.action.mode}, in the frame {contract.action.frame}"),
        ("file", described(folder / "policy" / WEIGHTS_FILE)),
    ]
    return [*markdown_table(("", ""), rows), ""]


def _of_some_kinds(sets: Sequence[Report]) -> str:
    some: Counter[str] = Counter()
    for found in sets:
        if found["tasks"]:
            some[", ".join(found["tasks"])] += found["episodes"]
    told = [f"{episodes} are of {tasks} only" for tasks, episodes in some.items()]
    return ("; ".join(told) + ".") if told else "All kinds take turns."


def _cost(folder: Path, config: PolicyRunConfig, run: Report) -> list[str]:
    sets = [read_report(Path(data) / "demos.json") for data in config.data.folders]
    totals = {name: sum(found[name] for found in sets) for name in ("episodes", "frames", "tried")}
    lost: dict[str, int] = {}
    for found in sets:
        for task, count in found["failed"].items():
            lost[task] = lost.get(task, 0) + count
    failed = ", ".join(f"{task} {count}" for task, count in sorted(lost.items())) or "none"
    first = sets[0]
    about = [
        f"{totals['episodes']} demonstrations of scripted experts in {len(sets)} sets, {totals['frames']:,} frames; "
        f"{totals['tried']} were tried, and those that failed left out ({failed}). {first['disturbed']:.0%} of the "
        f"control periods were disturbed, {first['later']:.0%} of the episodes begin where a chain has got to. "
        f"{_of_some_kinds(sets)}",
        "",
        f"{run['setup']}.",
        "",
        f"{run['steps']} steps of {config.batch} samples; the best by held-out error is step {run['best_step']}.",
        "",
    ]
    spent = read_report(folder / "cost.json")
    stages = {
        "demonstrations": [stage for stage in spent if stage.startswith(("demos-", "blocks-"))],
        "features and training": [stage for stage in spent if stage == "run"],
    }
    rows = []
    for stage, names in stages.items():
        seconds, cpu = (sum(spent[name][key] for name in names) for key in ("seconds", "cpu_seconds"))
        rows.append((stage, duration(seconds), f"{cpu / 3600:.2f} h"))
    machine = run["machine"]
    where = f"{machine['device']}, {machine['processor']}, {machine['system']}, torch {run['versions']['torch']}"
    return ["## Data and cost", "", *about, *markdown_table(("", "time", "CPU time"), rows), "", where, ""]


def _accepted(report: Report) -> list[str]:
    verdicts = {True: "accepted", False: "**not accepted**", None: ""}
    rows = []
    for row in report["rows"]:
        beside = ", ".join(f"{name} {value}" for name, value in row["beside"].items())
        rows.append((row["name"], row["shown"], row["has_to"], verdicts[row["accepted"]], beside))
    about = f"{report['episodes']} starts per kind that no demonstration has, {report['chains']} chains, "
    about += f"{report['controls']} starts per kind where it is told nothing or another task; of each chunk the first "
    about += f"{report['execute']} steps are executed; `make eval-policy-default`, {report['environment']['time']}."
    if "policy_ms" in report:
        took = report["policy_ms"]
        about += f" An answer took {took['p50']:.0f} ms (p90 {took['p90']:.0f}), seeing a picture included."
    left = [f"Left out: {', '.join(report['left_out'])}.", ""] if report["left_out"] else []
    heading = ["## Closed loop, each number beside what it has to be", ""]
    return [*heading, *markdown_table(("", "measured, 95 %", "has to be", "", "beside it"), rows), "", about, "", *left]


def _held_out(run: Report) -> list[str]:
    found = run["held_out"]
    rows = [(words, f"{found[name]:.4f}") for name, words in ERRORS.items() if name in found]
    about = f"Mean absolute difference of normalised actions over a chunk, {found['frames']} frames of held-out "
    about += "demonstrations. It is no success rate."
    heading = ["## Held-out error, beside what needs no policy", ""]
    table = [
        (name, *(f"{row[key]:.4g}" for key in ("mae", "mean_mae", "repeat_mae")))
        for name, row in found["dimensions"].items()
    ]
    headings = ("mean absolute error of", "the policy", "the mean action", "the last action, repeated")
    return [*heading, about, "", *markdown_table(("", "error"), rows), "", *markdown_table(headings, table), ""]


def _limits(policy: LoadedPolicy) -> list[str]:
    known = []
    if isinstance(policy.tokens, WordTokens):
        known = [f"It knows {len(policy.tokens.words)} words, those of its demonstrations; all others are one to it."]
    return ["## What it cannot do", "", *bullets([*known, *LIMITS])]
