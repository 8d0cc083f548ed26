-- What an operator accepts, it accepts for one run, by an argument: nothing of it is stored.
drop table acceptances;
