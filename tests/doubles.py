"""Servers in this process that answer what a test wants."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, dict[str, Any]], tuple[int, Any]]


class Double:
    """A server whose `answer(path, body) -> (status, JSON or raw text)` a test may change; keeps what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.retry_after = ""
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.reply(body)

            def do_GET(self) -> None:
                self.reply({})

            def reply(self, body: dict[str, Any]) -> None:
                double.asked.append((self.path, body))
                double.headers.append(dict(self.headers))
                status, answer = double.answer(self.path, body)
                if not status:  # hang up
                    self.close_connection = True
                    return
                data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    if double.retry_after:
                        self.send_header("Retry-After", double.retry_after)
                    self.end_headers()
                    self.wfile.write(data)
                except BrokenPipeError:  # the client has given up waiting
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """End it."""
        self.server.shutdown()
        self.server.server_close()


Serve = Callable[[Answer], Double]


def chat(answers: Callable[[int], str], models: tuple[str, ...] = ("writer",), most: int = 10**6) -> Answer:
    """As vLLM's chat: the n-th choice that it gives is `answers(n)`, at most `most` of them a call."""
    made = iter(range(10**6))

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": [{"id": name} for name in models]}
        count = min(body["n"], most)
        choices = [{"message": {"role": "assistant", "content": answers(next(made))}} for _ in range(count)]
        return 200, {"choices": choices}

    return answer
