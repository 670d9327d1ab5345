-- Every list of mutes there ever was; the newest of a model is in force.
create table mutes (
    model        text not null references models (name),
    sequence     integer not null check (sequence >= 1),
    event        jsonb not null,
    announced_at timestamptz not null,
    primary key (model, sequence)
);
