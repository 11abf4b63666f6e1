-- Tables and columns for the rest of the API.

-- The number of the latest event that retention has removed. 0 if it has removed none.
ALTER TABLE event_counters ADD COLUMN trimmed_seq BIGINT NOT NULL DEFAULT 0;

-- Set when a client requests the cancellation of the run. The worker that executes the run then ends it.
ALTER TABLE runs ADD COLUMN cancel_requested_at BIGINT;
-- A JSON array, or NULL if the message has no attachments.
ALTER TABLE messages ADD COLUMN attachments TEXT;
-- 1 if the text is incomplete, because the model call broke off or the run was cancelled.
ALTER TABLE messages ADD COLUMN truncated BIGINT NOT NULL DEFAULT 0;

-- A browser token is a row with a parent: the key that created it. When the parent is revoked, so is the token.
ALTER TABLE api_keys ADD COLUMN parent_key_id TEXT;
-- Finds expired browser tokens, oldest first, so that they can be deleted.
CREATE INDEX api_keys_tokens ON api_keys (expires_at, key_id) WHERE parent_key_id IS NOT NULL;

-- value is encrypted and can be decrypted only in its own row. allowed_hosts and inject are JSON arrays.
CREATE TABLE secrets (
    account_id TEXT NOT NULL,
    secret_id TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    allowed_hosts TEXT NOT NULL,
    inject TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, secret_id)
);
CREATE INDEX secrets_by_age ON secrets (account_id, created_at, secret_id);

-- The secrets that each deployment uses. A secret in use cannot be deleted. The deployment's settings contain the name
-- of the environment variable for each secret. placeholder is the text that programs in the sandbox see instead of the
-- secret's value. It is NULL until a command needs it.
CREATE TABLE secret_uses (
    deployment_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    secret_id TEXT NOT NULL,
    placeholder TEXT,
    PRIMARY KEY (deployment_id, secret_id)
);
CREATE INDEX secret_uses_of_secret ON secret_uses (account_id, secret_id);

-- place is the position of a skill in the deployment's list.
CREATE TABLE skills (
    skill_id TEXT NOT NULL PRIMARY KEY,
    deployment_id TEXT NOT NULL,
    place BIGINT NOT NULL,
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    path TEXT,
    url TEXT,
    description TEXT,
    content TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (deployment_id, name)
);

-- Requests with an idempotency key. While a request is being executed, status and response are NULL, and the row
-- belongs to the holder of claim_id until lease_expires_at. body_hash and response are encrypted: a body may contain a
-- secret that could be guessed from a plain hash, and a response may contain a secret that is shown only once.
CREATE TABLE idempotent_requests (
    key_id TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    body_hash TEXT NOT NULL,
    claim_id TEXT NOT NULL,
    status BIGINT,
    response TEXT,
    lease_expires_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (key_id, method, path, idempotency_key)
);
CREATE INDEX idempotent_requests_age ON idempotent_requests (created_at);

-- One row for each snapshot of a deleted deployment's workspace. The archive of the snapshot is a file in the data
-- directory.
CREATE TABLE snapshots (
    snapshot_id TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL,
    deployment_id TEXT NOT NULL UNIQUE,
    customer_id TEXT NOT NULL,
    status TEXT NOT NULL,
    -- JSON. NULL until the snapshot is ready.
    contents TEXT,
    -- JSON: why the snapshot could not be written.
    error TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX snapshots_of_account ON snapshots (account_id, snapshot_id);
CREATE INDEX snapshots_by_expiry ON snapshots (expires_at, snapshot_id);

-- restore_snapshot_id is the snapshot to restore into a new deployment. NULL once it is restored. error is the error
-- with which provisioning failed, as JSON.
ALTER TABLE deployments ADD COLUMN restore_snapshot_id TEXT;
ALTER TABLE deployments ADD COLUMN error TEXT;

-- One row with an encrypted text. A server that cannot decrypt the text has the wrong master key.
CREATE TABLE master_key_check (
    name TEXT NOT NULL PRIMARY KEY,
    sealed TEXT NOT NULL
);

-- Connections that programs in sandboxes made or attempted to make. If no tool call was running, run_id is '' and
-- step_no and call_no are 0. ended_at is NULL while a connection is open. sent_bytes and received_bytes are NULL while
-- they are unknown. The number of rows for each tool call is limited. Once the limit is reached, one more row with the
-- verdict 'summed' counts all further attempts.
CREATE TABLE connections (
    connection_id BIGINT NOT NULL PRIMARY KEY,
    deployment_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    step_no BIGINT NOT NULL,
    call_no BIGINT NOT NULL,
    connection_no BIGINT NOT NULL,
    host TEXT NOT NULL,
    port BIGINT NOT NULL,
    verdict TEXT NOT NULL,
    reason TEXT,
    attempts BIGINT NOT NULL,
    sent_bytes BIGINT,
    received_bytes BIGINT,
    error TEXT,
    opened_at BIGINT NOT NULL,
    ended_at BIGINT,
    UNIQUE (deployment_id, run_id, step_no, call_no, connection_no)
);
CREATE INDEX connections_open ON connections (connection_id) WHERE ended_at IS NULL;
-- These two indexes find the running tool calls of a deployment without reading its finished ones.
CREATE INDEX threads_active ON threads (deployment_id) WHERE active_run_id IS NOT NULL;
CREATE INDEX steps_open ON steps (run_id) WHERE result IS NULL AND call_no > 0;

-- Steering requests: a run asks a person to approve a tool call or to answer a question. outcome is NULL while the
-- request is pending.
CREATE TABLE steering_requests (
    steering_id TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    step_no BIGINT NOT NULL,
    call_no BIGINT NOT NULL,
    kind TEXT NOT NULL,
    summary TEXT NOT NULL,
    tool TEXT NOT NULL,
    tool_call_id TEXT NOT NULL,
    -- The arguments of the tool call, as JSON. NULL if the request is a question.
    arguments TEXT,
    -- The answers that the agent suggests for a question, as a JSON array.
    options TEXT NOT NULL,
    -- A hash of the tool and its arguments. If the person edited the arguments, a hash of the edited call.
    fingerprint TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    outcome TEXT,
    -- For which further calls an approval is valid: 'once', 'run' or 'always'. NULL if there is no approval.
    remember TEXT,
    answered_by TEXT,
    -- The person's answer, as JSON. NULL if no person answered.
    answer TEXT,
    resolved_at BIGINT,
    UNIQUE (run_id, step_no, call_no)
);
CREATE INDEX steering_of_account ON steering_requests (account_id, steering_id);
CREATE INDEX steering_of_deployment ON steering_requests (deployment_id, steering_id);
CREATE INDEX steering_of_thread ON steering_requests (thread_id);
CREATE INDEX steering_pending ON steering_requests (account_id, steering_id) WHERE outcome IS NULL;
CREATE INDEX steering_pending_of_thread ON steering_requests (thread_id, steering_id) WHERE outcome IS NULL;

-- Tool calls that need no further approval in a deployment, because a person approved them with "always".
CREATE TABLE approvals (
    approval_id TEXT NOT NULL PRIMARY KEY,
    deployment_id TEXT NOT NULL,
    tool TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    -- The arguments of the tool call, as JSON.
    arguments TEXT NOT NULL,
    steering_id TEXT NOT NULL,
    granted_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (deployment_id, fingerprint)
);

-- The steering request that a user's message answers. The model receives such a message as a tool result.
ALTER TABLE messages ADD COLUMN answers TEXT;
CREATE INDEX messages_that_answer ON messages (answers) WHERE answers IS NOT NULL;
