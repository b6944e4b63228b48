"""What runs inside a notebook's kernel process. Nothing of the server is imported there."""
