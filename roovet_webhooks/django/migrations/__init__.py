"""Migrations of the tables of a `DjangoInbox`."""
