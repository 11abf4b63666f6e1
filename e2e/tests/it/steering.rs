//! Tests of runs that wait for a person to answer a question or approve a tool call. Such a steering request is
//! answered, expires or is cancelled, and some approvals are stored for later tool calls. Some tests also kill the
//! server.

use std::time::Duration;

use herm_testkit::client::{Client, Response};
use herm_testkit::model_server::{RecordedRequest, Reply};
use herm_testkit::process::Server;
use serde_json::{Value, json};

use crate::kill_matrix::{RestartingServer, kill_at_each_failpoint};
use crate::log;
use crate::model_scripts::shell;
use crate::reader::{Reader, is_end};
use crate::world::{World, deployment_of, on_both_databases, send, start, text, try_send};

on_both_databases!(
    an_approved_call_is_made_and_the_reason_of_a_denial_reaches_the_model,
    a_message_that_answers_a_question_reaches_the_model_once,
    an_answer_to_a_cancelled_run_reaches_the_next_run,
    a_waiting_run_survives_restarts_and_does_not_delay_a_stop,
    the_first_answer_is_final,
    an_expired_request_is_decided_by_the_deployments_setting,
    a_refused_call_is_not_made_after_a_kill,
);

const MODEL: &str = "anthropic/claude-sonnet-4.5";
const DANGEROUS: &str = "rm -rf /workspace/*; echo made >> made.txt";

/// A running server with one deployment, and a reader of the deployment's events.
struct Scene {
    world: World,
    server: Server,
    client: Client,
    deployment_id: String,
    reader: Reader,
}

impl Scene {
    /// Starts a server and creates a deployment whose model makes these tool calls in one step and then replies.
    async fn new(world: World, settings: Value, calls: Vec<(&'static str, Value)>) -> Self {
        world.model.respond_with(make_calls(calls));
        let server = world.start().await;
        let client = world.client_of(&server);
        let mut body = deployment_of(MODEL);
        body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let created = client.post("/v1/deployments", &body).await.unwrap();
        assert_eq!(created.status, 201, "{}", created.text());
        let deployment_id = text(&created.json(), "deployment_id");
        let reader = Reader::from_the_start(&deployment_id);
        Self { world, server, client, deployment_id, reader }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/deployments/{}{rest}", self.deployment_id)
    }

    /// Sends a message and waits until the message's run is waiting for a person. Returns the run's id and the
    /// deployment's steering requests, oldest first.
    async fn start_run(&mut self) -> (String, Vec<Value>) {
        let run_id = send(&self.client, &self.deployment_id, "Go.").await;
        self.reader.until(&self.client, is_waiting).await;
        (run_id, self.steering_requests())
    }

    fn steering_requests(&self) -> Vec<Value> {
        self.reader.named("steering_request").iter().map(|event| event.data.clone()).collect()
    }

    async fn answer(&self, request: &Value, body: &Value) -> Response {
        let path = self.path(&format!("/steering/{}", text(request, "steering_id")));
        self.client.post(&path, body).await.unwrap()
    }

    async fn patch(&self, path: &str, body: &Value) -> Response {
        self.client.call(http::Method::PATCH, path, Some(body)).await.unwrap()
    }

    async fn until_ended(&mut self, run_id: &str) -> String {
        let status = self.reader.until_ended(&self.client, run_id).await;
        log::check(&self.reader.seen);
        log::check_stored(&self.client, &self.deployment_id, &self.reader.seen).await;
        status
    }

    fn statuses(&self) -> Vec<Value> {
        self.reader.named("run_status").iter().map(|event| event.data["status"].clone()).collect()
    }

    fn results(&self) -> Vec<(String, bool)> {
        let of = |data: &Value| (text(data, "result"), data["is_error"] == true);
        self.reader.named("tool_result").iter().map(|event| of(&event.data)).collect()
    }

    fn outcomes(&self) -> Vec<(Value, Value)> {
        let of = |data: &Value| (data["outcome"].clone(), data["by"].clone());
        self.reader.named("steering_resolved").iter().map(|event| of(&event.data)).collect()
    }

    fn file(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.world.workspace(&self.deployment_id).join(name)).ok()
    }
}

/// Returns a script in which the model makes these tool calls in one step and then replies with the number of tool
/// results that it received.
fn make_calls(
    calls: Vec<(&'static str, Value)>,
) -> impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static {
    move |request| match request.tool_results_since_user().len() {
        0 => calls
            .iter()
            .fold(Reply::new(), |reply, (tool, arguments)| reply.tool_call(*tool, arguments.clone())),
        read => Reply::text(format!("I read {read}.")),
    }
}

fn is_waiting(event: &herm_testkit::events::Event) -> bool {
    event.name == "run_status" && event.data["status"] == "waiting_on_human"
}

/// Returns the texts of all tool results in the last request to the model.
fn tool_results(world: &World) -> Vec<String> {
    world.model.requests().last().unwrap().tool_results().into_iter().map(|(_, text)| text).collect()
}

async fn an_approved_call_is_made_and_the_reason_of_a_denial_reaches_the_model(world: World) {
    let calls = vec![
        ("shell", shell(DANGEROUS)),
        ("write_file", json!({"path": "free.txt", "content": "no approval"})),
        ("write_file", json!({"path": "free2.txt", "content": "no approval"})),
        ("shell", shell("rm -rf /workspace")),
    ];
    let mut scene = Scene::new(world, json!({}), calls).await;
    let (run_id, requests) = scene.start_run().await;
    // The two tool calls that need no approval have already been made. The two that need one have not.
    assert_eq!(scene.results().len(), 2);
    assert_eq!((scene.file("free.txt").as_deref(), scene.file("made.txt")), (Some("no approval"), None));
    let [first, second] = &requests[..] else { panic!("{requests:#?}") };
    assert_eq!((&first["kind"], &first["tool"]), (&json!("approval"), &json!("shell")));
    assert_eq!(first["arguments"], shell(DANGEROUS));
    assert!(text(first, "summary").contains("rm -rf /workspace/*"), "{first}");

    let pending = scene.client.get("/v1/steering?status=pending").await.unwrap().json();
    let ids: Vec<&Value> =
        pending["data"].as_array().unwrap().iter().map(|row| &row["steering_id"]).collect();
    assert_eq!(ids, [&second["steering_id"], &first["steering_id"]], "newest first");
    let thread = scene.client.get(&scene.path("/threads")).await.unwrap().json();
    assert_eq!(thread["data"][0]["status"], "waiting_on_human");

    // Answers the second steering request before the first.
    let denial = json!({"decision": "deny", "message": "Keep the files."});
    assert_eq!(scene.answer(second, &denial).await.status, 200);
    let edited = json!({"decision": "approve", "arguments": shell("echo edited >> made.txt"), "message": "Only this."});
    let answer = scene.answer(first, &edited).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["outcome"], "approved");
    assert_eq!(scene.until_ended(&run_id).await, "completed");

    assert_eq!(scene.file("made.txt").as_deref(), Some("edited\n"));
    assert_eq!(scene.file("free2.txt").as_deref(), Some("no approval"));
    check_calls_and_results(&scene);
}

/// Checks that the approved tool call was made with the arguments that the person edited, and that the model received
/// the person's message for both the approved and the denied call.
fn check_calls_and_results(scene: &Scene) {
    let results = tool_results(&scene.world);
    assert!(results[0].contains("echo edited") && results[0].contains("Only this."), "{results:#?}");
    assert!(results[3].contains("denied") && results[3].contains("Keep the files."), "{results:#?}");
    let calls: Vec<Value> =
        scene.reader.named("tool_call").iter().map(|event| event.data["arguments"].clone()).collect();
    assert!(
        calls.contains(&shell("echo edited >> made.txt")) && !calls.contains(&shell(DANGEROUS)),
        "{calls:#?}"
    );
    let outcomes = scene.outcomes();
    assert_eq!([&outcomes[0].0, &outcomes[1].0], ["denied", "approved"]);
    assert!(outcomes[0].1.as_str().unwrap().starts_with("key_"));
}

async fn a_message_that_answers_a_question_reaches_the_model_once(world: World) {
    let question = json!({"question": "Which colour?", "options": ["red", "blue"]});
    let mut scene =
        Scene::new(world, json!({}), vec![("ask_human", question), ("shell", shell(DANGEROUS))]).await;
    let (run_id, requests) = scene.start_run().await;
    assert_eq!(
        (&requests[0]["kind"], &requests[0]["summary"]),
        (&json!("question"), &json!("Which colour?"))
    );
    assert_eq!(requests[0]["options"], json!(["red", "blue"]));
    // Each message answers the oldest pending steering request.
    for message in ["Green, please.", "Yes, go ahead!"] {
        let sent = try_send(&scene.client, &scene.deployment_id, json!({"content": message})).await;
        assert_eq!((sent.status.as_u16(), &sent.json()["run_id"]), (202, &json!(run_id)));
    }
    assert_eq!(scene.until_ended(&run_id).await, "completed");
    assert_eq!(scene.file("made.txt").as_deref(), Some("made\n"));
    let results = tool_results(&scene.world);
    assert_eq!(results[0], "Green, please.");
    let model_requests = scene.world.model.requests();
    assert_eq!(model_requests.len(), 2);
    assert_eq!(model_requests[1].last_user_text(), "Go.", "an answer does not count as input");
    let outcomes: Vec<Value> = scene.outcomes().into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!(outcomes, ["answered", "approved"]);
    let thread = scene
        .client
        .get(&scene.path(&format!("/threads/{}", text(&requests[0], "thread_id"))))
        .await
        .unwrap();
    let messages: Vec<Value> = thread.json()["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["content"].clone())
        .collect();
    assert_eq!(messages, ["Go.", "Green, please.", "Yes, go ahead!", "I read 2."]);
    // The thread is still usable: the next run makes the same tool calls and waits for a person again.
    let next = send(&scene.client, &scene.deployment_id, "And now?").await;
    let asks_again =
        scene.reader.until(&scene.client, |event| is_waiting(event) && event.data["run_id"] == *next);
    asks_again.await;
}

async fn an_answer_to_a_cancelled_run_reaches_the_next_run(world: World) {
    let ask = |question: &str| ("ask_human", json!({"question": question}));
    let mut scene = Scene::new(world, json!({}), vec![ask("Which colour?"), ask("How large?")]).await;
    let (run_id, _) = scene.start_run().await;
    let answered = send(&scene.client, &scene.deployment_id, "Green, please.").await;
    assert_eq!(answered, run_id);
    let cancel = scene.path(&format!("/runs/{run_id}/cancel"));
    assert_eq!(scene.client.post(&cancel, &json!({})).await.unwrap().status, 202);
    assert_eq!(scene.until_ended(&run_id).await, "cancelled");
    send(&scene.client, &scene.deployment_id, "And now?").await;
    let asks_again =
        |event: &herm_testkit::events::Event| is_waiting(event) && event.data["run_id"] != *run_id;
    scene.reader.until(&scene.client, asks_again).await;
    let request = scene.world.model.requests().pop().unwrap();
    assert_eq!(request.last_user_text(), "And now?");
    let messages = request.body()["messages"].to_string();
    assert!(messages.contains("Green, please."), "{messages}");
}

async fn a_waiting_run_survives_restarts_and_does_not_delay_a_stop(world: World) {
    let mut scene = Scene::new(world, json!({}), vec![("shell", shell(DANGEROUS))]).await;
    let (run_id, requests) = scene.start_run().await;
    let model_calls = scene.world.model.request_count();
    for _ in 0..2 {
        scene.server.kill().await.unwrap();
        scene.reader.drain().await;
        scene.server = scene.world.start().await;
        scene.client = scene.world.client_of(&scene.server);
    }
    let run = scene.client.get(&scene.path(&format!("/runs/{run_id}"))).await.unwrap().json();
    assert_eq!(run["status"], "waiting_on_human");
    assert_eq!(scene.world.model.request_count(), model_calls);
    // A server that is stopping does not wait for runs that are waiting for a person.
    scene.server.terminate().unwrap();
    let stopped = scene.server.wait().await.unwrap();
    assert!(stopped.status.success(), "{stopped:?}");
    scene.server = scene.world.start().await;
    scene.client = scene.world.client_of(&scene.server);
    assert_eq!(scene.answer(&requests[0], &json!({"decision": "approve"})).await.status, 200);
    assert_eq!(scene.until_ended(&run_id).await, "completed");
    assert_eq!(scene.file("made.txt").as_deref(), Some("made\n"));
    assert_eq!(scene.statuses(), ["queued", "running", "waiting_on_human", "running", "completed"]);
}

async fn the_first_answer_is_final(world: World) {
    let mut scene = Scene::new(world, json!({}), vec![("ask_human", json!({"question": "Which?"}))]).await;
    let (run_id, requests) = scene.start_run().await;
    let answers: Vec<Value> =
        (0..12).map(|number| json!({"decision": "answer", "message": format!("number {number}")})).collect();
    let responses = answers.iter().map(|answer| scene.answer(&requests[0], answer));
    let responses = futures_util::future::join_all(responses).await;
    let accepted: Vec<usize> = (0..12).filter(|number| responses[*number].status == 200).collect();
    let [accepted] = accepted[..] else { panic!("{accepted:?}") };
    assert!(responses.iter().all(|response| [200, 409].contains(&response.status.as_u16())));
    assert_eq!(scene.until_ended(&run_id).await, "completed");
    assert_eq!(tool_results(&scene.world), [format!("number {accepted}")]);
    assert_eq!(scene.outcomes().len(), 1);
    // Repeating the accepted answer succeeds without effect, even after the run has ended. Every other answer is
    // rejected.
    assert_eq!(scene.answer(&requests[0], &answers[accepted]).await.status, 200);
    assert_eq!(scene.answer(&requests[0], &answers[(accepted + 1) % 12]).await.status, 409);
    assert_eq!(scene.answer(&requests[0], &json!({"decision": "deny"})).await.status, 409);
}

async fn an_expired_request_is_decided_by_the_deployments_setting(world: World) {
    let calls = vec![("shell", shell(DANGEROUS))];
    let mut scene = Scene::new(world, json!({"steering": {"expires_after_s": 1}}), calls).await;
    for (policy, ends, made) in
        [("deny", "completed", None), ("fail", "error", None), ("approve", "completed", Some("made\n"))]
    {
        let changed = scene.patch(&scene.path(""), &json!({"steering": {"on_expiry": policy}})).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        let run_id = send(&scene.client, &scene.deployment_id, "Go.").await;
        assert_eq!(scene.until_ended(&run_id).await, ends, "{policy}");
        assert_eq!(scene.file("made.txt").as_deref(), made, "{policy}");
        assert_eq!(scene.outcomes().pop().unwrap(), (json!("expired"), json!("expiry")));
    }
    let errors: Vec<Value> =
        scene.reader.named("run_status").iter().map(|event| event.data["error"]["code"].clone()).collect();
    assert!(errors.contains(&json!("steering_expired")), "{errors:?}");
    let expired = scene.steering_requests();
    assert_eq!(scene.answer(&expired[0], &json!({"decision": "approve"})).await.status, 409);
}

/// The server is killed right after it has recorded a call that it refuses. The next server must not take the recorded
/// call for one that was allowed.
async fn a_refused_call_is_not_made_after_a_kill(world: World) {
    let calls = vec![
        ("write_file", json!({"path": "a.txt", "content": "b"})),
        ("read_file", json!({"path": "secret.txt"})),
    ];
    let mut scene = Scene::new(world, json!({}), calls).await;
    for tool in ["write_file", "read_file"] {
        let set = scene.patch(&scene.path(&format!("/tools/{tool}")), &json!({"permission": "deny"})).await;
        assert_eq!(set.status, 200, "{}", set.text());
    }
    let (path, body) = (scene.path("/messages"), json!({"content": "Go."}));
    scene.server.kill().await.unwrap();
    let killed = start(&scene.world.serve.clone().env("HERM_FAILPOINT", "commit.after:begin_tools")).await;
    // The server may be killed before the response arrives.
    let _ = scene.world.client_of(&killed).post_once(&path, "go", &body).await;
    killed.wait().await.unwrap();
    scene.server = scene.world.start().await;
    scene.client = scene.world.client_of(&scene.server);
    let sent = scene.client.post_once(&path, "go", &body).await.unwrap();
    assert_eq!(scene.until_ended(&text(&sent.json(), "run_id")).await, "completed");
    assert_eq!(scene.file("a.txt"), None);
    let results = scene.results();
    assert_eq!(results.len(), 2, "{results:?}");
    assert!(
        results.iter().all(|(text, is_error)| *is_error && text.contains("may not be used")),
        "{results:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_approval_applies_until_it_is_withdrawn() {
    let world = World::sqlite().await;
    let mut scene = Scene::new(world, json!({}), vec![("shell", shell(DANGEROUS))]).await;
    let (run_id, requests) = scene.start_run().await;
    let always = json!({"decision": "approve", "remember": "always"});
    assert_eq!(scene.answer(&requests[0], &always).await.status, 200);
    scene.until_ended(&run_id).await;
    let run_id = send(&scene.client, &scene.deployment_id, "Again.").await;
    assert_eq!(scene.until_ended(&run_id).await, "completed");
    assert_eq!(scene.steering_requests().len(), 1, "the same command needed another approval");
    let approvals = scene.client.get(&scene.path("/approvals")).await.unwrap().json();
    assert_eq!(approvals["data"].as_array().unwrap().len(), 1);
    let approval = &approvals["data"][0];
    assert_eq!((&approval["tool"], &approval["arguments"]), (&json!("shell"), &shell(DANGEROUS)));
    // The stored approval covers only the identical command. A command with one more space needs its own approval.
    scene.world.model.respond_with(make_calls(vec![("shell", shell(&format!("{DANGEROUS} ")))]));
    let run_id = send(&scene.client, &scene.deployment_id, "Nearly.").await;
    scene.reader.until(&scene.client, is_waiting).await;
    assert_eq!(
        scene.client.post(&scene.path(&format!("/runs/{run_id}/cancel")), &json!({})).await.unwrap().status,
        202
    );
    assert_eq!(scene.until_ended(&run_id).await, "cancelled");
    assert_eq!(scene.outcomes().pop().unwrap().0, "cancelled");
    // After the stored approval is withdrawn, the command needs a person's approval again.
    let path = scene.path(&format!("/approvals/{}", text(approval, "approval_id")));
    assert_eq!(scene.client.delete(&path).await.unwrap().status, 200);
    assert_eq!(scene.client.delete(&path).await.unwrap().status, 404);
    scene.world.model.respond_with(make_calls(vec![("shell", shell(DANGEROUS))]));
    send(&scene.client, &scene.deployment_id, "Once more.").await;
    scene.reader.until(&scene.client, is_waiting).await;
}

/// The model makes the same tool call in two steps of each run. An approval with `remember: "run"` covers both calls of
/// that run, but not those of the next run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_for_a_run_ends_with_the_run() {
    let world = World::sqlite().await;
    let mut scene = Scene::new(world, json!({}), Vec::new()).await;
    scene.world.model.respond_with(|request| match request.tool_results_since_user().len() {
        0 | 1 => Reply::new().tool_call("shell", shell(DANGEROUS)),
        _ => Reply::text("Done."),
    });
    let (run_id, requests) = scene.start_run().await;
    let answer = json!({"decision": "approve", "remember": "run"});
    assert_eq!(scene.answer(&requests[0], &answer).await.status, 200);
    assert_eq!(scene.until_ended(&run_id).await, "completed");
    assert_eq!((scene.steering_requests().len(), scene.results().len()), (1, 2));
    send(&scene.client, &scene.deployment_id, "Again.").await;
    scene.reader.until(&scene.client, is_waiting).await;
    assert_eq!(scene.steering_requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_steering_no_run_waits_and_the_model_receives_the_reason() {
    let world = World::sqlite().await;
    let calls = vec![
        ("shell", shell(DANGEROUS)),
        ("write_file", json!({"path": "a.txt", "content": "b"})),
        ("ask_human", json!({"question": "Which?"})),
    ];
    let mut scene = Scene::new(world, json!({"features": {"steering": false}}), calls).await;
    let set = scene.patch(&scene.path("/tools/write_file"), &json!({"permission": "always_ask"})).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let run_id = send(&scene.client, &scene.deployment_id, "Go.").await;
    assert_eq!(scene.until_ended(&run_id).await, "completed");
    let results = tool_results(&scene.world);
    assert!(results[0].contains("judged dangerous"), "{results:#?}");
    assert!(results[1].contains("needs a person's approval"), "{results:#?}");
    assert!(results[2].contains("may not ask a person"), "{results:#?}");
    assert!(
        scene.steering_requests().is_empty()
            && scene.file("a.txt").is_none()
            && scene.file("made.txt").is_none()
    );
    assert!(!scene.world.model.requests()[0].tool_names().contains(&"ask_human".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_with_always_ask_needs_an_approval_and_deleting_the_thread_cancels_its_requests() {
    let world = World::sqlite().await;
    let calls = vec![("write_file", json!({"path": "a.txt", "content": "b"}))];
    let mut scene = Scene::new(world, json!({}), calls).await;
    scene.patch(&scene.path("/tools/write_file"), &json!({"permission": "always_ask"})).await;
    let sent = try_send(&scene.client, &scene.deployment_id, json!({"content": "Go.", "thread_id": "new"}))
        .await
        .json();
    scene.reader.until(&scene.client, is_waiting).await;
    assert_eq!(scene.steering_requests()[0]["tool"], "write_file");
    // The message denies the pending approval request, so the tool is not executed, and the run continues.
    let body = json!({"content": "no, not there", "thread_id": sent["thread_id"]});
    assert_eq!(try_send(&scene.client, &scene.deployment_id, body).await.status, 202);
    assert_eq!(scene.until_ended(&text(&sent, "run_id")).await, "completed");
    assert!(tool_results(&scene.world)[0].contains("no, not there"));
    assert!(scene.file("a.txt").is_none());

    let body = json!({"content": "Again.", "thread_id": sent["thread_id"]});
    try_send(&scene.client, &scene.deployment_id, body).await;
    scene.reader.until(&scene.client, is_waiting).await;
    let path = scene.path(&format!("/threads/{}", text(&sent, "thread_id")));
    assert!(scene.client.delete(&path).await.unwrap().status.is_success());
    let pending = scene.client.get("/v1/steering?status=pending").await.unwrap().json();
    assert_eq!(pending["data"], json!([]));
    let last = scene.steering_requests().pop().unwrap();
    assert_eq!(scene.answer(&last, &json!({"decision": "approve"})).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_without_a_pending_request_is_input() {
    let world = World::sqlite().await;
    let mut scene = Scene::new(world, json!({}), Vec::new()).await;
    scene.world.model.respond_with(|request| {
        if request.tool_results().is_empty() {
            Reply::new().tool_call("ask_human", json!({"question": "Which?"}))
        } else {
            Reply::text("Done.")
        }
    });
    let (_, requests) = scene.start_run().await;
    assert_eq!(
        scene.answer(&requests[0], &json!({"decision": "answer", "message": "This."})).await.status,
        200
    );
    // No steering request is pending, so the message is not an answer. The current run or the next one reads it as user
    // input.
    let sent = try_send(&scene.client, &scene.deployment_id, json!({"content": "That, too."})).await.json();
    assert_eq!(scene.until_ended(&text(&sent, "run_id")).await, "completed");
    let is_read = scene.world.model.requests().iter().any(|request| request.last_user_text() == "That, too.");
    assert!(is_read, "{:#?}", scene.reader.seen);
    assert_eq!(scene.outcomes().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_asks_a_person_once_despite_a_kill_at_every_failpoint() {
    kill_at_each_failpoint(
        async || World::sqlite().await,
        2,
        is_own,
        |server| Box::pin(run_scenario(server)),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_asks_a_person_once_despite_a_kill_at_every_failpoint() {
    kill_at_each_failpoint(
        async || World::postgres().await,
        1,
        is_own,
        |server| Box::pin(run_scenario(server)),
    )
    .await;
}

/// Returns true for failpoints related to steering. The tests of other scenarios kill the server at the remaining
/// failpoints.
fn is_own(point: &str) -> bool {
    [
        "begin_tools",
        "wait_for_person",
        "answer_steering",
        "withdraw_approvals",
        "send_message",
        "finish_tool",
        "claim_work",
        "run:waits",
    ]
    .iter()
    .any(|part| point.contains(part))
}

/// Executes a run that asks a question and requests an approval. The question is answered through the steering
/// endpoint, and the approval is granted by a message.
pub(crate) async fn run_scenario(server: &mut RestartingServer<'_>) {
    let calls = vec![("ask_human", json!({"question": "Which?"})), ("shell", shell(DANGEROUS))];
    server.world.model.respond_with(make_calls(calls));
    let deployment_id = server.create(&deployment_of(MODEL)).await;
    let path = format!("/v1/deployments/{deployment_id}");
    let run_id = post(server, &format!("{path}/messages"), "go", &json!({"content": "Go."})).await;
    let run_id = text(&run_id, "run_id");
    let mut reader = Reader::from_the_start(&deployment_id);
    while !reader.try_until(&server.client().await, is_waiting).await {}
    let requests: Vec<Value> =
        reader.named("steering_request").iter().map(|event| event.data.clone()).collect();
    let question = format!("{path}/steering/{}", text(&requests[0], "steering_id"));
    post(server, &question, "this", &json!({"decision": "answer", "message": "This."})).await;
    post(server, &format!("{path}/messages"), "yes", &json!({"content": "yes"})).await;
    while !reader.try_until(&server.client().await, |event| is_end(event, &run_id)).await {}
    let client = server.client().await;
    log::check(&reader.seen);
    log::check_stored(&client, &deployment_id, &reader.seen).await;
    assert_eq!(reader.named("steering_request").len(), 2, "{:#?}", reader.seen);
    assert_eq!(reader.named("steering_resolved").len(), 2, "{:#?}", reader.seen);
    let results: Vec<Value> = reader.named("tool_result").iter().map(|event| event.data.clone()).collect();
    assert!(results.iter().any(|result| result["result"] == "This."), "{results:#?}");
    let file =
        std::fs::read_to_string(server.world.workspace(&deployment_id).join("made.txt")).unwrap_or_default();
    let command = results.iter().find(|result| result["tool"] == "shell").unwrap();
    if command["is_error"] == true {
        assert!(text(command, "result").contains("unknown") && file.len() <= "made\n".len(), "{results:#?}");
    } else {
        assert_eq!(file, "made\n");
    }
    let approvals = format!("{path}/approvals");
    while server.client().await.delete(&approvals).await.is_err() {}
    server.stop().await;
}

/// Sends a POST with this idempotency key, and repeats it until the server responds.
async fn post(server: &mut RestartingServer<'_>, path: &str, key: &str, body: &Value) -> Value {
    loop {
        let client = server.client().await;
        if let Ok(response) = client.post_once(path, key, body).await {
            // The killed server did not release its claim on the idempotency key. Until the next server process
            // releases this claim, it responds with 409.
            if response.status == 409 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            assert!(response.status.is_success(), "{}", response.text());
            return response.json();
        }
    }
}
