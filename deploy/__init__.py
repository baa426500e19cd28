"""Runs the mesh: the local stack without containers, its connectors, and the ``mesh`` command."""
