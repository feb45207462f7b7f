"""What the loop does next, and what it may forget."""
