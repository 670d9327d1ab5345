-- The stage of every version at any moment: each move, as its audit entry says it.
create table moves (
    model    text not null,
    version  integer not null,
    sequence bigint not null,                   -- of the audit entry
    stage    text not null,
    moved_at timestamptz not null,
    primary key (model, version, sequence)
);
create index moves_registered on moves (model, moved_at) where stage = 'registered';

insert into moves (model, version, sequence, stage, moved_at)
select model, substring(entry::jsonb ->> 'subject' from 9)::integer, sequence, entry::jsonb ->> 'action',
    (entry::jsonb ->> 'time')::timestamptz
from audit
where entry::jsonb ->> 'action' in
    ('registered', 'shadow', 'canary', 'champion', 'rejected', 'rolled-back', 'retired')
and entry::jsonb ->> 'subject' ~ '^version [0-9]+$';

-- A version's own page looks for its entries among all of the model's.
create index audit_by_subject on audit (model, (entry::jsonb ->> 'subject'), sequence);

-- Whether a version learned from one record: {"topic": …, "partition": …, "offset": …}.
create function learned_from(event jsonb, place jsonb) returns boolean language sql immutable as $$
    select jsonb_path_exists(
        event,
        '$.lineage.trained_on[*] ? (@.topic == $topic && @.partition == $partition
            && @.from_offset <= $offset && @.through_offset >= $offset)',
        place
    )
$$;

-- The offsets that a version learned from, of whichever log: narrows 100,000 versions down to those worth a closer look.
create function offsets_learned(event jsonb) returns int8multirange language sql immutable as $$
    select range_agg(int8range((each ->> 'from_offset')::bigint, (each ->> 'through_offset')::bigint, '[]'))
    from jsonb_array_elements(event -> 'lineage' -> 'trained_on') each
$$;
create index versions_by_offset on versions using gist (offsets_learned(event));
