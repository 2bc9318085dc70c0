"""Sightline at the command line: classes for files, and what goes on at the service."""
