"""Time-ordered splits with label delay, training, calibration, evaluation and the reports that show them."""
