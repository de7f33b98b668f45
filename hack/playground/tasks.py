"""The Celery application of the playground.

"python -m celery --app tasks worker" consumes, "python -m tasks N SECONDS COUNTDOWN"
sends N tasks that execute for SECONDS each, not before COUNTDOWN seconds from now, and
prints when it began and when the broker had them all, in seconds since 1970.
BROKER_URL names the broker, RECORD a file that gets a line for each start and each end
of a task: "started ID NODE WAITED", with the seconds since it was sent, and "finished
ID NODE AT", in seconds since 1970. A file of that name with ".released" behind it ends
all tasks, one with ".released.NODE" those of a worker.
"""

import ctypes
import os
import signal
import sys
import time

from celery import Celery, signals

app = Celery("tasks", broker=os.environ["BROKER_URL"])
# As Airflow sets it, if nothing else is said: a message is acknowledged when its task
# has finished, and a worker holds no more messages than it executes.
app.conf.task_acks_late = os.environ.get("ACKS_LATE", "true") == "true"
app.conf.worker_prefetch_multiplier = int(os.environ.get("PREFETCH", "1"))
app.conf.task_ignore_result = True
# A publisher ends when RabbitMQ has its tasks, not when they are on their way.
app.conf.broker_transport_options = {"confirm_publish": True}
if "VISIBILITY_TIMEOUT" in os.environ:
    app.conf.broker_transport_options["visibility_timeout"] = float(os.environ["VISIBILITY_TIMEOUT"])


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
    record("finished", self.request, f"{time.time():.6f}")


@signals.worker_process_init.connect
def end_with_the_parent(**_):
    """Keep pool processes from outliving a worker that was killed."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    # Under the name by which workers know the task, not as __main__.
    import tasks

    number, seconds, countdown = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    with app.producer_pool.acquire() as producer:
        producer.connection.ensure_connection()
        began = time.time()
        for _ in range(number):
            tasks.work.apply_async([seconds, time.time()], producer=producer, countdown=countdown or None)
        print(f"{began:.6f} {time.time():.6f}")
