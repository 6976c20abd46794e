"""``fraudsdk compile``: an XGBoost model in, a certified artefact out."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fraudsdk.cli.commands.train import certificate_lines
from fraudsdk.cli.options import new_folder, new_parser, plain_name_of, say
from fraudsdk.errors import ConfigurationError

if TYPE_CHECKING:
    from fraudsdk.features.spec import FeatureSet


def register(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser."""
    parser = new_parser(
        commands,
        "compile",
        run,
        summary="compile an XGBoost model into a certified native artefact",
        example="fraudsdk compile model.ubj --features features.toml --vocabulary vocabulary.json --out models/cards",
        more="With --features a scorer can be opened on it.",
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="what Booster.save_model wrote, .json or .ubj")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the new artefact")
    parser.add_argument("--replace", action="store_true", help="replace the model that is there")
    parser.add_argument("--features", metavar="FILE", type=Path, help="feature set that the model was trained on")
    parser.add_argument("--vocabulary", metavar="FILE", type=Path, help="codes of categories that it was trained on")
    parser.add_argument("--policy", metavar="FILE", type=Path, help="policy to travel with it")
    parser.add_argument("--backend", choices=("table", "c"), default="table", help="default: %(default)s")
    parser.add_argument("--name", help="of the model (default: the name of DIR)")
    parser.add_argument("--version", help="of the model (default: the time)")
    return parser


def run(args: argparse.Namespace) -> None:
    """Compile and say what was certified."""
    from fraudsdk.cli.pipeline import load_model
    from fraudsdk.compiler.compile import compile_model
    from fraudsdk.features.spec import FeatureSet

    out = new_folder(args.out, replace=args.replace)
    if args.features is None and (args.vocabulary is not None or args.policy is not None):
        raise ConfigurationError("--vocabulary and --policy need the feature set they speak of; add --features")
    feature_set = None if args.features is None else FeatureSet.load(args.features)
    now = datetime.now(UTC)
    manifest = compile_model(
        args.model,
        out,
        name=args.name or plain_name_of(out.absolute().name),
        version=args.version or now.strftime("%Y%m%dT%H%M%SZ"),
        created_at=now.isoformat(timespec="seconds"),
        feature_names=None if feature_set is None else feature_set.names,
        schema_fingerprint="" if feature_set is None else feature_set.fingerprint,
        extra_files={} if feature_set is None else _companions(args, feature_set),
        backend=args.backend,
        replace=out.exists(),
    )
    compiled = load_model(out)
    say(
        f"{compiled.version}: {manifest.n_trees} trees, depth {manifest.depth}, {len(manifest.feature_names)} features, "
        f"{manifest.objective}, {manifest.files[manifest.native_file].n_bytes:,} bytes of {manifest.native_file}"
    )
    for line in certificate_lines(compiled.certificate):
        say(line)
    for suite in compiled.certificate.suites:
        say(f"          {suite.rows:>9,} rows, {suite.unequal:,} differ: {suite.inputs}")
    say(f"model     {out}")
    if feature_set is None:
        say("no feature set travels with it: a scorer cannot be opened on it; --features adds one")


def _companions(args: argparse.Namespace, feature_set: FeatureSet) -> dict[str, bytes]:
    from fraudsdk.cli.pipeline import check_policy, companions, load_vocabulary
    from fraudsdk.encoding.vocabulary import Vocabulary
    from fraudsdk.policy.spec import PolicySpec

    coded = [feature.name for feature in feature_set.schema.features if feature.categorical]
    if coded and args.vocabulary is None:
        raise ConfigurationError(
            f"feature {coded[0]!r} is a code of a vocabulary; name the one it was trained on with --vocabulary"
        )
    vocabulary = Vocabulary() if args.vocabulary is None else load_vocabulary(args.vocabulary)
    policy = None if args.policy is None else PolicySpec.load(args.policy)
    check_policy(policy, feature_set)
    return companions(feature_set, vocabulary, policy)
