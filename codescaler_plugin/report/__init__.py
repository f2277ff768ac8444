"""Sections of tables, plots and folds as one page, in HTML and in Markdown. Nothing here knows what was measured."""
