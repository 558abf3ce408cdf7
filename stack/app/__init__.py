"""The application's parts."""
