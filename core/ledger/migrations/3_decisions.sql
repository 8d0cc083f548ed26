-- What operators decided about who is who: facts, as suppressions and links are, never changed and only lifted by a
-- later one. Record keys are 16 bytes each and stand one behind the other, those that found their member first.
create table decisions (
    seq bigint not null primary key,
    decision_id bytea not null unique check (length(decision_id) = 16),
    kind text not null check (kind in ('same', 'apart')),
    left_records bytea not null check (length(left_records) >= 16 and length(left_records) % 16 = 0),
    right_records bytea not null check (length(right_records) >= 16 and length(right_records) % 16 = 0),
    source text not null check (source in ('operator', 'review', 'score')),
    -- Thousandths of a bit for one person, where the decision is about a probable duplicate.
    weight_millibits bigint,
    made_us bigint not null,
    made_by text not null,
    why text not null,
    lifted_seq bigint,
    lifted_us bigint,
    lifted_by text,
    lifted_why text
);
create index decisions_lifted on decisions (lifted_seq) where lifted_seq is not null;
