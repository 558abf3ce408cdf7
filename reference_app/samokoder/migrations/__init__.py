"""The steps from one schema to the next, by Alembic. `samokoder.migrate` takes them.

While a step is taken, replicas of the version before it go on serving, and a rollback does not take it back: so each
adds and takes nothing away (no column dropped or renamed, none that old code would have to fill). What is no longer
used goes in a later release. All steps of one run are one transaction.
"""
