"""Configs, routes, and the number of the last change."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "trunkline_resources",
        sa.Column("name", sa.String(300), primary_key=True, comment="configs/... or routes/..."),
        sa.Column("etag", sa.String(32), nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    revisions = op.create_table(
        "trunkline_revision",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(revisions, [{"id": 1, "number": 0}])


def downgrade() -> None:
    op.drop_table("trunkline_revision")
    op.drop_table("trunkline_resources")
