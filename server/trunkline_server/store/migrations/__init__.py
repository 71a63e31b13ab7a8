"""The steps from each form of the store's tables to the next, run by Alembic."""
