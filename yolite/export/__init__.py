"""Exported files: what stands in them, how they are written, run, and proved equal to the checkpoint."""
