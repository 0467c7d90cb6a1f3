"""Feature specs, kernels, windows, state and the store that keeps it."""
