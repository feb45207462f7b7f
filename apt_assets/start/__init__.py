"""What comes before the first run: an experiment file out of a sample of data, and a look at what may go wrong."""
