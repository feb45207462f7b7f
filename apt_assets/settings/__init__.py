"""What an experiment may say, and how its file is read."""
