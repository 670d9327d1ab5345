-- The number of the last change, which stands in the journal too. Its row lock orders the changes as they are committed.
create table journal_head (
    singleton boolean primary key default true check (singleton),
    number    bigint not null
);
insert into journal_head (number) values (0);
