"""What explains a model is the booster that was verified with it, not whatever lies beside it now."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from fraudsdk.errors import CertificateError
from fraudsdk.model.artefact import load_artefact
from fraudsdk.scorer.parts import installed_explainer

pytest.importorskip("xgboost")


@pytest.fixture
def model(artefact, tmp_path):
    return load_artefact(shutil.copytree(artefact, tmp_path / "copy"))


def test_a_booster_exchanged_after_loading_explains_nothing(model):
    with (model.source_path / "model.ubj").open("ab") as file:
        file.write(b" ")

    with pytest.raises(CertificateError, match=r"model\.ubj has SHA-256"):
        installed_explainer(model)


def test_an_explainer_keeps_the_booster_that_it_was_given(model):
    row = np.zeros((1, len(model.feature_names)), np.float32)
    explainer = installed_explainer(model)
    expected = explainer.contributions(row)

    (model.source_path / "model.ubj").write_bytes(b"another one")

    assert expected.tobytes() == explainer.contributions(row).tobytes()
