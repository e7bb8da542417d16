"""One module a format: samples in, files out. Image files are placed by `yolite.data.convert`."""
