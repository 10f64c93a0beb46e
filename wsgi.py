"""The WSGI application, for `gunicorn wsgi:app` (gunicorn.conf.py starts its observers)."""

from container_healthcheck.server.wsgi import create_worker_app

app = create_worker_app()
