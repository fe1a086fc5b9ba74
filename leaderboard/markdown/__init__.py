"""The boards as markdown pages."""
