use futures_util::StreamExt;
use herm_llm::ProviderKind;
use herm_testkit::model_server::{Gate, ModelServer, Reply, Stop};
use herm_types::model::{Block, ModelErrorKind, ModelEvent, StopReason, TokenUsage, ToolResult, Turn};
use serde_json::json;

use super::*;

#[tokio::test]
async fn a_reply_with_text_and_tool_calls_arrives_in_both_formats() {
    for kind in KINDS {
        let server = ModelServer::start().await;
        server.push(
            Reply::new()
                .text_in(["Let me ", "see."])
                .tool_call("shell", json!({"command": "ls -la", "note": "é 😀"}))
                .tool_call_with_id("mine", "shell", json!({}))
                .usage(100, 20)
                .cached(7, 0),
        );
        let (deltas, reply) = call(&providers(&server), name_of(kind), &hello()).await;
        let reply = reply.unwrap();
        assert_eq!(deltas, ["Let me ", "see."]);
        assert_eq!(reply.text(), "Let me see.");
        let calls: Vec<(&str, &str, &str)> = reply
            .tool_calls()
            .map(|call| (call.tool_call_id.as_str(), call.tool.as_str(), call.arguments.as_str()))
            .collect();
        let generated = if kind == ProviderKind::Anthropic { "toolu_2" } else { "call_2" };
        let arguments = r#"{"command":"ls -la","note":"é 😀"}"#;
        assert_eq!(calls, [(generated, "shell", arguments), ("mine", "shell", "{}")]);
        assert_eq!(reply.stop, StopReason::ToolCalls);
        let usage =
            TokenUsage { input_tokens: 100, output_tokens: 20, cache_read_tokens: 7, cache_write_tokens: 0 };
        assert_eq!(reply.usage, usage);
    }
}

#[tokio::test]
async fn a_stop_reason_arrives_in_both_formats() {
    let stops = [
        (Stop::EndTurn, StopReason::EndTurn),
        (Stop::Length, StopReason::Length),
        (Stop::Refusal, StopReason::Refusal),
    ];
    for kind in KINDS {
        let server = ModelServer::start().await;
        for (stop, expected) in stops {
            server.push(Reply::text("Well").stop(stop));
            let (_, reply) = call(&providers(&server), name_of(kind), &hello()).await;
            assert_eq!(reply.unwrap().stop, expected);
        }
    }
}

#[tokio::test]
async fn a_conversation_round_trips_in_both_formats() {
    for kind in KINDS {
        let server = ModelServer::start().await;
        let providers = providers(&server);
        server.push(
            Reply::new().thinking("Hm.", "sig==").redacted_thinking("enc==").tool_call("shell", json!({})),
        );
        let (_, reply) = call(&providers, name_of(kind), &hello()).await;
        let reply = reply.unwrap();
        if kind == ProviderKind::Anthropic {
            let thinking = Block::Thinking { text: "Hm.".to_owned(), signature: Some("sig==".to_owned()) };
            let redacted = Block::RedactedThinking { data: "enc==".to_owned() };
            assert_eq!(reply.blocks.get(..2), Some([thinking, redacted].as_slice()));
        }
        let tool_call_id = reply.tool_calls().next().unwrap().tool_call_id.clone();
        let result =
            ToolResult { tool_call_id: tool_call_id.clone(), text: "a.txt".to_owned(), is_error: false };
        server.push(Reply::text("One file."));
        let second = request(vec![
            Turn::User { text: "Hello".to_owned() },
            Turn::Assistant { blocks: reply.blocks },
            Turn::ToolResults { results: vec![result] },
        ]);
        call(&providers, name_of(kind), &second).await.1.unwrap();

        server.wait_for_requests(2).await;
        let requests = server.requests();
        let (first, second) = (&requests[0], &requests[1]);
        assert_eq!((first.last_user_text(), first.tool_results()), ("Hello".to_owned(), vec![]));
        assert_eq!((first.system(), first.tool_names()), ("Be kind.".to_owned(), vec!["shell".to_owned()]));
        assert_eq!((first.assistant_turns(), second.assistant_turns()), (0, 1));
        let results = vec![(tool_call_id, "a.txt".to_owned())];
        assert_eq!((second.tool_results(), second.tool_results_since_user()), (results.clone(), results));
        assert_eq!((second.last_user_text(), second.model()), ("Hello".to_owned(), "some-model".to_owned()));
        if kind == ProviderKind::Anthropic {
            let content = &second.body()["messages"][1]["content"];
            assert_eq!(content[0], json!({"type": "thinking", "thinking": "Hm.", "signature": "sig=="}));
            assert_eq!(content[1], json!({"type": "redacted_thinking", "data": "enc=="}));
        }
    }
}

#[tokio::test]
async fn requests_have_the_headers_of_their_format() {
    let server = ModelServer::start().await;
    server.respond_with(|_| Reply::text("Hi"));
    let providers = providers(&server);
    for kind in KINDS {
        call(&providers, name_of(kind), &hello()).await.1.unwrap();
    }
    let requests = server.requests();
    let (anthropic, openai) = (&requests[0], &requests[1]);
    assert_eq!(anthropic.path(), "/v1/messages");
    assert_eq!(anthropic.header("x-api-key"), Some(KEY));
    assert_eq!(anthropic.header("anthropic-version"), Some("2023-06-01"));
    assert_eq!(anthropic.header("authorization"), None);
    assert_eq!(openai.path(), "/v1/chat/completions");
    assert_eq!(openai.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(openai.header("x-api-key"), None);
    for request in &requests {
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.body()["stream"], true);
    }
    assert_eq!(openai.body()["max_completion_tokens"], 1024);
}

#[tokio::test]
async fn a_base_url_may_end_in_a_version_or_a_slash() {
    let server = ModelServer::start().await;
    server.respond_with(|_| Reply::text("Hi"));
    let (plain, versioned) = (server.base_url(), server.openai_base_url());
    let bases = [
        (ProviderKind::Anthropic, format!("{plain}/")),
        (ProviderKind::Anthropic, versioned.clone()),
        (ProviderKind::Anthropic, format!("{versioned}/")),
        (ProviderKind::OpenAiChat, format!("{versioned}/")),
    ];
    for (kind, base_url) in bases {
        let providers = try_providers(vec![options("own", kind, &base_url, Some(KEY))]).unwrap();
        let (deltas, _) = call(&providers, "own", &hello()).await;
        assert_eq!(deltas, ["Hi"], "{base_url}");
    }
}

#[tokio::test]
async fn a_local_server_is_called_without_a_key() {
    let server = ModelServer::start().await;
    server.push(Reply::text("Hi"));
    let own = options("own", ProviderKind::OpenAiChat, &server.openai_base_url(), None);
    let providers = try_providers(vec![own]).unwrap();
    assert_eq!(call(&providers, "own", &hello()).await.0, ["Hi"]);
    let request = server.requests().remove(0);
    assert_eq!(request.header("authorization"), None);
    assert_eq!(request.body()["max_tokens"], 1024);
}

#[tokio::test]
async fn the_error_of_an_unusable_provider_says_what_to_configure() {
    let server = ModelServer::start().await;
    let providers = try_providers(vec![
        options("anthropic", ProviderKind::Anthropic, &server.base_url(), None),
        options("openrouter", ProviderKind::OpenAiChat, &server.openai_base_url(), Some("")),
        options("gateway", ProviderKind::Anthropic, &server.base_url(), None),
    ])
    .unwrap();
    assert_eq!(providers.names().collect::<Vec<_>>(), ["anthropic", "openrouter", "gateway"]);
    for (provider, expected) in [
        ("anthropic", "set the environment variable ANTHROPIC_API_KEY"),
        ("openrouter", "set the environment variable OPENROUTER_API_KEY"),
        ("gateway", "api_key_env under [providers.gateway]"),
        (
            "nobody",
            "provider `nobody` is not configured; configured providers: anthropic, openrouter, gateway",
        ),
    ] {
        let model_error = call(&providers, provider, &hello()).await.1.unwrap_err();
        assert_eq!(model_error.kind, ModelErrorKind::ProviderNotConfigured);
        assert!(model_error.message.contains(expected), "{}", model_error.message);
    }
    assert_eq!(server.request_count(), 0);
}

#[test]
fn invalid_provider_options_are_rejected() {
    let build = |name: &str, base_url: &str, key: &str| {
        let own = || options(name, ProviderKind::Anthropic, base_url, Some(key));
        try_providers(vec![own(), own()]).unwrap_err().to_string()
    };
    assert_eq!(build("own", "http://127.0.0.1:1", "k"), "two providers are named `own`");
    for base_url in ["ftp://127.0.0.1", "nonsense", ""] {
        assert_eq!(build("own", base_url, "k"), "the base URL of provider `own` is not an http or https URL");
    }
    assert_eq!(
        build("own", "http://127.0.0.1:1", "sk\nhush"),
        "the API key of provider `own` contains characters that an HTTP header cannot contain"
    );
}

#[tokio::test]
async fn text_is_streamed_before_the_reply_is_complete() {
    for kind in KINDS {
        let server = ModelServer::start().await;
        let gate = Gate::new();
        server.push(Reply::text("Hel").gate(&gate).then_text("lo"));
        let mut stream = providers(&server).stream(name_of(kind), &hello()).await.unwrap();
        assert_eq!(stream.next().await, Some(Ok(ModelEvent::TextDelta("Hel".to_owned()))));
        gate.reached().await;
        gate.open();
        assert_eq!(stream.next().await, Some(Ok(ModelEvent::TextDelta("lo".to_owned()))));
        let Some(Ok(ModelEvent::Finished(reply))) = stream.next().await else { panic!("no reply") };
        assert_eq!(reply.blocks, [Block::Text { text: "Hello".to_owned() }]);
        assert_eq!(stream.next().await, None);
    }
}

#[tokio::test]
async fn connections_are_reused() {
    const CALLS: usize = 20;
    for kind in KINDS {
        let server = ModelServer::start().await;
        server.respond_with(|_| Reply::text("Hi").tool_call("shell", json!({})));
        server.record(false);
        let providers = providers(&server);
        for _ in 0..CALLS {
            call(&providers, name_of(kind), &hello()).await.1.unwrap();
        }
        assert_eq!((server.request_count(), server.requests().len()), (CALLS, 0));
        assert!(server.connection_count() < CALLS, "{}", server.connection_count());
    }
}
