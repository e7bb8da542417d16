"""Reading data sets, augmenting them, and making batches of them."""
