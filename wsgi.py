"""The WSGI application, for `gunicorn wsgi:app` (gunicorn.conf.py starts its observers)."""

from container_healthcheck.app import create_worker_app

app = create_worker_app()
