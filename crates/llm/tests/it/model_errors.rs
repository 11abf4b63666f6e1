use std::time::Duration;

use futures_util::StreamExt;
use herm_llm::{Limits, ProviderKind};
use herm_testkit::model_server::{Gate, ModelServer, Reply};
use herm_testkit::time::FrozenTime;
use herm_types::model::{ModelErrorKind, ModelEvent};
use serde_json::json;

use super::*;

#[tokio::test]
async fn every_status_maps_to_its_error_kind_in_both_formats() {
    let too_long = "prompt is too long: 214315 tokens > 200000 maximum";
    let blocked = "Output blocked by content filtering policy";
    let errors = [
        (400, "no such parameter", ModelErrorKind::InvalidRequest),
        (400, too_long, ModelErrorKind::ContextOverflow),
        (400, blocked, ModelErrorKind::ContentRefused),
        (401, "invalid key", ModelErrorKind::Authentication),
        (403, "not allowed", ModelErrorKind::Authentication),
        (404, "no such model", ModelErrorKind::InvalidRequest),
        (413, "too large", ModelErrorKind::ContextOverflow),
        (422, "no", ModelErrorKind::InvalidRequest),
        (429, "slow down", ModelErrorKind::RateLimited),
        (500, "oh", ModelErrorKind::Provider),
        (503, "busy", ModelErrorKind::Overloaded),
        (529, "busy", ModelErrorKind::Overloaded),
    ];
    for kind in KINDS {
        for (status, message, error_kind) in errors {
            let body = json!({"type": "error", "error": {"type": "some_error", "message": message}});
            let (text, model_error) = error_of(kind, Reply::status(status, body)).await;
            let expected = format!("provider `{}` answered {status}: {message}", name_of(kind));
            assert_eq!((text.as_str(), model_error.kind, model_error.message), ("", error_kind, expected));
            assert_eq!(model_error.retry_after, None);
        }
    }
}

#[tokio::test]
async fn the_requested_retry_delay_is_returned() {
    let slow_down = || Reply::status(429, json!({"error": {"message": "slow down"}}));
    let (_, model_error) = error_of(ProviderKind::Anthropic, slow_down().retry_after("2")).await;
    assert_eq!(model_error.retry_after, Some(Duration::from_secs(2)));

    let until = "Wed, 21 Oct 2015 07:28:30 GMT";
    let dated = slow_down().header("date", "Wed, 21 Oct 2015 07:28:00 GMT").retry_after(until);
    let (_, model_error) = error_of(ProviderKind::OpenAiChat, dated).await;
    assert_eq!(model_error.retry_after, Some(Duration::from_secs(30)));
}

#[tokio::test]
async fn an_error_contains_neither_the_key_nor_a_whole_page() {
    let page = format!("<html>key {KEY} {}</html>", "x ".repeat(200_000));
    let (_, model_error) = error_of(ProviderKind::OpenAiChat, Reply::status(502, page.clone())).await;
    assert_eq!(model_error.kind, ModelErrorKind::Provider);
    assert!(
        !model_error.message.contains(KEY) && model_error.message.contains("[key]"),
        "{}",
        model_error.message
    );
    assert_eq!(model_error.message.chars().count(), 500);

    let (_, model_error) = error_of(ProviderKind::Anthropic, Reply::raw("text/html", page)).await;
    assert_eq!(model_error.kind, ModelErrorKind::Malformed);
    let begins = "provider `anthropic` answered with text/html instead of text/event-stream: <html>key [key]";
    assert!(model_error.message.starts_with(begins), "{}", model_error.message);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = ModelServer::start().await;
    let elsewhere = format!("{}/v1/messages", server.base_url());
    let (_, model_error) =
        error_of(ProviderKind::Anthropic, Reply::status(307, "").header("location", &elsewhere)).await;
    assert_eq!(model_error.kind, ModelErrorKind::InvalidRequest);
    assert!(model_error.message.contains("307; redirects are not followed"), "{}", model_error.message);
    assert_eq!(server.request_count(), 0);
}

#[tokio::test]
async fn an_error_in_a_stream_follows_the_text() {
    for kind in KINDS {
        for (error_type, error_kind) in [
            ("overloaded_error", ModelErrorKind::Overloaded),
            ("rate_limit_error", ModelErrorKind::RateLimited),
            ("api_error", ModelErrorKind::Provider),
        ] {
            let (text, model_error) = error_of(kind, Reply::text("Half").error(error_type)).await;
            assert_eq!((text.as_str(), model_error.kind), ("Half", error_kind));
            let expected = format!("aborted its reply with {error_type}: scripted {error_type}");
            assert_eq!(model_error.message, format!("provider `{}` {expected}", name_of(kind)));
            assert_eq!(error_of(kind, Reply::error_mid_stream(error_type)).await.1.kind, error_kind);
        }
    }
}

#[tokio::test]
async fn a_cut_connection_is_a_network_error_after_the_text() {
    for kind in KINDS {
        for (reply, text) in [
            (Reply::new().cut(), ""),
            (Reply::text("Half a sentence").cut(), "Half a sentence"),
            (
                Reply::new().text_in(["Half ", "é sentence"]).tool_call("shell", json!({})).cut_after_text(6),
                "Half é",
            ),
            (Reply::text("A whole reply").cut_after_text(13), "A whole reply"),
        ] {
            let (received, model_error) = error_of(kind, reply).await;
            assert_eq!(
                (received.as_str(), model_error.kind),
                (text, ModelErrorKind::Network),
                "{model_error}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_stalled() {
    for kind in KINDS {
        let frozen = FrozenTime::hold();
        let server = ModelServer::start().await;
        server.push(Reply::text("Half").stall());
        let mut stream = providers(&server).stream(name_of(kind), &hello()).await.unwrap();
        assert_eq!(stream.next().await, Some(Ok(ModelEvent::TextDelta("Half".to_owned()))));
        drop(frozen);
        let model_error = stream.next().await.unwrap().unwrap_err();
        assert_eq!(model_error.kind, ModelErrorKind::Stalled);
        let expected =
            format!("provider `{}` sent nothing for 120 s in the middle of a reply", name_of(kind));
        assert_eq!(model_error.message, expected);
        assert_eq!(stream.next().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_sends_no_headers_is_stalled() {
    let frozen = FrozenTime::hold();
    let (server, gate) = (ModelServer::start().await, Gate::new());
    server.push(Reply::text("Late").gate_headers(&gate));
    let (providers, hello) = (providers(&server), hello());
    let ((_, end), ()) = tokio::join!(call(&providers, "openai", &hello), async {
        gate.reached().await;
        drop(frozen);
    });
    let model_error = end.unwrap_err();
    assert_eq!(model_error.kind, ModelErrorKind::Stalled);
    assert_eq!(model_error.message, "provider `openai` did not start to respond within 300 s");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_takes_too_long_is_stalled() {
    let frozen = FrozenTime::hold();
    let server = ModelServer::start().await;
    server.push(Reply::text("Half").stall());
    let limits = Limits { reply: Duration::from_secs(30), ..Limits::DEFAULT };
    let providers = providers_with_limits(&server, limits);
    let mut stream = providers.stream("anthropic", &hello()).await.unwrap();
    assert_eq!(stream.next().await, Some(Ok(ModelEvent::TextDelta("Half".to_owned()))));
    drop(frozen);
    let model_error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(model_error.kind, ModelErrorKind::Stalled);
    assert_eq!(model_error.message, "provider `anthropic` did not complete its reply within 30 s");
    assert_eq!(stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_complete_reply_is_returned_even_if_its_connection_fails() {
    let chunk = json!({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]});
    for reply in [
        Reply::raw("text/event-stream", format!("data: {chunk}\n\n")).stall(),
        Reply::raw("text/event-stream", format!("data: {chunk}\n\n")).cut(),
        Reply::raw("Text/Event-Stream", format!("data: {chunk}\n\ndata: [DONE]\n\n")).stall(),
    ] {
        let frozen = FrozenTime::hold();
        let server = ModelServer::start().await;
        server.push(reply);
        let mut stream = providers(&server).stream("openai", &hello()).await.unwrap();
        assert_eq!(stream.next().await, Some(Ok(ModelEvent::TextDelta("Hi".to_owned()))));
        drop(frozen);
        let Some(Ok(ModelEvent::Finished(reply))) = stream.next().await else {
            panic!("the stream ended without a reply")
        };
        assert_eq!(reply.text(), "Hi");
        assert_eq!(stream.next().await, None);
    }
}

#[tokio::test]
async fn a_provider_that_stops_is_a_network_error() {
    for kind in KINDS {
        let server = ModelServer::start().await;
        let providers = providers(&server);
        server.push(Reply::text("Half").stall());
        let mut stream = providers.stream(name_of(kind), &hello()).await.unwrap();
        assert_eq!(stream.next().await, Some(Ok(ModelEvent::TextDelta("Half".to_owned()))));
        drop(server);
        let model_error = stream.next().await.unwrap().unwrap_err();
        assert_eq!(model_error.kind, ModelErrorKind::Network);
        assert_eq!(stream.next().await, None);
    }
}

#[tokio::test]
async fn a_refused_connection_is_a_network_error() {
    // A bound socket that does not listen: its port is reserved, and connections to it are refused.
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let base_url = format!("http://{}", reserved.local_addr().unwrap());
    let providers =
        try_providers(vec![options("own", ProviderKind::Anthropic, &base_url, Some(KEY))]).unwrap();
    let model_error = call(&providers, "own", &hello()).await.1.unwrap_err();
    assert_eq!(model_error.kind, ModelErrorKind::Network);
    assert!(model_error.message.starts_with("provider `own` cannot be reached: "), "{}", model_error.message);
    assert!(
        model_error.message.contains("refused") && !model_error.message.contains(&base_url),
        "{}",
        model_error.message
    );
}

#[tokio::test]
async fn an_oversized_request_is_not_sent() {
    let server = ModelServer::start().await;
    let request = request(vec![Turn::User { text: "x".repeat(33 << 20) }]);
    let model_error = call(&providers(&server), "anthropic", &request).await.1.unwrap_err();
    assert_eq!(model_error.kind, ModelErrorKind::ContextOverflow);
    assert_eq!(server.request_count(), 0);
}

#[tokio::test]
async fn an_exhausted_script_is_an_invalid_request() {
    let server = ModelServer::start().await;
    let model_error = call(&providers(&server), "openai", &hello()).await.1.unwrap_err();
    assert_eq!(model_error.kind, ModelErrorKind::InvalidRequest);
    assert_eq!(model_error.message, "provider `openai` answered 400: the script has no reply left");
}
