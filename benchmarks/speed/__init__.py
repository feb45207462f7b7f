"""How fast the stages are, against what people would use instead; each figure a ratio of one run."""
