"""What outlives the service."""
