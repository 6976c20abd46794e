"""``fraudsdk demo``: the main job end to end, with no server."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fraudsdk.cli.commands.score import columns_of, outcome_lines
from fraudsdk.cli.commands.train import add_training, params_of
from fraudsdk.cli.options import (
    DEFAULT_LABEL_DELAY,
    add_hash_key,
    add_label_delay,
    add_mapping,
    add_unlabelled,
    hash_key_of,
    label_delay_us_of,
    new_folder,
    new_parser,
    note,
    note_forgotten,
    say,
    unlabelled_of,
    writable_file,
)
from fraudsdk.cli.progress import counting
from fraudsdk.errors import ConfigurationError

if TYPE_CHECKING:
    from fraudsdk.cli.data import Table, Timeline
    from fraudsdk.cli.pipeline import Prepared, Recipe
    from fraudsdk.domain.decision import Decision
    from fraudsdk.domain.explanation import Explanation
    from fraudsdk.features.spec import FeatureSet
    from fraudsdk.model.artefact import CompiledModel
    from fraudsdk.telemetry.histogram import MicrosecondHistogram

# Half a year, so that a month of label delay twice leaves enough to train and to test on.
DAYS: Final = 180
# Long past, so that no machine's clock takes the stream for the future.
START: Final = date(2025, 1, 1)
FRAUD_RATE: Final = 0.008
SIMULATED_LABEL_DELAY: Final = "30d"
# The trainer's 4096 took three times as long here; the demo is to be over while one watches.
MAX_BIN: Final = 512
TRANSACTIONS_FILE: Final = "transactions.parquet"
DECISIONS_FILE: Final = "decisions.parquet"
NOWHERE: Final = -1
ALL_FRAUDS: Final = "all frauds"
FALSE_ALARMS: Final = "false alarms"
EVALUATED: Final = (("AUC", "auc"), ("average precision", "average_precision"))


def register(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser."""
    parser = new_parser(
        commands,
        "demo",
        run,
        summary="run the main job end to end: simulate, train, compile, certify, score",
        example="fraudsdk demo\n  fraudsdk demo --data transactions.csv --map user_id=CUSTOMER amount=TOTAL",
        more="Needs no server and writes into one folder.",
    )
    parser.add_argument("--data", metavar="FILE", type=Path, help="your own transactions in place of simulated ones")
    add_mapping(parser)
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("demo"), help="default: %(default)s")
    parser.add_argument("--features", metavar="FILE", type=Path, help="feature set (default: the shipped catalogue)")
    parser.add_argument("--currency", metavar="CODE", help="reference currency of the shipped catalogue")
    parser.add_argument(
        "--transactions", metavar="N", type=int, default=240_000, help="to simulate (default: %(default)s)"
    )
    parser.add_argument("--users", metavar="N", type=int, default=4_000, help="to simulate (default: %(default)s)")
    parser.add_argument(
        "--held-back", metavar="N", type=int, default=20_000, help="scored one by one (default: %(default)s)"
    )
    add_label_delay(parser, default=None, said=f"{DEFAULT_LABEL_DELAY}; simulated: {SIMULATED_LABEL_DELAY}")
    add_unlabelled(parser)
    parser.add_argument(
        "--seed", metavar="N", type=int, default=7, help="of simulation and training (default: %(default)s)"
    )
    add_training(parser)
    add_hash_key(parser)
    return parser


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """
    The held-back stream, scored one by one.

    Attributes
    ----------
    first : int
        Its place in event-time order.
    decisions : list of Decision
    latency, latency_explained : MicrosecondHistogram
        Of every decision, and of those that came with reasons.
    elapsed_s : float
        Inside `Scorer.score`, summed.
    example : (Decision, Explanation) or None
        The decision to explain.
    """

    first: int
    decisions: list[Decision]
    latency: MicrosecondHistogram
    latency_explained: MicrosecondHistogram
    elapsed_s: float
    example: tuple[Decision, Explanation] | None


class Steps:
    """Says what is being done, and when it is done, how long it took."""

    def __init__(self) -> None:
        self._number = 0
        self._started = time.perf_counter()

    def done(self, name: str, what: str) -> None:
        """Print one finished step; the next begins."""
        self._number += 1
        elapsed_s = time.perf_counter() - self._started
        say(f"{self._number:>2}  {name:<9} {what:<84} {elapsed_s:>6.1f} s")
        self._started = time.perf_counter()


def run(args: argparse.Namespace) -> None:
    """Everything, in order."""
    from fraudsdk.cli.data import timeline_of
    from fraudsdk.cli.pipeline import load_model
    from fraudsdk.training.tables import write_columns

    started = time.perf_counter()
    steps = Steps()
    args.out.mkdir(parents=True, exist_ok=True)
    writable_file(args.out / DECISIONS_FILE)
    model_folder = new_folder(args.out / "model", replace=True)
    if args.held_back < 1:
        raise ConfigurationError(f"--held-back must be at least 1, was {args.held_back}; leave it out for 20,000")
    table, feature_set = _table(args, steps)
    recipe = _recipe(args, feature_set, simulated=args.data is None)
    prepared, reports = _make_model(table, recipe, model_folder, steps)
    compiled = load_model(model_folder)
    timeline = timeline_of(table, feature_set, recipe.hash_key, recipe.label_delay_us)
    scored = _score(args, table, timeline, prepared, compiled, recipe, steps)
    _print_speed(scored)
    _print_outcomes(scored, table, timeline, prepared)
    _print_online_against_replay(scored, prepared, compiled)
    pictures = _print_example(scored, args.out)
    write_columns(columns_of(scored.decisions), args.out / DECISIONS_FILE)
    simulated = [args.out / TRANSACTIONS_FILE] if args.data is None else []
    say()
    for path in (*simulated, model_folder, *reports, args.out / DECISIONS_FILE, *pictures):
        say(f"wrote {path}")
    say(
        f"done in {time.perf_counter() - started:.0f} s; next: fraudsdk score FILE --model {model_folder} --out decisions.csv"
    )


def _table(args: argparse.Namespace, steps: Steps) -> tuple[Table, FeatureSet]:
    """The user's table, or a simulated one, with its feature set."""
    from fraudsdk.cli.data import read_with_features
    from fraudsdk.features.spec import FeatureSet
    from fraudsdk.simulation import SimulationSpec, simulate, write
    from fraudsdk.training.files import written_whole

    if args.data is not None:
        table, feature_set = read_with_features(args.data, args.map, args.features, args.currency)
        steps.done("read", f"{len(table):,} transactions of {args.data}; amounts in {feature_set.currency}")
        return table, feature_set
    if args.map:
        raise ConfigurationError("--map is for a file of your own; add --data FILE")
    path = writable_file(args.out / TRANSACTIONS_FILE)
    currency = args.currency or "EUR" if args.features is None else FeatureSet.load(args.features).currency
    spec = SimulationSpec(
        transactions=args.transactions,
        users=args.users,
        days=DAYS,
        fraud_rate=FRAUD_RATE,
        seed=args.seed,
        start=START,
        currency=currency,
    )
    columns = simulate(spec)
    with written_whole(path) as aside:
        write(columns, aside)
    n_frauds, n_patterns = int(columns["is_fraud"].sum()), len(set(columns["fraud_pattern"].tolist()) - {"none"})
    what = f"{spec.transactions:,} transactions of {spec.users:,} users, {n_frauds:,} frauds of {n_patterns} patterns"
    steps.done("simulate", what)
    # Read back like anybody's file, so that the demo takes the road that users take.
    return read_with_features(path, [], args.features, args.currency if args.features else currency)


def _recipe(args: argparse.Namespace, feature_set: FeatureSet, *, simulated: bool) -> Recipe:
    from fraudsdk.cli.pipeline import Recipe

    now = datetime.now(UTC)
    delay = args.label_delay or (SIMULATED_LABEL_DELAY if simulated else DEFAULT_LABEL_DELAY)
    return Recipe(
        name="demo",
        version=now.strftime("%Y%m%dT%H%M%SZ"),
        created_at=now.isoformat(timespec="seconds"),
        feature_set=feature_set,
        policy=None,
        label_delay_us=label_delay_us_of(delay),
        hash_key=hash_key_of(args.hash_key_file),
        params=params_of(args, max_bin=MAX_BIN),
        unlabelled=unlabelled_of(args.unlabelled),
    )


def _make_model(table: Table, recipe: Recipe, out: Path, steps: Steps) -> tuple[Prepared, list[Path]]:
    """Replay, train, compile, certify, evaluate; gives back the reports as well."""
    from fraudsdk.cli.pipeline import (
        evaluate_compiled,
        fit,
        load_model,
        prepare,
        publish,
        report_folder,
        unlabelled_line,
        write_reports,
    )

    prepared = prepare(table, recipe, table.segments())
    n_features = len(recipe.feature_set.features)
    steps.done("replay", f"{n_features} features of each, every label delivered when it was known")
    note_forgotten(prepared.replayed.engine.memory.counters())
    silence = unlabelled_line(prepared.matrix, prepared.split.unlabelled)
    if silence:
        note(silence)
    model = fit(prepared, recipe.params)
    n, n_frauds = len(prepared.split.train), int(prepared.split.train_label.sum())
    steps.done("train", f"{model.n_trees} trees on {n:,} transactions with {n_frauds:,} known frauds")
    publish(model, prepared, recipe, out, simulated=table.simulated, replace=out.exists())
    compiled = load_model(out)
    certificate = compiled.certificate
    steps.done(
        "compile",
        f"certified: {certificate.unequal:,} of {certificate.rows:,} rows differ from {certificate.reference}",
    )
    test = prepared.test
    evaluation = evaluate_compiled(compiled, test)
    title = f"Model {compiled.version}"
    reports = write_reports(report_folder(out), test, model, evaluation, title=title, simulated=table.simulated)
    figures = ", ".join(f"{name} {getattr(evaluation, key):.3f}" for name, key in EVALUATED if evaluation.n_frauds)
    steps.done(
        "evaluate",
        f"on {evaluation.n:,} later transactions with {evaluation.n_frauds:,} frauds{figures and f': {figures}'}",
    )
    return prepared, reports


def _score(
    args: argparse.Namespace,
    table: Table,
    timeline: Timeline,
    prepared: Prepared,
    compiled: CompiledModel,
    recipe: Recipe,
    steps: Steps,
) -> Scored:
    """Stream the history through a scorer, then the held-back transactions one by one."""
    from fraudsdk.cli.stream import Stream
    from fraudsdk.config import ScorerConfig
    from fraudsdk.scorer import Scorer

    # Only what nothing was fitted on is worth scoring, and at least something must have been seen before.
    fitted = int((timeline.event_time_us < prepared.split.times.test_start_us).sum())
    first = max(fitted, len(table) - args.held_back)
    with Scorer.open(ScorerConfig(model=compiled.source_path, hash_key=recipe.hash_key)) as scorer:
        stream = Stream(scorer, table, timeline)
        with counting("warm up", first) as progress:
            for _ in stream.score(0, first, progress):
                pass
        steps.done("warm up", f"state of {first:,} earlier transactions, through the scorer")
        scored = _one_by_one(stream, scorer, first, len(table), _to_explain(prepared, compiled, first))
        steps.done("score", f"{len(scored.decisions):,} transactions that came after, one by one")
    return scored


def _one_by_one(stream: Any, scorer: Any, first: int, stop: int, explained_at: int) -> Scored:
    from fraudsdk.telemetry.histogram import MicrosecondHistogram

    latency, latency_explained = MicrosecondHistogram(), MicrosecondHistogram()
    decisions: list[Decision] = []
    example = None
    elapsed_ns = 0
    for position, transaction in stream.one_by_one(first, stop):
        explanation = scorer.explain(transaction) if position == explained_at else None
        started_ns = time.perf_counter_ns()
        decision = scorer.score(transaction)
        took_ns = time.perf_counter_ns() - started_ns
        elapsed_ns += took_ns
        latency.record(took_ns)
        if decision.reasons:
            latency_explained.record(took_ns)
        if explanation is not None:
            example = (decision, explanation)
        decisions.append(decision)
    return Scored(first, decisions, latency, latency_explained, elapsed_ns / 1e9, example)


def _to_explain(prepared: Prepared, compiled: CompiledModel, first: int) -> int:
    """
    Place of the held-back transaction to explain: the fraud with the highest margin, or the highest where none is known.

    Replay knows the margins beforehand; an explanation must be asked for before its transaction is remembered.
    """
    import numpy as np

    places = np.flatnonzero(prepared.replayed.scored)
    held_back = np.flatnonzero(places >= first)
    if len(held_back) == 0:
        return NOWHERE
    margins = compiled.margins(prepared.matrix.rows[held_back])
    is_fraud = prepared.matrix.label[held_back] == 1
    candidates = np.flatnonzero(is_fraud) if is_fraud.any() else np.arange(len(held_back))
    return int(places[held_back[candidates[np.argmax(margins[candidates])]]])


def _print_speed(scored: Scored) -> None:
    n = len(scored.decisions)
    say()
    say(f"Speed      {n / scored.elapsed_s:,.0f} transactions/s on one thread, each timed on its own")
    for name, histogram in (("all", scored.latency), ("with reasons", scored.latency_explained)):
        if histogram.n:
            summary = histogram.summary()
            say(
                f"  {name:<14} p50 {summary.p50_us:>8.1f} us   p99 {summary.p99_us:>8.1f} us   p99.9 {summary.p999_us:>8.1f} us"
                f"   max {summary.max_us:>8.1f} us   n {summary.n:,}"
            )


def _print_outcomes(scored: Scored, table: Table, timeline: Timeline, prepared: Prepared) -> None:
    say()
    say(f"Outcomes   of {len(scored.decisions):,}")
    for line in outcome_lines(scored.decisions):
        say(line)
    said = " (simulated fraud: it says what the engine can do, not what your model will)" if table.simulated else ""
    say()
    say(f"Detection  frauds that were not approved{said}")
    for line in _detection_lines(scored, table, timeline, prepared):
        say(line)


def _detection_lines(scored: Scored, table: Table, timeline: Timeline, prepared: Prepared) -> list[str]:
    """Frauds of the stream, by pattern where the table knows it, and genuine transactions that were stopped."""
    import numpy as np

    from fraudsdk.domain.decision import Outcome
    from fraudsdk.training.matrix import UNKNOWN

    rows = timeline.order[scored.first :]
    # Replay and the stream have one order; what has no row has no verdict of its own.
    label = np.full(len(table), UNKNOWN, np.int8)
    label[prepared.replayed.scored] = prepared.label
    labels = label[scored.first :].tolist()
    patterns = table.raw["fraud_pattern"][rows].tolist() if table.simulated else [ALL_FRAUDS] * len(rows)
    judged: Counter[str] = Counter()
    stopped: Counter[str] = Counter()
    for decision, verdict, pattern in zip(scored.decisions, labels, patterns, strict=True):
        if decision.decided_by == "lifecycle" or verdict == UNKNOWN:
            continue
        kinds = {pattern, ALL_FRAUDS} if verdict == 1 else {FALSE_ALARMS}
        judged.update(kinds)
        if decision.outcome is not Outcome.APPROVE:
            stopped.update(kinds)
    by_size = sorted(judged, key=lambda kind: (kind == FALSE_ALARMS, kind == ALL_FRAUDS, -judged[kind], kind))
    return [
        f"  {kind:<22} {stopped[kind]:>6,} of {judged[kind]:>7,}  {stopped[kind] / judged[kind]:>7.1%}"
        for kind in by_size
    ]


def _print_online_against_replay(scored: Scored, prepared: Prepared, compiled: CompiledModel) -> None:
    """Compare the bits of the margins that the scorer gave with those of the rows that replay wrote."""
    import numpy as np

    online = np.array([decision.margin for decision in scored.decisions], np.float32)
    held_back = slice(scored.first, scored.first + len(online))
    rows, judged = prepared.replayed.rows[held_back], prepared.replayed.scored[held_back]
    replayed = compiled.margins(np.ascontiguousarray(rows[judged]))
    same = int((online[judged].view(np.int32) == replayed.view(np.int32)).sum())
    say()
    say(f"Online against replay: margins bit-identical for {same:,} of {int(judged.sum()):,}")


def _print_example(scored: Scored, out: Path) -> list[Path]:
    """Explain the chosen decision; gives back the pictures of it."""
    from fraudsdk.cli.words import explanation_lines, write_waterfall

    if scored.example is None:
        return []
    decision, explanation = scored.example
    say()
    for line in explanation_lines(decision, explanation):
        say(line)
    pictures = [out / "explanation.png", out / "explanation.html"]
    for picture in pictures:
        write_waterfall(explanation, picture, title=f"Why this transaction: {decision.outcome.value}")
    return pictures
