"""Traces and their labels, both in partitions by time."""

from alembic import op

revision = "0001"
down_revision = None

#: Texts compare by their bytes, as in every backend, so that a page goes on where another backend's ended.
TABLES = """
CREATE TABLE trunkline.traces (
  start_time timestamptz NOT NULL,
  id text COLLATE "C" NOT NULL,
  duration_us bigint,
  first_token_us bigint,
  state smallint NOT NULL,
  method text COLLATE "C" NOT NULL,
  caller text COLLATE "C" NOT NULL,
  request_id text COLLATE "C" NOT NULL,
  provider text COLLATE "C" NOT NULL,
  model text COLLATE "C" NOT NULL,
  asked_model text COLLATE "C" NOT NULL,
  code smallint NOT NULL,
  failed boolean NOT NULL,
  reason text COLLATE "C" NOT NULL,
  error text COLLATE "C" NOT NULL,
  error_words text[] COLLATE "C",
  streamed boolean NOT NULL,
  cancelled boolean NOT NULL,
  capture smallint NOT NULL,
  attempts integer NOT NULL,
  input_tokens bigint,
  output_tokens bigint,
  usage_source smallint NOT NULL,
  cost_nano_usd bigint,
  otel_trace_id text COLLATE "C" NOT NULL,
  labels jsonb NOT NULL,
  basic bytea NOT NULL,
  payload bytea NOT NULL,
  PRIMARY KEY (start_time, id)
) PARTITION BY RANGE (start_time);

CREATE TABLE trunkline.trace_labels (
  key text COLLATE "C" NOT NULL,
  value text COLLATE "C" NOT NULL,
  start_time timestamptz NOT NULL,
  id text COLLATE "C" NOT NULL,
  PRIMARY KEY (key, value, start_time, id)
) PARTITION BY RANGE (start_time);
"""

#: Each filter alone finds its newest records at the end of one index. `id` is in none: times are almost never equal,
#: and what is sorted by time is sorted on by id for next to nothing. The statuses ride along with the provider, and the
#: provider with the reason, so that a combination that does not occur is found out without reading a row.
INDEXES = """
CREATE INDEX traces_id ON trunkline.traces USING hash (id);
CREATE INDEX traces_method ON trunkline.traces (method, start_time);
CREATE INDEX traces_provider ON trunkline.traces (provider, start_time, failed, code, reason);
CREATE INDEX traces_model ON trunkline.traces (model, start_time);
CREATE INDEX traces_asked_model ON trunkline.traces (asked_model, start_time) WHERE asked_model <> model;
CREATE INDEX traces_caller ON trunkline.traces (caller, start_time);
CREATE INDEX traces_code ON trunkline.traces (code, start_time);
CREATE INDEX traces_failed ON trunkline.traces (start_time) WHERE failed;
CREATE INDEX traces_reason ON trunkline.traces (reason, start_time, provider) WHERE reason <> '';
CREATE INDEX traces_cost ON trunkline.traces (cost_nano_usd) WHERE cost_nano_usd IS NOT NULL;
CREATE INDEX traces_duration ON trunkline.traces (duration_us) WHERE duration_us IS NOT NULL;
CREATE INDEX traces_error_words ON trunkline.traces USING gin (error_words) WITH (fastupdate = off) WHERE failed;
"""

#: Both are compressed already. `basic` is listed with every record, so it stays in the row where it can; payloads go
#: apart as soon as a row gets longer than its partition's toast_tuple_target.
STORAGE = """
ALTER TABLE trunkline.traces
  ALTER COLUMN basic SET STORAGE MAIN, ALTER COLUMN payload SET STORAGE EXTERNAL
"""


def upgrade() -> None:
    for statement in (*TABLES.split(";"), STORAGE, *INDEXES.split(";")):
        if statement.strip():
            op.execute(statement)
