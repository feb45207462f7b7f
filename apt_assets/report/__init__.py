"""What people read of a project."""
