"""How the workers of one host agree: one leads and publishes, the others follow."""
