-- One text for SQLite and PostgreSQL: ids and enums TEXT, instants BIGINT (microseconds since 1970, UTC),
-- documents TEXT holding JSON. Statements end with a semicolon at the end of a line.

CREATE TABLE accounts (
    account_id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

-- A key's plain text is never stored: hash is the SHA-256 of it, in hexadecimal.
CREATE TABLE api_keys (
    key_id TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL,
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    deployment_id TEXT,
    customer_id TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX api_keys_of_account ON api_keys (account_id, key_id);

CREATE TABLE deployments (
    deployment_id TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    default_thread_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX deployments_of_account ON deployments (account_id, deployment_id);
CREATE INDEX deployments_of_customer ON deployments (account_id, customer_id, deployment_id);

-- What an agent is, once for each change of it: a run keeps to the version that it began with. Those that are neither
-- the deployment's own nor a run's at work go with the next change.
CREATE TABLE deployment_versions (
    deployment_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    model TEXT NOT NULL,
    system_prompt TEXT NOT NULL,
    settings TEXT NOT NULL,
    PRIMARY KEY (deployment_id, version)
);

-- The event counter stands alone and narrow: it is the row that every writer of a deployment locks, last.
-- Once closed = 1 the deployment is deleted, and nothing can be appended any more.
CREATE TABLE event_counters (
    deployment_id TEXT NOT NULL PRIMARY KEY,
    last_seq BIGINT NOT NULL,
    closed BIGINT NOT NULL
);

CREATE TABLE events (
    deployment_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    event TEXT NOT NULL,
    run_id TEXT,
    thread_id TEXT,
    data TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (deployment_id, seq)
);

CREATE TABLE threads (
    thread_id TEXT NOT NULL PRIMARY KEY,
    deployment_id TEXT NOT NULL,
    title TEXT,
    active_run_id TEXT,
    message_count BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    last_activity_at BIGINT NOT NULL
);
CREATE INDEX threads_of_deployment ON threads (deployment_id, thread_id);

CREATE TABLE runs (
    run_id TEXT NOT NULL PRIMARY KEY,
    deployment_id TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    -- Of the deployment; NULL until the run begins.
    version BIGINT,
    status TEXT NOT NULL,
    error TEXT,
    usage TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    ended_at BIGINT
);
CREATE INDEX runs_of_deployment ON runs (deployment_id, run_id);
CREATE INDEX runs_of_thread ON runs (thread_id, run_id);

-- before_step is the step of the run that first reads a user's message; NULL until one has picked it up.
CREATE TABLE messages (
    message_id TEXT NOT NULL PRIMARY KEY,
    thread_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    before_step BIGINT,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX messages_of_thread ON messages (thread_id, message_id);
CREATE INDEX messages_pending ON messages (run_id) WHERE before_step IS NULL AND role = 'user';

-- The journal: an intent is written before its effect, its result after it. Step n of a run is a model call
-- (call_no 0) and the tool calls that it asked for (call_no 1 and on).
CREATE TABLE steps (
    run_id TEXT NOT NULL,
    step_no BIGINT NOT NULL,
    call_no BIGINT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    intent TEXT NOT NULL,
    result TEXT,
    started_at BIGINT NOT NULL,
    ended_at BIGINT,
    PRIMARY KEY (run_id, step_no, call_no)
);

-- The queue. fence grows with every claim; a worker writes only while its fence is the row's.
CREATE TABLE work (
    work_id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    due_at BIGINT NOT NULL,
    lease_owner TEXT,
    lease_expires_at BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    attempts BIGINT NOT NULL
);
CREATE INDEX work_due ON work (due_at, work_id);
CREATE INDEX work_of_deployment ON work (deployment_id);

-- What was deleted, so that a tearing-down that was interrupted goes on and nothing comes back.
CREATE TABLE tombstones (
    subject_id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    account_id TEXT NOT NULL,
    deleted_at BIGINT NOT NULL
);
