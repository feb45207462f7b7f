"""Texts -> vectors in LanceDB -> the most similar ones."""
