-- A window's events by arm and version, and by protected group, as the console shows them.
alter table windows add column slices jsonb not null default '[]';
