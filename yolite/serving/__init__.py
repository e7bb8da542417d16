"""A detector behind HTTP: see docs/deploy.md."""
