create table estimates (                    -- performance of one arm in one window, estimated and corrected by labels
    model   text not null,
    start   timestamptz not null,
    arm     text not null,
    version integer not null,               -- 0: a model of the producers' own
    event   jsonb not null,
    primary key (model, start, arm, version)
);
