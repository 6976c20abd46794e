"""The service that is deployed: settings, wiring, and how it starts and stops."""
