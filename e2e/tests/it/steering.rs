//! Runs that stop for a person: asked, answered, remembered, expired, cancelled, and killed in between.

use std::time::Duration;

use herm_testkit::client::{Answer, Client};
use herm_testkit::model_server::{RecordedRequest, Reply};
use herm_testkit::process::Server;
use serde_json::{Value, json};

use crate::kill_matrix::{Life, walk};
use crate::log;
use crate::reader::{Reader, is_end};
use crate::scripts::shell;
use crate::world::{World, deployment_of, on_both_databases, send, text, try_send};

on_both_databases!(
    an_approval_lets_a_call_be_made_and_a_denials_reason_reaches_the_model,
    a_question_is_answered_by_a_message_which_is_heard_once,
    an_answer_to_a_run_that_ends_before_it_is_read_is_heard_by_the_next,
    what_waits_survives_the_server_and_holds_nothing,
    the_first_answer_stands,
    what_waits_too_long_is_decided_as_the_deployment_says,
);

const MODEL: &str = "anthropic/claude-sonnet-4.5";
const DANGEROUS: &str = "rm -rf /workspace/*; echo made >> made.txt";

/// A deployment on a running server, and who follows it.
struct Scene {
    world: World,
    server: Server,
    client: Client,
    deployment_id: String,
    reader: Reader,
}

impl Scene {
    /// The model makes these calls at once, then says what they gave.
    async fn new(world: World, settings: Value, calls: Vec<(&'static str, Value)>) -> Self {
        world.model.respond_with(answering(calls));
        let server = world.start().await;
        let client = world.client_of(&server);
        let mut body = deployment_of(MODEL);
        body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let made = client.post("/v1/deployments", &body).await.unwrap();
        assert_eq!(made.status, 201, "{}", made.text());
        let deployment_id = text(&made.json(), "deployment_id");
        let reader = Reader::from_the_start(&deployment_id);
        Self { world, server, client, deployment_id, reader }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/deployments/{}{rest}", self.deployment_id)
    }

    /// Sends a message and waits until a person is waited for; the run, and what is asked, oldest first.
    async fn ask(&mut self) -> (String, Vec<Value>) {
        let run_id = send(&self.client, &self.deployment_id, "Go.").await;
        self.reader.until(&self.client, is_waiting).await;
        (run_id, self.asked())
    }

    fn asked(&self) -> Vec<Value> {
        self.reader.of("steering_request").iter().map(|event| event.data.clone()).collect()
    }

    async fn answer(&self, asked: &Value, body: &Value) -> Answer {
        let path = self.path(&format!("/steering/{}", text(asked, "steering_id")));
        self.client.post(&path, body).await.unwrap()
    }

    async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.client.call(http::Method::PATCH, path, Some(body)).await.unwrap()
    }

    async fn until_ended(&mut self, run_id: &str) -> String {
        let status = self.reader.until_ended(&self.client, run_id).await;
        log::check(&self.reader.seen);
        log::check_stored(&self.client, &self.deployment_id, &self.reader.seen).await;
        status
    }

    fn statuses(&self) -> Vec<Value> {
        self.reader.of("run_status").iter().map(|event| event.data["status"].clone()).collect()
    }

    fn results(&self) -> Vec<(String, bool)> {
        let of = |data: &Value| (text(data, "result"), data["is_error"] == true);
        self.reader.of("tool_result").iter().map(|event| of(&event.data)).collect()
    }

    fn outcomes(&self) -> Vec<(Value, Value)> {
        let of = |data: &Value| (data["outcome"].clone(), data["by"].clone());
        self.reader.of("steering_resolved").iter().map(|event| of(&event.data)).collect()
    }

    fn file(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.world.workspace(&self.deployment_id).join(name)).ok()
    }
}

/// The model makes these calls at once, then says how many results it has read.
fn answering(
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

/// All that the model was told of its calls, in the last request.
fn told(world: &World) -> Vec<String> {
    world.model.requests().last().unwrap().tool_results().into_iter().map(|(_, text)| text).collect()
}

async fn an_approval_lets_a_call_be_made_and_a_denials_reason_reaches_the_model(world: World) {
    let calls = vec![
        ("shell", shell(DANGEROUS)),
        ("write_file", json!({"path": "free.txt", "content": "unasked"})),
        ("write_file", json!({"path": "free2.txt", "content": "unasked"})),
        ("shell", shell("rm -rf /workspace")),
    ];
    let mut scene = Scene::new(world, json!({}), calls).await;
    let (run_id, asked) = scene.ask().await;
    // What needs nobody has been done by now, and what does has not.
    assert_eq!(scene.results().len(), 2);
    assert_eq!((scene.file("free.txt").as_deref(), scene.file("made.txt")), (Some("unasked"), None));
    let [first, second] = &asked[..] else { panic!("{asked:#?}") };
    assert_eq!((&first["kind"], &first["tool"]), (&json!("approval"), &json!("shell")));
    assert_eq!(first["arguments"], shell(DANGEROUS));
    assert!(text(first, "summary").contains("rm -rf /workspace/*"), "{first}");

    let pending = scene.client.get("/v1/steering?status=pending").await.unwrap().json();
    let ids: Vec<&Value> =
        pending["data"].as_array().unwrap().iter().map(|row| &row["steering_id"]).collect();
    assert_eq!(ids, [&second["steering_id"], &first["steering_id"]], "newest first");
    let thread = scene.client.get(&scene.path("/threads")).await.unwrap().json();
    assert_eq!(thread["data"][0]["status"], "waiting_on_human");

    // The later one first.
    let denial = json!({"decision": "deny", "message": "Keep the files."});
    assert_eq!(scene.answer(second, &denial).await.status, 200);
    let edited = json!({"decision": "approve", "arguments": shell("echo edited >> made.txt"), "message": "Only this."});
    let answer = scene.answer(first, &edited).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["outcome"], "approved");
    assert_eq!(scene.until_ended(&run_id).await, "completed");

    assert_eq!(scene.file("made.txt").as_deref(), Some("edited\n"));
    assert_eq!(scene.file("free2.txt").as_deref(), Some("unasked"));
    check_what_was_made_and_told(&scene);
}

/// What was approved was made as it was approved, and the model knows how it went.
fn check_what_was_made_and_told(scene: &Scene) {
    let told = told(&scene.world);
    assert!(told[0].contains("echo edited") && told[0].contains("Only this."), "{told:#?}");
    assert!(told[3].contains("denied") && told[3].contains("Keep the files."), "{told:#?}");
    let made: Vec<Value> =
        scene.reader.of("tool_call").iter().map(|event| event.data["arguments"].clone()).collect();
    assert!(
        made.contains(&shell("echo edited >> made.txt")) && !made.contains(&shell(DANGEROUS)),
        "{made:#?}"
    );
    let outcomes = scene.outcomes();
    assert_eq!([&outcomes[0].0, &outcomes[1].0], ["denied", "approved"]);
    assert!(outcomes[0].1.as_str().unwrap().starts_with("key_"));
}

async fn a_question_is_answered_by_a_message_which_is_heard_once(world: World) {
    let question = json!({"question": "Which colour?", "options": ["red", "blue"]});
    let mut scene =
        Scene::new(world, json!({}), vec![("ask_human", question), ("shell", shell(DANGEROUS))]).await;
    let (run_id, asked) = scene.ask().await;
    assert_eq!((&asked[0]["kind"], &asked[0]["summary"]), (&json!("question"), &json!("Which colour?")));
    assert_eq!(asked[0]["options"], json!(["red", "blue"]));
    // The oldest of what waits is answered first, each by a message of its own.
    for message in ["Green, please.", "Yes, go ahead!"] {
        let sent = try_send(&scene.client, &scene.deployment_id, json!({"content": message})).await;
        assert_eq!((sent.status.as_u16(), &sent.json()["run_id"]), (202, &json!(run_id)));
    }
    assert_eq!(scene.until_ended(&run_id).await, "completed");
    assert_eq!(scene.file("made.txt").as_deref(), Some("made\n"));
    let told = told(&scene.world);
    assert_eq!(told[0], "Green, please.");
    let requests = scene.world.model.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].last_user_text(), "Go.", "an answer is no input of its own");
    let outcomes: Vec<Value> = scene.outcomes().into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!(outcomes, ["answered", "approved"]);
    let thread =
        scene.client.get(&scene.path(&format!("/threads/{}", text(&asked[0], "thread_id")))).await.unwrap();
    let said: Vec<Value> = thread.json()["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["content"].clone())
        .collect();
    assert_eq!(said, ["Go.", "Green, please.", "Yes, go ahead!", "I read 2."]);
    // The next run reads the thread as it was.
    let next = send(&scene.client, &scene.deployment_id, "And now?").await;
    let asks_again =
        scene.reader.until(&scene.client, |event| is_waiting(event) && event.data["run_id"] == *next);
    asks_again.await;
}

async fn an_answer_to_a_run_that_ends_before_it_is_read_is_heard_by_the_next(world: World) {
    let ask = |question: &str| ("ask_human", json!({"question": question}));
    let mut scene = Scene::new(world, json!({}), vec![ask("Which colour?"), ask("How large?")]).await;
    let (run_id, _) = scene.ask().await;
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
    let told = request.body()["messages"].to_string();
    assert!(told.contains("Green, please."), "{told}");
}

async fn what_waits_survives_the_server_and_holds_nothing(world: World) {
    let mut scene = Scene::new(world, json!({}), vec![("shell", shell(DANGEROUS))]).await;
    let (run_id, asked) = scene.ask().await;
    let requests = scene.world.model.request_count();
    for _ in 0..2 {
        scene.server.kill().await.unwrap();
        scene.reader.drain().await;
        scene.server = scene.world.start().await;
        scene.client = scene.world.client_of(&scene.server);
    }
    let run = scene.client.get(&scene.path(&format!("/runs/{run_id}"))).await.unwrap().json();
    assert_eq!(run["status"], "waiting_on_human");
    assert_eq!(scene.world.model.request_count(), requests);
    // A server that stops has nothing in hand that it would wait for.
    scene.server.terminate().unwrap();
    let stopped = scene.server.wait().await.unwrap();
    assert!(stopped.status.success(), "{stopped:?}");
    scene.server = scene.world.start().await;
    scene.client = scene.world.client_of(&scene.server);
    assert_eq!(scene.answer(&asked[0], &json!({"decision": "approve"})).await.status, 200);
    assert_eq!(scene.until_ended(&run_id).await, "completed");
    assert_eq!(scene.file("made.txt").as_deref(), Some("made\n"));
    assert_eq!(scene.statuses(), ["queued", "running", "waiting_on_human", "running", "completed"]);
}

async fn the_first_answer_stands(world: World) {
    let mut scene = Scene::new(world, json!({}), vec![("ask_human", json!({"question": "Which?"}))]).await;
    let (run_id, asked) = scene.ask().await;
    let answers: Vec<Value> =
        (0..12).map(|number| json!({"decision": "answer", "message": format!("number {number}")})).collect();
    let given = answers.iter().map(|answer| scene.answer(&asked[0], answer));
    let given = futures_util::future::join_all(given).await;
    let won: Vec<usize> = (0..12).filter(|number| given[*number].status == 200).collect();
    let [won] = won[..] else { panic!("{won:?}") };
    assert!(given.iter().all(|answer| [200, 409].contains(&answer.status.as_u16())));
    assert_eq!(scene.until_ended(&run_id).await, "completed");
    assert_eq!(told(&scene.world), [format!("number {won}")]);
    assert_eq!(scene.outcomes().len(), 1);
    // The same again changes nothing, also when all is over.
    assert_eq!(scene.answer(&asked[0], &answers[won]).await.status, 200);
    assert_eq!(scene.answer(&asked[0], &answers[(won + 1) % 12]).await.status, 409);
    assert_eq!(scene.answer(&asked[0], &json!({"decision": "deny"})).await.status, 409);
}

async fn what_waits_too_long_is_decided_as_the_deployment_says(world: World) {
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
        scene.reader.of("run_status").iter().map(|event| event.data["error"]["code"].clone()).collect();
    assert!(errors.contains(&json!("steering_expired")), "{errors:?}");
    let late = scene.asked();
    assert_eq!(scene.answer(&late[0], &json!({"decision": "approve"})).await.status, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_remembered_is_not_asked_again_until_it_is_withdrawn() {
    let world = World::sqlite().await;
    let mut scene = Scene::new(world, json!({}), vec![("shell", shell(DANGEROUS))]).await;
    let (run_id, asked) = scene.ask().await;
    let always = json!({"decision": "approve", "remember": "always"});
    assert_eq!(scene.answer(&asked[0], &always).await.status, 200);
    scene.until_ended(&run_id).await;
    let run_id = send(&scene.client, &scene.deployment_id, "Again.").await;
    assert_eq!(scene.until_ended(&run_id).await, "completed");
    assert_eq!(scene.asked().len(), 1, "the same command was asked about again");
    let approvals = scene.client.get(&scene.path("/approvals")).await.unwrap().json();
    assert_eq!(approvals["data"].as_array().unwrap().len(), 1);
    let approval = &approvals["data"][0];
    assert_eq!((&approval["tool"], &approval["arguments"]), (&json!("shell"), &shell(DANGEROUS)));
    // A command that is only nearly the same is another one.
    scene.world.model.respond_with(answering(vec![("shell", shell(&format!("{DANGEROUS} ")))]));
    let run_id = send(&scene.client, &scene.deployment_id, "Nearly.").await;
    scene.reader.until(&scene.client, is_waiting).await;
    assert_eq!(
        scene.client.post(&scene.path(&format!("/runs/{run_id}/cancel")), &json!({})).await.unwrap().status,
        202
    );
    assert_eq!(scene.until_ended(&run_id).await, "cancelled");
    assert_eq!(scene.outcomes().pop().unwrap().0, "cancelled");
    // Withdrawn, it is asked about again.
    let path = scene.path(&format!("/approvals/{}", text(approval, "approval_id")));
    assert_eq!(scene.client.delete(&path).await.unwrap().status, 200);
    assert_eq!(scene.client.delete(&path).await.unwrap().status, 404);
    scene.world.model.respond_with(answering(vec![("shell", shell(DANGEROUS))]));
    send(&scene.client, &scene.deployment_id, "Once more.").await;
    scene.reader.until(&scene.client, is_waiting).await;
}

/// The model makes one call a turn, the same each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_for_the_run_ends_with_it() {
    let world = World::sqlite().await;
    let mut scene = Scene::new(world, json!({}), Vec::new()).await;
    scene.world.model.respond_with(|request| match request.tool_results_since_user().len() {
        0 | 1 => Reply::new().tool_call("shell", shell(DANGEROUS)),
        _ => Reply::text("Done."),
    });
    let (run_id, asked) = scene.ask().await;
    let answer = json!({"decision": "approve", "remember": "run"});
    assert_eq!(scene.answer(&asked[0], &answer).await.status, 200);
    assert_eq!(scene.until_ended(&run_id).await, "completed");
    assert_eq!((scene.asked().len(), scene.results().len()), (1, 2));
    send(&scene.client, &scene.deployment_id, "Again.").await;
    scene.reader.until(&scene.client, is_waiting).await;
    assert_eq!(scene.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_steering_nothing_waits_and_the_model_is_told_why() {
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
    let told = told(&scene.world);
    assert!(told[0].contains("judged dangerous"), "{told:#?}");
    assert!(told[1].contains("needs a person's approval"), "{told:#?}");
    assert!(told[2].contains("may not ask a person"), "{told:#?}");
    assert!(scene.asked().is_empty() && scene.file("a.txt").is_none() && scene.file("made.txt").is_none());
    assert!(!scene.world.model.requests()[0].tool_names().contains(&"ask_human".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_always_asks_is_asked_about_and_a_deleted_thread_asks_no_more() {
    let world = World::sqlite().await;
    let calls = vec![("write_file", json!({"path": "a.txt", "content": "b"}))];
    let mut scene = Scene::new(world, json!({}), calls).await;
    scene.patch(&scene.path("/tools/write_file"), &json!({"permission": "always_ask"})).await;
    let sent = try_send(&scene.client, &scene.deployment_id, json!({"content": "Go.", "thread_id": "new"}))
        .await
        .json();
    scene.reader.until(&scene.client, is_waiting).await;
    assert_eq!(scene.asked()[0]["tool"], "write_file");
    // A denial by message; the run goes on by itself.
    let body = json!({"content": "no, not there", "thread_id": sent["thread_id"]});
    assert_eq!(try_send(&scene.client, &scene.deployment_id, body).await.status, 202);
    assert_eq!(scene.until_ended(&text(&sent, "run_id")).await, "completed");
    assert!(told(&scene.world)[0].contains("no, not there"));
    assert!(scene.file("a.txt").is_none());

    let body = json!({"content": "Again.", "thread_id": sent["thread_id"]});
    try_send(&scene.client, &scene.deployment_id, body).await;
    scene.reader.until(&scene.client, is_waiting).await;
    let path = scene.path(&format!("/threads/{}", text(&sent, "thread_id")));
    assert!(scene.client.delete(&path).await.unwrap().status.is_success());
    let pending = scene.client.get("/v1/steering?status=pending").await.unwrap().json();
    assert_eq!(pending["data"], json!([]));
    let last = scene.asked().pop().unwrap();
    assert_eq!(scene.answer(&last, &json!({"decision": "approve"})).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_when_nothing_waits_is_input() {
    let world = World::sqlite().await;
    let mut scene = Scene::new(world, json!({}), Vec::new()).await;
    scene.world.model.respond_with(|request| {
        if request.tool_results().is_empty() {
            Reply::new().tool_call("ask_human", json!({"question": "Which?"}))
        } else {
            Reply::text("Done.")
        }
    });
    let (_, asked) = scene.ask().await;
    assert_eq!(scene.answer(&asked[0], &json!({"decision": "answer", "message": "This."})).await.status, 200);
    // Too late to answer: it is read as any other, in this run or the next.
    let sent = try_send(&scene.client, &scene.deployment_id, json!({"content": "That, too."})).await.json();
    assert_eq!(scene.until_ended(&text(&sent, "run_id")).await, "completed");
    let heard = scene.world.model.requests().iter().any(|request| request.last_user_text() == "That, too.");
    assert!(heard, "{:#?}", scene.reader.seen);
    assert_eq!(scene.outcomes().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_asks_once_whatever_it_is_killed_at() {
    walk(async || World::sqlite().await, 2, is_of_steering, |life| Box::pin(live(life))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_asks_once_whatever_it_is_killed_at() {
    walk(async || World::postgres().await, 1, is_of_steering, |life| Box::pin(live(life))).await;
}

/// The other points are walked in lives without steering.
fn is_of_steering(point: &str) -> bool {
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

/// A question and an approval, answered by their endpoint and by a message, with the server killed in between.
pub(crate) async fn live(life: &mut Life<'_>) {
    let calls = vec![("ask_human", json!({"question": "Which?"})), ("shell", shell(DANGEROUS))];
    life.world.model.respond_with(answering(calls));
    let deployment_id = life.create(&deployment_of(MODEL)).await;
    let path = format!("/v1/deployments/{deployment_id}");
    let run_id = post(life, &format!("{path}/messages"), "go", &json!({"content": "Go."})).await;
    let run_id = text(&run_id, "run_id");
    let mut reader = Reader::from_the_start(&deployment_id);
    while !reader.try_until(&life.client().await, is_waiting).await {}
    let asked: Vec<Value> = reader.of("steering_request").iter().map(|event| event.data.clone()).collect();
    let question = format!("{path}/steering/{}", text(&asked[0], "steering_id"));
    post(life, &question, "this", &json!({"decision": "answer", "message": "This."})).await;
    post(life, &format!("{path}/messages"), "yes", &json!({"content": "yes"})).await;
    while !reader.try_until(&life.client().await, |event| is_end(event, &run_id)).await {}
    let client = life.client().await;
    log::check(&reader.seen);
    log::check_stored(&client, &deployment_id, &reader.seen).await;
    assert_eq!(reader.of("steering_request").len(), 2, "{:#?}", reader.seen);
    assert_eq!(reader.of("steering_resolved").len(), 2, "{:#?}", reader.seen);
    let results: Vec<Value> = reader.of("tool_result").iter().map(|event| event.data.clone()).collect();
    assert!(results.iter().any(|result| result["result"] == "This."), "{results:#?}");
    let made =
        std::fs::read_to_string(life.world.workspace(&deployment_id).join("made.txt")).unwrap_or_default();
    let command = results.iter().find(|result| result["tool"] == "shell").unwrap();
    if command["is_error"] == true {
        assert!(text(command, "result").contains("unknown") && made.len() <= "made\n".len(), "{results:#?}");
    } else {
        assert_eq!(made, "made\n");
    }
    let approvals = format!("{path}/approvals");
    while life.client().await.delete(&approvals).await.is_err() {}
    life.stop().await;
}

/// Sends a request until it is answered; it acts once.
async fn post(life: &mut Life<'_>, path: &str, key: &str, body: &Value) -> Value {
    loop {
        let client = life.client().await;
        if let Ok(answer) = client.post_once(path, key, body).await {
            // One whose server died with it under way is another's until its lease ends; the next server ends it.
            if answer.status == 409 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            assert!(answer.status.is_success(), "{}", answer.text());
            return answer.json();
        }
    }
}
