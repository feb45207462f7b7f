"""A study: several recipes (arms) on the same data, each an experiment of the same engine in the same store.

What two arms have in common is computed once. Every arm gets the same tuning budget, a sweep that only the
validation split decides; test and general scores are read afterwards.
"""
