"""What the README shows runs as shown."""

from __future__ import annotations

import re
import subprocess
import sys

from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.features.spec import FeatureSet
from fraudsdk.model.artefact import load_artefact


def blocks(root, language):
    return re.findall(rf"```{language}\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_ten_lines_give_a_decision(request):
    root = request.config.rootpath
    program, _ = blocks(root, "python")

    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr
    assert re.match(r"Outcome\.(APPROVE|REVIEW|DECLINE) 0\.\d+", done.stdout)


def test_state_outlives_the_process(request, tmp_path):
    root = request.config.rootpath
    _, program = blocks(root, "python")
    program = program.replace('"state"', repr(str(tmp_path / "state")))

    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)

    assert "first False\nsecond True\n" == done.stdout, done.stderr


def test_the_declared_features_are_a_feature_set(request):
    (lines,) = blocks(request.config.rootpath, "toml")

    assert 3 == len(FeatureSet.from_toml('name = "readme"\n' + lines).names)


def test_the_number_of_features_is_the_catalogues(request):
    text = (request.config.rootpath / "README.md").read_text(encoding="utf-8")

    assert f"a declared set, {len(reference_feature_set().names)} in the reference catalogue" in text


def test_the_tracked_reference_model_has_the_catalogues_features(request):
    model = load_artefact(request.config.rootpath / "compiled_models" / "reference")

    assert reference_feature_set("EUR").fingerprint == model.schema_fingerprint


def test_nothing_is_left_to_fill_in(request):
    text = (request.config.rootpath / "README.md").read_text(encoding="utf-8")

    assert not re.search(r"\{[a-z_]+\}", text)
