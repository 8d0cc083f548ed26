"""Tells Reunion what became of a task, as a receiver of its webhooks does later on.

    WEBHOOK_SECRET=whsec_… python3 report.py https://reunion.example/callback/crm TASK_ID OUTCOME [MESSAGE_ID]

OUTCOME is added, refused, wrong_number or do_not_call. It needs nothing but Python 3.9. It posts until it has an answer,
each time the same message under the same id, so that what it tells counts once. A real receiver keeps its messages in
a table until then: after a crash the message goes out again as it was.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from datetime import datetime, timezone

TRIES_MAX = 10
ANSWER_SECS_MAX = 10
RETRY_SECS_MAX = 60


def signature(secret, message_id, timestamp, body):
    """What the header webhook-signature says, by Standard Webhooks 1.0."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def post(url, secret, message_id, body):
    """Posts a message once: the status of the answer, its body, and when to come back. No status: no answer."""
    timestamp = str(int(time.time()))
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": signature(secret, message_id, timestamp, body),
    }
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECS_MAX) as answer:
            return answer.status, answer.read().decode(), None
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace"), error.headers.get("retry-after")
    except OSError as error:
        return None, str(error), None


def main():
    if len(sys.argv) not in (4, 5) or "WEBHOOK_SECRET" not in os.environ:
        sys.exit("usage: WEBHOOK_SECRET=whsec_… report.py URL TASK_ID OUTCOME [MESSAGE_ID]")
    url, task_id, outcome = sys.argv[1:4]
    message_id = sys.argv[4] if len(sys.argv) == 5 else str(uuid.uuid4())
    now = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
    events = [{"task_id": task_id, "outcome": outcome, "at": now}]
    body = json.dumps({"type": "events", "timestamp": now, "data": {"events": events}}).encode()
    for tried in range(TRIES_MAX):
        status, said, retry_after = post(url, os.environ["WEBHOOK_SECRET"], message_id, body)
        if status == 200:
            return print(said.strip())
        # What is wrong with the message stays wrong; anything else passes.
        if status is not None and status < 500 and status not in (408, 429):
            sys.exit(f"{status}: {said.strip()}")
        delay_secs = int(retry_after) if (retry_after or "").isdigit() else 2**tried
        time.sleep(min(delay_secs, RETRY_SECS_MAX))
    sys.exit(f"no answer after {TRIES_MAX} tries")


if __name__ == "__main__":
    main()
