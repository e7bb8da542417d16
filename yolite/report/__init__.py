"""Pages in one file: what was measured, for people, without network."""
