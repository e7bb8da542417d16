"""Blocks, the graph they form, and the detector: these never see targets, config or loss."""
