"""The one life of a delivery, from the request to the answer."""
