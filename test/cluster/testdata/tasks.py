"""The Celery application of the test of a whole cluster.

"python3 -m tasks N work SECONDS" sends N tasks that execute for SECONDS each, "python3 -m
tasks N hold" N that execute until the key "released" is there; both print their ids. Each start and each end of a task is appended to the list "record" of the Redis
database of RECORD_URL: "started ID NODE", "finished ID NODE". The key is in that database too.
"""

import os
import sys
import time

import redis
from celery import Celery

app = Celery("tasks", broker=os.environ["BROKER_URL"])
app.conf.task_ignore_result = True


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


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        # By its name: this module is __main__ here, tasks in the workers.
        print(app.send_task("tasks." + sys.argv[2], args=[float(arg) for arg in sys.argv[3:]]).id)
