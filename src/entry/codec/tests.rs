//! Every entry survives a round trip, and no damaged entry is decoded.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    entry::{CompleteBody, ResponseDraft},
    fence::{Fence, FenceStamp, LogId, OwnedResponseAttributes},
    field::Timestamp,
    key::CacheKey,
    policy::{Freshness, freshness::Constraints},
};

const LIMIT: usize = 1 << 20;

fn options(compress_above: usize, chunk: u32) -> EncodeOptions {
    EncodeOptions {
        compress_above,
        chunk: NonZeroU32::new(chunk).unwrap(),
        body_id: 7,
        clock_offset: 0,
    }
}

fn plain() -> EncodeOptions {
    options(usize::MAX, u32::MAX)
}

fn attributes() -> OwnedResponseAttributes {
    let text = |text: &str| Some(text.into());
    OwnedResponseAttributes { user: text("u\n1"), route: text("r"), version: text("v") }
}

fn response(body: Vec<u8>) -> Entry {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("text/plain"));
    let draft = ResponseDraft {
        key: CacheKey::from_text(b"http://example.com/a?b"),
        status: StatusCode::OK,
        headers,
        freshness: Freshness {
            received_at: Timestamp::from_millis(1_700_000_000_123),
            initial_age: Duration::new(3, 1),
            lifetime: Duration::from_mins(1),
            stale_while_revalidate: Some(30),
            stale_if_error: None,
            usable_for: Some(Duration::new(90, 5)),
            constraints: Constraints::EXPLICIT,
        },
        tags: vec!["one".to_owned(), "two".to_owned()],
        attributes: attributes(),
        stamp: FenceStamp { fence: Fence { log: LogId(1), seq: 2 }, version: 3, began: 4 },
        requested_at: Timestamp::from_millis(1_700_000_000_100),
    };
    Entry::Response(Arc::new(draft.complete(&CompleteBody::for_test([body.into()])).unwrap()))
}

fn read(encoded: &EncodedEntry) -> Option<Entry> {
    match decode(&encoded.head, LIMIT)? {
        DecodedHead::Entry(entry) => Some(entry),
        DecodedHead::Chunked(chunked) => {
            assert_eq!(usize::try_from(chunked.count()).unwrap(), encoded.chunks.len());
            assert_eq!(chunked.body_id(), 7);
            chunked.finish(&encoded.chunks)
        }
    }
}

fn as_response(entry: &Entry) -> &StoredResponse {
    match entry {
        Entry::Response(response) => response,
        Entry::Variants(_) => panic!("no response"),
    }
}

fn assert_same(read: &Entry, written: &Entry) {
    let (read, written) = match (read, written) {
        (Entry::Variants(read), Entry::Variants(written)) => return assert_eq!(read, written),
        both => (as_response(both.0), as_response(both.1)),
    };
    assert_eq!(read.status, written.status);
    assert_eq!(read.freshness, written.freshness);
    assert_eq!(read.etag, written.etag);
    assert_eq!(read.fence(), written.fence());
    assert_eq!(read.requested_at, written.requested_at);
    assert_eq!(read.has_content_coding, written.has_content_coding);
    assert_eq!(read.key_text(), written.key_text());
    assert!(read.tags().eq(written.tags()));
    assert_eq!(read.attributes(), written.attributes());
    assert_eq!(read.fields(), written.fields());
    assert_eq!(read.trailers(), written.trailers());
    assert_eq!(read.body(), written.body());
}

#[test]
fn what_holds_on_one_node_only_stays_there() {
    let written = response(b"body".to_vec());
    assert_eq!(
        (as_response(&written).requested_at_monotonic(), as_response(&written).checked_version()),
        (4, 3)
    );
    let read = read(&encode(&written, plain())).unwrap();
    assert_eq!(
        (as_response(&read).requested_at_monotonic(), as_response(&read).checked_version()),
        (0, 0)
    );
    assert_ne!(as_response(&read).id, as_response(&written).id);
}

#[test]
fn the_form_of_version_5_stays_as_it_is() {
    let written = encode(&response(b"body".to_vec()), plain()).head;
    insta::assert_snapshot!(hex(&written), @r#"
    4c 52 44 52 05 22 2f 27 6a 7e 8b fe 4f 01 01 00  LRDR."/'j~..O...
    00 00 00 00 00 00 02 00 00 00 00 00 00 00 64 68  ..............dh
    e5 cf 8b 01 00 00 2c c8 00 20 7b 68 e5 cf 8b 01  ......,...{h....
    00 00 03 00 00 00 00 00 00 00 01 00 00 00 3c 00  ..............<.
    00 00 00 00 00 00 00 00 00 00 1e 00 00 00 5a 00  ..............Z.
    00 00 00 00 00 00 05 00 00 00 16 00 00 00 16 00  ................
    00 00 1d 00 00 00 24 00 00 00 6c 00 00 00 6c 00  ......$...l...l.
    00 00 70 00 00 00 00 00 00 00 68 74 74 70 3a 2f  ..p.......http:/
    2f 65 78 61 6d 70 6c 65 2e 63 6f 6d 2f 61 3f 62  /example.com/a?b
    72 0a 76 0a 75 0a 31 6f 6e 65 0a 74 77 6f 0c 00  r.v.u.1one.two..
    0a 00 00 00 63 6f 6e 74 65 6e 74 2d 74 79 70 65  ....content-type
    74 65 78 74 2f 70 6c 61 69 6e 04 00 22 00 00 00  text/plain.."...
    65 74 61 67 22 32 33 30 64 38 33 35 38 64 63 38  etag"230d8358dc8
    65 38 38 39 30 62 34 63 35 38 64 65 65 62 36 32  e8890b4c58deeb62
    39 31 32 65 65 22 62 6f 64 79                    912ee"body
    "#);
    let variants = VariantIndex {
        target: (*b"http://example.com/a").into(),
        selections: vec![VarySelection {
            set: [http::header::ACCEPT, http::header::ORIGIN].into_iter().collect(),
            seen: Timestamp::from_millis(1_700_000_000_100),
            codings: vec![(*b"br,gzip").into()],
            languages: vec![language_variant(b"de", b"de,en")],
        }],
        recent: vec![1, u128::MAX],
    };
    let written = encode(&Entry::Variants(Arc::new(variants)), plain()).head;
    insta::assert_snapshot!(hex(&written), @r#"
    4c 52 44 52 05 8c 55 34 6d 8b 24 3a 54 00 64 68  LRDR..U4m.$:T.dh
    e5 cf 8b 01 00 00 14 00 00 00 68 74 74 70 3a 2f  ..........http:/
    2f 65 78 61 6d 70 6c 65 2e 63 6f 6d 2f 61 01 00  /example.com/a..
    00 00 02 00 00 00 06 00 00 00 61 63 63 65 70 74  ..........accept
    06 00 00 00 6f 72 69 67 69 6e 64 68 e5 cf 8b 01  ....origindh....
    00 00 01 00 00 00 07 00 00 00 62 72 2c 67 7a 69  ..........br,gzi
    70 01 00 00 00 02 00 00 00 64 65 05 00 00 00 64  p........de....d
    65 2c 65 6e 02 00 00 00 01 00 00 00 00 00 00 00  e,en............
    00 00 00 00 00 00 00 00 ff ff ff ff ff ff ff ff  ................
    ff ff ff ff ff ff ff ff                          ........
    "#);
}

#[test]
fn times_are_written_by_the_clock_that_is_shared() {
    for clock_offset in [-5000, 5000] {
        let written = response(b"body".to_vec());
        let shared = read(&encode(&written, EncodeOptions { clock_offset, ..plain() })).unwrap();
        let at = |entry: &Entry| {
            let response = as_response(entry);
            (response.requested_at.millis(), response.freshness.received_at.millis())
        };
        let (asked, received) = at(&written);
        let moved = (
            asked.saturating_add_signed(clock_offset),
            received.saturating_add_signed(clock_offset),
        );
        assert_eq!(at(&shared), moved);
        assert_same(&shared.with_clock_offset(-clock_offset), &written);
    }
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(16).map(|line| {
        let text =
            line.iter().map(|byte| if byte.is_ascii_graphic() { *byte as char } else { '.' });
        let numbers: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:<48} {}", numbers.join(" "), text.collect::<String>())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The offset of the flags in the head of `response`. The offsets of other parts follow.
const FLAGS: usize = ORDER_OFFSET + 1 + 24;
const STATUS: usize = FLAGS + 1;
const CONSTRAINTS: usize = STATUS + 2;
const LIFETIME_NANOS: usize = CONSTRAINTS + 1 + 8 + 12 + 8;
const KEY_END: usize = LIFETIME_NANOS + 4 + 4 + 12;
const FIELDS_END: usize = KEY_END + 16;
const TRAILERS_END: usize = FIELDS_END + 4;
const LENGTH: usize = TRAILERS_END + 4;
/// The offset of the encoded length, which only compressed content has.
const STORED: usize = LENGTH + 8;
/// The offset of the chunk size, for uncompressed content in chunks.
const CHUNK_SIZE: usize = LENGTH + 8 + 8;

/// Replaces some bytes of a head, corrects its checksum, and decodes it.
fn changed(written: &EncodedEntry, place: usize, bytes: &[u8]) -> Option<Entry> {
    let mut head = written.head.clone();
    head[place..place + bytes.len()].copy_from_slice(bytes);
    read(&EncodedEntry { head: with_checksum(head), chunks: written.chunks.clone() })
}

#[test]
fn an_unknown_version_kind_or_flag_is_no_entry() {
    let written = encode(&response(b"body".to_vec()), plain());
    assert!(changed(&written, PREFIX_LENGTH, &[RESPONSE]).is_some());
    assert!(changed(&written, 0, b"l").is_none());
    assert!(changed(&written, MAGIC.len(), &[VERSION + 1]).is_none());
    assert!(changed(&written, PREFIX_LENGTH, &[2]).is_none());
    let flags = written.head[FLAGS];
    assert!(changed(&written, FLAGS, &[flags | 1 << 6]).is_none());
}

#[test]
fn a_head_that_contradicts_itself_is_no_entry() {
    let entry = response(vec![b'a'; 1000]);
    let length = u32::try_from(entry.heap_size()).unwrap();
    let written = encode(&entry, plain());
    assert!(changed(&written, LENGTH, &length.to_le_bytes()).is_some());
    assert!(changed(&written, STATUS, &[99, 0]).is_none());
    assert!(changed(&written, LIFETIME_NANOS, &1_000_000_000_u32.to_le_bytes()).is_none());
    assert!(changed(&written, KEY_END, &length.to_le_bytes()).is_none(), "after the tags");
    assert!(changed(&written, TRAILERS_END, &length.to_le_bytes()).is_some(), "an empty body");
    assert!(changed(&written, TRAILERS_END, &(length + 1).to_le_bytes()).is_none());
    assert!(changed(&written, FIELDS_END, &length.to_le_bytes()).is_none(), "after the trailers");
    assert!(changed(&written, LENGTH, &(length - 1).to_le_bytes()).is_none());
    assert!(changed(&written, LENGTH, &(length + 1).to_le_bytes()).is_none());

    let mut raw = encode(&entry, options(0, u32::MAX));
    assert!(changed(&raw, FLAGS, &[raw.head[FLAGS]]).is_some());
    raw.head.truncate(STORED + 8);
    raw.head.extend_from_slice(&vec![0; entry.heap_size()]);
    assert!(changed(&raw, STORED, &length.to_le_bytes()).is_none(), "compressed to its own length");

    let mut chunked = encode(&entry, options(usize::MAX, 400));
    assert!(changed(&chunked, CHUNK_SIZE, &400_u32.to_le_bytes()).is_some());
    assert!(changed(&chunked, CHUNK_SIZE, &0_u32.to_le_bytes()).is_none());
    assert!(changed(&chunked, CHUNK_SIZE, &length.to_le_bytes()).is_none(), "a single chunk");
    chunked.head.push(0);
    assert!(
        read(&EncodedEntry { head: with_checksum(chunked.head), ..chunked }).is_none(),
        "content and chunks"
    );
    let many = encode(&response(vec![b'a'; 1 << 16]), options(usize::MAX, 2));
    assert!(decode(&many.head, LIMIT).is_some());
    assert!(changed(&many, CHUNK_SIZE, &1_u32.to_le_bytes()).is_none(), "more than 65,536");
}

#[test]
fn content_beyond_the_limit_is_no_entry() {
    let body = vec![b'a'; LIMIT];
    for options in [plain(), options(0, u32::MAX), options(usize::MAX, 4096)] {
        let written = encode(&response(body.clone()), options);
        assert!(decode(&written.head, LIMIT).is_none());
        assert!(decode(&written.head, LIMIT + 1024).is_some());
    }
}

#[test]
fn content_is_compressed_only_where_that_helps() {
    let repeated = response(vec![b'a'; 10_000]);
    assert!(encode(&repeated, options(9_000, u32::MAX)).head.len() < 400);
    assert!(encode(&repeated, options(11_000, u32::MAX)).head.len() > 10_000);
    let mut drawn = vec![0; 10_000];
    aws_lc_rs::rand::fill(&mut drawn).unwrap();
    let random = response(drawn);
    let written = encode(&random, options(0, u32::MAX));
    assert!(written.head.len() < random.heap_size() + 200);
    assert_same(&read(&written).unwrap(), &random);
}

#[test]
fn chunks_of_another_writing_or_in_another_order_are_no_content() {
    let (one, other) = (response(vec![1; 100]), response(vec![2; 100]));
    let (one, other) = (encode(&one, options(99_999, 50)), encode(&other, options(99_999, 50)));
    assert!(one.chunks.len() > 2 && one.chunks[1..].iter().all(|chunk| chunk.len() <= 50));
    let finish = |chunks: &[Bytes]| match decode(&one.head, LIMIT) {
        Some(DecodedHead::Chunked(chunked)) => chunked.finish(chunks),
        _ => panic!("not in chunks"),
    };
    assert!(finish(&one.chunks).is_some());
    assert!(finish(&other.chunks).is_none());
    assert!(finish(&one.chunks[1..]).is_none());
    assert!(finish(&[]).is_none());
    let mut swapped = one.chunks.clone();
    swapped.swap(0, 1);
    assert!(finish(&swapped).is_none());
    let longer = [&one.chunks[..], &[Bytes::from_static(b"x")]].concat();
    assert!(finish(&longer).is_none());
}

#[test]
fn a_frame_that_becomes_another_length_is_no_content() {
    let frame = zstandard::compress(&[7; 1000]).unwrap();
    assert_eq!(zstandard::decompress(&frame, 1000).unwrap(), [7; 1000]);
    assert!(zstandard::decompress(&frame, 999).is_none());
    assert!(zstandard::decompress(&frame, usize::MAX).is_none());
    assert!(zstandard::decompress(&frame[..frame.len() - 1], 1000).is_none());
    let twice = [&frame[..], &frame[..]].concat();
    assert!(zstandard::decompress(&twice, 1000).is_none());
}

#[test]
fn a_long_list_that_is_not_there_takes_no_memory() {
    let mut bytes = begin_entry(VARIANTS, 0);
    write_slice(b"target", &mut bytes);
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(decode(&with_checksum(bytes), LIMIT).is_none());
}

fn durations() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn freshnesses() -> impl Strategy<Value = Freshness> {
    let stale = option::of(any::<u32>());
    let windows = (stale.clone(), stale, option::of(durations()));
    (any::<u64>(), durations(), durations(), windows, any::<u8>()).prop_map(
        |(received_at, initial_age, lifetime, windows, constraints)| Freshness {
            received_at: Timestamp::from_millis(received_at),
            initial_age,
            lifetime,
            stale_while_revalidate: windows.0,
            stale_if_error: windows.1,
            usable_for: windows.2,
            constraints: Constraints::from_bits(constraints),
        },
    )
}

fn headers() -> impl Strategy<Value = HeaderMap> {
    vec(("[a-z-]{1,12}", "[ -~]{0,20}"), 0..5).prop_map(|lines| {
        let lines = lines.into_iter().map(|(name, value)| {
            (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap())
        });
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        headers
    })
}

fn some_attributes() -> impl Strategy<Value = OwnedResponseAttributes> {
    let text = |form: &'static str| option::of(form.prop_map(|text: String| text.as_str().into()));
    (text("\\PC{1,9}"), text("[a-z]{1,9}"), text("[a-z0-9]{1,9}"))
        .prop_map(|(user, route, version)| OwnedResponseAttributes { user, route, version })
}

fn responses() -> impl Strategy<Value = Entry> {
    let texts = (vec(any::<u8>(), 0..60), vec("[a-zé:]{1,9}", 0..5), vec(any::<u8>(), 0..400));
    let numbers = (100..1000_u16, any::<u64>(), any::<u64>());
    let sections = (headers(), headers());
    (texts, numbers, sections, (freshnesses(), some_attributes()), 1..4_usize).prop_map(
        |((key, tags, body), (status, log, seq), sections, (freshness, attributes), times)| {
            let (headers, trailers) = sections;
            let draft = ResponseDraft {
                key: CacheKey::from_text(&key),
                status: StatusCode::from_u16(status).unwrap(),
                headers,
                freshness,
                tags,
                attributes,
                stamp: FenceStamp { fence: Fence { log: LogId(log), seq }, version: 5, began: 6 },
                requested_at: Timestamp::from_millis(seq >> 1),
            };
            let pieces = vec![Bytes::from(body); times];
            Entry::Response(Arc::new(
                draft.complete(&CompleteBody::for_test(pieces).with_trailers(trailers)).unwrap(),
            ))
        },
    )
}

fn selections() -> impl Strategy<Value = VarySelection> {
    let bytes = || vec(any::<u8>(), 0..9);
    let languages = vec((bytes(), bytes()), 0..3);
    (vec("[a-z-]{1,12}", 0..4), 0..1_u64 << 50, vec(bytes(), 0..3), languages).prop_map(
        |(names, seen, codings, languages)| {
            let names = names.into_iter().map(|name| HeaderName::try_from(name).unwrap());
            let languages = languages.iter().map(|(one, other)| language_variant(one, other));
            VarySelection {
                set: names.collect(),
                seen: Timestamp::from_millis(seen),
                codings: codings.into_iter().map(Into::into).collect(),
                languages: languages.collect(),
            }
        },
    )
}

fn language_variant(language: &[u8], accepted: &[u8]) -> LanguageVariant {
    LanguageVariant { language: language.into(), accepted: accepted.into() }
}

fn variants() -> impl Strategy<Value = Entry> {
    (vec(any::<u8>(), 0..60), vec(selections(), 0..4), vec(any::<u128>(), 0..9)).prop_map(
        |(target, selections, recent)| {
            Entry::Variants(Arc::new(VariantIndex { target: target.into(), selections, recent }))
        },
    )
}

pub(super) fn entries() -> impl Strategy<Value = Entry> {
    prop_oneof![3 => responses(), 1 => variants()]
}

fn all_options() -> impl Strategy<Value = EncodeOptions> {
    let compress_above = prop_oneof![Just(0), Just(usize::MAX)];
    (compress_above, prop_oneof![1..300_u32, Just(u32::MAX)])
        .prop_map(|(compress_above, chunk)| options(compress_above, chunk))
}

proptest! {
    #[test]
    fn every_entry_survives(entry in entries(), options in all_options()) {
        let written = encode(&entry, options);
        let read = read(&written).unwrap();
        assert_same(&read, &entry);
        prop_assert_eq!(encode(&read, options), written);
    }

    #[test]
    fn any_change_of_its_bytes_makes_it_no_entry(
        entry in entries(),
        options in all_options(),
        place: prop::sample::Index,
        change in 1_u8..,
    ) {
        let written = encode(&entry, options);
        let mut damaged = written.clone();
        damaged.head[place.index(written.head.len())] ^= change;
        prop_assert!(read(&damaged).is_none());

        let mut cut = written.clone();
        cut.head.truncate(place.index(written.head.len()));
        prop_assert!(read(&cut).is_none());

        let mut longer = written.clone();
        longer.head.push(change);
        prop_assert!(read(&longer).is_none());

        if let Some(chunk) = written.chunks.first() {
            let mut chunk = chunk.to_vec();
            let place = place.index(chunk.len());
            chunk[place] ^= change;
            let chunks = [&[Bytes::from(chunk)], &written.chunks[1..]].concat();
            let damaged = EncodedEntry { chunks, ..written };
            prop_assert!(read(&damaged).is_none());
        }
    }

    #[test]
    fn bytes_that_only_claim_to_be_an_entry_do_no_harm(
        kind in 0..3_u8,
        bytes in vec(prop_oneof![Just(0_u8), Just(1), Just(255), any::<u8>()], 0..200),
    ) {
        let mut claim = begin_entry(kind, 0);
        claim.extend_from_slice(&bytes);
        if let Some(DecodedHead::Chunked(chunked)) = decode(&with_checksum(claim), LIMIT) {
            prop_assert!(chunked.finish(&[Bytes::from(bytes)]).is_none());
        }
    }
}
