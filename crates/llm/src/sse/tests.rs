use proptest::prelude::*;

use super::*;

const MAX_BYTES: usize = 64;

fn events_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Option<Error>) {
    let mut parser = Parser::new(MAX_BYTES);
    let mut events = Vec::new();
    for piece in pieces {
        if let Err(error) = parser.push(piece, |event| events.push(event)) {
            return (events, Some(error));
        }
    }
    (events, None)
}

fn data_of(text: &str) -> Vec<String> {
    let (events, error) = events_of([text.as_bytes()]);
    assert_eq!(error, None);
    events.into_iter().map(|event| event.data).collect()
}

#[test]
fn a_blank_line_ends_an_event() {
    let (events, _) = events_of(["event: ping\ndata: {}\n\ndata: x\n\n".as_bytes()]);
    let ping = Event { name: "ping".to_owned(), data: "{}".to_owned() };
    assert_eq!(events, [ping, Event { name: String::new(), data: "x".to_owned() }]);
}

#[test]
fn data_lines_are_joined_by_line_feeds() {
    assert_eq!(data_of("data: a\ndata\ndata:b\n\n"), ["a\n\nb"]);
}

#[test]
fn one_space_after_the_colon_is_dropped() {
    assert_eq!(data_of("data:  a\n\n"), [" a"]);
}

#[test]
fn lines_end_in_cr_lf_or_both() {
    assert_eq!(data_of("data: a\r\rdata: b\r\n\r\ndata: c\n\n"), ["a", "b", "c"]);
}

#[test]
fn a_byte_order_mark_is_dropped_at_the_start_only() {
    assert_eq!(data_of("\u{feff}data: a\n\n"), ["a"]);
    assert_eq!(data_of("data: a\n\n\u{feff}data: b\n\n"), ["a"]);
}

#[test]
fn comments_other_fields_and_events_without_data_are_skipped() {
    let text = ": OPENROUTER PROCESSING\n\nid: 1\nretry: 5\nnoise\n\nevent: ping\n\ndata: a\n\n";
    let (events, _) = events_of([text.as_bytes()]);
    assert_eq!(events, [Event { name: String::new(), data: "a".to_owned() }]);
}

#[test]
fn an_event_without_its_blank_line_is_dropped() {
    assert_eq!(data_of("data: a\n\ndata: b\n"), ["a"]);
}

#[test]
fn invalid_utf_8_is_an_error() {
    let (events, error) = events_of([b"data: a\n\ndata: \xff\n\n".as_slice()]);
    assert_eq!((events.len(), error), (1, Some(Error::NotUtf8)));
}

#[test]
fn an_event_beyond_the_maximum_size_is_an_error() {
    let fits = format!("data: {}\n\n", "x".repeat(MAX_BYTES - 6));
    assert_eq!(events_of([fits.as_bytes()]).1, None);
    let too_large = Some(Error::TooLarge { max_bytes: MAX_BYTES });
    let one_line = format!("data: {}\n\n", "x".repeat(MAX_BYTES - 5));
    assert_eq!(events_of([one_line.as_bytes()]).1, too_large);
    let many_lines = "data: x\n".repeat(MAX_BYTES);
    assert_eq!(events_of([many_lines.as_bytes()]).1, too_large);
    let no_end = ":".repeat(MAX_BYTES + 1);
    assert_eq!(events_of([no_end.as_bytes()]).1, too_large);
}

/// Generates streams in which line endings, field names and invalid UTF-8 are frequent.
fn stream_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"data: ".to_vec()),
        Just(b"data".to_vec()),
        Just(b"event:".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n\n".to_vec()),
        Just(b":".to_vec()),
        Just("é€😀".as_bytes().to_vec()),
        Just(BYTE_ORDER_MARK.to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
        Just(vec![b'x'; 20]),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn splitting_never_changes_the_events(
        bytes in stream_bytes(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let whole = events_of([bytes.as_slice()]);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&events_of(single), &whole);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut start = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            pieces.push(&bytes[start..cut]);
            start = cut;
        }
        prop_assert_eq!(&events_of(pieces), &whole);
    }
}
