"""One module per host; each is thin and holds no judgement of its own."""
