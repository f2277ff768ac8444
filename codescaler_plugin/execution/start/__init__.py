"""The folder in which the fork server finds its module `site`."""
