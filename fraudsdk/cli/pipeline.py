"""
From a table to a certified model and its figures, in steps that train, evaluate and demo share.

    table -> times of the split -> vocabulary -> replay -> split -> train -> compile, certify -> evaluate -> report

An artefact is written to ``DIR`` and its reports to ``DIR-report``: every file of an artefact is hashed in its manifest,
and the evaluation can only be made with the artefact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraudsdk.cli.data import Table
from fraudsdk.cli.progress import counting
from fraudsdk.compiler.compile import compile_model
from fraudsdk.domain.schema import FeatureSchema
from fraudsdk.encoding.columns import NO_TIME, parse_times
from fraudsdk.encoding.encoder import LABEL_UNKNOWN, TIME_UNITS
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.errors import ConfigurationError, InvalidTransactionError, ModelError
from fraudsdk.features.spec import FeatureSet
from fraudsdk.model.artefact import CompiledModel, load_artefact
from fraudsdk.model.calibration import Calibration
from fraudsdk.model.documents import MAX_DOCUMENT_BYTES, parse
from fraudsdk.model.manifest import BOOSTER, Manifest
from fraudsdk.policy.bands import ScoreBands
from fraudsdk.policy.policy import Policy
from fraudsdk.policy.spec import PolicySpec
from fraudsdk.scorer.parts import FEATURES_FILE, POLICY_FILE, VOCABULARY_FILE
from fraudsdk.training.evaluate import Evaluation, evaluate
from fraudsdk.training.files import written_whole
from fraudsdk.training.matrix import NEVER_US, UNKNOWN, TrainingMatrix
from fraudsdk.training.replay import Replayed, replay
from fraudsdk.training.report import write_report
from fraudsdk.training.split import Split, SplitTimes, Unlabelled, labels_with_hindsight, split_by_time
from fraudsdk.training.train import TrainedModel, TrainParams, progress_bar, train

REPORT_FILE: Final = "report.html"
EVALUATION_FILE: Final = "evaluation.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """
    How a model is to be made.

    Attributes
    ----------
    name, version, created_at : str
        For the manifest.
    feature_set : FeatureSet
    policy : PolicySpec or None
        None = score bands as validation supports them.
    label_delay_us : int
        How long labels take, microseconds: the gap in front of validation and of test.
    unlabelled : Unlabelled or None
        What a transaction without a label counts as; None = what the table itself says.
    hash_key : bytes
        For entity keys and card tokens.
    params : TrainParams
    backend : str
        ``"table"`` or ``"c"``.
    """

    name: str
    version: str
    created_at: str
    feature_set: FeatureSet
    policy: PolicySpec | None
    label_delay_us: int
    hash_key: bytes
    params: TrainParams
    backend: str = "table"
    unlabelled: Unlabelled | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """
    A replayed table, cut in time.

    Attributes
    ----------
    vocabulary : Vocabulary
        Of the training period.
    replayed : Replayed
    matrix : TrainingMatrix
    split : Split
    label : int8[n]
        Of each row of the matrix, with hindsight; silence read as the split reads it.
    """

    vocabulary: Vocabulary
    replayed: Replayed
    matrix: TrainingMatrix
    split: Split
    label: NDArray[np.int8]

    @property
    def test(self) -> TrainingMatrix:
        """What nothing was fitted on, with the labels to measure against."""
        return replace(self.matrix, label=self.label).take(self.split.test)


def check_policy(policy: PolicySpec | None, feature_set: FeatureSet) -> None:
    """Refuse a policy that this feature set cannot serve now, rather than after training."""
    if policy is not None:
        Policy(
            policy,
            feature_set.schema,
            custom_numbers=feature_set.custom_numbers,
            custom_categories=feature_set.custom_categories,
        )


def prepare(table: Table, recipe: Recipe, segments: Mapping[str, NDArray[Any]]) -> Prepared:
    """
    Replay a table and cut it in time, the vocabulary being that of the training period alone.

    Raises
    ------
    InvalidTransactionError
        Names the first bad row of the file.
    ConfigurationError
        The table is too short, or has no labels.
    """
    if "is_fraud" not in table.columns:
        raise ConfigurationError(f"{table.source} has no column for is_fraud; map one, as in --map is_fraud=LABEL")
    times_us = event_times_us(table)
    times = split_times(times_us, recipe.label_delay_us)
    vocabulary = fit_vocabulary(table, recipe.feature_set, times_us < times.train_end_us)
    replayed = replay_table(table, recipe.feature_set, vocabulary, recipe.hash_key, recipe.label_delay_us)
    matrix = replayed.matrix(segments)
    unlabelled = recipe.unlabelled or Unlabelled.of(matrix.label)
    split = split_by_time(matrix, times, horizon_us=recipe.label_delay_us, unlabelled=unlabelled)
    label = labels_with_hindsight(matrix, horizon_us=recipe.label_delay_us, unlabelled=unlabelled)
    check_testable(label[split.test], "test period")
    return Prepared(vocabulary, replayed, matrix, split, label)


def check_testable(label: NDArray[np.int8], period: str) -> None:
    """
    Refuse to measure where every model would look perfect.

    Raises
    ------
    ConfigurationError
        No transaction counts as genuine.
    """
    if (label == UNKNOWN).all():
        raise ConfigurationError(
            f"none of the {len(label):,} transactions of the {period} is labelled, so no model could be tested on them; "
            "give more data, or a shorter --label-delay"
        )
    if not (label == 0).any():
        raise ConfigurationError(
            f"all {int((label == 1).sum()):,} labelled transactions of the {period} are frauds, so every model would look "
            "perfect; label genuine ones, or add --unlabelled genuine"
        )


def unlabelled_line(matrix: TrainingMatrix, unlabelled: Unlabelled) -> str:
    """What transactions without a label count as; empty where there are none."""
    n = int((matrix.label == UNKNOWN).sum())
    if n == 0:
        return ""
    if unlabelled is Unlabelled.EXCLUDED:
        return f"{n:,} transactions without a label are left out; --unlabelled genuine counts them as genuine"
    return (
        f"{n:,} transactions without a label count as genuine once they are older than --label-delay; "
        "--unlabelled excluded leaves them out"
    )


def event_times_us(table: Table) -> NDArray[np.int64]:
    """
    Event times, in the order of the table.

    Raises
    ------
    InvalidTransactionError
        One is missing or no time.
    """
    named = [(f"event_time{suffix}", unit) for suffix, unit in TIME_UNITS.items()]
    found = [(name, unit) for name, unit in named if name in table.columns]
    remedy = "map a column to event_time, event_time_s, event_time_ms or event_time_us"
    if len(found) != 1:
        raise InvalidTransactionError("event_time", "is given twice" if found else "is missing", remedy)
    name, unit = found[0]
    try:
        times_us = parse_times(name, table.columns[name], unit)
    except InvalidTransactionError as error:
        raise table.in_file(error) from None
    if (times_us == NO_TIME).any():
        raise InvalidTransactionError(
            name, "is missing", remedy, row=int(table.file_rows[np.argmax(times_us == NO_TIME)])
        )
    return times_us


def split_times(times_us: NDArray[np.int64], label_delay_us: int) -> SplitTimes:
    """Borders of the split; known before there are features, since the vocabulary depends on them."""
    n = len(times_us)
    without_features = TrainingMatrix(
        rows=np.empty((n, 0), np.float32),
        label=np.full(n, LABEL_UNKNOWN, np.int8),
        event_time_us=np.sort(times_us),
        label_time_us=np.full(n, NEVER_US),
        card_key=np.zeros(n, np.int64),
        amount_major=np.zeros(n),
        schema=FeatureSchema((), ""),
    )
    return SplitTimes.by_fractions(without_features, gap_us=label_delay_us)


def fit_vocabulary(table: Table, feature_set: FeatureSet, rows: NDArray[np.bool_] | None = None) -> Vocabulary:
    """Vocabulary of a table, or of some rows of it."""
    within = table if rows is None else table.where(rows)
    try:
        return Vocabulary.fit(within.columns, fields=feature_set.custom_categories)
    except InvalidTransactionError as error:
        raise within.in_file(error) from None


def load_vocabulary(path: Path) -> Vocabulary:
    """
    The vocabulary in a JSON file, such as the one in an artefact.

    Raises
    ------
    ConfigurationError
        It cannot be read, or is no vocabulary.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
        if len(data) > MAX_DOCUMENT_BYTES:
            raise ConfigurationError(
                f"vocabulary {path} has more than {MAX_DOCUMENT_BYTES:,} bytes; give a vocabulary.json, such as a model's"
            )
        return Vocabulary.from_dict(json.loads(data))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"vocabulary {path} cannot be read: {error}; give a vocabulary.json, such as a model's"
        ) from error


def replay_table(
    table: Table, feature_set: FeatureSet, vocabulary: Vocabulary, hash_key: bytes, label_delay_us: int
) -> Replayed:
    """`fraudsdk.training.replay.replay` with a progress bar, and errors that name the row of the file."""
    try:
        with counting("replay", len(table)) as progress:
            return replay(
                table.columns,
                feature_set,
                vocabulary,
                hash_key=hash_key,
                label_delay_us=label_delay_us,
                progress=progress,
            )
    except InvalidTransactionError as error:
        raise table.in_file(error) from None


def fit(prepared: Prepared, params: TrainParams) -> TrainedModel:
    """`fraudsdk.training.train.train` with a progress bar."""
    with progress_bar("train") as progress:
        return train(prepared.matrix, prepared.split, params, progress=progress)


def publish(
    model: TrainedModel, prepared: Prepared, recipe: Recipe, out: Path, *, simulated: bool, replace: bool
) -> Manifest:
    """Compile and certify a trained model into `out`, with all that a scorer needs to be opened on it."""
    feature_set = recipe.feature_set
    return compile_model(
        model.booster,
        out,
        name=recipe.name,
        version=recipe.version,
        created_at=recipe.created_at,
        feature_names=feature_set.names,
        schema_fingerprint=feature_set.fingerprint,
        training_metrics={
            **model.metrics,
            "params": asdict(model.params),
            "bands": model.bands,
            "validation_history": list(model.validation_history),
            "versions": model.versions,
            "split_us": asdict(prepared.split.times),
            "label_delay_us": recipe.label_delay_us,
            "unlabelled": prepared.split.unlabelled.value,
            "simulated": simulated,
        },
        calibration=Calibration.from_dict(model.calibration),
        extra_files=companions(feature_set, prepared.vocabulary, recipe.policy or proposed_policy(model.bands)),
        backend=recipe.backend,
        replace=replace,
    )


def companions(feature_set: FeatureSet, vocabulary: Vocabulary, policy: PolicySpec | None) -> dict[str, bytes]:
    """Files that travel with a model so that `Scorer.open` needs nothing else."""
    files = {
        FEATURES_FILE: feature_set.to_toml().encode(),
        VOCABULARY_FILE: json.dumps(vocabulary.to_dict()).encode(),
    }
    return files if policy is None else {**files, POLICY_FILE: policy.to_toml().encode()}


def proposed_policy(bands: Mapping[str, Any]) -> PolicySpec:
    """Review and decline as training proposes them; no decline where validation does not support one."""
    return PolicySpec(bands=ScoreBands(review=bands["review"], decline=bands["decline"]))


def policy_of(compiled: CompiledModel) -> PolicySpec:
    """The policy that an artefact brings, or the default one."""
    if POLICY_FILE not in compiled.manifest.files:
        return PolicySpec()
    return PolicySpec.from_toml(compiled.read(POLICY_FILE).decode())


def feature_set_of(compiled: CompiledModel, file: Path | None = None) -> FeatureSet:
    """
    The feature set of an artefact; a `file` must be the same one.

    Raises
    ------
    SchemaMismatchError
        It is another one, or the artefact brings none.
    """
    feature_set = FeatureSet.from_toml(compiled.read(FEATURES_FILE).decode()) if file is None else FeatureSet.load(file)
    feature_set.schema.require(compiled.feature_names, compiled.schema_fingerprint, whose=f"model {compiled.version}")
    return feature_set


def vocabulary_of(compiled: CompiledModel) -> Vocabulary:
    """The vocabulary that an artefact brings."""
    return Vocabulary.from_dict(parse(compiled.read(VOCABULARY_FILE), "vocabulary", ModelError))


def evaluate_compiled(compiled: CompiledModel, matrix: TrainingMatrix) -> Evaluation:
    """Figures of the compiled model's own margins, at the bands of its own policy."""
    margins = compiled.margins(matrix.rows)
    bands = asdict(policy_of(compiled).bands)
    return evaluate(
        matrix,
        compiled.calibration.probabilities_of(margins.astype(np.float64)),
        margins,
        calibration=compiled.manifest.calibration,
        bands=bands if any(score is not None for score in bands.values()) else None,
    )


def trained_model_of(compiled: CompiledModel, schema: FeatureSchema) -> TrainedModel:
    """
    What training said about an artefact, for a report.

    Raises
    ------
    ConfigurationError
        The artefact does not say how it was trained.
    """
    metrics = compiled.manifest.training_metrics
    if not {"params", "bands", "validation_history", "versions"} <= set(metrics):
        raise ConfigurationError(
            f"{compiled.version} does not say how it was trained, so no report can; leave --report out, or make the model "
            "with fraudsdk train"
        )
    return TrainedModel(
        booster=compiled.read(BOOSTER),
        n_trees=compiled.manifest.n_trees,
        schema=schema,
        params=TrainParams(**metrics["params"]),
        calibration=Calibration.identity().to_dict()
        if compiled.manifest.calibration is None
        else dict(compiled.manifest.calibration),
        bands=metrics["bands"],
        metrics=dict(metrics),
        validation_history=tuple(metrics["validation_history"]),
        versions=metrics["versions"],
    )


def report_folder(out: Path) -> Path:
    """Where the reports of the artefact in `out` go."""
    return out.with_name(f"{out.name}-report")


def write_reports(
    folder: Path, matrix: TrainingMatrix, model: TrainedModel, evaluation: Evaluation, *, title: str, simulated: bool
) -> list[Path]:
    """Write ``evaluation.json``, and ``report.html`` where there are frauds to draw curves of."""
    folder.mkdir(parents=True, exist_ok=True)
    figures, report = folder / EVALUATION_FILE, folder / REPORT_FILE
    with written_whole(figures) as aside:
        aside.write_text(json.dumps(evaluation.to_dict(), indent=2) + "\n", encoding="utf-8")
    if not 0 < evaluation.n_frauds < evaluation.n:
        report.unlink(missing_ok=True)  # that of an earlier model would be taken for this one's
        return [figures]
    with written_whole(report) as aside:
        write_report(aside, matrix, model, evaluation, title=title, simulated=simulated)
    return [report, figures]


def load_model(directory: Path) -> CompiledModel:
    """`load_artefact`, ready to score."""
    compiled = load_artefact(directory)
    compiled.warm_up()
    return compiled
