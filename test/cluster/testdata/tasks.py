"""The Celery application of the test of a whole cluster.

"python3 -m tasks N SECONDS" sends N tasks that execute for SECONDS each, and prints their
ids. Each start and each end of a task is appended to the list "record" of the Redis
database of RECORD_URL: "started ID NODE", "finished ID NODE".
"""

import os
import sys
import time

import redis
from celery import Celery

app = Celery("tasks", broker=os.environ["BROKER_URL"])
app.conf.task_ignore_result = True


def record(verb, request):
    redis.Redis.from_url(os.environ["RECORD_URL"]).rpush("record", f"{verb} {request.id} {request.hostname}")


@app.task(bind=True)
def work(self, seconds):
    """Execute for that long."""
    record("started", self.request)
    time.sleep(seconds)
    record("finished", self.request)


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        # By its name: this module is __main__ here, tasks in the workers.
        print(app.send_task("tasks.work", args=[float(sys.argv[2])]).id)
