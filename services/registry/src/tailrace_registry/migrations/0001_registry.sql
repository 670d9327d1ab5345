-- What the registry knows. Every table but models, revisions and audit_head holds events as they were published, beside
-- the few columns that queries need; nothing is kept that an event does not say.

create table models (
    name          text primary key,
    spec_revision integer not null default 0,   -- 0: no spec has been accepted yet
    predecessors  integer[] not null default '{}' -- champions before the present one, oldest first
);

create table specs (
    model      text not null references models (name),
    revision   integer not null check (revision >= 1),
    event      jsonb not null,
    applied_at timestamptz not null,
    primary key (model, revision)
);

create table versions (
    model   text not null references models (name),
    version integer not null check (version >= 1),
    run_id  text not null,
    stage   text not null check (
        stage in ('registered', 'shadow', 'canary', 'champion', 'rejected', 'rolled-back', 'retired')
    ),
    fits    boolean not null,                   -- trained for the features and label of the model's spec
    event   jsonb not null,
    primary key (model, version),
    unique (model, run_id)                      -- a candidate that is offered twice is one version
);

-- Two versions never answer in one role, whatever the code above does.
create unique index one_champion on versions (model) where stage = 'champion';
create unique index one_canary on versions (model) where stage = 'canary';

-- The newest revision of each continual run, kept apart because it may come before its candidate does.
create table revisions (
    model    text not null,
    run_id   text not null,
    revision integer not null,
    event    jsonb not null,
    primary key (model, run_id)
);

-- Every deployment there ever was: who answered at a moment is the last one announced before it.
create table deployments (
    model        text not null references models (name),
    sequence     integer not null check (sequence >= 1),
    event        jsonb not null,
    announced_at timestamptz not null,
    primary key (model, sequence)
);
create index deployments_by_time on deployments (model, announced_at);

-- What decisions rest on: comparisons that moved a version, alerts, trainings that ended.
create table evidence (
    model    text not null,
    event_id text not null,
    kind     text not null,
    event    jsonb not null,
    said_at  timestamptz not null,
    primary key (model, kind, event_id)
);
create index evidence_by_time on evidence (model, said_at);

-- How far each log has been applied, written with the effects. The time tells a topic that was made anew.
create table applied (
    topic          text not null,
    partition      integer not null,
    through_offset bigint not null default -1,
    timestamp_ms   bigint not null default -1,
    primary key (topic, partition)
);

create table audit (
    sequence   bigint primary key,
    model      text not null,
    command_id text unique,                     -- a command that is read twice is answered once
    entry      text not null                    -- the JSON as published: its digest is taken of exactly this
);
create index audit_by_model on audit (model, sequence);

-- The end of the chain. Its row lock orders the writers; an entry cut off the end shows as a difference to it.
create table audit_head (
    singleton boolean primary key default true check (singleton),
    sequence bigint not null,
    sha256   text not null
);
insert into audit_head (sequence, sha256) values (0, repeat('0', 64));

create function audit_is_for_ever() returns trigger language plpgsql as $$
begin
    raise exception 'audit entries are never changed or deleted';
end
$$;
create trigger audit_is_for_ever before update or delete or truncate on audit
    for each statement execute function audit_is_for_ever();
