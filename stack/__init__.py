"""The Pulumi program: settings, secrets, one service factory, the parts."""
