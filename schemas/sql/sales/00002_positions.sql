-- How far each sink has read, who owns what, how every input record ended, and what the totals are complete through.

-- +goose Up
CREATE TABLE millrace.sink_partition (
    sink        text NOT NULL,
    topic       text NOT NULL,
    part        integer NOT NULL,
    cluster_id  text NOT NULL,
    topic_id    text NOT NULL,
    epoch       bigint NOT NULL,
    next_offset bigint NOT NULL,
    owner       text NOT NULL,
    backend_pid integer NOT NULL,
    stopped     text,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sink, topic, part)
) WITH (fillfactor = 50);
COMMENT ON TABLE millrace.sink_partition IS
    'The truth about positions: everything before next_offset is in, in the same transaction. Kafka''s committed offsets are for lag tools only.';
COMMENT ON COLUMN millrace.sink_partition.epoch IS 'One more with every claim; a writer with an older one is fenced.';
COMMENT ON COLUMN millrace.sink_partition.stopped IS 'Why the partition is not read; null when it is. aggregate reset-offsets clears it.';

CREATE TABLE millrace.sink_counters (
    sink        text NOT NULL,
    topic       text NOT NULL,
    part        integer NOT NULL,
    applied     bigint NOT NULL DEFAULT 0,
    unchanged   bigint NOT NULL DEFAULT 0,
    superseded  bigint NOT NULL DEFAULT 0,
    duplicate   bigint NOT NULL DEFAULT 0,
    quarantined bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (sink, topic, part)
) WITH (fillfactor = 50);
COMMENT ON TABLE millrace.sink_counters IS
    'How input records ended, since ever. Their sum is the number of records read; a replay counts again.';

CREATE TABLE millrace.sink_progress (
    sink          text PRIMARY KEY,
    valid_through timestamptz NOT NULL,
    source_lsn    pg_lsn NOT NULL,
    incomplete    text[] NOT NULL,
    updated_at    timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE millrace.sink_progress, millrace.sink_counters, millrace.sink_partition;
