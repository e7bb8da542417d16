"""What the detector does with one picture, step by step: read off the real functions, never computed a second way."""
