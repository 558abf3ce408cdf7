"""Names, values and rules that every package of the stack uses; nothing here depends on settings or parts."""
