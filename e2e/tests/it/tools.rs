//! Tools as a model uses them: several at once, badly, at length, and messages that come in meanwhile.

use herm_testkit::model_server::{Gate, RecordedRequest, Reply};
use serde_json::{Value, json};

use crate::reader::Reader;
use crate::world::{World, create, on_both_databases, send};
use crate::{log, scripts};

on_both_databases!(messages_that_race_with_a_run_are_all_read);

/// A run in which the model makes these calls at once, then answers; its results by tool call, in order.
async fn results(world: &World, calls: Vec<(&'static str, Value)>) -> (Reader, String, Vec<Value>) {
    world.model.respond_with(move |request| {
        if request.tool_results_since_user().is_empty() {
            calls
                .iter()
                .fold(Reply::new(), |reply, (tool, arguments)| reply.tool_call(*tool, arguments.clone()))
        } else {
            Reply::text("Done.")
        }
    });
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Go.").await;
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    log::check(&reader.seen);
    let results = reader.of("tool_call").into_iter().map(|call| {
        let id = &call.data["tool_call_id"];
        reader
            .of("tool_result")
            .into_iter()
            .find(|result| result.data["tool_call_id"] == *id)
            .unwrap()
            .data
            .clone()
    });
    let results = results.collect();
    (reader, deployment_id, results)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_one_turn_run_side_by_side() {
    let world = World::sqlite().await;
    // Each waits for the others: one after another they would wait for ever.
    let meet = |own: &str| {
        let others = "until test -e a -a -e b -a -e c; do sleep 0.01; done";
        ("shell", scripts::shell(&format!("touch {own}; {others}; echo {own}")))
    };
    let (.., results) = results(&world, vec![meet("a"), meet("b"), meet("c")]).await;
    let said: Vec<&str> = results.iter().map(|result| result["result"].as_str().unwrap()).collect();
    assert_eq!(said, ["a\n", "b\n", "c\n"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_written_read_and_edited() {
    let world = World::sqlite().await;
    let calls = [
        ("write_file", json!({"path": "notes/a.md", "content": "one\ntwo\n"})),
        ("edit_file", json!({"path": "notes/a.md", "old_text": "two", "new_text": "zwei"})),
        ("read_file", json!({"path": "notes/a.md", "offset": 2})),
        ("shell", scripts::shell("cat notes/a.md; echo drei >> notes/a.md")),
    ];
    // One call a turn, each after the one before.
    world.model.respond_with(move |request| match calls.get(request.tool_results_since_user().len()) {
        Some((tool, arguments)) => Reply::new().tool_call(*tool, arguments.clone()),
        None => Reply::text("Done."),
    });
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "openai/gpt-5").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Go.").await;
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    log::check(&reader.seen);
    let results: Vec<&str> =
        reader.of("tool_result").iter().map(|result| result.data["result"].as_str().unwrap()).collect();
    assert!(results[2].contains("zwei") && !results[2].contains("one"), "{results:?}");
    assert_eq!(results[3], "one\nzwei\n");
    let file = world.workspace(&deployment_id).join("notes/a.md");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "one\nzwei\ndrei\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_makes_no_sense_is_told_to_the_model() {
    let world = World::sqlite().await;
    let calls = vec![
        ("shell", json!({"cmd": "ls"})),
        ("shel", json!({"command": "ls"})),
        ("read_file", json!({"path": "../../etc/passwd"})),
        ("read_file", json!({"path": "missing.txt"})),
        ("shell", scripts::shell("exit 7")),
    ];
    let (_, _, results) = results(&world, calls).await;
    for (result, expected) in results.iter().zip(["command", "shell", "..", "missing.txt", "exit status 7"]) {
        assert_eq!(result["is_error"], true, "{result}");
        assert!(result["result"].as_str().unwrap().contains(expected), "{expected} is not in {result}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_output_goes_to_a_file() {
    let world = World::sqlite().await;
    let (reader, deployment_id, results) =
        results(&world, vec![("shell", scripts::shell("seq 1 40000"))]).await;
    let result = results[0]["result"].as_str().unwrap();
    assert!(result.len() < 20_000, "{}", result.len());
    assert!(result.starts_with("1\n2\n") && result.ends_with("39999\n40000\n"));
    let path = result.split("all of it is in ").nth(1).unwrap().split(' ').next().unwrap();
    let whole = std::fs::read_to_string(world.workspace(&deployment_id).join(path)).unwrap();
    assert_eq!(whole.lines().count(), 40_000);
    assert!(reader.of("tool_result")[0].data.to_string().len() < 30_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_takes_too_long_is_ended_with_all_it_began() {
    let world = World::sqlite().await;
    let command = "echo started; sleep 6000 & sleep 6000";
    // Time enough for its first word, on a machine of any speed.
    let arguments = json!({"command": command, "timeout_s": 20});
    let (_, deployment_id, results) = results(&world, vec![("shell", arguments)]).await;
    let said = results[0]["result"].as_str().unwrap();
    assert!(said.starts_with("started\n[stopped: it ran longer than its 20 seconds"), "{said}");
    assert!(world.sandbox_dir(&deployment_id).exists(), "the sandbox itself goes on");
}

/// A message that comes while a run is at work is read at its next step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_during_a_run_is_folded_in() {
    let world = World::sqlite().await;
    let gate = Gate::new();
    world.model.push(Reply::text("Thinking.").gate(&gate));
    world.model.respond_with(scripts::echo());
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "openai/gpt-5").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "First.").await;
    gate.reached().await;
    assert_eq!(send(&client, &deployment_id, "Second.").await, run_id, "it joins the run that is at work");
    gate.open();
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    log::check(&reader.seen);
    let last = &reader.of("message").last().unwrap().data;
    assert_eq!(last["content"], "You said: Second.");
}

/// Many clients send to one thread at once: every message is in the context that the model saw last, in order.
async fn messages_that_race_with_a_run_are_all_read(world: World) {
    const SENDERS: usize = 8;
    const EACH: usize = 5;
    world.model.respond_with(scripts::echo());
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let (client, deployment_id) = (client.clone(), deployment_id.clone());
        senders.spawn(async move {
            for number in 0..EACH {
                send(&client, &deployment_id, &format!("<{sender}.{number}>")).await;
            }
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender.unwrap();
    }
    let run_id = send(&client, &deployment_id, "<last>").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    log::check(&reader.seen);
    let asked: Vec<RecordedRequest> = world.model.requests();
    let body = asked.iter().max_by_key(|request| request.bytes().len()).unwrap().body().to_string();
    let sent: Vec<String> = reader
        .of("message")
        .iter()
        .filter(|event| event.data["role"] == "user")
        .map(|event| event.data["content"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(sent.len(), SENDERS * EACH + 1);
    let places: Vec<usize> = sent.iter().map(|text| body.find(text).expect(text)).collect();
    assert!(places.is_sorted(), "the model read them in another order: {body}");
}

/// The quota holds the file tools too, and the model is told what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_beyond_the_quota_is_refused_with_a_sentence_for_the_model() {
    let world = World::sqlite().await;
    let arguments = json!({"path": "notes.md", "content": "x".repeat(100_000)});
    let calls = [
        ("write_file", arguments),
        ("edit_file", json!({"path": "small", "old_text": "a", "new_text": "b".repeat(100_000)})),
        ("write_file", json!({"path": "small", "content": "c"})),
    ];
    world.model.respond_with(move |request| match calls.get(request.tool_results_since_user().len()) {
        Some((tool, arguments)) => Reply::new().tool_call(*tool, arguments.clone()),
        None => Reply::text("Done."),
    });
    let server = world.start().await;
    let client = world.client_of(&server);
    let mut body = crate::world::deployment_of("anthropic/claude-sonnet-4.5");
    body["sandbox"] = json!({"disk_mb": 16});
    let made = client.post("/v1/deployments", &body).await.unwrap().json();
    let deployment_id = crate::world::text(&made, "deployment_id");
    let dir = world.workspace(&deployment_id);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("small"), "a").unwrap();
    std::fs::write(dir.join("large"), vec![1; 16 * 1024 * 1024 - 60_000]).unwrap();
    for name in ["small", "large"] {
        std::fs::File::open(dir.join(name)).unwrap().sync_all().unwrap();
    }
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Go.").await;
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    let results = reader.of("tool_result");
    for refused in &results[..2] {
        let said = refused.data["result"].as_str().unwrap();
        assert!(
            said.contains("quota of 16777216 bytes") && said.contains("remove something first"),
            "{said}"
        );
        assert_eq!(refused.data["is_error"], true);
    }
    assert_eq!(results[2].data["is_error"], false, "{}", results[2].data["result"]);
    assert_eq!(std::fs::read_to_string(dir.join("small")).unwrap(), "c");
    assert!(!dir.join("notes.md").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_takes_all_memory_or_all_disk_is_stopped_and_the_model_is_told() {
    let world = World::sqlite().await;
    let commands = [
        "perl -e '$x = \"x\" x (512 * 1024 * 1024); print length $x'".to_owned(),
        "while :; do head -c 1000000 /dev/zero >> full || exit 1; sleep 0.01; done".to_owned(),
        "rm full && echo room again".to_owned(),
    ];
    world.model.respond_with(move |request| match commands.get(request.tool_results_since_user().len()) {
        Some(command) => Reply::new().tool_call("shell", scripts::shell(command)),
        None => Reply::text("Done."),
    });
    let server = world.start().await;
    let client = world.client_of(&server);
    let mut body = crate::world::deployment_of("anthropic/claude-sonnet-4.5");
    body["sandbox"] = json!({"type": "local", "memory_mb": 128, "disk_mb": 16});
    let made = client.post("/v1/deployments", &body).await.unwrap();
    let deployment_id = crate::world::text(&made.json(), "deployment_id");
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Go.").await;
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    let results: Vec<&Value> = reader.of("tool_result").iter().map(|event| &event.data["result"]).collect();
    let [memory, disk, room] = &results[..] else { panic!("{results:?}") };
    let said = |result: &Value, what: &str| result.as_str().unwrap().contains(what);
    assert!(said(memory, "128 MiB of memory") || said(memory, "Out of memory"), "{memory}");
    assert!(said(disk, "the workspace holds more than its 16 MiB"), "{disk}");
    assert!(said(room, "room again"), "{room}");
}
