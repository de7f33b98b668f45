"""The Celery application of the tests.

Started as a worker ("python -m celery -A celeryapp worker …") or as a publisher
("python -m celeryapp", orders on standard input). Everything that differs from
test to test comes in the environment, as JSON in CELERYAPP:

  conf     Celery settings by their lower-case names
  queues   queues to declare: name, exchange, exchange_type, routing_key, arguments
  record   a file that gets one line for each thing that happened, in order:
           "ready NODE", "started ID", "finished ID"

and for a worker, in CELERYAPP_WORKER, the settings in which it differs.
"""

import ctypes
import json
import os
import signal
import sys
import time

from celery import Celery, signals
from kombu import Exchange, Queue

options = json.loads(os.environ["CELERYAPP"])

app = Celery("celeryapp")
app.conf.update(options["conf"])
app.conf.update(json.loads(os.environ.get("CELERYAPP_WORKER", "{}")))
if options["queues"]:
    app.conf.task_queues = [
        Queue(
            q["name"],
            Exchange(q["exchange"], type=q["exchange_type"]) if q["exchange"] else None,
            routing_key=q["routing_key"] or q["name"],
            queue_arguments=q["arguments"],
        )
        for q in options["queues"]
    ]


def record(*words):
    """Append a line. One short write to a file opened so is not torn."""
    fd = os.open(options["record"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, (" ".join(words) + "\n").encode())
    finally:
        os.close(fd)


@app.task
def noop():
    """Take no time."""


@app.task
def sleep(seconds):
    """Execute for that long."""
    time.sleep(seconds)


@app.task
def gate(name):
    """Execute until the gate is open: until there is a file of its name."""
    path = os.path.join(os.path.dirname(options["record"]), "gate-" + name)
    while not os.path.exists(path):
        time.sleep(0.02)


@signals.task_prerun.connect
def started(task_id, **_):
    record("started", task_id)


@signals.task_postrun.connect
def finished(task_id, **_):
    """Before a late acknowledgement, after an early one."""
    record("finished", task_id)


@signals.worker_ready.connect
def ready(sender, **_):
    record("ready", sender.hostname)


@signals.worker_process_init.connect
def end_with_the_parent(**_):
    """Keep pool processes from outliving a worker that was killed."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def publish(producer, order):
    task = app.tasks["celeryapp." + order["task"]]
    where = {k: order[k] for k in ("queue", "exchange", "routing_key") if order[k]}
    if order["priority"] is not None:
        where["priority"] = order["priority"]
    if order["countdown"]:
        where["countdown"] = order["countdown"]
    ids = [
        task.apply_async(order["args"], producer=producer, **where).id
        for _ in range(order["n"])
    ]
    return {"ids": ids}


def purge(producer, order):
    return {"purged": producer.channel.queue_purge(order["queue"])}


def inspect(producer, order):
    """Ask workers for the tasks that they hold. Each must answer."""
    asked = app.control.inspect(destination=order["nodes"], timeout=order["timeout"])
    active, reserved, scheduled = asked.active(), asked.reserved(), asked.scheduled()
    held = lambda reply: [task for node in order["nodes"] for task in reply[node]]
    return {
        "active": [task["id"] for task in held(active)],
        "reserved": [task["id"] for task in held(reserved)],
        "scheduled": [task["request"]["id"] for task in held(scheduled)],
    }


ORDERS = {"publish": publish, "purge": purge, "inspect": inspect}


def serve_orders():
    """Answer each line, an order, by a line: what was done, or an error."""
    # RabbitMQ says when it has a message only if it is asked to.
    app.conf.broker_transport_options |= {"confirm_publish": True}
    with app.producer_pool.acquire() as producer:
        for line in sys.stdin:
            try:
                order = json.loads(line)
                answer = ORDERS[order["do"]](producer, order)
            except Exception as e:  # the test is told, and decides
                answer = {"error": f"{type(e).__name__}: {e}"}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    # Under the name by which workers know the tasks, not as __main__.
    import celeryapp

    celeryapp.serve_orders()
