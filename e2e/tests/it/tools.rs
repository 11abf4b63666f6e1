//! Tests of tool calls: parallel calls, invalid calls, calls that exceed a limit, calls with a large output, and
//! messages that arrive during a run.

use herm_testkit::model_server::{Gate, RecordedRequest, Reply};
use serde_json::{Value, json};

use crate::reader::Reader;
use crate::world::{World, create, on_both_databases, send};
use crate::{log, model_scripts};

on_both_databases!(messages_that_race_with_a_run_are_all_read);

/// Executes a run whose model makes these tool calls in one step and then replies. Returns the reader, the deployment's
/// id, and the tool results in the order of the calls.
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
    let results = reader.named("tool_call").into_iter().map(|call| {
        let id = &call.data["tool_call_id"];
        reader
            .named("tool_result")
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
async fn tool_calls_of_one_step_run_in_parallel() {
    let world = World::sqlite().await;
    // Each command waits until all three commands have started. If the calls were executed one after another, the first
    // would never end.
    let meet = |own: &str| {
        let others = "until test -e a -a -e b -a -e c; do sleep 0.01; done";
        ("shell", model_scripts::shell(&format!("touch {own}; {others}; echo {own}")))
    };
    let (.., results) = results(&world, vec![meet("a"), meet("b"), meet("c")]).await;
    let outputs: Vec<&str> = results.iter().map(|result| result["result"].as_str().unwrap()).collect();
    assert_eq!(outputs, ["a\n", "b\n", "c\n"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_tools_write_edit_and_read_files() {
    let world = World::sqlite().await;
    let calls = [
        ("write_file", json!({"path": "notes/a.md", "content": "one\ntwo\n"})),
        ("edit_file", json!({"path": "notes/a.md", "old_text": "two", "new_text": "zwei"})),
        ("read_file", json!({"path": "notes/a.md", "offset": 2})),
        ("shell", model_scripts::shell("cat notes/a.md; echo drei >> notes/a.md")),
    ];
    // The model makes one call per step.
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
        reader.named("tool_result").iter().map(|result| result.data["result"].as_str().unwrap()).collect();
    assert!(results[2].contains("zwei") && !results[2].contains("one"), "{results:?}");
    assert_eq!(results[3], "one\nzwei\n");
    let file = world.workspace(&deployment_id).join("notes/a.md");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "one\nzwei\ndrei\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_result_of_an_invalid_call_tells_the_model_why() {
    let world = World::sqlite().await;
    let calls = vec![
        ("shell", json!({"cmd": "ls"})),
        ("shel", json!({"command": "ls"})),
        ("read_file", json!({"path": "../../etc/passwd"})),
        ("read_file", json!({"path": "missing.txt"})),
        ("shell", model_scripts::shell("exit 7")),
    ];
    let (_, _, results) = results(&world, calls).await;
    for (result, expected) in results.iter().zip(["command", "shell", "..", "missing.txt", "exit status 7"]) {
        assert_eq!(result["is_error"], true, "{result}");
        assert!(result["result"].as_str().unwrap().contains(expected), "{expected} is not in {result}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_output_is_written_to_a_file() {
    let world = World::sqlite().await;
    let (reader, deployment_id, results) =
        results(&world, vec![("shell", model_scripts::shell("seq 1 40000"))]).await;
    let result = results[0]["result"].as_str().unwrap();
    assert!(result.len() < 20_000, "{}", result.len());
    assert!(result.starts_with("1\n2\n") && result.ends_with("39999\n40000\n"));
    let path = result.split("the full output is in ").nth(1).unwrap().split(' ').next().unwrap();
    let whole = std::fs::read_to_string(world.workspace(&deployment_id).join(path)).unwrap();
    assert_eq!(whole.lines().count(), 40_000);
    assert!(reader.named("tool_result")[0].data.to_string().len() < 30_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_exceeds_its_timeout_is_killed_with_its_child_processes() {
    let world = World::sqlite().await;
    let command = "echo started; sleep 6000 & sleep 6000";
    // The timeout is long enough that the command writes its first output even on a busy machine.
    let arguments = json!({"command": command, "timeout_s": 20});
    let (_, deployment_id, results) = results(&world, vec![("shell", arguments)]).await;
    let output = results[0]["result"].as_str().unwrap();
    assert!(
        output.starts_with("started\n[stopped: the command exceeded its timeout of 20 seconds"),
        "{output}"
    );
    assert!(world.sandbox_dir(&deployment_id).exists(), "the sandbox continues");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_during_a_run_is_read_at_the_next_step() {
    let world = World::sqlite().await;
    let gate = Gate::new();
    world.model.push(Reply::text("Thinking.").gate(&gate));
    world.model.respond_with(model_scripts::echo());
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "openai/gpt-5").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "First.").await;
    gate.reached().await;
    assert_eq!(
        send(&client, &deployment_id, "Second.").await,
        run_id,
        "the message belongs to the active run"
    );
    gate.open();
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    log::check(&reader.seen);
    let last = &reader.named("message").last().unwrap().data;
    assert_eq!(last["content"], "You said: Second.");
}

/// Many clients send messages to one thread in parallel. The last model call must receive all of them, in the order of
/// the event log.
async fn messages_that_race_with_a_run_are_all_read(world: World) {
    const SENDERS: usize = 8;
    const MESSAGES_EACH: usize = 5;
    world.model.respond_with(model_scripts::echo());
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let (client, deployment_id) = (client.clone(), deployment_id.clone());
        senders.spawn(async move {
            for number in 0..MESSAGES_EACH {
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
    let requests: Vec<RecordedRequest> = world.model.requests();
    let body = requests.iter().max_by_key(|request| request.bytes().len()).unwrap().body().to_string();
    let sent: Vec<String> = reader
        .named("message")
        .iter()
        .filter(|event| event.data["role"] == "user")
        .map(|event| event.data["content"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(sent.len(), SENDERS * MESSAGES_EACH + 1);
    let positions: Vec<usize> = sent.iter().map(|text| body.find(text).expect(text)).collect();
    assert!(positions.is_sorted(), "the model received the messages in another order: {body}");
}

/// The file tools check the workspace's quota before they write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_beyond_the_quota_is_rejected_with_advice_for_the_model() {
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
    let created = client.post("/v1/deployments", &body).await.unwrap().json();
    let deployment_id = crate::world::text(&created, "deployment_id");
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
    let results = reader.named("tool_result");
    for refused in &results[..2] {
        let message = refused.data["result"].as_str().unwrap();
        assert!(
            message.contains("quota of 16777216 bytes") && message.contains("remove some files first"),
            "{message}"
        );
        assert_eq!(refused.data["is_error"], true);
    }
    assert_eq!(results[2].data["is_error"], false, "{}", results[2].data["result"]);
    assert_eq!(std::fs::read_to_string(dir.join("small")).unwrap(), "c");
    assert!(!dir.join("notes.md").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_exceeds_memory_or_disk_is_stopped_with_a_message_for_the_model() {
    let world = World::sqlite().await;
    let commands = [
        "perl -e '$x = \"x\" x (512 * 1024 * 1024); print length $x'".to_owned(),
        "while :; do head -c 1000000 /dev/zero >> full || exit 1; sleep 0.01; done".to_owned(),
        "rm full && echo room again".to_owned(),
    ];
    world.model.respond_with(move |request| match commands.get(request.tool_results_since_user().len()) {
        Some(command) => Reply::new().tool_call("shell", model_scripts::shell(command)),
        None => Reply::text("Done."),
    });
    let server = world.start().await;
    let client = world.client_of(&server);
    let mut body = crate::world::deployment_of("anthropic/claude-sonnet-4.5");
    body["sandbox"] = json!({"type": "local", "memory_mb": 128, "disk_mb": 16});
    let created = client.post("/v1/deployments", &body).await.unwrap();
    let deployment_id = crate::world::text(&created.json(), "deployment_id");
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Go.").await;
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    let results: Vec<&Value> =
        reader.named("tool_result").iter().map(|event| &event.data["result"]).collect();
    let [memory, disk, after_cleanup] = &results[..] else { panic!("{results:?}") };
    let contains = |result: &Value, text: &str| result.as_str().unwrap().contains(text);
    assert!(contains(memory, "128 MiB of memory") || contains(memory, "Out of memory"), "{memory}");
    assert!(contains(disk, "the workspace exceeds its limit of 16 MiB"), "{disk}");
    assert!(contains(after_cleanup, "room again"), "{after_cleanup}");
}
