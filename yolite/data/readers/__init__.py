"""One module a label format; each turns its files into Samples."""
