create table lessons (                      -- the newest labelled answers of a regression, to foretell its error from
    model         text not null,
    version       integer not null,         -- 0: a model of the producers' own
    prediction_id text not null,
    number        bigint not null,          -- that of the example: older ones are removed
    body          jsonb not null,
    primary key (model, version, prediction_id)
);
create index lessons_newest on lessons (model, version, number desc);
