-- Regressions: errors between right and wrong, and figures that are no accuracy.

alter table examples alter column error type double precision;

alter table cohorts alter column accuracy drop not null;
alter table cohorts add column metrics jsonb not null default '{}';     -- of a regression: mae, rmse, bias

alter table scores alter column recent_accuracy drop not null;
alter table scores add column metrics jsonb not null default '{}';      -- of a regression: mae, rmse, bias, recent_mae
