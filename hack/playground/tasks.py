"""The Celery application of the playground.

"python -m celery --app tasks worker" consumes, "python -m tasks N SECONDS" sends
N tasks that execute for SECONDS each. BROKER_URL names the broker, RECORD a file
that gets a line for each start and each end of a task: "started ID NODE WAITED",
with the seconds since it was sent, "finished ID NODE". A file of that name with ".released" behind it ends all tasks, one with
".released.NODE" those of a worker.
"""

import ctypes
import os
import signal
import sys
import time

from celery import Celery, signals

app = Celery("tasks", broker=os.environ["BROKER_URL"])
# As Airflow sets it: a message is acknowledged when its task has finished, and a
# worker holds no more messages than it executes.
app.conf.task_acks_late = os.environ.get("ACKS_LATE", "true") == "true"
app.conf.worker_prefetch_multiplier = 1
app.conf.task_ignore_result = True
# A publisher ends when RabbitMQ has its tasks, not when they are on their way.
app.conf.broker_transport_options = {"confirm_publish": True}


def record(verb, request, *more):
    """Append a line. One short write to a file opened so is not torn."""
    fd = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, (" ".join([verb, request.id, request.hostname, *more]) + "\n").encode())
    finally:
        os.close(fd)


@app.task(bind=True)
def work(self, seconds, sent):
    """Execute for that long."""
    record("started", self.request, f"{time.time() - sent:.3f}")
    end = time.monotonic() + seconds
    released = os.environ["RECORD"] + ".released"
    here = released + "." + self.request.hostname
    while time.monotonic() < end and not (os.path.exists(released) or os.path.exists(here)):
        time.sleep(min(0.1, max(0, end - time.monotonic())))
    record("finished", self.request)


@signals.worker_process_init.connect
def end_with_the_parent(**_):
    """Keep pool processes from outliving a worker that was killed."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    # Under the name by which workers know the task, not as __main__.
    import tasks

    with app.producer_pool.acquire() as producer:
        for _ in range(int(sys.argv[1])):
            tasks.work.apply_async([float(sys.argv[2]), time.time()], producer=producer)
