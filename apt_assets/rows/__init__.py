"""What is kept and reused row by row: the kinds of row, and who answers, grades and scores them."""
