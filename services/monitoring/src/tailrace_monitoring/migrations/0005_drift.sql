-- Which distance, or share, lay farthest beyond its threshold. Rows of before have one distance for all, the spec's.
alter table distances add column statistic text not null default '';
