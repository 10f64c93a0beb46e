"""Pure: what a container, a verdict, an answer is. No I/O, no clock, no threads."""
