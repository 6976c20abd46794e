"""``fraudsdk train``: a table in, a certified model and its figures out."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fraudsdk.cli.options import (
    add_data,
    add_hash_key,
    add_label_delay,
    add_unlabelled,
    hash_key_of,
    label_delay_us_of,
    new_folder,
    new_parser,
    note,
    note_forgotten,
    plain_name_of,
    say,
    unlabelled_of,
)

if TYPE_CHECKING:
    from fraudsdk.cli.pipeline import Recipe
    from fraudsdk.features.spec import FeatureSet
    from fraudsdk.policy.spec import PolicySpec


def register(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser."""
    parser = new_parser(
        commands,
        "train",
        run,
        summary="replay, train, compile, certify and evaluate",
        example="fraudsdk train transactions.parquet --map user_id=CUSTOMER amount=TOTAL --out models/cards",
        more="The model goes to DIR, its report and figures to DIR-report.",
    )
    add_data(parser)
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the new model")
    parser.add_argument("--replace", action="store_true", help="replace the model that is there")
    parser.add_argument("--features", metavar="FILE", type=Path, help="feature set (default: the shipped catalogue)")
    parser.add_argument("--currency", metavar="CODE", help="reference currency of the shipped catalogue")
    parser.add_argument("--policy", metavar="FILE", type=Path, help="policy (default: bands that validation supports)")
    parser.add_argument("--name", help="of the model (default: the name of DIR)")
    parser.add_argument("--version", help="of the model (default: the time)")
    parser.add_argument("--backend", choices=("table", "c"), default="table", help="default: %(default)s")
    parser.add_argument(
        "--segment", metavar="COLUMN", action="append", default=[], help="cut the figures by it as well"
    )
    add_label_delay(parser)
    add_unlabelled(parser)
    parser.add_argument(
        "--seed", type=int, default=7, metavar="N", help="of sampling in training (default: %(default)s)"
    )
    add_training(parser)
    add_hash_key(parser)
    return parser


def add_training(parser: argparse.ArgumentParser) -> None:
    """XGBoost's parameters that are worth turning."""
    parser.add_argument("--trees", type=int, metavar="N", help="trees at most (default: 400)")
    parser.add_argument("--learning-rate", type=float, metavar="X", help="default: 0.1")
    parser.add_argument("--max-depth", type=int, metavar="N", help="default: 6")
    parser.add_argument(
        "--max-bin", type=int, metavar="N", help="thresholds per feature (default: 4096; fewer are faster)"
    )


def run(args: argparse.Namespace) -> None:
    """Train, publish and report."""
    from fraudsdk.cli.data import read_with_features
    from fraudsdk.cli.pipeline import (
        check_policy,
        evaluate_compiled,
        fit,
        load_model,
        prepare,
        publish,
        report_folder,
        unlabelled_line,
        write_reports,
    )
    from fraudsdk.policy.spec import PolicySpec

    out = new_folder(args.out, replace=args.replace)
    policy = None if args.policy is None else PolicySpec.load(args.policy)
    table, feature_set = read_with_features(args.data, args.map, args.features, args.currency)
    check_policy(policy, feature_set)
    recipe = _recipe(args, feature_set, policy)
    segments = table.segments(args.segment)
    unused = [name for name in table.unused if name not in segments]
    if unused:
        say(f"not read, for want of a mapping: {', '.join(unused)}")
    prepared = prepare(table, recipe, segments)
    note_forgotten(prepared.replayed.engine.memory.counters())
    silence = unlabelled_line(prepared.matrix, prepared.split.unlabelled)
    if silence:
        note(silence)
    model = fit(prepared, recipe.params)
    manifest = publish(model, prepared, recipe, out, simulated=table.simulated, replace=out.exists())
    compiled = load_model(out)
    test = prepared.test
    evaluation = evaluate_compiled(compiled, test)
    written = write_reports(
        report_folder(out), test, model, evaluation, title=f"Model {compiled.version}", simulated=table.simulated
    )
    say(f"{compiled.version}: {manifest.n_trees} trees on {len(feature_set.features)} features, test period:")
    say()
    say(evaluation.to_text())
    say()
    for line in certificate_lines(compiled.certificate):
        say(line)
    say(f"model     {out}")
    for path in written:
        say(f"report    {path}")
    if not evaluation.n_frauds:
        say("the test period holds no fraud, so there are no curves to report")


def certificate_lines(certificate: Any) -> list[str]:
    """What the certificate says, in two lines at most."""
    lines = [
        f"certified {certificate.rows:,} rows against {certificate.reference}: {certificate.unequal:,} differ",
    ]
    if certificate.bound:
        lines.append(
            f"          by at most {certificate.max_abs_difference:.3g}; rounding explains {certificate.bound:.3g}"
        )
    return lines


def _recipe(args: argparse.Namespace, feature_set: FeatureSet, policy: PolicySpec | None) -> Recipe:
    from fraudsdk.cli.pipeline import Recipe

    now = datetime.now(UTC)
    return Recipe(
        name=args.name or plain_name_of(args.out.absolute().name),
        version=args.version or now.strftime("%Y%m%dT%H%M%SZ"),
        created_at=now.isoformat(timespec="seconds"),
        feature_set=feature_set,
        policy=policy,
        label_delay_us=label_delay_us_of(args.label_delay),
        hash_key=hash_key_of(args.hash_key_file),
        params=params_of(args),
        backend=args.backend,
        unlabelled=unlabelled_of(args.unlabelled),
    )


def params_of(args: argparse.Namespace, **defaults: Any) -> Any:
    """`TrainParams` of the options that were given; the rest as `defaults` or the trainer have it."""
    from fraudsdk.training.train import TrainParams

    given = {
        "num_boost_round": args.trees,
        "learning_rate": args.learning_rate,
        "max_depth": args.max_depth,
        "max_bin": args.max_bin,
        "seed": args.seed,
    }
    return TrainParams(**{**defaults, **{name: value for name, value in given.items() if value is not None}})
