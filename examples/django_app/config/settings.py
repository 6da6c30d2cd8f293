"""Settings of the example. ``SHOP_DATABASE`` says where the database is kept."""

from __future__ import annotations

import os
from pathlib import Path

from django.core.management.utils import get_random_secret_key

BASE_DIR = Path(__file__).parents[1]
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or get_random_secret_key()
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
USE_TZ = True

INSTALLED_APPS = [
    "shop",
    "roovet_webhooks.django",  # the inbox's tables; it imports shop/webhooks.py, and checks what the receiver needs
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_DATABASE") or BASE_DIR / "shop.sqlite3",
        "OPTIONS": {
            # On disk when it is acknowledged, and no transaction that has read is refused when it comes to write.
            "init_command": "PRAGMA synchronous=EXTRA;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 2,
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Left unset, the system check says so before the server starts.
ROOVET_WEBHOOK_SECRET = os.environ.get("ROOVET_WEBHOOK_SECRET")
ROOVET_API_URL = os.environ.get("ROOVET_API_URL", "http://127.0.0.1:4010")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {
        "roovet_webhooks": {"handlers": ["console"], "level": "INFO"},
        "shop": {"handlers": ["console"], "level": "INFO"},
    },
}
