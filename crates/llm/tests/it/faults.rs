use std::time::Duration;

use futures_util::StreamExt;
use herm_llm::{Limits, ProviderKind};
use herm_testkit::model_server::{Gate, ModelServer, Reply};
use herm_types::model::{ModelEvent, ModelFaultKind};
use serde_json::json;

use super::*;

#[tokio::test]
async fn every_status_becomes_its_fault_in_both_formats() {
    let too_long = "prompt is too long: 214315 tokens > 200000 maximum";
    let blocked = "Output blocked by content filtering policy";
    let faults = [
        (400, "no such parameter", ModelFaultKind::InvalidRequest),
        (400, too_long, ModelFaultKind::ContextOverflow),
        (400, blocked, ModelFaultKind::ContentRefused),
        (401, "invalid key", ModelFaultKind::Authentication),
        (403, "not allowed", ModelFaultKind::Authentication),
        (404, "no such model", ModelFaultKind::InvalidRequest),
        (413, "too large", ModelFaultKind::ContextOverflow),
        (422, "no", ModelFaultKind::InvalidRequest),
        (429, "slow down", ModelFaultKind::RateLimited),
        (500, "oh", ModelFaultKind::Provider),
        (503, "busy", ModelFaultKind::Overloaded),
        (529, "busy", ModelFaultKind::Overloaded),
    ];
    for kind in KINDS {
        for (status, message, fault_kind) in faults {
            let body = json!({"type": "error", "error": {"type": "some_error", "message": message}});
            let (text, fault) = fault_of(kind, Reply::status(status, body)).await;
            let said = format!("provider `{}` answered {status}: {message}", name_of(kind));
            assert_eq!((text.as_str(), fault.kind, fault.message), ("", fault_kind, said));
            assert_eq!(fault.retry_after, None);
        }
    }
}

#[tokio::test]
async fn the_wait_that_a_provider_asks_for_is_passed_on() {
    let slow_down = || Reply::status(429, json!({"error": {"message": "slow down"}}));
    let (_, fault) = fault_of(ProviderKind::Anthropic, slow_down().retry_after("2")).await;
    assert_eq!(fault.retry_after, Some(Duration::from_secs(2)));

    let until = "Wed, 21 Oct 2015 07:28:30 GMT";
    let dated = slow_down().header("date", "Wed, 21 Oct 2015 07:28:00 GMT").retry_after(until);
    let (_, fault) = fault_of(ProviderKind::OpenAiChat, dated).await;
    assert_eq!(fault.retry_after, Some(Duration::from_secs(30)));
}

#[tokio::test]
async fn no_fault_holds_the_key_or_a_whole_page() {
    let page = format!("<html>key {KEY} {}</html>", "x ".repeat(200_000));
    let (_, fault) = fault_of(ProviderKind::OpenAiChat, Reply::status(502, page.clone())).await;
    assert_eq!(fault.kind, ModelFaultKind::Provider);
    assert!(!fault.message.contains(KEY) && fault.message.contains("[key]"), "{}", fault.message);
    assert_eq!(fault.message.chars().count(), 500);

    let (_, fault) = fault_of(ProviderKind::Anthropic, Reply::raw("text/html", page)).await;
    assert_eq!(fault.kind, ModelFaultKind::Malformed);
    let begins = "provider `anthropic` answered with text/html instead of text/event-stream: <html>key [key]";
    assert!(fault.message.starts_with(begins), "{}", fault.message);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = ModelServer::start().await;
    let elsewhere = format!("{}/v1/messages", server.base_url());
    let (_, fault) =
        fault_of(ProviderKind::Anthropic, Reply::status(307, "").header("location", &elsewhere)).await;
    assert_eq!(fault.kind, ModelFaultKind::InvalidRequest);
    assert!(fault.message.contains("307, a redirect"), "{}", fault.message);
    assert_eq!(server.request_count(), 0);
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_is_a_fault_after_the_text() {
    for kind in KINDS {
        for (error_type, fault_kind) in [
            ("overloaded_error", ModelFaultKind::Overloaded),
            ("rate_limit_error", ModelFaultKind::RateLimited),
            ("api_error", ModelFaultKind::Provider),
        ] {
            let (text, fault) = fault_of(kind, Reply::text("Half").error(error_type)).await;
            assert_eq!((text.as_str(), fault.kind), ("Half", fault_kind));
            let said = format!("broke off its reply with {error_type}: scripted {error_type}");
            assert_eq!(fault.message, format!("provider `{}` {said}", name_of(kind)));
            assert_eq!(fault_of(kind, Reply::error_mid_stream(error_type)).await.1.kind, fault_kind);
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_is_a_network_fault_after_the_text() {
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
            let (told, fault) = fault_of(kind, reply).await;
            assert_eq!((told.as_str(), fault.kind), (text, ModelFaultKind::Network), "{fault}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_goes_silent_is_stalled() {
    for kind in KINDS {
        let still = StandingTime::hold();
        let server = ModelServer::start().await;
        server.push(Reply::text("Half").stall());
        let mut stream = providers(&server).stream(name_of(kind), &hello()).await.unwrap();
        assert_eq!(stream.next().await, Some(Ok(ModelEvent::TextDelta("Half".to_owned()))));
        drop(still);
        let fault = stream.next().await.unwrap().unwrap_err();
        assert_eq!(fault.kind, ModelFaultKind::Stalled);
        let said = format!("provider `{}` sent nothing for 120 s in the middle of a reply", name_of(kind));
        assert_eq!(fault.message, said);
        assert_eq!(stream.next().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_does_not_begin_to_answer_is_stalled() {
    let still = StandingTime::hold();
    let (server, gate) = (ModelServer::start().await, Gate::new());
    server.push(Reply::text("Late").gate_headers(&gate));
    let (providers, hello) = (providers(&server), hello());
    let ((_, end), ()) = tokio::join!(call(&providers, "openai", &hello), async {
        gate.reached().await;
        drop(still);
    });
    let fault = end.unwrap_err();
    assert_eq!(fault.kind, ModelFaultKind::Stalled);
    assert_eq!(fault.message, "provider `openai` did not begin to answer within 300 s");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_takes_too_long_is_stalled() {
    let still = StandingTime::hold();
    let server = ModelServer::start().await;
    server.push(Reply::text("Half").stall());
    let limits = Limits { reply: Duration::from_secs(30), ..Limits::DEFAULT };
    let providers = providers_with_limits(&server, limits);
    let mut stream = providers.stream("anthropic", &hello()).await.unwrap();
    assert_eq!(stream.next().await, Some(Ok(ModelEvent::TextDelta("Half".to_owned()))));
    drop(still);
    let fault = stream.next().await.unwrap().unwrap_err();
    assert_eq!(fault.kind, ModelFaultKind::Stalled);
    assert_eq!(fault.message, "provider `anthropic` did not end its reply within 30 s");
    assert_eq!(stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_whole_reply_stands_though_its_connection_never_ends() {
    let chunk = json!({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]});
    for reply in [
        Reply::raw("text/event-stream", format!("data: {chunk}\n\n")).stall(),
        Reply::raw("text/event-stream", format!("data: {chunk}\n\n")).cut(),
        Reply::raw("Text/Event-Stream", format!("data: {chunk}\n\ndata: [DONE]\n\n")).stall(),
    ] {
        let still = StandingTime::hold();
        let server = ModelServer::start().await;
        server.push(reply);
        let mut stream = providers(&server).stream("openai", &hello()).await.unwrap();
        assert_eq!(stream.next().await, Some(Ok(ModelEvent::TextDelta("Hi".to_owned()))));
        drop(still);
        let Some(Ok(ModelEvent::Finished(reply))) = stream.next().await else { panic!("no reply") };
        assert_eq!(reply.text(), "Hi");
        assert_eq!(stream.next().await, None);
    }
}

#[tokio::test]
async fn a_provider_that_goes_away_is_a_network_fault() {
    for kind in KINDS {
        let server = ModelServer::start().await;
        let providers = providers(&server);
        server.push(Reply::text("Half").stall());
        let mut stream = providers.stream(name_of(kind), &hello()).await.unwrap();
        assert_eq!(stream.next().await, Some(Ok(ModelEvent::TextDelta("Half".to_owned()))));
        drop(server);
        let fault = stream.next().await.unwrap().unwrap_err();
        assert_eq!(fault.kind, ModelFaultKind::Network);
        assert_eq!(stream.next().await, None);
    }
}

#[tokio::test]
async fn an_address_where_nothing_listens_is_a_network_fault() {
    // Bound, so that nobody else is given the port, and not listening.
    let deaf = tokio::net::TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let base_url = format!("http://{}", deaf.local_addr().unwrap());
    let providers =
        try_providers(vec![options("own", ProviderKind::Anthropic, &base_url, Some(KEY))]).unwrap();
    let fault = call(&providers, "own", &hello()).await.1.unwrap_err();
    assert_eq!(fault.kind, ModelFaultKind::Network);
    assert!(fault.message.starts_with("provider `own` cannot be reached: "), "{}", fault.message);
    assert!(fault.message.contains("refused") && !fault.message.contains(&base_url), "{}", fault.message);
}

#[tokio::test]
async fn a_request_that_no_provider_takes_is_not_sent() {
    let server = ModelServer::start().await;
    let request = request(vec![Turn::User { text: "x".repeat(33 << 20) }]);
    let fault = call(&providers(&server), "anthropic", &request).await.1.unwrap_err();
    assert_eq!(fault.kind, ModelFaultKind::ContextOverflow);
    assert_eq!(server.request_count(), 0);
}

#[tokio::test]
async fn a_script_without_a_reply_is_a_fault_that_nobody_retries() {
    let server = ModelServer::start().await;
    let fault = call(&providers(&server), "openai", &hello()).await.1.unwrap_err();
    assert_eq!(fault.kind, ModelFaultKind::InvalidRequest);
    assert_eq!(fault.message, "provider `openai` answered 400: the script has no reply left");
}
