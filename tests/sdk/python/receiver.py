"""A webhook endpoint made with pusher, the official Python SDK; what it prints is told in `node/backend.mjs`."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pusher

SDK = pusher.Pusher(app_id="1", key=os.environ["HOOKED_KEY"], secret=os.environ["HOOKED_SECRET"])


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        seen = SDK.validate_webhook(self.headers["X-Pusher-Key"], self.headers["X-Pusher-Signature"], body)
        show(
            path=self.path,
            headers=[[name.lower(), value] for name, value in self.headers.items()],
            body=body.decode(),
            problem=None if seen else "validate_webhook() answered None",
            seen=seen,
        )
        self.send_response(200 if seen else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def show(**report):
    # One write for the whole line: requests are answered on threads of their own.
    os.write(1, (json.dumps(report) + "\n").encode())


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
show(port=server.server_address[1])
server.serve_forever()
