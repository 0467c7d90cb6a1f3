"""Synthetic payments: one stream keyed by user, eight features, the benchmark's model."""
