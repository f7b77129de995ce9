"""allod: the AI platform an organisation owns outright."""

__version__ = "0.1.0"
