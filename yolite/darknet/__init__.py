"""Darknet's files: a network as sections of a .cfg, its numbers in a .weights."""
