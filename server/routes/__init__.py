"""One module per resource; routes translate between HTTP and the service."""
