"""
Row -> margin: forest tables and their kernels, the artefact that holds them and calibration.

Reads what `fraudsdk.compiler` wrote.  Knows no vendor: XGBoost, Treelite and a C compiler are absent in production.
"""
