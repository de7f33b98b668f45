"""The Celery application of the test of a whole cluster.

"python3 -m tasks N work SECONDS" sends N tasks that execute for SECONDS each, "python3 -m
tasks N hold" N that execute until the key "released" is there, and "python3 -m tasks stream
SECONDS" one after the other, four in a second, until the key "enough" is there; all print
the ids. Each start and each end of a task is appended to the list "record": "started ID
NODE", "finished ID NODE". The keys and the list are in the Redis of RECORD_URL, which no
worker takes its tasks from.
"""

import os
import sys
import time

import redis
from celery import Celery

app = Celery("tasks", broker=os.environ["BROKER_URL"])
app.conf.task_ignore_result = True
# A worker whose slots are all taken takes nothing that it would have in its memory alone
# when the broker goes.
app.conf.worker_prefetch_multiplier = 1
app.conf.worker_disable_prefetch = True

records = redis.Redis.from_url(os.environ["RECORD_URL"])


def record(verb, request):
    records.rpush("record", f"{verb} {request.id} {request.hostname}")


@app.task(bind=True)
def work(self, seconds):
    """Execute for that long."""
    record("started", self.request)
    time.sleep(seconds)
    record("finished", self.request)


@app.task(bind=True)
def hold(self):
    """Execute until all such tasks are released."""
    record("started", self.request)
    while not records.exists("released"):
        time.sleep(0.2)
    record("finished", self.request)


def send(kind, args):
    # By its name: this module is __main__ here, tasks in the workers.
    print(app.send_task("tasks." + kind, args=args).id, flush=True)


if __name__ == "__main__":
    order, rest = sys.argv[1], sys.argv[2:]
    if order == "stream":
        while not records.exists("enough"):
            send("work", [float(rest[0])])
            time.sleep(0.25)
    else:
        for _ in range(int(order)):
            send(rest[0], [float(arg) for arg in rest[1:]])
