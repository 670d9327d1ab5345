-- A model may have a hundred thousand versions, and a handful that facts can still move.
create index versions_acting on versions (model) where stage in ('registered', 'shadow', 'canary', 'champion');
