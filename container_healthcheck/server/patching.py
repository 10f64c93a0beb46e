"""Replaces what blocks a thread in the standard library with gevent's, before anything uses it.

In gunicorn's master only what other modules take out of the standard library when they are
imported; the master itself keeps threads, queues and clocks that work without gevent. Each
worker replaces the rest (`gunicorn.workers.ggevent`).
"""

from gevent import monkey

monkey.patch_thread()
monkey.patch_socket()
monkey.patch_ssl()
