"""Pulumi's resources, made of the plain values: nothing else imports Pulumi but the program itself."""
