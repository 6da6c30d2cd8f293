"""Task queues that run deliveries on many machines: `celery` and `procrastinate`, each in an extra of its name.

A receiver is given an engine, a worker's relay hands it the numbers of deliveries that are due, and the engine's own
workers claim them one by one. The inbox alone decides what runs, how often and when: a task that is repeated, lost or
late changes nothing.
"""
