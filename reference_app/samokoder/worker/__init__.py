"""The worker behind the API's queue."""
