"""
Sixteen floats side by side, for the kernels that explain: what they are called here; each is defined in `fraudsdk._shap_llvm`.
"""

from __future__ import annotations

from typing import Final

from fraudsdk._jit import deferred

LANES: Final = 16
# Floats that `look_up` finds a value in.
TABLE_FLOATS: Final = 128
# The features of the CPU that `look_up` by permutes needs, as LLVM names them.
PERMUTES: Final = ("avx512f",)

add = deferred("fraudsdk._shap_llvm:add")
by_gathers = deferred("fraudsdk._shap_llvm:by_gathers")
by_permutes = deferred("fraudsdk._shap_llvm:by_permutes")
choose_floats = deferred("fraudsdk._shap_llvm:choose_floats")
choose_integers = deferred("fraudsdk._shap_llvm:choose_integers")
disjoint = deferred("fraudsdk._shap_llvm:disjoint")
divide = deferred("fraudsdk._shap_llvm:divide")
gather = deferred("fraudsdk._shap_llvm:gather")
less_than = deferred("fraudsdk._shap_llvm:less_than")
load_floats = deferred("fraudsdk._shap_llvm:load_floats")
load_integers = deferred("fraudsdk._shap_llvm:load_integers")
look_up = deferred("fraudsdk._shap_llvm:look_up")
missing = deferred("fraudsdk._shap_llvm:missing")
multiply = deferred("fraudsdk._shap_llvm:multiply")
multiply_add = deferred("fraudsdk._shap_llvm:multiply_add")
no_bits = deferred("fraudsdk._shap_llvm:no_bits")
repeat = deferred("fraudsdk._shap_llvm:repeat")
store_floats = deferred("fraudsdk._shap_llvm:store_floats")
store_integers = deferred("fraudsdk._shap_llvm:store_integers")
subtract = deferred("fraudsdk._shap_llvm:subtract")
union = deferred("fraudsdk._shap_llvm:union")
