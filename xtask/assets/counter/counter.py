"""The classic two-service counter: counts visits in redis and says who served them."""

import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def increment(key: str) -> int:
    """Sends INCR to the host `redis` and returns the new value."""
    name = key.encode()
    with socket.create_connection(("redis", 6379), timeout=3) as connection:
        connection.sendall(b"*2\r\n$4\r\nINCR\r\n$%d\r\n%s\r\n" % (len(name), name))
        reply = connection.makefile("rb").readline().strip()
    if not reply.startswith(b":"):
        raise OSError(f"redis answered {reply!r}")
    return int(reply[1:])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        try:
            status, text = 200, f"Hello! I have been seen {increment('hits')} times. served by {socket.gethostname()}\n"
        except OSError as error:
            status, text = 503, f"redis cannot be reached: {error}\n"
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
