"""Assignment, loss, optimiser, and the loop that trains."""
