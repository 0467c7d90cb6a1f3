"""The same servers as in tests/integration."""

from tests.integration.conftest import embedded, name, real

__all__ = ["embedded", "name", "real"]
