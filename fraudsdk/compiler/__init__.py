"""
Build time: an XGBoost model -> a validated, certified, native artefact that `fraudsdk.model` loads.

    bytes -> validate -> Treelite -> tables or C library -> parity certificate -> manifest

A leaf: XGBoost, Treelite and tl2cgen are imported here, lazily, and nowhere below.
"""
