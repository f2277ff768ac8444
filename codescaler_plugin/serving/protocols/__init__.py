"""Wire contracts, one file each: the models of its bodies, its endpoint, and an example request.

A new contract is a file with a `router` whose endpoint reads its body into `Sample`s, asks `CurrentHandler` for their
rewards, and answers in the form its host expects; and its name in `PROTOCOLS`.
"""

from codescaler_plugin.serving.protocols import openrlhf, score, slime, vllm

PROTOCOLS = (openrlhf.router, score.router, vllm.router, slime.router)
