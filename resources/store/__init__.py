"""Artifacts, rows and locks on disk: content-addressed, verified, never half-written."""
