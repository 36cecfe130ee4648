"""The same words as `node/harness.mjs`: prints `ok NAME` or `not ok NAME` per test and `done N` at the end."""

import itertools
import json
import os
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pusher
import pysher

HOST = os.environ["SDK_HOST"]
PORT = int(os.environ["SDK_PORT"])
APP = {"app_id": os.environ["SDK_APP_ID"], "key": os.environ["SDK_KEY"], "secret": os.environ["SDK_SECRET"]}
MASTER_KEY = os.environ["SDK_MASTER_KEY"]

_tests = []
_undo = []
_numbers = itertools.count()


def test(name):
    """Declares the decorated function as a test."""

    def declare(body):
        _tests.append((name, body))
        return body

    return declare


def after(undo):
    """Registers what is to be undone when the running test ends."""
    _undo.append(undo)


def run():
    """Runs what was declared, one after the other, and ends the process."""
    failed = 0
    for name, body in _tests:
        try:
            body()
            print(f"ok {name}", flush=True)
        except Exception:
            failed += 1
            print(f"not ok {name}")
            print("    " + traceback.format_exc().replace("\n", "\n    "), flush=True)
        while _undo:
            _undo.pop()()
    print(f"done {len(_tests)}", flush=True)
    sys.exit(1 if failed else 0)


def until(what, probe, seconds=5.0):
    """Asks again until `probe` answers something true, and hands that on."""
    end = time.monotonic() + seconds
    while not (answer := probe()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return answer


def fresh(prefix):
    """A channel name no other test uses."""
    return f"{prefix}py-{os.getpid()}-{next(_numbers)}"


def api(**options):
    """The official HTTP client."""
    return pusher.Pusher(
        **{**APP, **options}, ssl=False, host=HOST, port=PORT, encryption_master_key_base64=MASTER_KEY
    )


def connected(**options):
    """A connected pysher client, which signs with the app's secret unless `options` say otherwise."""
    options = options if "auth_endpoint" in options else {"secret": APP["secret"], **options}
    client = pysher.Pusher(APP["key"], secure=False, custom_host=HOST, port=PORT, **options)
    client.connect()
    # pysher takes three seconds to hang up; nobody needs to wait for it.
    after(lambda: threading.Thread(target=client.disconnect, daemon=True).start())
    until("pysher is connected", lambda: client.connection.state == "connected")
    return client


def subscribed(client, name):
    """Subscribes and waits until the HTTP API counts the subscription: pysher itself has no word for it."""
    before = count(name)
    channel = client.subscribe(name)
    until(f"{name} has one subscription more", lambda: count(name) > before)
    return channel


def count(name):
    """How many subscriptions a channel has, says the HTTP API."""
    return api().channel_info(name, ["subscription_count"])["subscription_count"]


def collect(channel, event):
    """The data of every `event` that arrives, in order."""
    arrived = []
    channel.bind(event, arrived.append)
    return arrived


def listen_in(client):
    """Every (event, channel) that arrives on a channel, also those that come before `subscribe` has returned."""
    heard, handle = [], client.connection.event_handler

    def listen(event, data, channel):
        heard.append((event, channel))
        handle(event, data, channel)

    client.connection.event_handler = listen
    return heard


def auth_endpoint():
    """An auth endpoint made of the official SDK's own functions; answers its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            answer = api().authenticate(channel=form["channel_name"][0], socket_id=form["socket_id"][0])
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    after(server.shutdown)
    return f"http://127.0.0.1:{server.server_address[1]}/"
