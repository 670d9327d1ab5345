-- Watches: the state of the role `watch`, written with every batch in one transaction with what it led to.

create table watches (
    model   text primary key,
    version bigint not null default 0,      -- grows with every write: a process knows whether its copy is the newest
    state   jsonb not null default '{}'
);

create table examples (                     -- the newest labelled examples, numbered; older ones are removed
    model          text not null references watches (model),
    number         bigint not null,
    partition      integer not null,
    "offset"       bigint not null,
    prediction_id  text not null,
    label_revision integer not null,
    time           timestamptz not null,
    error          smallint,                -- of the champion: 0 right, 1 wrong, null not known
    primary key (model, number)
);

create table cohorts (                      -- one arm in one window of prediction time
    model    text not null references watches (model),
    start    timestamptz not null,
    arm      text not null,
    version  integer not null,              -- 0: a model of the producers' own
    closed   boolean not null,
    examples integer not null,
    accuracy double precision not null,
    body     jsonb not null,
    primary key (model, start, arm, version)
);
create index cohorts_open on cohorts (model) where not closed;

-- The read model: what the console shows.

create table scores (                       -- running accuracy of each version; `served` is what users got
    model           text not null references watches (model),
    name            text not null,
    arm             text not null,
    version         integer,
    examples        bigint not null,
    correct         bigint not null,
    recent_accuracy double precision not null,
    primary key (model, name)
);

create table alerts (
    alert_id text primary key,
    model    text not null,
    kind     text not null,
    time     timestamptz not null,
    event    jsonb not null
);
create index alerts_newest on alerts (model, time desc);

create table comparisons (                  -- the newest of each candidate
    model     text not null,
    candidate integer not null,
    event     jsonb not null,
    primary key (model, candidate)
);

create table windows (
    model        text not null,
    window_start timestamptz not null,
    window_end   timestamptz not null,
    events       bigint not null,
    closed       boolean not null,
    columns      jsonb not null,            -- per column: count, missing, bad values, mean; no sketches
    primary key (model, window_start)
);

create table distances (                    -- of closed windows from the reference
    model        text not null,
    window_start timestamptz not null,
    name         text not null,
    distance     double precision not null,
    threshold    double precision not null,
    drifted      boolean not null,
    primary key (model, window_start, name)
);

create table requests (                     -- trainings that monitoring asked for
    run_id text primary key,
    model  text not null,
    time   timestamptz not null,
    event  jsonb not null
);

create table facts (                        -- what other services announced, the newest of each key
    topic     text not null,
    key       text not null,
    model     text not null,
    partition integer not null,
    "offset"  bigint not null,
    event     jsonb not null,
    primary key (topic, key)
);
create index facts_of_model on facts (topic, model, "offset" desc);
