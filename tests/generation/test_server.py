"""The completer over a double of an OpenAI-compatible server."""

from codescaler_plugin.generation.sampling import Sampling
from codescaler_plugin.generation.server import server_completer
from tests.doubles import Serve, chat
from tests.samples import fenced

RIGHT = fenced("def solve(n):\n    return n + 1")


def test_a_server_is_asked_until_there_are_n(serve: Serve) -> None:
    server = serve(chat(lambda _: RIGHT, ("policy-7b",), most=2))  # as servers that bound n
    complete, name = server_completer(server.url, Sampling(top_k=20))
    assert name == "policy-7b"
    assert complete("Add.", 3) == [RIGHT] * 3
    bodies = [body for path, body in server.asked if path != "/v1/models"]
    assert [(body["n"], body["top_k"], body["top_p"], body["max_tokens"]) for body in bodies] == [
        (3, 20, 0.95, 16384),
        (1, 20, 0.95, 16384),
    ]
