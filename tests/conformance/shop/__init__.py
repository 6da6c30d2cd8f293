"""A Django application with handlers, to be discovered."""
