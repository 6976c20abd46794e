"""
Fill the tables and pictures of the documentation from a file of results: no figure there is typed by hand.

Run        python bench/tables.py [RESULTS]        the newest file of bench/results by default; older ones are removed, as
                                                   the repository keeps one
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
# What was measured before the work on speed, for the column that says so.
BEFORE = RESULTS / "before.json"
GATES = ROOT / "bench" / "gates.toml"
PERFORMANCE = ROOT / "docs" / "performance.md"
README = ROOT / "README.md"
PICTURES = ROOT / "docs" / "images"

Results = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """
    One line of the table of targets.

    Attributes
    ----------
    title, at_least, aim : str
    question : str
        Of the results.
    path : tuple of str
        ``("ratios", peer)`` or ``("figures", name, key)``.
    unit : str
        ``"x"`` for a ratio.
    """

    title: str
    at_least: str
    aim: str
    question: str
    path: tuple[str, ...]
    unit: str = "x"

    def measured(self, results: Results) -> str:
        found: Any = results["results"].get(self.question)
        for key in self.path:
            found = None if found is None else found.get(key)
        return "" if found is None else f"{number(found)}{' ' if self.unit not in ('x', '/s') else ''}{self.unit}"


def _ratio(title: str, at_least: str, aim: str, question: str, peer: str) -> Target:
    return Target(title, at_least, aim, question, ("ratios", peer))


_ONE_ROW = "forest, one row, 300x6"
_WARM = "a whole decision, garbage collection"
_DECISION = "a whole decision, 300x6"
TARGETS = (
    _ratio(
        "forest, one row, 300x6: tl2cgen called from a kernel", "8x", "12x", _ONE_ROW, "tl2cgen, called from a kernel"
    ),
    _ratio("ONNX Runtime", "10x", "17x", _ONE_ROW, "ONNX Runtime"),
    _ratio("XGBoost inplace_predict", "100x", "150x", _ONE_ROW, "XGBoost inplace_predict"),
    _ratio(
        "the same, portable engine: tl2cgen called from a kernel",
        "4x",
        "",
        f"{_ONE_ROW}, portable engine",
        "tl2cgen, called from a kernel",
    ),
    _ratio("ONNX Runtime", "5x", "", f"{_ONE_ROW}, portable engine", "ONNX Runtime"),
    _ratio("XGBoost inplace_predict", "50x", "", f"{_ONE_ROW}, portable engine", "XGBoost inplace_predict"),
    _ratio(
        "forest, per row of a batch, 300x6: XGBoost's own batch",
        "2x",
        "4x",
        "forest, per row of a batch, 300x6",
        "XGBoost inplace_predict",
    ),
    _ratio(
        "exact SHAP, one row, 300x6: pred_contribs", "30x", "80x", "exact SHAP, one row, 300x6", "XGBoost pred_contribs"
    ),
    _ratio("shap.TreeExplainer", "30x", "80x", "exact SHAP, one row, 300x6", "shap.TreeExplainer"),
    _ratio(
        "exact SHAP, one row, 600x8: pred_contribs", "30x", "80x", "exact SHAP, one row, 600x8", "XGBoost pred_contribs"
    ),
    Target(
        "`score(mapping)`, warm, garbage collection on: p50", "8 us", "5 us", _WARM, ("figures", "on", "p50_us"), "us"
    ),
    Target("p99", "25 us", "15 us", _WARM, ("figures", "on", "p99_us"), "us"),
    Target(
        "the same, after every 100 of them XGBoost had the caches: p50",
        "",
        "",
        _DECISION,
        ("figures", "Scorer.score", "p50_us"),
        "us",
    ),
    Target("p99", "", "", _DECISION, ("figures", "Scorer.score", "p99_us"), "us"),
    Target(
        "`score_batch`, per core, tables of 4,000: best of seven passes",
        "300,000/s",
        "500,000/s",
        "score_batch, alone",
        ("figures", "tables of 4,000", "rows_per_s"),
        "/s",
    ),
    Target(
        "the same, median pass",
        "",
        "",
        "score_batch, alone",
        ("figures", "tables of 4,000", "p50_rows_per_s"),
        "/s",
    ),
    Target(
        "the same, tables of 1,000, best",
        "",
        "",
        "score_batch, alone",
        ("figures", "tables of 1,000", "rows_per_s"),
        "/s",
    ),
    Target(
        "the same, after XGBoost and a second scorer had the caches",
        "",
        "",
        "score_batch, per transaction",
        ("figures", "score_batch, Arrow table", "rows_per_s"),
        "/s",
    ),
    _ratio("XGBoost predicting those rows", "", "", "score_batch, per transaction", "XGBoost inplace_predict"),
    Target(
        "replay of the catalogue, its kernel, Handbook data",
        "500,000/s",
        "1,000,000/s",
        "replay of the catalogue, Handbook data",
        ("figures", "its kernel", "rows_per_s"),
        "/s",
    ),
    _ratio("window features: DuckDB, one thread", "5x", "10x", "window features, per row", "DuckDB"),
    _ratio("Polars, one thread", "", "", "window features, per row", "Polars"),
    Target(
        "second start, import to first decision",
        "1,500 ms",
        "800 ms",
        "start to first decision",
        ("figures", "fraudsdk, second start", "whole_ms"),
        "ms",
    ),
    Target(
        "the same, processor time",
        "",
        "",
        "start to first decision",
        ("figures", "fraudsdk, second start", "processor_ms"),
        "ms",
    ),
    Target(
        "compile and certify, 600x8", "3 s", "1 s", "compile and certify, 600x8", ("figures", "fraudsdk", "p50_s"), "s"
    ),
    _ratio(
        "a whole decision: pandas + Redis + XGBoost + SHAP",
        "",
        "",
        "a whole decision, 32 window features, 300x6",
        "pandas + Redis + XGBoost + SHAP",
    ),
)


def number(value: float) -> str:
    """Three digits, which is more than the noise leaves."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def gates() -> dict[str, dict[str, float]]:
    """Today's, which may be higher than when the results were taken."""
    return tomllib.loads(GATES.read_text(encoding="utf-8"))


def targets_table(results: Results, before: Results | None) -> str:
    lines = ["| faster than, or | at least | aim | before | now | gate |", "|---|--:|--:|--:|--:|--:|"]
    for target in TARGETS:
        gate = gates().get(target.question, {}).get(target.path[1]) if target.path[0] == "ratios" else None
        cells = (
            target.title,
            target.at_least,
            target.aim,
            "" if before is None else target.measured(before),
            target.measured(results),
            "" if gate is None else f"{gate:g}x",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def question_tables(results: Results) -> str:
    """Every question with all its figures."""
    parts = []
    for question, found in results["results"].items():
        figures, ratios, least = found.get("figures", {}), found.get("ratios", {}), gates().get(question, {})
        keys = list(dict.fromkeys(key for values in figures.values() for key in values if key != "times ours"))
        heads = [*(key.replace("_", " ") for key in keys), *(["times ours", "gate"] if ratios else [])]
        parts += [f"### {question[0].upper()}{question[1:]}", "", "| | " + " | ".join(heads) + " |"]
        parts.append("|---|" + "--:|" * len(heads))
        for name in dict.fromkeys((*figures, *ratios)):
            cells = [number(figures[name][key]) if key in figures.get(name, {}) else "" for key in keys]
            if ratios:
                cells += [number(ratios[name]) if name in ratios else "", f"{least[name]:g}" if name in least else ""]
            parts.append(f"| {name} | " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts).rstrip()


def environment_line(results: Results) -> str:
    machine = results["environment"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    return (
        f"Commit {machine['commit']}, {machine['date']}; {machine['cpu']}, {machine['cores']} cores "
        f"({', '.join(machine['vector_units'])}), governor {machine['governor']}, load average "
        f"{', '.join(map(str, machine['load_average']))}; {machine['system']}, Python {machine['python']}; {libraries}."
    )


def readme_table(results: Results) -> str:
    """The questions a reader asks first."""
    found = results["results"]
    lines = ["| question | here | peer in the same run, times ours |", "|---|---|---|"]
    for title, question, name in (
        ("one decision, `Scorer.score(mapping)`, 300 trees of depth 6", _DECISION, "Scorer.score"),
        ("forest, one row, 300 trees of depth 6", _ONE_ROW, "fraudsdk"),
        ("forest, per row of a batch", "forest, per row of a batch, 300x6", "fraudsdk"),
        ("exact SHAP of one row, 300 trees of depth 6", "exact SHAP, one row, 300x6", "fraudsdk"),
        ("32 window features, per row", "window features, per row", "fraudsdk, encoded columns"),
        (
            "one decision, 32 window features, 300 trees",
            "a whole decision, 32 window features, 300x6",
            "fraudsdk",
        ),
    ):
        if question not in found:
            continue
        own = found[question]["figures"][name]
        tail = f", p99 {number(own['p99_us'])} us" if "one" in title else ""
        peers = ", ".join(f"{peer} {number(ratio)}x" for peer, ratio in found[question]["ratios"].items())
        lines.append(f"| {title} | p50 {number(own['p50_us'])} us{tail} | {peers} |")
    return "\n".join(lines)


def draw_peers(results: Results, path: Path) -> None:
    """How many times our time each peer takes, on a logarithmic scale."""
    pyplot = _pyplot()
    groups = [
        (title, found["ratios"])
        for title, question in (
            ("forest, one row, 300 trees x depth 6", _ONE_ROW),
            ("forest, a batch, 300 trees x depth 6", "forest, per row of a batch, 300x6"),
            ("exact SHAP, one row, 300 trees x depth 6", "exact SHAP, one row, 300x6"),
            ("32 window features, 300,000 rows", "window features, per row"),
            (
                "a whole decision, 32 window features, 300 trees x depth 6",
                "a whole decision, 32 window features, 300x6",
            ),
        )
        if (found := results["results"].get(question))
    ]
    n_bars = sum(len(ratios) for _, ratios in groups)
    figure, axes = pyplot.subplots(
        len(groups),
        1,
        figsize=(8.5, 0.24 * n_bars + 0.42 * len(groups) + 0.6),
        sharex=True,
        layout="constrained",
        gridspec_kw={"height_ratios": [len(ratios) + 0.5 for _, ratios in groups]},
    )
    most = max(max(ratios.values()) for _, ratios in groups)
    for axis, (title, ratios) in zip(axes, groups, strict=True):
        ordered = sorted(ratios.items(), key=lambda item: item[1])
        values = np.array([value for _, value in ordered])
        bars = axis.barh([name for name, _ in ordered], values - 1, left=1, color="#3b6ea5", height=0.7)
        axis.bar_label(bars, [f"{number(value)}x" for value in values], padding=3, fontsize=8)
        axis.set_xscale("log")
        axis.set_xlim(0.7, 2 * most)
        axis.axvline(1.0, color="#c0392b", linewidth=1.2)
        axis.set_title(title, loc="left", fontsize=8, fontweight="bold", pad=3)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].xaxis.set_major_formatter("{x:g}")
    axes[-1].set_xlabel("time of the peer, in times ours (1 = fraudsdk; longer is slower)", fontsize=9)
    figure.suptitle("How many times our time others take, in the same run on one thread", fontsize=10)
    _save(figure, path)


def draw_stages(results: Results, path: Path) -> None:
    """Where the time of a decision goes."""
    pyplot = _pyplot()
    figures = results["results"]["a whole decision, by stage"]["figures"]
    stages = {name: values["p50_us"] for name, values in figures.items() if name != "whole"}
    stages = {name: taken_us for name, taken_us in stages.items() if taken_us > 0}
    figure, axis = pyplot.subplots(figsize=(8.5, 1.9))
    left = 0.0
    for (name, taken_us), colour in zip(
        stages.items(), ("#3b6ea5", "#4f9d69", "#d98c3f", "#8e6bb0", "#9a9a9a"), strict=False
    ):
        axis.barh([0], [taken_us], left=left, color=colour, label=f"{name}: {number(taken_us)} us")
        left += taken_us
    axis.set_yticks([])
    axis.set_xlim(0, left)
    axis.set_xlabel("microseconds, median", fontsize=9)
    axis.set_title(f"A whole decision: {number(figures['whole']['p50_us'])} us", fontsize=10)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.legend(ncols=3, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.42), frameon=False)
    _save(figure, path)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("svg")
    # The same figures give the same bytes.
    matplotlib.rcParams.update({"svg.hashsalt": "fraudsdk", "svg.fonttype": "none", "font.family": "sans-serif"})
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None}, facecolor="white")


def fill(path: Path, parts: Mapping[str, str]) -> None:
    """
    Replace what stands between the markers ``<!-- name -->`` and ``<!-- /name -->``.

    Raises
    ------
    ValueError
        A marker is missing.
    """
    text = path.read_text(encoding="utf-8")
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{path} has no markers {name}; put <!-- {name} --> and <!-- /{name} --> where it belongs")
        text = pattern.sub(lambda match, part=part: f"{match[1]}{part}\n{match[2]}", text)
    path.write_text(text, encoding="utf-8")


def newest() -> Path:
    """
    The newest file of results.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    found = list(RESULTS.glob("2*.json"))
    if not found:
        raise FileNotFoundError(f"no results in {RESULTS}; run: make bench")
    return max(found, key=lambda path: json.loads(path.read_text(encoding="utf-8"))["environment"]["date"])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, metavar="RESULTS")
    given = parser.parse_args(arguments).results
    path = given or newest()
    results = json.loads(path.read_text(encoding="utf-8"))
    before = json.loads(BEFORE.read_text(encoding="utf-8")) if BEFORE.exists() else None
    fill(
        PERFORMANCE,
        {
            "targets": targets_table(results, before),
            "environment": environment_line(results),
            "figures": question_tables(results),
        },
    )
    fill(README, {"figures": readme_table(results)})
    draw_peers(results, PICTURES / "peers.svg")
    draw_stages(results, PICTURES / "stages.svg")
    if given is None:
        for older in set(RESULTS.glob("2*.json")) - {path}:
            older.unlink()
    print(f"filled {PERFORMANCE.relative_to(ROOT)}, {README.relative_to(ROOT)} and pictures from {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
