"""A reward over HTTP.

`judging` runs where the model is, `worker` gives it a process of its own and `supervisor` keeps that alive,
`batching` makes batches of what callers send one by one, `app` holds the routes, `server` runs them, and `ray_app`
puts them on Ray Serve.
"""
