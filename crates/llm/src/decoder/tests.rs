use herm_types::model::{Block, ModelErrorKind, ModelReply, StopReason, TokenUsage, ToolCall};
use proptest::prelude::*;

use super::*;
use ProviderKind::{Anthropic, OpenAiChat};

type Decoded = (Vec<ModelEvent>, Option<ModelErrorKind>);

/// Decodes a stream that arrives in these chunks.
fn decode<'a>(kind: ProviderKind, pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    decode_with_limits(kind, Limits::DEFAULT, pieces)
}

fn decode_with_limits<'a>(
    kind: ProviderKind,
    limits: Limits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Decoded {
    let mut decoder = Decoder::new(kind, limits);
    let mut out = VecDeque::new();
    for piece in pieces {
        if let Err(error) = decoder.push(piece, &mut out) {
            return (out.into(), Some(error.kind));
        }
    }
    if !decoder.is_finished() {
        match decoder.end() {
            Ok(event) => out.push_back(event),
            Err(error) => return (out.into(), Some(error.kind)),
        }
    }
    (out.into(), None)
}

/// Decodes the stream in a fixture file. Checks that the result does not depend on the positions at which the
/// stream is split into chunks.
fn decode_fixture(kind: ProviderKind, stream: &str) -> Decoded {
    let bytes = stream.as_bytes();
    let whole = decode(kind, [bytes]);
    for cut in 0..=bytes.len() {
        let (start, end) = bytes.split_at(cut);
        assert_eq!(decode(kind, [start, end]), whole, "cut at byte {cut}");
    }
    assert_eq!(decode(kind, bytes.chunks(1)), whole, "cut at every byte");
    whole
}

macro_rules! fixture {
    ($kind:expr, $name:literal) => {
        decode_fixture($kind, include_str!(concat!("../../tests/fixtures/", $name, ".sse")))
    };
}

/// Returns the text deltas and the reply of a stream that ended without an error.
fn finished((mut events, model_error): Decoded) -> (Vec<String>, ModelReply) {
    assert_eq!(model_error, None);
    let Some(ModelEvent::Finished(reply)) = events.pop() else { panic!("the last event is not a reply") };
    let delta = |event| match event {
        ModelEvent::TextDelta(text) => text,
        ModelEvent::Finished(_) => panic!("finished twice"),
    };
    let deltas: Vec<String> = events.into_iter().map(delta).collect();
    assert_eq!(deltas.concat(), reply.text());
    (deltas, reply)
}

fn text(text: &str) -> Block {
    Block::Text { text: text.to_owned() }
}

fn call(id: &str, tool: &str, arguments: &str) -> Block {
    Block::ToolCall(ToolCall {
        tool_call_id: id.to_owned(),
        tool: tool.to_owned(),
        arguments: arguments.to_owned(),
    })
}

fn usage(input: u64, output: u64, cache_read: u64, cache_write: u64) -> TokenUsage {
    TokenUsage {
        input_tokens: input,
        output_tokens: output,
        cache_read_tokens: cache_read,
        cache_write_tokens: cache_write,
    }
}

#[test]
fn text_is_streamed_and_then_repeated_in_the_reply() {
    for (decoded, usage) in [
        (fixture!(Anthropic, "anthropic_text"), usage(25, 15, 1200, 300)),
        (fixture!(OpenAiChat, "openai_text"), usage(325, 15, 1200, 0)),
    ] {
        let (deltas, reply) = finished(decoded);
        assert_eq!(deltas, ["Grüß ", "dich, 世界 😀\n", "!"]);
        let blocks = vec![text("Grüß dich, 世界 😀\n!")];
        assert_eq!(reply, ModelReply { blocks, stop: StopReason::EndTurn, usage });
    }
}

#[test]
fn parallel_tool_calls_are_assembled_from_deltas() {
    let calls = |ids: [&str; 3]| {
        vec![
            call(ids[0], "shell", r#"{"command": "ls -la\n"}"#),
            call(ids[1], "read_file", r#"{"path": "é.txt"}"#),
            call(ids[2], "todo", "{}"),
        ]
    };
    let (deltas, reply) = finished(fixture!(Anthropic, "anthropic_tools"));
    let mut blocks = vec![text("I'll look.")];
    blocks.extend(calls(["toolu_01A", "toolu_01B", "toolu_01C"]));
    assert_eq!(deltas, ["I'll look."]);
    assert_eq!(reply, ModelReply { blocks, stop: StopReason::ToolCalls, usage: usage(25, 89, 0, 0) });

    let (deltas, reply) = finished(fixture!(OpenAiChat, "openai_tools"));
    let blocks = calls(["call_A", "call_B", "call_C"]);
    assert_eq!(deltas, [""; 0]);
    assert_eq!(reply, ModelReply { blocks, stop: StopReason::ToolCalls, usage: usage(82, 17, 0, 0) });
}

#[test]
fn thinking_retains_its_signature() {
    let (_, reply) = finished(fixture!(Anthropic, "anthropic_thinking"));
    let signature = Some("EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pk=".to_owned());
    let blocks = vec![
        Block::Thinking { text: "Let me think.".to_owned(), signature },
        Block::RedactedThinking { data: "EmwKAhgBEgy3va3pzix/LafPsn4=".to_owned() },
        text("27."),
    ];
    assert_eq!(reply, ModelReply { blocks, stop: StopReason::EndTurn, usage: usage(26, 40, 0, 0) });
}

#[test]
fn openrouter_comments_are_ignored_and_reasoning_has_no_signature() {
    let (_, reply) = finished(fixture!(OpenAiChat, "openrouter"));
    let blocks = vec![Block::Thinking { text: "Hm.".to_owned(), signature: None }, text("27.")];
    assert_eq!(reply, ModelReply { blocks, stop: StopReason::EndTurn, usage: usage(8, 4, 0, 12) });
}

#[test]
fn unknown_events_blocks_and_deltas_are_ignored() {
    let (_, reply) = finished(fixture!(Anthropic, "anthropic_unknown"));
    let blocks = vec![text("Done.")];
    assert_eq!(reply, ModelReply { blocks, stop: StopReason::Length, usage: usage(25, 7, 0, 0) });
}

#[test]
fn tool_calls_without_index_id_or_name_are_assembled() {
    let (_, reply) = finished(fixture!(OpenAiChat, "openai_odd_calls"));
    let blocks = vec![
        call("call_0", "shell", r#"{"command": "ls"}"#),
        call("x1", "todo", "{}"),
        call("y1", "read_file", r#"{"path":"a"}"#),
        call("y2", "read_file", r#"{"path":"b"}"#),
    ];
    assert_eq!(reply, ModelReply { blocks, stop: StopReason::ToolCalls, usage: usage(0, 0, 0, 0) });
}

#[test]
fn tool_input_sent_whole_is_accepted() {
    let stream = include_str!("../../tests/fixtures/anthropic_tools.sse")
        .replace(r#""name": "todo", "input": {}"#, r#""name": "todo", "input": {"add": "x"}"#);
    let (_, reply) = finished(decode(Anthropic, [stream.as_bytes()]));
    assert_eq!(reply.blocks.last(), Some(&call("toolu_01C", "todo", r#"{"add":"x"}"#)));
}

#[test]
fn a_refusal_has_a_text_and_a_stop_reason() {
    let (deltas, reply) = finished(fixture!(OpenAiChat, "openai_refusal"));
    assert_eq!((deltas.concat().as_str(), reply.stop), ("I can't help with that.", StopReason::Refusal));
}

#[test]
fn an_error_in_a_stream_follows_the_text_before_it() {
    let half = vec![ModelEvent::TextDelta("Half a".to_owned())];
    let overloaded = (half.clone(), Some(ModelErrorKind::Overloaded));
    assert_eq!(fixture!(Anthropic, "anthropic_error"), overloaded);
    assert_eq!(fixture!(OpenAiChat, "openai_error"), (half, Some(ModelErrorKind::Provider)));
}

#[test]
fn a_truncated_stream_is_a_network_error() {
    let network = Some(ModelErrorKind::Network);
    let whole = include_str!("../../tests/fixtures/anthropic_text.sse");
    let (cut, _) = whole.split_once("event: message_stop").unwrap();
    assert_eq!(decode(Anthropic, [cut.as_bytes()]).1, network);
    assert_eq!(decode(Anthropic, []).1, network);

    let whole = include_str!("../../tests/fixtures/openai_text.sse");
    let (before_done, _) = whole.split_once("data: [DONE]").unwrap();
    assert_eq!(decode(OpenAiChat, [before_done.as_bytes()]), decode(OpenAiChat, [whole.as_bytes()]));
    let unfinished = whole.replace(r#""finish_reason": "stop""#, r#""finish_reason": null"#);
    assert_ne!(unfinished, whole);
    assert_eq!(decode(OpenAiChat, [unfinished.as_bytes()]).1, network);
    assert_eq!(decode(OpenAiChat, []).1, network);
}

#[test]
fn every_stop_reason_is_mapped() {
    let reasons = [
        ("end_turn", StopReason::EndTurn),
        ("stop_sequence", StopReason::EndTurn),
        ("pause_turn", StopReason::EndTurn),
        ("tool_use", StopReason::EndTurn),
        ("max_tokens", StopReason::Length),
        ("model_context_window_exceeded", StopReason::Length),
        ("refusal", StopReason::Refusal),
    ];
    let whole = include_str!("../../tests/fixtures/anthropic_text.sse");
    for (reason, stop) in reasons {
        let stream = whole.replace("end_turn", reason);
        assert_eq!(finished(decode(Anthropic, [stream.as_bytes()])).1.stop, stop, "{reason}");
    }
    let whole = include_str!("../../tests/fixtures/openai_tools.sse");
    let reasons = [
        ("tool_calls", StopReason::ToolCalls),
        ("stop", StopReason::ToolCalls),
        ("length", StopReason::Length),
        ("content_filter", StopReason::Refusal),
    ];
    for (reason, stop) in reasons {
        let finish = format!(r#""finish_reason": "{reason}""#);
        let stream = whole.replace(r#""finish_reason": "tool_calls""#, &finish);
        assert_eq!(finished(decode(OpenAiChat, [stream.as_bytes()])).1.stop, stop, "{reason}");
    }
}

#[test]
fn an_invalid_stream_is_malformed() {
    let streams = [
        (Anthropic, "data: nonsense\n\n"),
        (Anthropic, "data: {\"type\":\"message_stop\"}\n\n"),
        (
            Anthropic,
            "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n",
        ),
        (OpenAiChat, "data: [1]\n\n"),
        (OpenAiChat, "data: {\"choices\":[{\"delta\":{\"content\":[1]}}]}\n\n"),
        (
            OpenAiChat,
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]},\"finish_reason\":\"stop\"}]}\n\n",
        ),
    ];
    for (kind, stream) in streams {
        assert_eq!(decode(kind, [stream.as_bytes()]), (vec![], Some(ModelErrorKind::Malformed)), "{stream}");
    }
    assert_eq!(decode(OpenAiChat, [b"data: \xff\n\n".as_slice()]).1, Some(ModelErrorKind::Malformed));
}

#[test]
fn a_reply_beyond_a_limit_is_malformed() {
    let fits = Limits { reply_bytes: 102, tool_calls: 3, blocks: 4, ..Limits::DEFAULT };
    let tight = [
        Limits { reply_bytes: 101, ..fits },
        Limits { tool_calls: 2, ..fits },
        Limits { blocks: 3, ..fits },
        Limits { event_bytes: 100, ..fits },
    ];
    let stream = include_str!("../../tests/fixtures/anthropic_tools.sse");
    assert_eq!(decode_with_limits(Anthropic, fits, [stream.as_bytes()]).1, None);
    for limits in tight {
        let model_error = decode_with_limits(Anthropic, limits, [stream.as_bytes()]).1;
        assert_eq!(model_error, Some(ModelErrorKind::Malformed), "{limits:?}");
    }
    let stream = include_str!("../../tests/fixtures/openai_tools.sse");
    for limits in [Limits { tool_calls: 2, ..fits }, Limits { reply_bytes: 40, ..fits }] {
        let model_error = decode_with_limits(OpenAiChat, limits, [stream.as_bytes()]).1;
        assert_eq!(model_error, Some(ModelErrorKind::Malformed), "{limits:?}");
    }
}

#[test]
fn data_after_the_end_is_ignored() {
    for (kind, stream) in [
        (Anthropic, include_str!("../../tests/fixtures/anthropic_text.sse")),
        (OpenAiChat, include_str!("../../tests/fixtures/openai_text.sse")),
    ] {
        let longer = [stream.as_bytes(), b"data: nonsense\n\n", b"\xff\n\n"].concat();
        assert_eq!(decode(kind, [longer.as_slice()]), decode(kind, [stream.as_bytes()]));
    }
}

proptest! {
    #[test]
    fn a_mutated_stream_does_not_panic(
        is_anthropic: bool,
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let (kind, stream) = match is_anthropic {
            true => (Anthropic, include_str!("../../tests/fixtures/anthropic_tools.sse")),
            false => (OpenAiChat, include_str!("../../tests/fixtures/openai_odd_calls.sse")),
        };
        let mut bytes = stream.as_bytes().to_vec();
        for (position, byte) in mutations {
            let position = position.index(bytes.len());
            bytes[position] = byte;
        }
        let whole = decode(kind, [bytes.as_slice()]);
        prop_assert_eq!(decode(kind, bytes.chunks(7)), whole);
    }
}
