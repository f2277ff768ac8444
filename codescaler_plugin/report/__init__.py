"""Evaluation results as one page, in HTML and in Markdown."""
