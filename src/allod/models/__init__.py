"""Models: named files with a manifest and digests. Nothing without a valid manifest is served."""
