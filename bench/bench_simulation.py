"""
Question   How many labelled transactions are simulated in a second, as a table in memory?
Workload   `SimulationSpec` of 1 M rows, 20 k users, 180 days, 0.5 % fraud, seeds 1 to 5.
Timed      simulate() whole: population, life, crimes, sorting, balances, 36 columns.
Not timed  Imports; writing the file, which is timed on its own line.
Compare    A Python loop on the same machine, same minute, that only builds one dict of five fields per row with
           `random`: the least that a simulator written row by row must do.

Run        python bench/bench_simulation.py [--transactions N] [--repeats R]
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fraudsdk.simulation import SimulationSpec, simulate, write


def row_by_row(n: int, n_users: int, seed: int) -> list[dict[str, Any]]:
    """Draw five fields per row in plain Python: no habits, no order, no fraud."""
    draw = random.Random(seed)
    return [
        {
            "transaction_id": f"t-{i:09d}",
            "event_time_us": draw.randrange(15_552_000_000_000),
            "user_id": f"u-{draw.randrange(n_users):07d}",
            "amount_minor": int(100 * draw.lognormvariate(3.0, 0.8)),
            "is_fraud": int(draw.random() < 0.005),
        }
        for i in range(n)
    ]


def main() -> None:
    """Print the figures as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transactions", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    n, n_users = options.transactions, max(20, options.transactions // 50)

    simulated_s, looped_s, parquet_s = [], [], []
    for seed in range(1, options.repeats + 1):
        spec = SimulationSpec(transactions=n, users=n_users, days=180, seed=seed)
        begun = time.perf_counter()
        table = simulate(spec)
        simulated_s.append(time.perf_counter() - begun)
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            write(table, Path(folder) / "table.parquet")
            parquet_s.append(time.perf_counter() - begun)
        del table
        begun = time.perf_counter()
        row_by_row(n, n_users, seed)
        looped_s.append(time.perf_counter() - begun)

    per_second = sorted(n / seconds for seconds in simulated_s)
    print(
        json.dumps(
            {
                "question": "simulation throughput",
                "transactions": n,
                "users": n_users,
                "repeats": options.repeats,
                "simulated_per_second": {
                    "median": round(statistics.median(per_second)),
                    "slowest": round(per_second[0]),
                    "fastest": round(per_second[-1]),
                },
                "parquet_rows_per_second_median": round(n / statistics.median(parquet_s)),
                "python_loop_of_five_fields_per_second_median": round(n / statistics.median(looped_s)),
                "ratio_to_python_loop": round(statistics.median(looped_s) / statistics.median(simulated_s), 2),
                "python": platform.python_version(),
                "numpy": np.__version__,
                "machine": platform.machine(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
