"""Columns of text that every database compares alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    CharField = models.CharField[Any, Any]
else:
    CharField = models.CharField

# The envelope has no longer name of an event or resource, and the name of a receiver has to fit an index.
NAME_CHARACTERS = 255
TENANT_CHARACTERS = 1000


class ExactCharField(CharField):
    """Text that is equal to nothing but itself.

    MySQL and MariaDB would otherwise take ``Acme`` for ``acme``, and ``acme`` for ``acme `` with a space: one tenant
    for another.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:  # noqa: ANN401 - as Django has it
        """Add a collation where the database's own is not exact; none of it stands in a migration."""
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            mariadb: bool = getattr(connection, "mysql_is_mariadb", False)
            parameters["collation"] = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
        return parameters
