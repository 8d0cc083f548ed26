-- The tables of the ledger, for PostgreSQL. SQLite is given the same text with `blob` for `bytea`.
-- Ids are 16 bytes of our own, times are microseconds since the epoch in UTC.

-- Numbers that are never given twice. A row is locked from its update to the commit, so that the
-- order of commits is the order of numbers.
create table counters (
    name text not null primary key,
    value bigint not null
);
insert into counters (name, value) values ('facts', 0), ('generations', 0), ('audit', 0);

-- One row. Each taking of the lease raises the fence.
create table lease (
    id bigint not null primary key check (id = 1),
    fence bigint not null,
    host text,
    pid bigint,
    since_us bigint,
    expires_us bigint
);
insert into lease (id, fence) values (1, 0);

create table runs (
    run_id bytea not null primary key check (length(run_id) = 16),
    pipeline text not null,
    clock_us bigint not null,
    started_us bigint not null,
    finished_us bigint,
    fence bigint not null,
    base bigint,
    generation bigint,
    state text not null check (state in ('running', 'finished', 'interrupted')),
    exit_code bigint,
    report text
);
create index runs_started on runs (started_us);

create table pulls (
    pull_id bytea not null primary key check (length(pull_id) = 16),
    source text not null,
    number bigint not null,
    mode text not null check (mode in ('incremental', 'snapshot')),
    state text not null check (state in ('open', 'ended', 'dropped')),
    started_us bigint not null,
    ended_us bigint,
    as_of_us bigint,
    resume bytea,
    segments bigint not null,
    consumed bigint,
    unique (source, number)
);
create unique index pulls_open on pulls (source) where state = 'open';
create index pulls_pending on pulls (source, number) where state = 'ended' and consumed is null;
create index pulls_consumed on pulls (consumed) where consumed is not null;

create table segments (
    pull_id bytea not null references pulls (pull_id),
    seq bigint not null,
    fence bigint not null,
    row_count bigint not null,
    bytes bigint not null,
    files text not null,
    document text not null,
    primary key (pull_id, seq)
);

-- The chain of generations, and which of them is the head.
create table generations (
    generation bigint not null primary key,
    base bigint,
    fence bigint not null,
    manifest_checksum text not null,
    fact_seq bigint not null,
    clock_us bigint not null,
    committed_us bigint not null,
    run_id bytea not null,
    rolled_back_us bigint
);
create table head (
    id bigint not null primary key check (id = 1),
    generation bigint not null references generations (generation),
    fence bigint not null
);

-- Facts: what people and channels told us. A fact is never changed, only lifted by a later one.
create table suppressions (
    seq bigint not null primary key,
    contact bytea not null check (length(contact) = 16),
    phone_masked text not null,
    reason text not null,
    source text not null,
    since_us bigint not null,
    until_us bigint,
    set_by text not null,
    lifted_seq bigint
);
create index suppressions_active on suppressions (contact) where lifted_seq is null;

create table links (
    seq bigint not null primary key,
    contact bytea not null check (length(contact) = 16),
    channel text not null,
    since_us bigint not null,
    task_id bytea,
    lifted_seq bigint
);
create unique index links_active on links (contact, channel) where lifted_seq is null;

create table audit (
    seq bigint not null primary key,
    at_us bigint not null,
    who text not null,
    what text not null,
    subject text not null,
    why text not null
);

create table components (
    kind text not null check (kind in ('source', 'campaign')),
    name text not null,
    -- The name that it had first, by which the files of people know a source for ever.
    origin text not null,
    seed bytea,
    since_us bigint not null,
    retired_us bigint,
    primary key (kind, name)
);

create table acceptances (
    source text not null,
    what text not null,
    figure bigint not null,
    who text not null,
    at_us bigint not null,
    primary key (source, what)
);

-- The arm that a contact point was drawn into, for good.
create table arms (
    campaign text not null,
    contact bytea not null check (length(contact) = 16),
    arm text not null check (arm in ('control', 'treatment')),
    generation bigint not null,
    primary key (campaign, contact)
);

create table dispatches (
    dispatch_id bytea not null primary key check (length(dispatch_id) = 16),
    channel text not null,
    run_id bytea not null,
    group_key text not null,
    ordinal bigint not null,
    state text not null check (state in ('open', 'failed', 'closed')),
    holder bytea not null,
    held_until_us bigint,
    retry_at_us bigint,
    pushes bigint not null,
    claimed_us bigint not null,
    closed_us bigint,
    unique (channel, run_id, group_key, ordinal)
);
create index dispatches_unfinished on dispatches (channel) where state <> 'closed';

create table tasks (
    task_id bytea not null primary key check (length(task_id) = 16),
    campaign text not null,
    contact bytea not null check (length(contact) = 16),
    member bytea not null check (length(member) = 16),
    touch bigint not null check (touch >= 1),
    try_number bigint not null check (try_number >= 1),
    channel text not null,
    store text,
    staff text,
    group_key text not null,
    run_id bytea not null,
    generation bigint not null,
    planned_us bigint not null,
    due_us bigint,
    not_before_us bigint not null,
    state text not null check (state in
        ('planned', 'sending', 'accepted', 'delivered', 'rejected', 'not_sent', 'unknown', 'cancelled', 'refused')),
    -- The try number once it was cancelled or refused; a column of its own, so that no other move
    -- rewrites the index below.
    taken_back bigint not null default 0,
    retry bigint not null default 0,
    attempts bigint not null default 0,
    changes bigint not null default 0,
    changed_us bigint not null,
    sent_us bigint,
    dispatch_id bytea references dispatches (dispatch_id),
    code text,
    message text,
    outcome text,
    outcome_us bigint,
    payload bytea not null
);
-- One touch is one task, whatever happens; those that were taken back differ by their try.
create unique index tasks_touch on tasks (contact, campaign, touch, taken_back);
create index tasks_outbox on tasks (channel, run_id, group_key) where state in ('planned', 'not_sent', 'unknown');
create index tasks_dispatch on tasks (dispatch_id) where dispatch_id is not null;
create index tasks_member on tasks (member);

-- Every move after `planned`.
create table task_changes (
    task_id bytea not null references tasks (task_id),
    change bigint not null,
    at_us bigint not null,
    state text not null,
    code text,
    message text,
    dispatch_id bytea,
    primary key (task_id, change)
);

-- The tasks of a dispatch in its order, and the receipt of each.
create table dispatch_tasks (
    dispatch_id bytea not null references dispatches (dispatch_id),
    position bigint not null,
    task_id bytea not null references tasks (task_id),
    verdict text,
    retry_after_ms bigint,
    code text,
    message text,
    at_us bigint,
    primary key (dispatch_id, position)
);

create table channel_events (
    channel text not null,
    event_id text not null,
    task_id bytea not null references tasks (task_id),
    outcome text not null,
    at_us bigint,
    received_us bigint not null,
    note bytea,
    primary key (channel, event_id)
);
create index channel_events_task on channel_events (task_id);

create table poll_states (
    channel text not null primary key,
    state bytea not null
);
