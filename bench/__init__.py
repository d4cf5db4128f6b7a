"""Measurements of fastconv's speed; see README.md."""
