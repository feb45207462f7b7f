"""Plain numbers -> SVG. Nothing here reads a store."""
