"""A reward over HTTP.

| module | holds |
|---|---|
| `app`, `protocols/` | the routes; one file a wire contract |
| `page` | the page at `/`: the last judged samples |
| `middleware`, `handler` | key, limits and metrics of every request; samples to the backend, and the fallback reward |
| `backend`, `batching` | the queue that makes batches of what callers send one by one |
| `supervisor`, `worker`, `samples` | the scoring process: kept alive, its messages, and its work |
| `server`, `ray_app` | the routes under uvicorn, or on Ray Serve |
"""

MAX_WAIT = 0.005  # seconds that a sample waits for others of its problem
MAX_QUEUE = 10_000  # samples that wait
TIMEOUT = 110.0  # seconds until a sample is answered; OpenRLHF gives up a request after 180
LOAD_TIMEOUT = 1800.0  # seconds until a model that is not ready is started again, downloads included
RECENT = 50  # samples that the page at / shows
MAX_BODY = 64 << 20  # bytes of a request
