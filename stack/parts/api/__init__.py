"""The API, the contract of the application's images, and the migrations."""
