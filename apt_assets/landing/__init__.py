"""Landed files -> checked rows."""
