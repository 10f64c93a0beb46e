"""The HTTP answers. Only this package imports Flask."""
