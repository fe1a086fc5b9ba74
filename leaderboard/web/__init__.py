"""The boards as a static page for a browser."""
