-- The audit chain has the digest of each kept event: it is kept as it was written, letter by letter.
alter table evidence alter column event type text using event::text;
