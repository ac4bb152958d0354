//! Any bytes in the log are a record: one that says what it purges, or one that purges everything.
#![no_main]

use std::borrow::Cow;

use larder::{
    fence::{
        Facets, Fence, LogId, Mode, Record, Selector, Subject, Table, Verdict, credential_tag,
    },
    field::Timestamp,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let mut table = Table::new(4);
    table.begin(Fence { log: LogId(1), seq: 0 });
    let (fence, version) = (table.fence(), table.version());
    let record = Record::read(1, Timestamp::from_millis(0), json);
    table.apply(&record);
    assert!(table.len() <= 4);
    for selector in &record.purge.selectors {
        let (url, tags, facets) = one_of(selector);
        let subject = Subject { url: url.as_bytes(), tags: tags.iter().map(|tag| &**tag), facets };
        let verdict = table.judge(fence, version, &subject);
        let expected = match record.purge.mode {
            _ if !selector.selects(&subject) => Verdict::Alive,
            Mode::Hard => Verdict::Dead,
            Mode::Soft => Verdict::Soft,
        };
        assert!(verdict >= expected);
        let may_select = table.may_select(version, subject.url, facets);
        assert!(may_select || verdict == Verdict::Alive);
    }
    let again = Record::read(1, record.at, record.purge.write().as_bytes());
    assert_eq!(again, record);
});

/// What a selector selects, if it is one thing or one of each; something for the rest.
fn one_of(selector: &Selector) -> (&str, Vec<Cow<'_, str>>, Facets<'_>) {
    let (mut url, mut tags, mut facets) = ("h/", Vec::new(), Facets::default());
    let mut terms = vec![selector];
    while let Some(term) = terms.pop() {
        match term {
            Selector::Tag(tag) => tags.push(Cow::Borrowed(&**tag)),
            Selector::Credential(digest) => tags.push(Cow::Owned(credential_tag(digest))),
            Selector::Url(text) | Selector::Prefix(text) | Selector::Pattern(text) => url = text,
            Selector::User(user) => facets.user = Some(user),
            Selector::Route(route) => facets.route = Some(route),
            Selector::Version(version) => facets.version = Some(version),
            Selector::Everything => {}
            Selector::All(all) => terms.extend(all),
        }
    }
    (url, tags, facets)
}
