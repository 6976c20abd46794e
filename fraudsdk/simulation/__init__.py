"""Labelled transactions with known fraud patterns: `simulate` a `SimulationSpec`, `write` the table."""

from fraudsdk.simulation.columns import Table
from fraudsdk.simulation.simulate import simulate
from fraudsdk.simulation.spec import DEFAULT_FRAUD_MIX, PATTERNS, SimulationSpec
from fraudsdk.simulation.write import write

__all__ = ["DEFAULT_FRAUD_MIX", "PATTERNS", "SimulationSpec", "Table", "simulate", "write"]
