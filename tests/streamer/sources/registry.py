"""A small schema registry over HTTP, and Avro values as a producer writes them."""

import base64
import io
import json
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import fastavro

CLICK_SCHEMA = {
    "type": "record",
    "name": "Click",
    "fields": [
        {"name": "user_id", "type": ["null", "string"], "default": None},
        {"name": "item_id", "type": ["null", "string", "long"], "default": None},
        {"name": "ts", "type": "long"},
    ],
}


def value(number, schema, record):
    """Return a record in the wire format: 0, the id in four bytes, the body."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), record)
    return struct.pack(">BI", 0, number) + body.getvalue()


class Registry:
    """Answers GET by path; a path without an answer is 404, `status` goes before all answers."""

    def __init__(self):
        self.answers = {}
        self.asked = []
        self.status = None
        self.login = None
        registry = self

        class Requests(BaseHTTPRequestHandler):
            def do_GET(self):
                registry.asked.append(self.path)
                status, body = registry._answer(self.path, self.headers.get("Authorization"))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def put(self, number, schema, **more):
        self.answers[f"/schemas/ids/{number}"] = {"schema": json.dumps(schema), **more}

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, path, authorization):
        if self.status is not None:
            return self.status, b"{}"
        if self.login is not None:
            expected = base64.b64encode(self.login.encode()).decode()
            if authorization != f"Basic {expected}":
                return 401, b"{}"
        if urlsplit(path).path not in self.answers:
            return 404, b'{"error_code": 40403, "message": "Schema not found"}'
        answer = self.answers[path]
        return 200, answer if isinstance(answer, bytes) else json.dumps(answer).encode()
