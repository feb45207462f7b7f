"""The project's tables: their schemas (`tables.py`), and how they are written and read (`files.py`)."""
