"""What can be configured: frozen models without a Pulumi type, and how they are read and checked."""
