"""A reward over HTTP.

`judging` runs where the model is, `worker` gives it a process of its own and `supervisor` keeps that alive,
`batching` makes batches of what callers send one by one, `app` holds the routes, `server` runs them, and `ray_app`
puts them on Ray Serve.
"""

MAX_WAIT = 0.005  # seconds that a sample waits for others of its problem
MAX_QUEUE = 10_000  # samples that wait
TIMEOUT = 110.0  # seconds until a sample is answered; OpenRLHF gives a request up after 180
LOAD_TIMEOUT = 1800.0  # seconds until a model that is not ready is started again, downloads included
MAX_BODY = 64 << 20  # bytes of a request
