"""For users too: a clock to advance, and the contract suites that every store and sink must pass."""
