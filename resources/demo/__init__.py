"""The embedded default: what is downloaded, and what is made up."""
