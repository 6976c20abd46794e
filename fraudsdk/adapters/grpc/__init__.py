"""Transactions in and decisions out over gRPC: a thin conversion around one `Scorer`, and a client."""
