"""
The evaluation as one self-contained page: pictures, tables, parameters, versions; nothing is fetched, nothing runs.

Every picture has a sentence beside it that says what to look for, and another for those who cannot see it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fraudsdk.domain.schema import FeatureSchema
from fraudsdk.errors import ConfigurationError
from fraudsdk.training import pictures
from fraudsdk.training.evaluate import Evaluation
from fraudsdk.training.extras import need
from fraudsdk.training.matrix import UNKNOWN, TrainingMatrix
from fraudsdk.training.metrics import OperatingPoint, RankingCurve
from fraudsdk.training.pictures import PALETTE
from fraudsdk.training.train import TrainedModel

_POINTS_MAX = 500
"""Points of a curve; more are not visible and make the page slow."""

_FEATURES_SHOWN = 15

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Explained:
    """Contributions of a sample of rows."""

    rows: NDArray[np.float32]
    contributions: NDArray[np.float32]
    n_frauds: int


@dataclass(frozen=True, slots=True)
class _Picture:
    name: str
    title: str
    caption: str
    alt: str
    svg: str


def write_report(
    path: Path,
    matrix: TrainingMatrix,
    model: TrainedModel,
    evaluation: Evaluation,
    *,
    title: str,
    simulated: bool,
    n_explained: int = 2_000,
    seed: int = 7,
) -> None:
    """
    Write the page.

    Parameters
    ----------
    path : Path
        The HTML file.
    matrix : TrainingMatrix
        What `evaluation` was measured on.
    model : TrainedModel
        What was evaluated.
    evaluation : Evaluation
        The figures.
    title : str
        Heading.
    simulated : bool
        True when the transactions came from a simulator: the page then says so first.
    n_explained : int
        Rows whose SHAP contributions are summarised, frauds and genuine in equal parts as far as there are frauds.
    seed : int
        Of that sample.

    Raises
    ------
    ConfigurationError
        The matrix is not the one that was evaluated.
    """
    path.write_text(
        report_html(matrix, model, evaluation, title=title, simulated=simulated, n_explained=n_explained, seed=seed),
        encoding="utf-8",
    )


def report_html(
    matrix: TrainingMatrix,
    model: TrainedModel,
    evaluation: Evaluation,
    *,
    title: str,
    simulated: bool,
    n_explained: int = 2_000,
    seed: int = 7,
) -> str:
    """The page that `write_report` writes."""
    labelled = np.flatnonzero(matrix.label != UNKNOWN)
    if len(labelled) != evaluation.n:
        raise ConfigurationError(
            f"the evaluation is of {evaluation.n} labelled rows, the matrix has {len(labelled)}; pass the rows evaluated"
        )
    if not 0 < evaluation.n_frauds < evaluation.n:
        raise ConfigurationError(
            f"{evaluation.n_frauds} of the {evaluation.n} labelled rows are frauds, and curves need both kinds; "
            "evaluate on a longer interval"
        )
    known = matrix.take(labelled)
    margin = model.margins(known.rows).astype(np.float64)
    score = model.scores(margin)
    explained = _explain(known, model, n_explained, seed)
    curve = RankingCurve.of(known.label, margin, known.amount_major)
    drawn = [
        _precision_recall(curve, evaluation),
        _roc(curve, evaluation),
        _calibration(evaluation),
        _gain(curve),
        _histogram(known.label, score, evaluation),
    ]
    if model.validation_history:
        drawn.append(_history(model))
    explanation = _figure(_shap(explained, model.schema), titled=False) + _weights(explained, model.schema)
    return _page(title, simulated, model, evaluation, drawn, explanation)


def _explain(known: TrainingMatrix, model: TrainedModel, n_explained: int, seed: int) -> _Explained:
    generator = np.random.default_rng(seed)
    frauds, genuine = np.flatnonzero(known.label == 1), np.flatnonzero(known.label == 0)
    some_frauds = generator.permutation(frauds)[: n_explained // 2]
    some_genuine = generator.permutation(genuine)[: n_explained - len(some_frauds)]
    rows = known.rows[np.sort(np.concatenate((some_frauds, some_genuine)))]
    return _Explained(rows, model.contributions(rows)[:, :-1], len(some_frauds))


def _precision_recall(curve: RankingCurve, evaluation: Evaluation) -> _Picture:
    recall, precision = curve.frauds / curve.n_frauds, curve.frauds / (curve.frauds + curve.genuine)
    shown = _spread(recall)

    def draw(axes: Any) -> None:
        axes.plot(recall[shown], precision[shown], color=PALETTE["fraud"])
        axes.axhline(evaluation.fraud_rate, color=PALETTE["muted"], linewidth=1, linestyle=(0, (3, 3)))
        _mark_bands(axes, evaluation, lambda point: (point.recall, point.precision))
        axes.set(xlabel="recall (share of frauds stopped)", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.03))

    alt = f"Precision-recall curve; average precision {evaluation.average_precision:.3f}."
    caption = (
        "Of what is stopped, how much is fraud. The dashed line is the fraud rate: what chance reaches. "
        "Dots are the score bands."
    )
    return _picture("pr", "Precision and recall", caption, alt, draw)


def _roc(curve: RankingCurve, evaluation: Evaluation) -> _Picture:
    recall = np.concatenate(([0.0], curve.frauds / curve.n_frauds))
    false_positives = np.concatenate(([0.0], curve.genuine / curve.n_genuine))
    shown = np.union1d(_spread(recall), _spread(false_positives))

    def draw(axes: Any) -> None:
        axes.plot(false_positives[shown], recall[shown], color=PALETTE["fraud"])
        axes.plot([0, 1], [0, 1], color=PALETTE["muted"], linewidth=1, linestyle=(0, (3, 3)))
        axes.set(xlabel="false-positive rate", ylabel="recall", xlim=(-0.01, 1), ylim=(0, 1.03))
        # The diagonal would run through the inset's own ticks.
        axes.fill_between([0.35, 1], 0.015, 0.67, color=PALETTE["paper"], linewidth=0, zorder=2.5)
        inset = axes.inset_axes((0.45, 0.1, 0.5, 0.48))
        inset.plot(100 * false_positives[shown], recall[shown], color=PALETTE["fraud"])
        _mark_bands(inset, evaluation, lambda point: (100 * point.false_positive_rate, point.recall), named=False)
        inset.set(xlim=(0, 2), ylim=(0, 1.03))
        inset.set_title("false-positive rate up to 2%", fontsize=9, loc="left")
        inset.xaxis.set_major_formatter("{x:g}%")

    alt = f"ROC curve; area {evaluation.auc:.3f}, with the part below 2% false positives enlarged."
    caption = "Only the left edge matters in production, where few genuine customers may be stopped: see the inset."
    return _picture("roc", "ROC", caption, alt, draw)


def _calibration(evaluation: Evaluation) -> _Picture:
    bins = [b for b in evaluation.reliability if b.score_mean > 0]
    promised = np.array([b.score_mean for b in bins])
    observed = np.array([b.fraud_rate for b in bins])
    low, high = np.array([b.fraud_rate_low for b in bins]), np.array([b.fraud_rate_high for b in bins])
    # On a logarithmic axis a bin without a fraud has no place: it is drawn on the floor, its interval above it.
    floor = 10 ** np.floor(np.log10(max(1e-6, min(promised.min(initial=1.0), observed[observed > 0].min(initial=1.0)))))

    def draw(axes: Any) -> None:
        axes.plot([floor, 1], [floor, 1], color=PALETTE["muted"], linewidth=1, linestyle=(0, (3, 3)))
        at = np.maximum(observed, floor)
        bars = np.vstack((at - np.clip(low, floor, at), np.maximum(high, at) - at))
        axes.errorbar(promised, at, yerr=bars, fmt="o", markersize=5, color=PALETTE["accent"], elinewidth=1.2)
        axes.set(xscale="log", yscale="log", xlim=(floor, 1.3), ylim=(floor, 1.3))
        axes.set(xlabel="score (promised share of fraud)", ylabel="observed share of fraud")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")

    alt = f"Reliability diagram; expected calibration error {evaluation.expected_calibration_error:.4f}."
    caption = "On the dashed line a score of 0.2 means that one in five is fraud. Bars are 95% intervals."
    return _picture("calibration", "Calibration", caption, alt, draw)


def _gain(curve: RankingCurve) -> _Picture:
    stopped = (curve.frauds + curve.genuine) / (curve.n_frauds + curve.n_genuine)
    count = curve.frauds / curve.n_frauds
    total_value = curve.fraud_value[-1]
    shown = np.union1d(_spread(count), _spread(np.log10(stopped)))

    def draw(axes: Any) -> None:
        if total_value > 0:
            value = curve.fraud_value[shown] / total_value
            axes.plot(100 * stopped[shown], value, color=PALETTE["accent"], label="of the amount")
        axes.plot(100 * stopped[shown], count[shown], color=PALETTE["fraud"], label="of the frauds")
        axes.plot(100 * stopped[shown], stopped[shown], color=PALETTE["muted"], linewidth=1, linestyle=(0, (3, 3)))
        axes.set(xscale="log", xlim=(max(100 * stopped[0], 0.005), 100), ylim=(0, 1.03))
        axes.set(xlabel="transactions stopped, highest scores first", ylabel="share caught")
        axes.xaxis.set_major_formatter("{x:g}%")
        axes.legend(loc="upper left")

    one_percent = int(np.searchsorted(stopped, 0.01, side="right")) - 1
    reached = f" Stopping 1% catches {count[one_percent]:.0%} of frauds." if one_percent >= 0 else ""
    caption = f"What a given effort buys; the dashed line is stopping at random.{reached}"
    return _picture("gain", "Cumulative gain", caption, f"Cumulative gain curve.{reached}", draw)


def _histogram(label: NDArray[np.int8], score: Floats, evaluation: Evaluation) -> _Picture:
    edges = np.linspace(0.0, 1.0, 41)

    def draw(axes: Any) -> None:
        for value, name in ((0, "genuine"), (1, "fraud")):
            counts, _ = np.histogram(score[label == value], edges)
            colour = PALETTE[name]
            axes.stairs(counts, edges, fill=True, color=colour, alpha=0.22)
            axes.stairs(counts, edges, color=colour, linewidth=1.6, label=name)
        for name, point in evaluation.at_band.items():
            axes.axvline(point.threshold, color=PALETTE["ink"], linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(name, (point.threshold, 1), xycoords=("data", "axes fraction"), xytext=(4, -10),
                          textcoords="offset points", fontsize=9)  # fmt: skip
        axes.set(yscale="log", xlabel="score", ylabel="transactions", xlim=(0, 1))
        axes.set_ylim(bottom=0.7)
        axes.legend(loc="upper right")

    caption = "Counts are logarithmic: one step up is ten times as many. Dashed lines are the score bands."
    alt = "Histogram of scores of genuine transactions and of frauds, logarithmic counts."
    return _picture("histogram", "Scores by class", caption, alt, draw)


def _history(model: TrainedModel) -> _Picture:
    history = model.validation_history

    def draw(axes: Any) -> None:
        axes.plot(range(1, len(history) + 1), history, color=PALETTE["accent"])
        axes.axvline(model.n_trees, color=PALETTE["ink"], linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlabel="trees", ylabel="average precision on validation", xlim=(1, max(2, len(history))))

    caption = f"The {model.n_trees} trees up to the dashed line were kept; {len(history)} were grown."
    alt = f"Average precision on validation after each tree; {model.n_trees} trees kept."
    return _picture("history", "When training stopped", caption, alt, draw)


def _shap(explained: _Explained, schema: FeatureSchema) -> _Picture:
    weight = np.abs(explained.contributions).mean(axis=0)
    top = np.argsort(-weight, kind="stable")[:_FEATURES_SHOWN]
    with pictures.drawing(11.0, 1.1 + 0.36 * len(top)) as figure:
        swarm, bars = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
        colours = need("matplotlib.colors").LinearSegmentedColormap.from_list(
            "low_to_high", [PALETTE["genuine"], "#8f6bc4", PALETTE["fraud"]]
        )
        for position, column in enumerate(top):
            _swarm(swarm, position, explained, column, schema.features[column].categorical, colours)
        swarm.axvline(0, color=PALETTE["muted"], linewidth=1)
        swarm.set_yticks(range(len(top)), [schema.names[column] for column in top])
        swarm.set(xlabel="contribution to the margin (log-odds)", ylim=(len(top) - 0.4, -0.6))
        swarm.spines["left"].set_visible(False)
        swarm.tick_params(axis="y", length=0)
        bars.barh(range(len(top)), weight[top], height=0.55, color=PALETTE["accent"])
        bars.set(xlabel="mean absolute contribution")
        bars.grid(axis="y", visible=False)
        bars.spines["left"].set_visible(False)
        bars.tick_params(axis="y", length=0)
        svg = pictures.to_svg(figure, "shap")
    n = len(explained.rows)
    caption = (
        f"Exact SHAP contributions in a sample of {explained.n_frauds:,} frauds and {n - explained.n_frauds:,} genuine "
        "transactions; one dot is one transaction. Blue is a low value of the feature, red a high one, grey a missing "
        "one or a code without an order."
    )
    alt = "Features by mean absolute contribution: " + ", ".join(schema.names[column] for column in top[:5]) + "."
    return _Picture("shap", "What the model looks at", caption, alt, svg)


def _swarm(axes: Any, position: int, explained: _Explained, column: int, categorical: bool, colours: Any) -> None:
    x = explained.contributions[:, column].astype(np.float64)
    value = explained.rows[:, column]
    y = position + _spread_apart(x)
    coloured = np.isfinite(value) & (not categorical)
    common = {"s": 5, "linewidths": 0, "alpha": 0.75, "rasterized": True}
    axes.scatter(x[~coloured], y[~coloured], color="#8b95a1", **common)
    axes.scatter(x[coloured], y[coloured], c=_rank(value[coloured]), cmap=colours, vmin=0, vmax=1, **common)


def _spread_apart(x: Floats) -> Floats:
    """Offsets, at most 0.38 either way, that make a crowd of equal contributions as wide as it is dense."""
    bin_of = np.digitize(x, np.linspace(x.min(), x.max() + 1e-9, 80))
    offset = np.empty(len(x))
    largest = np.bincount(bin_of).max()
    for b in np.unique(bin_of):
        inside = np.flatnonzero(bin_of == b)
        order = np.arange(len(inside))
        side = np.where(order % 2 == 0, 1.0, -1.0)
        offset[inside] = side * (order + 1) // 2 / max(largest / 2, 1.0)
    return 0.38 * np.clip(offset, -1.0, 1.0)


def _rank(value: NDArray[np.float32]) -> Floats:
    """Rank 0 to 1, ties alike: a colour scale of raw amounts would be one colour and an outlier."""
    distinct, position = np.unique(value, return_inverse=True)
    return position / max(len(distinct) - 1, 1)


def _picture(name: str, title: str, caption: str, alt: str, draw: Callable[[Any], None]) -> _Picture:
    with pictures.drawing(5.4, 4.0) as figure:
        draw(figure.subplots())
        return _Picture(name, title, caption, alt, pictures.to_svg(figure, name))


def _mark_bands(
    axes: Any, evaluation: Evaluation, at: Callable[[OperatingPoint], tuple[float, float]], *, named: bool = True
) -> None:
    for name, point in evaluation.at_band.items():
        if point.alerts == 0:
            continue
        axes.plot(*at(point), marker="o", markersize=6, color=PALETTE["ink"])
        if named:
            axes.annotate(
                name, at(point), xytext=(-7, -3), textcoords="offset points", ha="right", va="top", fontsize=9
            )


def _spread(along: Floats) -> NDArray[np.int64]:
    """Positions of at most `_POINTS_MAX` points, evenly spread along an ascending axis, both ends kept."""
    wanted = np.searchsorted(along, np.linspace(along[0], along[-1], _POINTS_MAX))
    return np.unique(np.concatenate(([0], np.minimum(wanted, len(along) - 1), [len(along) - 1])))


def _page(
    title: str,
    simulated: bool,
    model: TrainedModel,
    evaluation: Evaluation,
    drawn: list[_Picture],
    explanation: str,
) -> str:
    span = f"{_date(evaluation.first_event_us)} to {_date(evaluation.last_event_us)}"
    warning = (
        '<p class="simulated"><strong>Simulated data.</strong> These transactions came from a simulator; the figures say '
        "how the model does on it, not what it would do on real cards.</p>"
        if simulated
        else ""
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{pictures.PAGE_POLICY}">
<title>{escape(title)}</title>
<style>
{pictures.css_variables()}{pictures.PAGE_CSS}{_CSS}</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<p class="lead">{evaluation.n:,} labelled transactions, {span} (UTC), {evaluation.n_frauds:,} of them fraud
({evaluation.fraud_rate:.2%}).</p>
{warning}
</header>
{_tiles(evaluation)}
<h2>How well it ranks, and what a score means</h2>
<div class="pictures">
{"".join(_figure(picture) for picture in drawn)}
</div>
<h2>What the model looks at</h2>
{explanation}
<h2>Where to stop</h2>
{_points(evaluation)}
<h2>Segments</h2>
{_segments(evaluation)}
<h2>Calibration in figures</h2>
{_reliability(evaluation, model)}
<h2>How it was made</h2>
<div class="columns">
{_facts("Training data", _training_facts(model))}
{_facts("Parameters", asdict(model.params))}
{_facts("Versions", {**model.versions, "feature set": model.schema.fingerprint[:16]})}
</div>
</main>
</body>
</html>
"""


def _tiles(evaluation: Evaluation) -> str:
    one_in_200 = evaluation.at_false_positive_rate[0.005]
    tiles = [
        ("Average precision", f"{evaluation.average_precision:.3f}", _interval(evaluation, "average_precision")),
        ("AUC", f"{evaluation.auc:.3f}", _interval(evaluation, "auc")),
    ]
    cards = evaluation.card_precision
    if cards is not None:
        tiles.append((f"Card precision@{cards.k}", f"{cards.mean:.3f}", f"a perfect ranking: {cards.mean_max:.3f}"))
    tiles += [
        ("Frauds caught", f"{one_in_200.recall:.0%}", "at 0.5% false positives"),
        ("Amount caught", f"{one_in_200.value_detection:.0%}", "at 0.5% false positives"),
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def _figure(picture: _Picture, *, titled: bool = True) -> str:
    heading = f"<h3>{escape(picture.title)}</h3>" if titled else ""
    return (
        f'<figure id="{picture.name}">{heading}<div class="scroll" role="img" '
        f'aria-label="{escape(picture.alt, quote=True)}">{picture.svg}</div>'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>\n"
    )


def _weights(explained: _Explained, schema: FeatureSchema) -> str:
    weight = np.abs(explained.contributions).mean(axis=0)
    used = [i for i in np.argsort(-weight, kind="stable") if weight[i] > 0]
    rows = [(schema.names[i], schema.features[i].description, f"{weight[i]:.4f}") for i in used]
    unused = len(schema.features) - len(used)
    caption = f"Features by mean absolute contribution; {unused} of {len(schema.features)} had none in the sample"
    table = _table(caption, ("Feature", "What it is", "Contribution"), rows)
    return f'<details class="words"><summary>All features in words</summary>{table}</details>\n'


def _points(evaluation: Evaluation) -> str:
    named = [
        *((f"at most {rate:.1%} of genuine stopped", p) for rate, p in evaluation.at_false_positive_rate.items()),
        *((f"{name}: score ≥ {p.threshold:.3f}", p) for name, p in evaluation.at_band.items()),
    ]
    rows = [
        (
            name,
            _percent(p.recall),
            _percent(p.value_detection),
            _percent(p.precision),
            _percent(p.false_positive_rate, 3),
            f"{p.alerts_per_day:,.1f}",
        )
        for name, p in named
    ]
    head = ("Stop", "Frauds caught", "Amount caught", "Precision", "Genuine stopped", "Alerts a day")
    return _table("Operating points", head, rows)


def _segments(evaluation: Evaluation) -> str:
    if not evaluation.segments:
        return '<p class="note">The data name no segments.</p>'
    parts = []
    for segment in dict.fromkeys(row.segment for row in evaluation.segments):
        rows = [
            (
                row.value,
                f"{row.n:,}",
                f"{row.n_frauds:,}",
                _number(row.auc),
                _number(row.average_precision),
                _percent(row.point.recall),
                _percent(row.point.value_detection),
                _percent(row.point.precision),
            )
            for row in evaluation.segments
            if row.segment == segment
        ]
        head = (segment, "Transactions", "Frauds", "AUC", "AP", "Frauds caught", "Amount caught", "Precision")
        parts.append(_table(f"By {segment}, at the review band", head, rows))
    return "".join(parts)


def _reliability(evaluation: Evaluation, model: TrainedModel) -> str:
    rows = [
        (
            f"{b.lower:g} to {b.upper:g}",
            f"{b.n:,}",
            f"{b.score_mean:.4f}",
            f"{b.fraud_rate:.4f}",
            f"{b.fraud_rate_low:.4f} to {b.fraud_rate_high:.4f}",
        )
        for b in evaluation.reliability
    ]
    evidence = model.metrics.get("calibration", {})
    losses = ", ".join(f"{name} {loss:.5f}" for name, loss in evidence.get("held_out_log_loss", {}).items())
    chosen = f" Chosen: {evidence['chosen']}; log loss on held-out cards: {losses}." if losses else ""
    text = (
        f"Expected calibration error {evaluation.expected_calibration_error:.5f} (plain sigmoid: "
        f"{evaluation.expected_calibration_error_uncalibrated:.5f}); Brier score {evaluation.brier:.5f} (always the "
        f"fraud rate: {evaluation.brier_of_base_rate:.5f}).{chosen}"
    )
    head = ("Score", "Transactions", "Mean score", "Observed share of fraud", "95% interval")
    return f"<p>{escape(text)}</p>{_table('Promised against observed', head, rows)}"


def _training_facts(model: TrainedModel) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for part in ("train", "validation"):
        figures = model.metrics.get(part, {})
        if figures:
            facts[f"{part} rows"] = f"{figures['n']:,}"
            facts[f"{part} frauds known"] = f"{figures['n_frauds']:,}"
            facts[f"{part} rows left out"] = f"{figures['n_excluded']:,}"
    train = model.metrics.get("train", {})
    if train:
        facts["frauds reported too late"] = f"{train['n_late_frauds']:,}"
        facts["silence counts as"] = train["unlabelled"].replace("_", " ")
        facts["horizon, days"] = f"{train['horizon_days']:g}"
    return {**facts, "trees": model.n_trees, "features": len(model.schema.features)}


def _facts(title: str, facts: dict[str, Any]) -> str:
    return _table(title, ("", ""), [(name, str(value)) for name, value in facts.items()])


def _table(caption: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    header = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    thead = f"<thead><tr>{header}</tr></thead>" if any(head) else ""
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>\n"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>{thead}\n<tbody>{body}</tbody></table></div>\n'
    )


def _interval(evaluation: Evaluation, name: str) -> str:
    interval = evaluation.intervals.get(name)
    return "" if interval is None else f"95%: {interval.low:.3f} to {interval.high:.3f}"


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.4f}"


def _percent(value: float, decimals: int = 1) -> str:
    return "–" if np.isnan(value) else f"{value:.{decimals}%}"


def _date(event_time_us: int) -> str:
    return str(np.datetime64(event_time_us, "us").astype("datetime64[D]"))


_CSS = """
.simulated { border-left: 4px solid var(--fraud); padding: .5rem 0 .5rem 1rem; margin: 1.25rem 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1px; margin: 2rem 0 0;
  padding: 1px; }
.tiles > div { outline: 1px solid var(--grid); padding: 1rem 1.1rem; }
.tiles dt { color: var(--muted); font-size: .875rem; }
.tiles dd { margin: 0; font-size: 1.75rem; font-weight: 650; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiles small { display: block; color: var(--muted); font-size: .8rem; font-weight: 400; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 2.25rem 2.5rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); gap: 2rem 3rem;
  align-items: start; }
.scroll + .scroll { margin-top: 2rem; }
.columns .scroll { margin: 0; }
.words :is(th, td):nth-child(2) { text-align: left; white-space: normal; }
"""
