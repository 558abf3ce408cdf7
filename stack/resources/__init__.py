"""Pulumi's resources, made from the plain values. Only this package and the program itself import Pulumi."""
