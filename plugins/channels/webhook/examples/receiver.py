"""A receiver of Reunion's webhooks: it checks the signature, takes each task once, and answers with a receipt for each.

    WEBHOOK_SECRET=whsec_… python3 receiver.py 127.0.0.1:8080 taken.db

It needs nothing but Python 3.9. What it remembers is an SQLite file, so that a task that is sent again after a crash
is known. Where this example prints a task, a real receiver does its work, in the same transaction or from a queue
that it fills there.
"""

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY_BYTES_MAX = 8 << 20
# A request that is older, or from the future, was recorded and is played back.
CLOCKS_DIFFER_SECS_MAX = 300


def is_genuine(secret, headers, body):
    """Whether the request is signed with the secret, as Standard Webhooks 1.0 has it."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > CLOCKS_DIFFER_SECS_MAX:
        return False
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(expected.encode(), signature.encode()) for signature in given)


class Taken:
    """The tasks that were taken."""

    def __init__(self, file):
        self.database = sqlite3.connect(file, check_same_thread=False)
        self.database.execute("create table if not exists taken (task_id text primary key) without rowid")
        self.lock = threading.Lock()

    def take(self, tasks):
        """Takes tasks, each once, in one transaction; a receipt for each."""
        receipts, new = [], []
        with self.lock, self.database:
            for task in tasks:
                if not task["phone"]:
                    receipts.append({"task_id": task["task_id"], "verdict": "rejected", "code": "no_phone"})
                    continue
                insert = "insert into taken values (?) on conflict do nothing"
                if self.database.execute(insert, (task["task_id"],)).rowcount == 1:
                    new.append(task)
                receipts.append({"task_id": task["task_id"], "verdict": "accepted"})
        for task in new:
            store, name, message = (task[key] or "-" for key in ("store", "name", "message"))
            print(task["task_id"], task["campaign"], f"store {store}:", name, task["phone"], message, flush=True)
        return receipts


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One packet for the answer: its headers alone would wait for the client's acknowledgement.
    wbufsize = -1

    def do_POST(self):
        length = int(self.headers.get("content-length", 0))
        if length > BODY_BYTES_MAX:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        # The signature is of the bytes as they came, so it is checked before anything reads them.
        if not is_genuine(self.server.secret, self.headers, body):
            return self.answer(401)
        try:
            tasks = json.loads(body)["data"]["tasks"]
        except (ValueError, KeyError, TypeError):
            return self.answer(400)
        try:
            receipts = self.server.taken.take(tasks)
        except sqlite3.Error:
            # Nothing was taken: all of it is one transaction.
            return self.answer(503)
        self.answer(200, json.dumps({"receipts": receipts}).encode())

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    if len(sys.argv) != 3 or "WEBHOOK_SECRET" not in os.environ:
        sys.exit("usage: WEBHOOK_SECRET=whsec_… receiver.py ADDRESS FILE")
    host, _, port = sys.argv[1].rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Handler)
    server.secret, server.taken = os.environ["WEBHOOK_SECRET"], Taken(sys.argv[2])
    print(f"http://{host}:{server.server_port}/hook", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
