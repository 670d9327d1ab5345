-- Events to publish, written in the transaction that makes them true. `xid` says which one that was: the relay
-- publishes a row only when every transaction that could still commit a lower id has ended.
CREATE TABLE outbox (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid           xid8 NOT NULL DEFAULT pg_current_xact_id(),
    topic         text NOT NULL,
    partition     integer,
    key           bytea,
    value         bytea,
    header_names  text[] NOT NULL,
    header_values bytea[] NOT NULL,
    timestamp_ms  bigint
);

-- How far each log has been applied, written in the transaction of its effects.
CREATE TABLE inbox (
    topic          text NOT NULL,
    partition      integer NOT NULL,
    through_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);
