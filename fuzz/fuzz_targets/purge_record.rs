//! Any bytes in the log are a record: one that says what it purges, or one that purges everything.
#![no_main]

use larder::{
    fence::{Fence, LogId, Mode, Record, Selector, Subject, Table, Verdict},
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
        let (url, tag) = match selector {
            Selector::Tag(tag) => ("h/", Some(&**tag)),
            Selector::Url(url) => (&**url, None),
            Selector::Prefix(prefix) => (&**prefix, None),
            Selector::Everything => ("h/", None),
        };
        let subject = Subject { url: url.as_bytes(), tags: tag.into_iter() };
        let verdict = table.judge(fence, version, subject);
        assert!(
            verdict >= if record.purge.mode == Mode::Hard { Verdict::Dead } else { Verdict::Soft }
        );
    }
    let again = Record::read(1, record.at, record.purge.write().as_bytes());
    assert_eq!(again, record);
});
