"""Tells a gateway, over HTTP, whether the container of each app on this host serves."""

__version__ = "2.1.0"
