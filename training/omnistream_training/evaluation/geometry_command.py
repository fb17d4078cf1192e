# SPDX-License-Identifier: Apache-2.0
"""`omnistream-eval geometry`: the whole evaluation in the order in which it happens."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from functools import partial
from typing import Any

from omnistream.cli.report import environment, write_report
from omnistream.engines.select import make_engine
from omnistream.errors import ConfigError
from omnistream.model.omnistream import OmniStream
from omnistream.weights import model_hash
from omnistream_training.evaluation.depth_map import load_map, other_sequences_map, training_map
from omnistream_training.evaluation.naming import named_model
from omnistream_training.evaluation.options import Geometry
from omnistream_training.evaluation.plots import save_depth_picture, save_lengths, save_paths
from omnistream_training.evaluation.predict import Predictor, StreamPredictor, Track
from omnistream_training.evaluation.protocols import InputRule, Protocol, protocol
from omnistream_training.evaluation.results import build_report
from omnistream_training.evaluation.run import Outcome, Plan, predict_all, survey_all
from omnistream_training.evaluation.survey import ALL
from omnistream_training.evaluation.table import table

RESULTS = "results.json"


def evaluate(options: Geometry) -> dict[str, Any]:
    """Run the evaluation, write DIR/results.json and the plots, print the table; returns the report."""
    model, words = named_model(options.weights)
    if model.config.lens == "known":
        words += ", told the intrinsics" if options.known_lens else ", not told the intrinsics"
    rules = chosen_protocol(options, model)
    print(f"model     {words}\ndata      {options.data}, protocol {rules.name}", flush=True)
    plan = Plan(
        data=options.data,
        out=options.out,
        protocol=rules,
        lengths=_lengths(options, rules),
        on_error="stop" if rules.strict else options.on_error,
        limit=options.limit,
        resume=not options.fresh,
    )
    predictors, engine_words = _predictors(options, rules, model)  # before the data: a wrong option shows at once
    given_map = None if options.depth_map is None else load_map(options.depth_map)
    outcome = survey_all(plan)
    if rules.depth is not None and given_map is not None:
        mean = training_map(outcome.surveys, given_map)
        predictors.append((mean, {"map": mean.digest}))
    elif rules.depth is not None and len(outcome.surveys) > 1:
        mean = other_sequences_map(outcome.surveys)
        predictors.append((mean, {"map": mean.digest}))
    drawn = [found.name for found in outcome.surveys[: options.pictures]]

    def draw(predictor: str, sequence: str, track: Track) -> None:
        if sequence in drawn and predictor == options.policy[0]:
            name = sequence.replace("/", "_")
            save_depth_picture(options.out / "plots" / f"depth_{name}.png", track, rules)

    predict_all(plan, outcome, predictors, draw)
    about = {
        "made_by": "omnistream-eval geometry",
        "options": asdict(options),
        "environment": environment(),
        "model": {
            "words": words,
            "weights": options.weights,
            "hash": model_hash(model),
            "scale": model.config.scale,
            "outputs": sorted(model.config.outputs),
            "engine": engine_words,
        },
        "data": {"path": str(options.data), "sequences": len(outcome.surveys), "limit": options.limit},
    }
    report = build_report(outcome, rules, plan.lengths, options.policy, about)
    write_report(options.out / RESULTS, report)
    print(f"\n{table(report)}\n\nwrote {', '.join([RESULTS, *_plots(options, outcome, report)])} in {options.out}")
    return report


def chosen_protocol(options: Geometry, model: OmniStream) -> Protocol:
    """The protocol with what the options and the checkpoint change in it; ConfigError where they do not fit."""
    found = protocol(options.protocol)
    if options.align is not None:
        found = found.aligned(options.align)
    elif found.name == "recordings" and model.config.scale == "metric":
        found = found.aligned("metric")
    if found.depth is not None and found.depth.alignment == "metric" and model.config.scale != "metric":
        raise ConfigError(
            f"protocol {found.name} compares metric depth, but the checkpoint's scale is {model.config.scale}; "
            "give --align scale_exact"
        )
    if options.input == "checkpoint":
        found = dataclasses.replace(found, input=InputRule())
    if not set(model.config.outputs) & _needs(found):
        raise ConfigError(
            f"protocol {found.name} needs {' or '.join(sorted(_needs(found)))}; "
            f"this checkpoint has {', '.join(model.config.outputs)}"
        )
    return found.made_strict() if options.strict else found


def _needs(rules: Protocol) -> set[str]:
    return {name for name, rule in (("depth", rules.depth), ("pose", rules.pose)) if rule is not None}


def _lengths(options: Geometry, rules: Protocol) -> tuple[int, ...]:
    if any(length < 2 for length in options.frames):
        raise ConfigError(f"--frames {options.frames}: expected at least 2 each")
    if rules.count is not None and any(length > rules.count for length in options.frames):
        raise ConfigError(f"--frames {max(options.frames)}: protocol {rules.name} has at most {rules.count} frames")
    return tuple(sorted(set(options.frames))) or (rules.count or ALL,)


def _predictors(
    options: Geometry, rules: Protocol, model: OmniStream
) -> tuple[list[tuple[Predictor, dict[str, Any]]], str]:
    """The model under every policy, and without memory; and the engine in words."""
    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    engine = make_engine(model, options.engine, options.device, options.dtype)
    want = frozenset(_needs(rules) & set(model.config.outputs))
    identity = {"model": model_hash(model), "engine": str(engine.spec), "time_base": options.time_base}
    if model.config.lens == "known":
        identity["lens"] = "known" if options.known_lens else "guessed"
    build = partial(StreamPredictor, model, engine, rule=rules.input, known_lens=options.known_lens)
    found: list[tuple[Predictor, dict[str, Any]]] = [
        (build(policy=policy, want=want, time_base=options.time_base), identity) for policy in options.policy
    ]
    if options.frame_by_frame and "depth" in want:
        found.append((build(policy="window:1", want=frozenset({"depth"}), frame_by_frame=True), identity))
    return found, str(engine.spec)


def _plots(options: Geometry, outcome: Outcome, report: dict[str, Any]) -> list[str]:
    """Draw what can be drawn; names of the files."""
    folder = options.out / "plots"
    written = []
    if save_paths(folder / "paths.png", outcome.positions, options.policy):
        written.append("plots/paths.png")
    if save_lengths(folder / "lengths.png", report):
        written.append("plots/lengths.png")
    return written + sorted(f"plots/{path.name}" for path in folder.glob("depth_*.png"))
