//! Any bytes in the log are a record: one that says what it purges, or one that purges everything.
#![no_main]

use std::borrow::Cow;

use larder::testing::{
    fence::{
        ResponseAttributes, Fence, LogId, PurgeMode, PurgeRecord, Selector, PurgeCandidate, PurgeTable, PurgeVerdict, credential_tag,
    },
    field::Timestamp,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let mut table = PurgeTable::new(4);
    table.begin(Fence { log: LogId(1), seq: 0 });
    let (fence, version) = (table.fence(), table.version());
    let record = PurgeRecord::from_json(1, Timestamp::from_millis(0), json);
    table.apply(&record);
    assert!(table.len() <= 4);
    for selector in &record.purge.selectors {
        let (url, tags, attributes) = one_of(selector);
        let candidate = PurgeCandidate { url: url.as_bytes(), tags: tags.iter().map(|tag| &**tag), attributes };
        let verdict = table.judge(fence, version, &candidate);
        let expected = match record.purge.mode {
            _ if !selector.selects(&candidate) => PurgeVerdict::Alive,
            PurgeMode::Hard => PurgeVerdict::Dead,
            PurgeMode::Soft => PurgeVerdict::Soft,
        };
        assert!(verdict >= expected);
        let may_select = table.may_select(version, candidate.url, attributes);
        assert!(may_select || verdict == PurgeVerdict::Alive);
    }
    let again = PurgeRecord::from_json(1, record.at, record.purge.to_json().as_bytes());
    assert_eq!(again, record);
});

/// What a selector selects, if it is one thing or one of each; something for the rest.
fn one_of(selector: &Selector) -> (&str, Vec<Cow<'_, str>>, ResponseAttributes<'_>) {
    let (mut url, mut tags, mut attributes) = ("h/", Vec::new(), ResponseAttributes::default());
    let mut terms = vec![selector];
    while let Some(term) = terms.pop() {
        match term {
            Selector::Tag(tag) => tags.push(Cow::Borrowed(&**tag)),
            Selector::Credential(digest) => tags.push(Cow::Owned(credential_tag(digest))),
            Selector::Url(text) | Selector::Prefix(text) | Selector::Pattern(text) => url = text,
            Selector::User(user) => attributes.user = Some(user),
            Selector::Route(route) => attributes.route = Some(route),
            Selector::Version(version) => attributes.version = Some(version),
            Selector::Everything => {}
            Selector::All(all) => terms.extend(all),
        }
    }
    (url, tags, attributes)
}
