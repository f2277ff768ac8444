"""Adapters of published data sets: each makes a `Problem` of a row; see `data.problems`."""
