"""Images and commits go out: `samokoder deploy`, `rollback`, and what CI runs."""
