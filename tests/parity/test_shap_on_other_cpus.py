"""The kernel that explains is made for the CPU that it runs on; made for the plainest one, it says the same."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from fraudsdk.model.explainer import ShapExplainer
from fraudsdk.model.forest import Tree
from fraudsdk.model.shap_tables import build_shap_tables, read_shap, write_shap

N_FEATURES = 20

EXPLAIN = """
import sys
import numpy as np
from fraudsdk.model import explainer
from fraudsdk.model.shap_tables import read_shap

assert explainer.shap_kernels().__name__ == "fraudsdk.model.shap_portable"
given = np.load(sys.argv[1])
shap = explainer.ShapExplainer(read_shap(given["tables"].tobytes()), lambda rows: given["margins"])
np.save(sys.argv[2], shap.contributions(given["rows"]))
"""


def complete_tree(rng: np.random.Generator, depth: int) -> tuple[Tree, np.ndarray]:
    n_inner = 2**depth - 1
    n = 2 * n_inner + 1
    inner = np.arange(n) < n_inner
    cover = np.zeros(n, np.float32)
    cover[~inner] = rng.uniform(1, 9, n - n_inner)
    for node in range(n_inner - 1, -1, -1):
        cover[node] = cover[2 * node + 1] + cover[2 * node + 2]
    tree = Tree(
        left=np.where(inner, 2 * np.arange(n) + 1, -1).astype(np.int32),
        feature=np.where(inner, rng.integers(0, N_FEATURES, n), 0).astype(np.int32),
        threshold=np.where(inner, rng.normal(size=n), 0).astype(np.float32),
        value=np.where(inner, 0, rng.normal(size=n)).astype(np.float32),
        default_left=inner & (rng.random(n) < 0.5),
    )
    return tree, cover


def margins(trees: list[Tree], rows: np.ndarray) -> np.ndarray:
    total = np.zeros(len(rows))
    for tree in trees:
        node = np.zeros(len(rows), np.int64)
        while (tree.left[node] >= 0).any():
            value = rows[np.arange(len(rows)), tree.feature[node]]
            left = np.where(np.isnan(value), tree.default_left[node], value < tree.threshold[node])
            node = np.where(tree.left[node] >= 0, tree.left[node] + ~left, node)
        total += tree.value[node]
    return total.astype(np.float32)


def test_contributions_are_the_same_without_vector_instructions(tmp_path, plain_cpu):
    rng = np.random.default_rng(7)
    made = [complete_tree(rng, 7) for _ in range(37)]
    trees = [tree for tree, _ in made]
    file = write_shap(build_shap_tables(trees, [cover for _, cover in made], n_features=N_FEATURES, base_margin=0.0))
    rows = rng.normal(size=(50, N_FEATURES)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    here = ShapExplainer(read_shap(file), lambda some: margins(trees, some)).contributions(rows)
    np.savez(tmp_path / "given.npz", tables=np.frombuffer(file, np.uint8), rows=rows, margins=margins(trees, rows))

    subprocess.run(
        [sys.executable, "-c", plain_cpu + EXPLAIN, str(tmp_path / "given.npz"), str(tmp_path / "there.npy")],
        check=True,
    )

    np.testing.assert_allclose(here, np.load(tmp_path / "there.npy"), rtol=0, atol=1e-5)
