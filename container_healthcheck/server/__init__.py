"""The processes that serve. Only this package imports gunicorn and gevent."""
