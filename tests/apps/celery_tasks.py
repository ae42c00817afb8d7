"""Tasks of Celery that publish, as an application's would: ``celery -A tests.apps.celery_tasks worker``.

The broker is a directory, ``TEST_BROKER``. The tasks' bus is the ready-made one, of ``MESSAGEBUS_URL``.
"""

from __future__ import annotations

import os

from celery import Celery

from messagebus import MessageBus

directory = os.environ["TEST_BROKER"]
app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": directory,
    "data_folder_out": directory,
    "control_folder": f"{directory}/control",
}
app.conf.worker_prefetch_multiplier = 1
# Before the worker forks its processes, as code at the import of an application may.
MessageBus.publish("/imported", os.getpid())


@app.task  # type: ignore[untyped-decorator]
def make_report(number: int) -> None:
    for done in (0, 50, 100):
        MessageBus.publish("/reports", [number, done, os.getpid()])
