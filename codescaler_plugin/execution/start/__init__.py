"""The folder that a warm process finds its module `site` in."""
