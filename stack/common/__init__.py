"""Names, values and rules that every room of the stack uses; nothing here knows a setting or a part."""
