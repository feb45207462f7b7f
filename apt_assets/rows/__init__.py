"""What is kept row by row, and reused across iterations, settings and runs: one file a kind."""
