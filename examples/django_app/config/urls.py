"""The URLs of the project."""

from __future__ import annotations

from django.urls import path

from config.roovet import receiver
from roovet_webhooks.django import dispatch_view
from shop import views

urlpatterns = [
    path("webhooks/roovet", dispatch_view(receiver)),
    path("", views.page),
    path("orders.json", views.as_json),
]
